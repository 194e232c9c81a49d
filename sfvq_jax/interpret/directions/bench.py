"""What edits along a direction do to images: effects on attributes, and how far one can go.

Letters: N latents, A attributes, L layers, D dimensions, F features.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.images import batch_of, in_batches
from sfvq_jax.interpret.attributes import (
    LEAST_SHARE,
    LOOKED_AT,
    Inside,
    Scorer,
    has_background,
    no_background,
    small_pixels,
)
from sfvq_jax.interpret.edit import Direction, codes_of, edit_latents, layer_steps
from sfvq_jax.interpret.intervals import Interval, interval, share
from sfvq_jax.latent_model import LatentModel, method

Array = jax.Array

BANK = 1024  # images that stand for the distribution
HELD_OUT = 512  # more of them, on which it is calibrated what lies within it
STAYS = 0.75  # share of the images that must lie inside, up to a direction's limits
MEASURED_AT = 2.0  # strength of the edits, up and down, whose effects are measured, within limits
STRENGTHS = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)  # at which it is looked whether images leave
HALVED = 3  # times, at most, that a candidate's edits are halved until they stay
BATCH = 32  # images at once, fewer where they are large

Limits = tuple[float | None, float | None]


class Effect(NamedTuple):
    """Effect of a direction on an attribute, over fresh latents.

    Attributes:
      mean: mean change per unit of strength, in standard deviations of the attribute over images.
      low: lower end of its confidence interval (`interval`).
      high: upper end.
      agree: share of the latents whose attribute changes with the sign of the mean.
    """

    mean: float
    low: float
    high: float
    agree: float

    @property
    def certain(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


class Gain(NamedTuple):
    """Share of images that get an attribute by an edit, over fresh latents, by the judge.

    Attributes:
      strength: strength of the edits: the upper limit of the direction, or the largest that was
        tried.
      gained: share of images without the attribute that have it after the edit, with its interval.
      by_chance: the same for random directions, another one for each latent, with steps of the same
        length in the same layers.
    """

    strength: float
    gained: Interval
    by_chance: Interval

    @property
    def certain(self) -> bool:
        """Whether the intervals do not overlap."""
        return self.gained.low > self.by_chance.high


class Walk(NamedTuple):
    """What happens on the way up along a direction, at strength 0 and all of `STRENGTHS`, S.

    Attributes:
      strengths: [S].
      inside: share of the images that lie in the distribution, [S].
      changes: mean change of each attribute by the judge, in its deviations over images, [S, A].
    """

    strengths: np.ndarray
    inside: np.ndarray
    changes: np.ndarray

    @property
    def limit(self) -> float | None:
        """As `Bench.limit`."""
        return first_crossing(self.strengths, self.inside, STAYS)

    def reaches(self, column: int, change: float) -> float | None:
        """The strength at which an attribute changes by so much; None where it does nowhere."""
        return first_crossing(self.strengths, -self.changes[:, column], -change)


class Bench:
    """Measures edits of a model by two scorers and by images that represent the distribution.

    `look(latents, *bench.kinds)` gives the features with which `bench.inside` decides which images
    lie in the distribution.

    Args:
      key: a PRNG key for the latents of these images.
      model: the generator.
      find: the scorer that finds.
      judge: the scorer that judges; its function may be any function.
      features: function of images to [N, F]; with pixels, it decides which images are in the
        distribution. By default the features of the judge or of `find`, if they have any.
      on_images: called after each batch with its number of images.
    """

    on_images: Callable[[int], Any] | None = None

    def __init__(
        self,
        key: Array,
        model: LatentModel,
        find: Scorer,
        judge: Scorer,
        *,
        features: Callable[[Array], Array] | None = None,
        on_images: Callable[[int], Any] | None = None,
    ):
        self.model, self.find, self.judge = model, find, judge
        self.on_images = on_images
        self._batch = batch_of(model, BATCH)
        features = features or judge.features or find.features
        kinds = [small_pixels, *([] if features is None else [features])]
        self.kinds = [jax.jit(kind) for kind in kinds]
        latents = model.sample(key, BANK + HELD_OUT)
        found, judged, *seen = self.look(latents, find, judge, *self.kinds)
        if names := tuple(dict.fromkeys(find.of_background + judge.of_background)):
            (even,) = self.look(latents[:LOOKED_AT], lambda images: has_background(images)[:, None])
            if even.mean() < LEAST_SHARE:
                told = no_background(names, float(even.mean()))
                warnings.warn(f"{told}; statistics_of(key, model) leaves them out", stacklevel=2)
        self.find_scale, self.judge_scale = (
            np.maximum(scores.std(0, dtype=np.float64), 1e-12) for scores in (found, judged)
        )
        self.inside = Inside([kind[:BANK] for kind in seen], [kind[BANK:] for kind in seen])
        self._thresholds = judge.thresholds_among(judged)

    def found(self, images: Array) -> np.ndarray:
        """Scores [N, A] by `find`, in standard deviations of each attribute over images."""
        return np.asarray(self.find(images), np.float64) / self.find_scale

    def judged(self, images: Array) -> np.ndarray:
        """Scores [N, A] by `judge`, in standard deviations of each attribute over images."""
        return np.asarray(self.judge(images), np.float64) / self.judge_scale

    def has(self, images: Array) -> np.ndarray:
        """Attributes that images have by the judge, [N, A] of 0 and 1."""
        return np.asarray(np.asarray(self.judge(images)) > self._thresholds, np.float32)

    def look(self, latents: Array, *functions: Callable[[Array], Any]) -> list[np.ndarray]:
        """Applies functions of images to those of latents [N, D] or codes [N, L, D]: [N, F] each.

        Few images are in memory at once.
        """
        render, widths = method(self.model, "render"), []

        def call(codes: Array) -> np.ndarray:
            images = called(render, codes)
            parts = [np.asarray(function(images)) for function in functions]
            widths[:] = [part.shape[1] for part in parts]
            if self.on_images is not None:
                self.on_images(len(images))
            return np.concatenate(parts, 1)

        codes = codes_of(latents, self.model.num_layers)
        columns = in_batches(call, codes, self._batch)
        return np.split(columns, np.cumsum(widths)[:-1], axis=1)

    def look_at(
        self,
        direction: Direction,
        latents: Array,
        strength: float,
        *functions: Callable[[Array], Any],
    ) -> list[np.ndarray]:
        """Applies functions of images to those of edited latents."""
        steps, layers = jnp.array([strength]), self.model.num_layers
        return self.look(edit_latents(latents, direction, steps, layers)[:, 0], *functions)

    def limits(self, direction: Direction, latents: Array) -> Limits:
        """Strengths below and above 0 at which images leave the distribution (`limit`)."""
        return self.limit(direction, latents, -1), self.limit(direction, latents, 1)

    def limit(self, direction: Direction, latents: Array, sign: int) -> float | None:
        """The strength of this sign, -1 or 1, at which images leave the distribution.

        There, three quarters of them are inside. None if more are inside up to ±8.
        """
        strengths, shares = [0.0], [1.0]
        for strength in STRENGTHS:
            seen = self.look_at(direction, latents, sign * strength, *self.kinds)
            strengths.append(strength)
            shares.append(float(self.inside(seen).mean()))
            limit = first_crossing(np.array(strengths), np.array(shares), STAYS)
            if limit is not None:
                return sign * limit
        return None

    def walk(self, direction: Direction, latents: Array) -> "Walk":
        """Measures by the judge at growing strength, with the limit (`limit`)."""
        shares, changes = [1.0], [np.zeros(len(self.judge.names))]
        (start,) = self.look(latents, self.judged)
        for strength in STRENGTHS:
            judged, *seen = self.look_at(direction, latents, strength, self.judged, *self.kinds)
            shares.append(float(self.inside(seen).mean()))
            changes.append((judged - start).mean(0))
        return Walk(np.array([0.0, *STRENGTHS]), np.array(shares), np.array(changes))

    def found_changes(self, direction: Direction, latents: Array) -> np.ndarray:
        """Changes of the attributes per unit of strength by `find`, [N, A].

        They are measured from -2 to 2. On a side where images leave the distribution, the strength
        is halved up to three times.
        """
        sides = []
        for sign in (-1, 1):
            strength = sign * MEASURED_AT
            for _ in range(HALVED):
                found, *seen = self.look_at(direction, latents, strength, self.found, *self.kinds)
                if self.inside(seen).mean() >= STAYS:
                    break
                strength /= 2
            else:
                (found,) = self.look_at(direction, latents, strength, self.found)
            sides.append((strength, found))
        (low, down), (high, up) = sides
        return (up - down) / (high - low)

    def effects(
        self,
        direction: Direction,
        latents: Array,
        limits: Limits = (None, None),
        comparisons: int = 1,
    ) -> tuple[dict[str, Effect], dict[str, Effect]]:
        """Effects of a direction on all attributes, by `find` and by `judge`.

        Args:
          direction: the direction; latents are edited by -2 and 2.
          latents: latents, [N, D].
          limits: limits of the direction; edits stay within them.
          comparisons: number of intervals that must hold together, see `interval`.
        """
        low, high = within(limits)
        functions = (self.found, self.judged)
        down, up = (
            self.look_at(direction, latents, strength, *functions) for strength in (low, high)
        )
        found, judged = ((b - a) / (high - low) for a, b in zip(down, up, strict=True))
        return (
            {name: effect(found[:, i], comparisons) for i, name in enumerate(self.find.names)},
            {name: effect(judged[:, i], comparisons) for i, name in enumerate(self.judge.names)},
        )

    def gain(
        self,
        key: Array,
        direction: Direction,
        latents: Array,
        attribute: str,
        limits: Limits = (None, None),
        comparisons: int = 1,
        *,
        has: np.ndarray | None = None,
    ) -> Gain:
        """The gain of an attribute of the judge, at the upper limit.

        Args:
          key: PRNG key of the random directions.
          direction: the direction of the edits.
          latents: latents, [N, D].
          attribute: name of the attribute.
          limits: limits of the direction.
          comparisons: number of intervals that must hold together, see `interval`.
          has: result of `has` for the images of the latents, if known, [N, A].
        """
        column, layers = self.judge.index(attribute), self.model.num_layers
        strength = STRENGTHS[-1] if limits[1] is None else limits[1]
        if has is None:
            (has,) = self.look(latents, self.has)
        lacking = latents[has[:, column] == 0]
        if len(lacking) == 0:
            return Gain(strength, share(0, 0), share(0, 0))
        (after,) = self.look_at(direction, lacking, strength, self.has)
        vectors = jax.random.normal(key, lacking.shape)
        vectors /= jnp.linalg.norm(vectors, axis=1, keepdims=True)
        of_layer = (layer_steps(direction, layers) != 0).any(1).astype(vectors.dtype)
        steps = strength * direction.unit * vectors[:, None] * of_layer[None, :, None]
        (by_chance,) = self.look(codes_of(lacking, layers) + steps, self.has)
        gained = [int(part[:, column].sum()) for part in (after, by_chance)]
        return Gain(strength, *(share(count, len(lacking), comparisons) for count in gained))


def first_crossing(strengths: np.ndarray, values: np.ndarray, least: float) -> float | None:
    """Where values [S] first fall below the least, between the strengths [S]; None: nowhere."""
    below = np.flatnonzero(values < least)
    if len(below) == 0:
        return None
    i = int(below[0])
    part = (values[i - 1] - least) / (values[i - 1] - values[i])
    return float(strengths[i - 1] + part * (strengths[i] - strengths[i - 1]))


def within(limits: Limits) -> tuple[float, float]:
    """The strengths at which effects are measured."""
    low, high = (MEASURED_AT if limit is None else abs(limit) for limit in limits)
    return -min(low, MEASURED_AT), min(high, MEASURED_AT)


def effect(changes: np.ndarray, comparisons: int = 1) -> Effect:
    """Of the changes of one attribute at N latents, [N]."""
    mean, low, high = interval(changes, comparisons)
    return Effect(
        mean, low, high, float((changes > 0).mean() if mean > 0 else (changes < 0).mean())
    )


@jax.jit
def called(function: jax.tree_util.Partial, x: Array) -> Array:
    """A model's method, compiled once for each shape."""
    return function(x)
