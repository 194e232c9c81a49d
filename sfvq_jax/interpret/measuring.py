"""What edits along a direction do to images: effects on attributes, and how far one can go.

Letters: N latents, A attributes, L layers, D dimensions, F features.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from sfvq_jax.images import in_batches
from sfvq_jax.interpret.attributes import Scorer
from sfvq_jax.interpret.editing import Direction, edit_latents
from sfvq_jax.latent_model import LatentModel, method

Array = jax.Array

BANK = 1024  # images that stand for the distribution
USUAL = 256  # more of them, to see how many lie within it by that measure
NEIGHBOURS = 3  # of an image in the bank, which say how far its neighbourhood goes
FEATURE_SIDE = 16
MEASURED_AT = 2.0  # strength of the edits, up and down, whose effects are measured
STRENGTHS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)  # at which it is looked whether images leave
BATCH = 64


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
        self._features = jax.jit(small_pixels if features is None else features)
        bank_key, usual_key = jax.random.split(key)
        bank = self.images(model.sample(bank_key, BANK))
        self.find_scale, self.judge_scale = (
            np.maximum(np.std(_scores(scorer, bank), 0), 1e-12) for scorer in (find, judge)
        )
        self._bank = self._features(bank)
        # the nearest of all is the image itself
        self._radii = jnp.sort(_distances(self._bank, self._bank), 1)[:, NEIGHBOURS]
        self._usual = self.share_inside(model.sample(usual_key, USUAL))

    def images(self, latents: Array) -> Array:
        """Of latents [N, D] or codes [N, L, D]."""
        n, layers = latents.shape[0], self.model.num_layers
        if latents.ndim == 2:
            latents = jnp.broadcast_to(latents[:, None], (n, layers, latents.shape[1]))
        render = method(self.model, "render")
        return jnp.asarray(in_batches(lambda codes: _call(render, codes), latents, BATCH))

    def found_scores(self, latents: Array) -> np.ndarray:
        """By the scorer that finds, in deviations of each attribute, [N, A]."""
        return _scores(self.find, self.images(latents)) / self.find_scale

    def found_changes(self, direction: Direction, latents: Array) -> np.ndarray:
        """Of the attributes a unit of strength, by the scorer that finds, [N, A]."""
        return self._changes(direction, latents, judged=False)[0]

    def effects(
        self, direction: Direction, latents: Array
    ) -> tuple[dict[str, Effect], dict[str, Effect]]:
        """On all attributes, by the scorer that finds and by the one that judges."""
        found, judged = self._changes(direction, latents, judged=True)
        return (
            {name: effect(found[:, i]) for i, name in enumerate(self.find.names)},
            {name: effect(judged[:, i]) for i, name in enumerate(self.judge.names)},
        )

    def share_inside(self, latents: Array) -> float:
        """Share of images in the neighbourhood of one of the distribution's.

        The neighbourhood of an image reaches to its third nearest neighbour (precision;
        Kynkäänniemi et al., 2019, eq. 1).
        """
        distances = _distances(self._features(self.images(latents)), self._bank)
        return float((distances <= self._radii[None]).any(1).mean())

    def limits(self, direction: Direction, latents: Array) -> tuple[float | None, float | None]:
        """Strengths below and above 0 at which images leave the distribution.

        There the share of them inside is half of that of unedited images; None where it is not up
        to ±8.
        """
        return self._limit(direction, latents, -1), self._limit(direction, latents, 1)

    def _changes(self, direction: Direction, latents: Array, *, judged: bool) -> list[np.ndarray]:
        strengths = jnp.array([-MEASURED_AT, MEASURED_AT])
        codes = edit_latents(latents, direction, strengths, self.model.num_layers)
        down, up = self.images(codes[:, 0]), self.images(codes[:, 1])
        pairs = [(self.find, self.find_scale), (self.judge, self.judge_scale)]
        return [
            (_scores(scorer, up) - _scores(scorer, down)) / (2 * MEASURED_AT * scale)
            for scorer, scale in pairs[: 2 if judged else 1]
        ]

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
    n = len(changes)
    mean = float(changes.mean())
    half = float(scipy.stats.t.ppf(0.975, n - 1) * changes.std(ddof=1) / n**0.5)
    agree = float((changes > 0).mean() if mean > 0 else (changes < 0).mean())
    return Effect(mean, mean - half, mean + half, agree)


def small_pixels(images: Array) -> Array:
    """Images [N, H, W, C] at 16x16, flat: [N, 256 C]."""
    n, _, _, c = images.shape
    small = jax.image.resize(images, (n, FEATURE_SIDE, FEATURE_SIDE, c), "linear")
    return small.reshape(n, -1)


def _scores(scorer: Scorer, images: Array) -> np.ndarray:
    """[N, A] float64."""
    return in_batches(scorer, images, BATCH).astype(np.float64)


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
