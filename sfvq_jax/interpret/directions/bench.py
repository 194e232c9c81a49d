"""What edits along a direction do to images: effects on attributes, and how far one can go.

Letters: N latents, A attributes, L layers, D dimensions, F features.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.images import batch_of, in_batches
from sfvq_jax.interpret.attributes import Scorer
from sfvq_jax.interpret.edit import Direction, codes_of, edit_latents
from sfvq_jax.interpret.intervals import interval
from sfvq_jax.latent_model import LatentModel, method

Array = jax.Array

BANK = 1024  # images that stand for the distribution
USUAL = 256  # more of them, to see how many lie within it by that measure
NEIGHBOURS = 3  # of an image in the bank, which say how far its neighbourhood goes
FEATURE_SIDE = 16
MEASURED_AT = 2.0  # strength of the edits, up and down, whose effects are measured
STRENGTHS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)  # at which it is looked whether images leave
BATCH = 32  # images at once, fewer where they are large


class Effect(NamedTuple):
    """What a direction does to an attribute, over fresh latents.

    Attributes:
      mean: mean change a unit of strength, in standard deviations of the attribute over images.
      low: lower end of its 95 % confidence interval (Student's t).
      high: upper end.
      agree: share of the latents whose attribute changes in the sense of the mean.
    """

    mean: float
    low: float
    high: float
    agree: float

    @property
    def certain(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


class Bench:
    """A model, the scorer that finds, the one that judges, and images of the distribution.

    Args:
      key: a PRNG key, for the latents of these images.
      model: the generator.
      find: a scorer.
      judge: another one, any function.
      features: images -> [N, F], in which distances tell whether an image is in the distribution;
        the pixels at 16x16 by default.
    """

    def __init__(
        self,
        key: Array,
        model: LatentModel,
        find: Scorer,
        judge: Scorer,
        *,
        features: Callable[[Array], Array] | None = None,
    ):
        self.model, self.find, self.judge = model, find, judge
        self.features = jax.jit(small_pixels if features is None else features)
        self._batch = batch_of(model, BATCH)
        bank_key, usual_key = jax.random.split(key)
        bank = model.sample(bank_key, BANK)
        found, judged, of_bank = self.look(bank, find, judge, self.features)
        self.find_scale, self.judge_scale = (
            np.maximum(scores.std(0, dtype=np.float64), 1e-12) for scores in (found, judged)
        )
        self._bank = jnp.asarray(of_bank, jnp.float32)
        # the nearest of all is the image itself
        self._radii = jnp.sort(_distances(self._bank, self._bank), 1)[:, NEIGHBOURS]
        self._usual = self.share_inside(model.sample(usual_key, USUAL))

    def found(self, images: Array) -> np.ndarray:
        """Scores [N, A] by the scorer that finds, in deviations of each attribute over images."""
        return np.asarray(self.find(images), np.float64) / self.find_scale

    def judged(self, images: Array) -> np.ndarray:
        """The same by the scorer that judges."""
        return np.asarray(self.judge(images), np.float64) / self.judge_scale

    def look(self, latents: Array, *functions: Callable[[Array], Any]) -> list[np.ndarray]:
        """What functions images -> [n, F] give for latents [N, D] or codes [N, L, D]: [N, F] each.

        Few images are in memory at once.
        """
        render, widths = method(self.model, "render"), []

        def call(codes: Array) -> np.ndarray:
            images = _call(render, codes)
            parts = [np.asarray(function(images)) for function in functions]
            widths[:] = [part.shape[1] for part in parts]
            return np.concatenate(parts, 1)

        codes = codes_of(latents, self.model.num_layers)
        columns = in_batches(call, codes, self._batch)
        return np.split(columns, np.cumsum(widths)[:-1], axis=1)

    def found_changes(self, direction: Direction, latents: Array) -> np.ndarray:
        """Of the attributes a unit of strength, by the scorer that finds, [N, A]."""
        return self._changes(direction, latents, self.found)[0]

    def effects(
        self, direction: Direction, latents: Array
    ) -> tuple[dict[str, Effect], dict[str, Effect]]:
        """On all attributes, by the scorer that finds and by the one that judges."""
        found, judged = self._changes(direction, latents, self.found, self.judged)
        return (
            {name: effect(found[:, i]) for i, name in enumerate(self.find.names)},
            {name: effect(judged[:, i]) for i, name in enumerate(self.judge.names)},
        )

    def share_inside(self, latents: Array) -> float:
        """Share of images in the neighbourhood of one of the distribution's.

        The neighbourhood of an image reaches to its third nearest neighbour (precision;
        Kynkäänniemi et al., 2019, eq. 1).
        """
        return float(self.inside(*self.look(latents, self.features)).mean())

    def inside(self, seen: np.ndarray) -> np.ndarray:
        """Which of images with these features [N, F] are there, [N]."""
        distances = _distances(jnp.asarray(seen, jnp.float32), self._bank)
        return np.asarray((distances <= self._radii[None]).any(1))

    def limits(self, direction: Direction, latents: Array) -> tuple[float | None, float | None]:
        """Strengths below and above 0 at which images leave the distribution.

        There the share of them inside is half of that of unedited images; None where it is not up
        to ±8.
        """
        return self._limit(direction, latents, -1), self._limit(direction, latents, 1)

    def _changes(
        self, direction: Direction, latents: Array, *scorers: Callable[[Array], np.ndarray]
    ) -> list[np.ndarray]:
        strengths = jnp.array([-MEASURED_AT, MEASURED_AT])
        codes = edit_latents(latents, direction, strengths, self.model.num_layers)
        down, up = (self.look(codes[:, i], *scorers) for i in (0, 1))
        return [(b - a) / (2 * MEASURED_AT) for a, b in zip(down, up, strict=True)]

    def _limit(self, direction: Direction, latents: Array, sign: int) -> float | None:
        before, share_before = 0.0, self._usual
        for strength in STRENGTHS:
            steps = jnp.array([sign * strength])
            codes = edit_latents(latents, direction, steps, self.model.num_layers)[:, 0]
            share = self.share_inside(codes)
            if share < self._usual / 2:
                part = (share_before - self._usual / 2) / (share_before - share)
                return sign * (before + part * (strength - before))
            before, share_before = strength, share
        return None


def effect(changes: np.ndarray) -> Effect:
    """Of the changes of one attribute at N latents, [N]."""
    mean, low, high = interval(changes)
    return Effect(
        mean, low, high, float((changes > 0).mean() if mean > 0 else (changes < 0).mean())
    )


def small_pixels(images: Array) -> Array:
    """Images [N, H, W, C] at 16x16, flat: [N, 256 C]."""
    n, _, _, c = images.shape
    small = jax.image.resize(images, (n, FEATURE_SIDE, FEATURE_SIDE, c), "linear")
    return small.reshape(n, -1)


@jax.jit
def _call(function: jax.tree_util.Partial, x: Array) -> Array:
    return function(x)


@jax.jit
def _distances(a: Array, b: Array) -> Array:
    """Squared Euclidean distances [N, M] of features [N, F] and [M, F]."""
    mean = b.mean(0, keepdims=True)
    a, b = a - mean, b - mean
    product = jnp.matmul(a, b.T, precision="highest")
    return (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * product
