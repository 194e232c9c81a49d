"""Latents to images that can be shown, in batches of one size."""

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.latent_model import LatentModel

Array = jax.Array


def render_images(
    model: LatentModel, latents: Array, *, batch: int = 16, max_side: int | None = None
) -> np.ndarray:
    """Renders latents [N, D] or [N, L, D] to uint8 images [N, H, W, C].

    Args:
      model: the generator.
      latents: to render.
      batch: so many at once; the last batch is padded, so that one program serves all.
      max_side: larger images are scaled down to this height and width.
    """
    n = latents.shape[0]
    padding = [(0, -n % batch)] + [(0, 0)] * (latents.ndim - 1)
    padded = jnp.pad(latents, padding, mode="edge")
    images = []
    for start in range(0, n, batch):
        image = model.render(padded[start : start + batch])
        size = max(image.shape[1:3])
        if max_side is not None and size > max_side:
            h, w = (max(side * max_side // size, 1) for side in image.shape[1:3])
            image = jax.image.resize(image, (batch, h, w, image.shape[3]), "linear")
        images.append(to_uint8(image))
    return np.concatenate(images)[:n]


def to_uint8(images: Array) -> np.ndarray:
    """Images in [-1, 1] to uint8, what lies outside clipped."""
    return np.asarray(jnp.clip(jnp.round(images * 127.5 + 127.5), 0, 255)).astype(np.uint8)
