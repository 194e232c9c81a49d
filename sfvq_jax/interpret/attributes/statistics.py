"""Statistics of any images as attributes, by two definitions: one that finds, one that judges.

Letters: N images of H x W pixels and C channels.
"""

import jax
import jax.numpy as jnp

from sfvq_jax.interpret.attributes.scorer import Scorer

Array = jax.Array

STATISTICS = (
    "brightness",
    "contrast",
    "area",
    "x position",
    "y position",
    "width",
    "height",
    "symmetry",
    "edge energy",
)
COVER_CONTRAST = 0.1  # from the background, at which a pixel counts half as covered
MASK_CONTRAST = 0.15  # beyond which it counts as covered, where it has to be one or the other


def image_statistics() -> Scorer:
    """Statistics of any images, in JAX and with derivatives; names in `STATISTICS`.

    Brightness and contrast are mean and standard deviation of the mean over channels, from 0 to 1.
    How much a pixel is covered says its difference from the mean of the border; area is the covered
    share, positions are the cover's centre, from -1 to 1, right and up being positive, width and
    height those of a box that is spread as much, in shares of the image. Symmetry is 1 where left
    and right mirror each other; edge energy is the mean squared difference of neighbours, × 100.
    """
    return Scorer.of(_soft_statistics, STATISTICS)


def judging_statistics() -> Scorer:
    """The attributes of `image_statistics` by other definitions, to judge what those have found.

    From pixels in linear light, percentiles and a mask of what differs from the border's median:
    mean light, range of 90 % of the pixels, share, median and 95 % range of the mask; correlation
    with the mirror image; mean magnitude of the Sobel gradient. Derivatives are mostly zero.
    """
    return Scorer.of(_hard_statistics, STATISTICS)


@jax.jit
def _soft_statistics(images: Array) -> Array:
    grey = _grey(images)
    difference = jnp.abs(grey - _border(grey).mean(1)[:, None, None])
    cover = difference**2 / (difference**2 + COVER_CONTRAST**2)
    total = cover.sum((1, 2)) + 1e-3
    x_centre, width = _centre_and_size(cover.sum(1), total)
    y_centre, height = _centre_and_size(cover.sum(2), total)
    mirrored = jnp.abs(grey - grey[:, :, ::-1]).sum((1, 2))
    dx, dy = jnp.diff(grey, axis=2), jnp.diff(grey, axis=1)
    return jnp.stack(
        [
            grey.mean((1, 2)),
            jnp.sqrt(grey.var((1, 2)) + 1e-8),  # whose derivative is finite for even images too
            cover.mean((1, 2)),
            x_centre,
            -y_centre,
            width,
            height,
            1 - mirrored / (2 * difference.sum((1, 2)) + 1e-3),
            100 * ((dx**2).mean((1, 2)) + (dy**2).mean((1, 2))),
        ],
        1,
    )


@jax.jit
def _hard_statistics(images: Array) -> Array:
    grey = _grey(images)
    n = grey.shape[0]
    light = jnp.clip(grey, 0) ** 2.2
    low, high = jnp.percentile(grey.reshape(n, -1), jnp.array([5.0, 95.0]), axis=1)
    background = jnp.median(_border(grey), axis=1)[:, None, None]
    mask = (jnp.abs(grey - background) > MASK_CONTRAST).astype(grey.dtype)
    left, x_centre, right = _percentiles(mask.sum(1))
    top, y_centre, bottom = _percentiles(mask.sum(2))
    flat = grey.reshape(n, -1) - grey.mean((1, 2))[:, None]
    mirror = grey[:, :, ::-1].reshape(n, -1) - grey.mean((1, 2))[:, None]
    rise = grey[:, :-2] + 2 * grey[:, 1:-1] + grey[:, 2:]
    sobel_x = rise[:, :, 2:] - rise[:, :, :-2]
    rise = grey[:, :, :-2] + 2 * grey[:, :, 1:-1] + grey[:, :, 2:]
    sobel_y = rise[:, 2:] - rise[:, :-2]
    return jnp.stack(
        [
            light.mean((1, 2)),
            high - low,
            mask.mean((1, 2)),
            2 * x_centre - 1,
            1 - 2 * y_centre,
            right - left,
            bottom - top,
            (flat * mirror).sum(1) / ((flat**2).sum(1) + 1e-6),
            jnp.sqrt(sobel_x**2 + sobel_y**2).mean((1, 2)),
        ],
        1,
    )


def _grey(images: Array) -> Array:
    """Mean over channels, from 0 to 1, [N, H, W]."""
    return (images.mean(-1) + 1) / 2


def _border(grey: Array) -> Array:
    """The outermost pixels, [N, 2W + 2H]."""
    return jnp.concatenate([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], 1)


def _centre_and_size(profile: Array, total: Array) -> tuple[Array, Array]:
    """Of profiles [N, P]: the centre from -1 to 1, and the size of an even box as widely spread."""
    p = profile.shape[1]
    place = ((jnp.arange(p, dtype=profile.dtype) + 0.5) / p)[None]
    centre = (profile * place).sum(1) / total
    variance = (profile * (place - centre[:, None]) ** 2).sum(1) / total
    return 2 * centre - 1, jnp.sqrt(12 * variance + 1e-6)


def _percentiles(profile: Array) -> Array:
    """Where 2.5, 50 and 97.5 % of the profiles [N, P] are reached, from 0 to 1, [3, N]."""
    p = profile.shape[1]
    reached = jnp.cumsum(profile, 1) / jnp.maximum(profile.sum(1), 1e-6)[:, None]
    reached = jnp.concatenate([jnp.zeros_like(reached[:, :1]), reached], 1)
    # strictly increasing, so that the inverse is a function
    reached = reached + 1e-6 * jnp.arange(p + 1, dtype=profile.dtype)[None]
    places = jnp.arange(p + 1, dtype=profile.dtype) / p
    shares = jnp.array([0.025, 0.5, 0.975], profile.dtype)
    return jax.vmap(lambda row: jnp.interp(shares, row, places))(reached).T
