"""Latents to images, in batches of one size; what arrays of images are taken for."""

import contextlib
import math
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.latent_model import LatentModel
from sfvq_jax.memory import memory_limit

Array = jax.Array

# Of all images that a CPU renders at once: one of 512x512; more of them are no faster on two cores.
BATCH_PIXELS = 2**18
# that rendering takes: a StyleGAN2 of 256 px 1.2 KB, one of 1024 px .4 KB
BYTES_A_PIXEL = 1500
BEYOND = 1.5  # which generators' images, about in [-1, 1], hardly reach
FEW = 0.02  # share of the values that may
CHANNELS = (1, 3, 4)  # of pictures: gray, RGB, RGBA


def in_batches(function: Callable[[Array], Any], rows: Any, batch: int) -> np.ndarray:
    """function(rows), called with at most `batch` rows at a time, always so many.

    The last call is padded with its last row. Fewer rows than `batch` are padded to a power of two:
    so a few compiled programs serve any number of rows, and little is in memory at once.
    """
    rows = np.asarray(rows)
    batch = min(batch, 1 << (len(rows) - 1).bit_length())

    def call(part: np.ndarray) -> np.ndarray:
        padding = [(0, batch - len(part))] + [(0, 0)] * (rows.ndim - 1)
        return np.asarray(function(jnp.asarray(np.pad(part, padding, mode="edge"))))[: len(part)]

    starts = range(0, len(rows), batch)
    return np.concatenate([call(rows[start : start + batch]) for start in starts])


