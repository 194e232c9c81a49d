"""Latents to images, in batches of one size."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.latent_model import LatentModel

Array = jax.Array


def in_batches(function: Callable[[Array], Any], rows: Any, batch: int) -> np.ndarray:
    """function(rows), called with `batch` rows at a time; the last batch is padded with its last.

    So one compiled program serves any number of rows, and little is in memory at once.
    """
    rows = np.asarray(rows)

    def call(part: np.ndarray) -> np.ndarray:
        padding = [(0, batch - len(part))] + [(0, 0)] * (rows.ndim - 1)
        return np.asarray(function(jnp.asarray(np.pad(part, padding, mode="edge"))))[: len(part)]

    starts = range(0, len(rows), batch)
    return np.concatenate([call(rows[start : start + batch]) for start in starts])


def render_images(
    model: LatentModel, latents: Array, *, batch: int = 16, max_side: int | None = None
) -> np.ndarray:
    """Renders latents [N, D] or [N, L, D] to uint8 images [N, H, W, C].

    Args:
      model: the generator.
      latents: to render.
      batch: so many at once.
      max_side: larger images are scaled down to this height and width.
    """

    def render(part: Array) -> np.ndarray:
        image = model.render(part)
        return to_uint8(image if max_side is None else scaled_down(image, max_side))

    return in_batches(render, latents, batch)


def scaled_down(images: Array, max_side: int) -> Array:
    """Images [N, H, W, C] of at most this height and width, in their own proportions."""
    n, h, w, c = images.shape
    if max(h, w) <= max_side:
        return images
    h, w = (max(side * max_side // max(h, w), 1) for side in (h, w))
    return jax.image.resize(images, (n, h, w, c), "linear")


def to_uint8(images: Array) -> np.ndarray:
    """Images in [-1, 1] to uint8, what lies outside clipped."""
    return np.asarray(jnp.clip(jnp.round(images * 127.5 + 127.5), 0, 255)).astype(np.uint8)
