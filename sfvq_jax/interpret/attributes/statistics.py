"""Statistics of images as attributes, by two definitions: one that finds, one that judges.

Six of them are of what stands on a background, and mean nothing of images that have none.

Letters: N images of H x W pixels and C channels.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from sfvq_jax.images import batch_of, in_batches
from sfvq_jax.interpret.attributes.scorer import Scorer
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.short import short_repr

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
OF_BACKGROUND = ("area", "x position", "y position", "width", "height", "symmetry")
COVER_CONTRAST = 0.1  # from the background, at which a pixel counts half as covered
MASK_CONTRAST = 0.15  # beyond which it counts as covered, where it has to be one or the other


GREYS = 32  # of which the commonest one of a border is taken
BORDER_COVER = 0.5  # of the image's, that a border's may be where it is background
LOOKED_AT = 64  # images of a model that tell whether it has a background
LEAST_SHARE = 0.75  # of them that must have one


class Statistics(NamedTuple):
    """The statistics that make sense for the images of a model.

    Attributes:
      find: scorer to find directions, `image_statistics`.
      judge: scorer of the same attributes by other definitions, `judging_statistics`.
      background: share of the images with an even background (`has_background`).
    """

    find: Scorer
    judge: Scorer
    background: float

    __repr__ = short_repr


def statistics_of(key: Array, model: LatentModel) -> Statistics:
    """Chooses statistics for a model: without `OF_BACKGROUND` if its images have no background.

    Images have a background if at least three quarters of 64 images have an even one. Photographs
    of scenes and textures do not, and statistics of an object before a background make no sense.

    >>> import ports
    >>> statistics = statistics_of(jax.random.key(0), ports.load(ports.bundled("fashion_mnist")))
    >>> "area" in statistics.find.names
    True
    """
    latents = model.sample(key, LOOKED_AT)

    def look(part: Array) -> Array:
        return has_background(model.render(part))

    background = float(in_batches(look, latents, batch_of(model, LOOKED_AT)).mean())
    names = [name for name in STATISTICS if background >= LEAST_SHARE or name not in OF_BACKGROUND]
    find, judge = (scorer().select(names) for scorer in (image_statistics, judging_statistics))
    return Statistics(find, judge, background)


def no_background(names: Sequence[str], share: float) -> str:
    """What is said of statistics that mean nothing, but at a share of a model's images."""
    return (
        f"{share:.0%} of this model's images have an even border that could be their background,"
        f" without which there is no {', '.join(names)}"
    )


def image_statistics() -> Scorer:
    """Computes statistics of images [N, H, W, C], differentiable in JAX; names in `STATISTICS`.

    Brightness and contrast are mean and standard deviation of the mean over channels, from 0 to 1.
    Edge energy is the mean squared difference of neighbours, × 100. The other statistics describe
    an object on a background, which is the commonest grey of the border. They make no sense without
    a background: `statistics_of` chooses those of a model. Cover grows with a pixel's difference
    from the background. Area is the covered share. Positions are the centre of the cover, from -1
    to 1; right and up are positive. Width and height, as shares of the image, are those of a box
    with the same spread. Symmetry is 1 if left and right mirror each other.

    >>> scores = image_statistics()(jnp.zeros((2, 8, 8, 1)))
    >>> dict(zip(image_statistics().names, scores[0].tolist(), strict=True))["brightness"]
    0.5
    """
    return Scorer.of(_Statistics(_soft_statistics), STATISTICS)


def judging_statistics() -> Scorer:
    """Computes the attributes of `image_statistics` by other definitions, to judge directions.

    They use pixels in linear light, percentiles, and a mask of pixels that differ from the
    background. The background is the middle of the narrowest range of greys that holds half of the
    border. The statistics are: mean light; range of 90 % of the pixels; share, median and 95 %
    range of the mask; correlation with the mirror image; mean magnitude of the Sobel gradient.
    Derivatives are mostly zero. Images are [N, H, W, C], float32 in [-1, 1]; scores are [N, 9],
    float32.

    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import judging_statistics
    >>> judge = judging_statistics().select(["brightness"])
    >>> print(judge(jnp.zeros((1, 8, 8, 1))).round(2))  # a grey of 0.5, in linear light
    [[0.22]]
    """
    return Scorer.of(_Statistics(_hard_statistics), STATISTICS)


@flax.struct.dataclass
class _Statistics:
    """What the `function` of a scorer of statistics is."""

    function: Callable[[Array], Array] = flax.struct.field(pytree_node=False)
    of_background = OF_BACKGROUND  # see `Scorer`

    def __call__(self, images: Array) -> Array:
        return self.function(images)


@jax.jit
def has_background(images: Array) -> Array:
    """Whether images [N, H, W, C] have an even background, [N].

    They have one if the border is covered at most half as much as the whole image. Images that are
    even throughout have one.

    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import has_background
    >>> spot = jnp.full((1, 8, 8, 1), -1.0).at[:, 3:5, 3:5].set(1.0)
    >>> ramp = jnp.linspace(-1.0, 1.0, 8).reshape(1, 1, 8, 1).repeat(8, 1)
    >>> has_background(jnp.concatenate([spot, ramp])).tolist()
    [True, False]
    """
    grey = _grey(images)
    cover, border = (
        _cover(part - _background(grey)[:, None]).mean(1)
        for part in (grey.reshape(grey.shape[0], -1), _border(grey))
    )
    return border <= jnp.maximum(BORDER_COVER * cover, COVER_CONTRAST**2)


@jax.jit
def _soft_statistics(images: Array) -> Array:
    grey = _grey(images)
    difference = jnp.abs(grey - _background(grey)[:, None, None])
    cover = _cover(difference)
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
    background = _middle(_border(grey))[:, None, None]
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


def _cover(difference: Array) -> Array:
    """From 0 to 1, half at `COVER_CONTRAST`."""
    return difference**2 / (difference**2 + COVER_CONTRAST**2)


def _background(grey: Array) -> Array:
    """The commonest grey of each border, [N]: the mean of the pixels near the fullest bin.

    Derivatives are those of this mean, its weights held.
    """
    border = _border(grey)
    bins = jnp.clip((lax.stop_gradient(border) * GREYS).astype(jnp.int32), 0, GREYS - 1)
    full = jax.nn.one_hot(bins, GREYS).sum(1)
    near = jnp.pad(full, [(0, 0), (1, 1)])  # a grey between two bins is not torn apart
    fullest = jnp.argmax(near[:, :-2] + 2 * full + near[:, 2:], 1)
    commonest = (fullest.astype(grey.dtype) + 0.5) / GREYS
    weight = lax.stop_gradient((1 - _cover(border - commonest[:, None])) ** 2)
    return (weight * border).sum(1) / weight.sum(1)


def _middle(border: Array) -> Array:
    """The middle of the narrowest range that holds half of each border [N, P], [N]."""
    border = jnp.sort(border, 1)
    half = border.shape[1] // 2
    first = jnp.argmin(border[:, half:] - border[:, : border.shape[1] - half], 1)[:, None]
    ends = [jnp.take_along_axis(border, first + step, 1)[:, 0] for step in (0, half)]
    return (ends[0] + ends[1]) / 2


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