def batch_of(model: LatentModel, most: int) -> int:
    """How many images to render at once, up to `most`: fewer where they are large.

    What `memory_limit` has room for; on a CPU no more than are faster together.
    """
    pixels = max(math.prod(image_shape(model)[:2]), 1)
    batch = memory_limit() // (BYTES_A_PIXEL * pixels)
    if jax.default_backend() == "cpu":
        batch = min(batch, BATCH_PIXELS // pixels)
    return int(np.clip(batch, 1, most))


def image_shape(model: LatentModel) -> tuple[int, ...]:
    """(H, W, C) of the images; () of a model that is no pure JAX and does not say it."""
    shape = getattr(model, "image_shape", None)
    if shape is None:
        codes = jax.ShapeDtypeStruct((1, model.num_layers, model.latent_dim), jnp.float32)
        with contextlib.suppress(Exception):
            shape = jax.eval_shape(model.render, codes).shape[1:]
    return () if shape is None else tuple(shape)


def render_images(
    model: LatentModel, latents: Array, *, batch: int | None = None, max_side: int | None = None
) -> np.ndarray:
    """Renders latents [N, D] or [N, L, D] to uint8 images [N, H, W, C].

    Args:
      model: the generator.
      latents: the latents.
      batch: largest number of images at once; by default up to 16, fewer if images are large.
      max_side: largest height and width; larger images are scaled down.

    Raises:
      ValueError: latents of another shape, or a model whose images are not finite, not [N, H, W, C]
        or have their channels first.

    Warns if no value of any image is below 0, as for images in [0, 1].

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax.views import render_images
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> images = render_images(model, jnp.array([[0.0, 3.0, -3.0], [1.0, 1.0, 1.0]]))
    >>> images.shape, images.dtype.name, images[0, 0, 0].tolist()
    ((2, 8, 8, 3), 'uint8', [128, 254, 1])
    """
    shape = np.shape(latents)
    if len(shape) not in (2, 3) or 0 in shape or shape[-1] != model.latent_dim:
        d, layers = model.latent_dim, model.num_layers
        raise ValueError(
            f"latents have shape {shape}; the model renders [N, {d}] or [N, {layers}, {d}], N >= 1"
        )
    least = np.inf

    def render(part: Array) -> np.ndarray:
        nonlocal least
        images = model.render(part)
        check_layout(images.shape, "[N, H, W, C]", "the model's images")
        least = min(least, float(images.min()))
        return to_uint8(images if max_side is None else scaled_down(images, max_side))

    images = in_batches(render, latents, batch_of(model, 16) if batch is None else batch)
    if least >= 0:
        warnings.warn(
            "no value of the model's images is below 0: where they are in [0, 1], let it render"
            " 2 * images - 1",
            stacklevel=2,
        )
    return images


def scaled_down(images: Array, max_side: int) -> Array:
    """Images [N, H, W, C] of at most this height and width, in their own proportions."""
    n, h, w, c = images.shape
    if max(h, w) <= max_side:
        return images
    h, w = (max(side * max_side // max(h, w), 1) for side in (h, w))
    return jax.image.resize(images, (n, h, w, c), "linear")


def to_uint8(images: Array | np.ndarray) -> np.ndarray:
    """Converts images of any shape in [-1, 1] to uint8; values outside are clipped.

    Raises:
      ValueError: a value is NaN or infinite.

    >>> import numpy as np
    >>> from sfvq_jax.views import to_uint8
    >>> to_uint8(np.array([-1.0, 0.0, 1.0, 1.5])).tolist()
    [0, 128, 255, 255]
    """
    images = jnp.asarray(images)
    if not jnp.isfinite(images).all():
        raise ValueError("images have values that are NaN or infinite")
    return np.asarray(jnp.clip(jnp.round(images * 127.5 + 127.5), 0, 255)).astype(np.uint8)


def check_images(images: Any, axes: str = "[N, H, W, C]") -> np.ndarray:
    """Images as an array, if they are what they are taken for: uint8, or floats about in [-1, 1].

    Args:
      images: what a user gives as such.
      axes: that they should have, H, W and C last.

    Raises:
      TypeError: no array.
      ValueError: other axes, no image, channels first, another type, values that are not finite, or
        that look like images in [0, 1] or [0, 255].
    """
    try:
        array = np.asarray(images)
    except ValueError as error:  # a list of arrays of different shapes
        raise ValueError(f"images differ in shape; expected one array {axes}") from error
    if array.dtype == object:
        hint = (
            ": render_images(model, curve.codewords) gives one"
            if hasattr(images, "codewords")
            else ""
        )
        raise TypeError(f"images are a {type(images).__name__}; expected an array {axes}{hint}")
    check_layout(array.shape, axes, "images")
    expected = "expected uint8 from 0 to 255, or floats in [-1, 1]"
    if array.dtype == np.uint8:
        if array.max() == 1:
            raise ValueError(f"images are uint8 and have no value above 1; {expected}")
        return array
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"images are {array.dtype}; {expected}")
    least, greatest = float(array.min()), float(array.max())
    if not (np.isfinite(least) and np.isfinite(greatest)):
        raise ValueError("images have values that are NaN or infinite")
    many_beyond = max(-least, greatest) > BEYOND and (abs(array) > BEYOND).mean() > FEW
    if least >= 0 or many_beyond:
        found, mend = "[0, 255]", "images.astype(np.uint8)"
        if greatest <= BEYOND:
            found, mend = "[0, 1]", "2 * images - 1"
        raise ValueError(
            f"images are floats from {least:g} to {greatest:g}; {expected}: pass {mend} where they"
            f" are in {found}, or to_uint8(images), which clips what lies outside [-1, 1]"
        )
    return array


def check_layout(shape: tuple[int, ...], axes: str, what: str) -> None:
    """Raises ValueError unless a shape has these axes, the last of them height, width, channels."""
    number = axes.count(",") + 1
    if len(shape) != number or 0 in shape:
        hint = ": a gray image has a channel too, images[..., None]" * (len(shape) == number - 1)
        raise ValueError(f"{what} have shape {shape}; expected {axes}{hint}")
    if shape[-1] not in CHANNELS and shape[-3] in CHANNELS:
        raise ValueError(
            f"{what} have shape {shape}, channels first; expected {axes}:"
            " np.moveaxis(images, -3, -1) puts them last"
        )
