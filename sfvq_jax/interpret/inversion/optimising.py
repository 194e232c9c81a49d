"""Images into a latent space: the latents whose images are most like them.

Letters: N images of H x W pixels and C channels, D dimensions, R of them in which latents differ, L
layers, F features, P positions on a curve.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from sfvq_jax.curve import Curve, decode
from sfvq_jax.images import batch_of, check_images, image_shape, render_images
from sfvq_jax.interpret.directions.gradients import check_differentiable
from sfvq_jax.interpret.edit import codes_of
from sfvq_jax.interpret.geometry import largest_eigen, nearest
from sfvq_jax.interpret.inversion.likeness import ImageDistance, psnr
from sfvq_jax.latent_model import LatentModel, method
from sfvq_jax.memory import differentiable_rows
from sfvq_jax.short import short_repr

Array = jax.Array

ADAM = optax.scale_by_adam(b2=0.99)
SPREAD_SAMPLES = 2**13  # latents, for mean and covariance
OWN_IMAGES = 512  # of the model, whose variances are units of the distance
BATCH = 64  # images at once, at most
CPU_BATCH = 16  # on a CPU, whose caches hold no more: a quarter faster than 64 of W at 32x32
PLACES_A_LINE = 8  # of the curve, whose images are compared
FINEST = 32  # pixels a side, for that
LOOKED_BACK = 20  # steps, over which it is told whether anything is gained
LEAST_GAIN = 1e-3  # share of the objective


class Inversion(NamedTuple):
    """Latents that `invert` found for images.

    Attributes:
      latents: latents [N, D], or [N, L, D] with one code for each layer.
      psnr: PSNR of the images rendered from them, in dB, [N].
      objective: lowest objective after 0, 1, 2, … steps, [N, steps + 1]; after an early end, its
        last value.
    """

    latents: Array
    psnr: np.ndarray
    objective: np.ndarray

    __repr__ = short_repr


@flax.struct.dataclass
class Whitened:
    """A space of latents in coordinates of mean 0 and variance 1 that do not correlate.

    Attributes:
      mean: of the latents, [D].
      axes: one standard deviation along each principal component, [R, D].
    """

    mean: Array
    axes: Array

    @classmethod
    def of(cls, latents: Array) -> "Whitened":
        x = np.asarray(latents, np.float64)
        mean = x.mean(0)
        eigen = largest_eigen(np.atleast_2d(np.cov(x, rowvar=False)), x.shape[1])
        axes = (eigen.vectors * np.sqrt(eigen.values)).T
        return cls(jnp.asarray(mean, jnp.float32), jnp.asarray(axes, jnp.float32))

    def latents(self, coordinates: Array) -> Array:
        """[…, R] -> […, D]."""
        moved = jnp.matmul(coordinates, self.axes, precision="highest")
        return jnp.broadcast_to(self.mean, moved.shape) + moved

    def coordinates(self, latents: Array) -> Array:
        """[…, D] -> […, R], of their projections onto the span."""
        lengths = (self.axes**2).sum(1)
        centred = latents - jnp.broadcast_to(self.mean, latents.shape)
        return jnp.matmul(centred, (self.axes / lengths[:, None]).T, precision="highest")


def invert(
    key: Array,
    model: LatentModel,
    images: Array | np.ndarray,
    *,
    start: Curve | Array | str = "mean",
    layers: bool = False,
    features: Callable[[Array], Array] | None = None,
    pull: float = 0.01,
    steps: int = 200,
    learning_rate: float = 0.1,
    on_step: Callable[[int, int], Any] | None = None,
) -> Inversion:
    """Finds the latents whose rendered images are most like the given images, by Adam.

    The objective is the squared `ImageDistance` of rendered and given image, plus `pull` times the
    mean square of the latent's coordinates, in standard deviations along the principal components
    of the space (for a normal distribution, its negative log density × 2 ÷ R). A strong pull keeps
    latents where edits work; a weak one keeps the image. Steps are in these coordinates, so that
    one learning rate suits every space. A batch ends early if no image has gained a thousandth in
    20 steps.

    Args:
      key: a PRNG key for the latents that measure the space.
      model: the generator; JAX must be able to differentiate its `render`.
      images: images [N, H, W, C] of the model's size, uint8 or floats in [-1, 1].
      start: start of the search: "mean" for the mean latent; a curve for its best position;
        "encoder" for the result of `model.encode(images)`, [N, D]; or latents, [N, D] or [N, L, D].
      layers: whether each layer gets its own code, [L, D], in place of one [D] for all.
      features: differentiable function of images to [N, F], such as a scorer's.
      pull: weight of the pull toward the distribution.
      steps: largest number of steps of Adam.
      learning_rate: learning rate in standard deviations; it falls to 0 along a cosine.
      on_step: called with the number of steps done and the number of all steps.

    Raises:
      ValueError: images of another size, an unknown start, numbers out of range, or a `render`
        that JAX cannot differentiate.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import invert
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> images = model.render(jnp.array([[0.5, 0.2, -1.0]]))
    >>> found = invert(jax.random.key(0), model, images, pull=0.0, learning_rate=0.02)
    >>> print(found.latents.round(1))
    [[ 0.5  0.2 -1. ]]
    """
    pixels = jnp.asarray(_checked(images, model))
    if steps < 1 or pull < 0 or not learning_rate > 0:
        raise ValueError(
            f"steps is {steps}, pull {pull}, learning_rate {learning_rate}; expected 1 or more, 0"
            " or more, and a number above 0"
        )
    seen = (lambda images: images) if features is None else features
    check_differentiable(model, seen, "latents are found by derivatives")
    spread_key, images_key = jax.random.split(key)
    space = Whitened.of(model.sample(spread_key, SPREAD_SAMPLES))
    own = _rendered(model, model.sample(images_key, OWN_IMAGES))
    distance = ImageDistance.among(own, features)
    begun = _starts(start, model, space, distance, pixels)
    if layers:
        begun = codes_of(begun, model.num_layers)
    elif begun.ndim == 3:
        raise ValueError("start has a code for each layer: ask for layers=True, or give [N, D]")
    coordinates = space.coordinates(begun)
    objective = _Objective(method(model, "render"), distance, space)
    batch = _batch(objective, model, coordinates, pixels)
    count, parts = len(pixels), []
    batches = -(-count // batch)
    for i in range(batches):
        rows = np.minimum(np.arange(i * batch, (i + 1) * batch), count - 1)  # the last comes again
        told = None if on_step is None else functools.partial(_told, on_step, i, batches, steps)
        parts.append(
            _optimised(objective, coordinates[rows], pixels[rows], pull, steps, learning_rate, told)
        )
    best, history = (np.concatenate(part)[:count] for part in zip(*parts, strict=True))
    latents = space.latents(jnp.asarray(best))
    return Inversion(latents, psnr(_rendered(model, latents), pixels), history)


def _told(on_step: Callable[[int, int], Any], batch: int, batches: int, steps: int, i: int) -> None:
    on_step(batch * steps + i, batches * steps)


def _checked(images: Array | np.ndarray, model: LatentModel) -> np.ndarray:
    """Images as float32 in [-1, 1]."""
    array, wanted = check_images(images), image_shape(model)
    if wanted and array.shape[1:] != wanted:
        raise ValueError(
            f"images have shape {array.shape}; the model's are [N, {', '.join(map(str, wanted))}]"
        )
    return _floats(array) if array.dtype == np.uint8 else array.astype(np.float32)


def _rendered(model: LatentModel, latents: Array) -> Array:
    return jnp.asarray(_floats(render_images(model, latents)))


def _floats(images: np.ndarray) -> np.ndarray:
    """Of uint8, float32 in [-1, 1]."""
    return images / np.float32(127.5) - 1


def _starts(
    start: Curve | Array | str,
    model: LatentModel,
    space: Whitened,
    distance: ImageDistance,
    images: Array,
) -> Array:
    n, d, layers = len(images), model.latent_dim, model.num_layers
    if isinstance(start, Curve):
        if start.latent_dim != d:
            raise ValueError(
                f"the curve has {start.latent_dim} dimensions, the model's latents {d}"
            )
        return _nearest_along(start, model, distance.at_most(FINEST), images)
    if isinstance(start, str):
        if start == "mean":
            return jnp.broadcast_to(space.mean, (n, d))
        if start == "encoder" and hasattr(model, "encode"):
            start = jnp.asarray(model.encode(images))  # type: ignore[attr-defined]
        elif start == "encoder":
            raise ValueError('the model has no encode(images): start from a curve, or "mean"')
        else:
            raise ValueError(f'start is {start!r}; expected "mean", "encoder", a curve or latents')
    if start.shape not in ((n, d), (n, layers, d)):
        raise ValueError(
            f"{n} images start from latents of shape {start.shape}; expected [{n}, {d}] or"
            f" [{n}, {layers}, {d}]"
        )
    return start


def _nearest_along(
    curve: Curve, model: LatentModel, distance: ImageDistance, images: Array
) -> Array:
    """The points of the curve whose images are the nearest, [N, D]."""
    places = jnp.arange(PLACES_A_LINE * curve.num_lines + 1) / PLACES_A_LINE
    points = decode(curve, places)
    along = _rendered(model, points)

    def described(images: Array) -> Array:
        parts = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
        return jnp.concatenate([_points(distance, part) for part in parts])

    return points[nearest(described(along), described(images)).point]


@jax.jit
def _points(distance: ImageDistance, images: Array) -> Array:
    return distance(images)


class _Objective(NamedTuple):
    """What is lowered; a pytree."""

    render: jax.tree_util.Partial
    distance: ImageDistance
    space: Whitened

    def __call__(self, coordinates: Array, wanted: Array, pull: float | Array) -> Array:
        """Of each image, whose points are wanted, [N]."""
        unlike = jnp.sum((self.points(coordinates) - wanted) ** 2, 1)
        n = coordinates.shape[0]
        return unlike + pull * (coordinates.reshape(n, -1) ** 2).mean(1)

    def points(self, coordinates: Array) -> Array:
        return self.distance(self.render(self.space.latents(coordinates)))


def _batch(objective: _Objective, model: LatentModel, coordinates: Array, images: Array) -> int:
    """How many images are optimised at once."""
    usual = CPU_BATCH if jax.default_backend() == "cpu" else BATCH
    most = batch_of(model, min(usual, len(images)))
    return differentiable_rows(objective.points, coordinates.shape[1:], most)


def _optimised(
    objective: _Objective,
    coordinates: Array,
    images: Array,
    pull: float,
    steps: int,
    learning_rate: float,
    told: Callable[[int], None] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The best coordinates of a batch and what was least after each step, [N, steps + 1]."""
    wanted = _points(objective.distance, images)
    state, best = ADAM.init(coordinates), coordinates
    least = jnp.full(len(images), jnp.inf)
    history = np.empty((len(images), steps + 1), np.float32)
    for i in range(steps + 1):  # singly, as scanned convolutions crawl on CPUs
        rate = np.float32(learning_rate * (1 + np.cos(np.pi * i / steps)) / 2)
        coordinates, state, best, least = _step(
            objective, coordinates, wanted, np.float32(pull), rate, state, best, least
        )
        history[:, i] = least
        if told is not None:
            told(i)
        if i >= LOOKED_BACK:
            before = history[:, i - LOOKED_BACK]
            if (history[:, i] > (1 - LEAST_GAIN) * before).all():
                history[:, i + 1 :] = history[:, i : i + 1]
                break
    return np.asarray(best), history


@jax.jit
def _step(
    objective: _Objective,
    coordinates: Array,
    wanted: Array,
    pull: Array,
    rate: Array,
    state: optax.OptState,
    best: Array,
    least: Array,
) -> tuple[Array, optax.OptState, Array, Array]:
    """One of Adam, and the best before it."""

    def total(coordinates: Array) -> tuple[Array, Array]:
        each = objective(coordinates, wanted, pull)
        return each.sum(), each

    gradient, each = jax.grad(total, has_aux=True)(coordinates)
    better = each < least
    shape = (-1,) + (1,) * (coordinates.ndim - 1)
    best = jnp.where(better.reshape(shape), coordinates, best)
    with jax.numpy_dtype_promotion("standard"):  # Adam counts steps in integers
        updates, state = ADAM.update(gradient, state)
    coordinates = jax.tree.map(lambda x, update: x - rate * update, coordinates, updates)
    return coordinates, state, best, jnp.minimum(each, least)
