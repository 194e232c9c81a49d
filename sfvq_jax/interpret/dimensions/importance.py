"""Which latent dimensions control a concept: interventions on each, by itself or jointly.

After Li, Tao, Niu and Li, "Interpreting the Latent Space of GANs via Correlation Analysis for
Controllable Concept Manipulation" (ICPR 2020, arXiv 2006.10132): each coordinate of a latent is
moved by itself, and a classifier tells how the probability of a concept changes. The set that
controls a concept is grown along that ranking (`grow_set`), or is where a signed mask over all
coordinates stays away from zero when its joint effect is maximised (`optimise_mask`).

Concepts are a `Scorer` of log-odds written in JAX, as `class_scorer` and `fit_scorer` give them.

Letters: N latents, D dimensions, M coordinates, G values, C concepts, S sets of coordinates.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from sfvq_jax.images import batch_of, in_batches
from sfvq_jax.interpret.attributes import Scorer, probability
from sfvq_jax.interpret.dimensions.coordinates import Coordinates, How, check_how, intervene
from sfvq_jax.interpret.directions.bench import BATCH
from sfvq_jax.latent_model import LatentModel, method
from sfvq_jax.short import short_repr

Array = jax.Array

EXTREME = 3.0  # deviations
AT_ONCE = 2048  # images, about, between two words of how many there were
VALUES = (-3.0, -1.5, 1.5, 3.0)  # of interventions on one coordinate, in deviations


class Effects(NamedTuple):
    """Effects of interventions on single coordinates on concepts.

    Attributes:
      values: values that each coordinate is shifted by, or set to, in standard deviations;
        ascending, [G].
      before: scores of the concepts before, log-odds, [N, C].
      after: scores after each intervention, [N, M, G, C].
    """

    values: np.ndarray
    before: np.ndarray
    after: np.ndarray

    __repr__ = short_repr

    @property
    def changes(self) -> np.ndarray:
        """Changes of the probabilities, [N, M, G, C]."""
        before, after = (np.asarray(probability(jnp.asarray(x))) for x in self[1:])
        return after - before[:, None, None]

    @property
    def importance(self) -> np.ndarray:
        """Mean absolute change of the probabilities at the extreme values, [M, C]."""
        return np.abs(self.changes[:, :, [0, -1]]).mean((0, 2))

    @property
    def correlations(self) -> np.ndarray:
        """Spearman's rank correlation of value and probability, [M, C].

        It is over the values and 0, within each latent, and averaged over latents; 0 if the
        probability does not change at all.
        """
        number = int(np.searchsorted(self.values, 0))
        n, m, _, c = self.after.shape
        unmoved = np.broadcast_to(self.before[:, None, None], (n, m, 1, c))
        path = np.concatenate([self.after[:, :, :number], unmoved, self.after[:, :, number:]], 2)
        ranks = scipy.stats.rankdata(path, axis=2)
        ranks -= ranks.mean(2, keepdims=True)
        steps = np.arange(path.shape[2]) - (path.shape[2] - 1) / 2
        along = np.einsum("g,nmgc->nmc", steps, ranks)
        size = np.sqrt((ranks**2).sum(2) * (steps**2).sum())
        return (along / np.where(size > 0, size, 1)).mean(0)

    def ranking(self, concept: int) -> "Ranking":
        """Ranks coordinates by the mean rise of a concept at an extreme value, low or high.

        The rise is in log-odds: if a concept is far away, its probability hardly changes, and the
        order of changes would be chance.
        """
        ends = self.after[:, :, [0, -1], concept] - self.before[:, None, None, concept]
        low, high = ends.mean(0, dtype=np.float64).T
        raised = np.maximum(low, high)
        order = np.argsort(-raised, kind="stable")
        return Ranking(order, np.where(high >= low, 1, -1)[order], raised[order])


class Ranking(NamedTuple):
    """Coordinates ranked by their effect on a concept, the most important first.

    Attributes:
      order: numbers of the coordinates, [M].
      signs: direction in which each is moved, ±1, [M].
      sizes: mean change of the concept's log-odds, or |s| of a mask, [M].
    """

    order: np.ndarray
    signs: np.ndarray
    sizes: np.ndarray

    __repr__ = short_repr

    def signed(self, size: int) -> np.ndarray:
        """The first `size` of them as a vector over all coordinates, [M]: ±1, the others 0."""
        return signed_vector(len(self.order), self.order[:size], self.signs[:size])


def signed_vector(count: int, numbers: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Signs at some places of a vector over `count` coordinates, 0 elsewhere, [M] float32."""
    signed = np.zeros(count, np.float32)
    signed[numbers] = signs
    return signed


def intervention_effects(
    model: LatentModel,
    concepts: Scorer,
    latents: Array,
    coordinates: Coordinates,
    *,
    values: Sequence[float] = VALUES,
    how: How = "shift",
    on_images: Callable[[int], Any] | None = None,
) -> Effects:
    """Moves every coordinate of every latent alone to every value, and measures the concepts.

    After Li, Tao, Niu and Li (ICPR 2020, arXiv 2006.10132).

    Args:
      model: the generator.
      concepts: scorer of log-odds of C concepts, written in JAX.
      latents: latents, [N, D].
      coordinates: M coordinates.
      values: values in standard deviations, ascending, below and above 0 but without 0.
      how: see `intervene`.
      on_images: called from time to time with the number of images rendered.

    Raises:
      ValueError: unsuitable values, or an unknown `how`.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import class_scorer, intervention_effects, latent_axes
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> classes = class_scorer(lambda images: 4 * images.mean((1, 2)), ["red", "green", "blue"])
    >>> latents = model.sample(jax.random.key(0), 4)
    >>> axes = latent_axes(model.sample(jax.random.key(1), 64))
    >>> effects = intervention_effects(model, classes, latents, axes)
    >>> effects.after.shape, effects.importance.argmax(0).tolist()
    ((4, 3, 4, 3), [0, 1, 2])
    """
    check_how(how)
    grid = np.asarray(values, np.float32)
    if not (np.diff(grid) > 0).all() or not grid.min() < 0 < grid.max() or (grid == 0).any():
        raise ValueError(f"values are {list(values)}; expected ascending ones below and above 0")
    extreme = float(np.abs(grid).max())
    m = coordinates.count
    steps = np.eye(m, dtype=np.float32)[:, None] * (grid / extreme)[None, :, None]
    signed = np.concatenate([np.zeros((1, m), np.float32), steps.reshape(-1, m)])

    def scores(part: Array) -> np.ndarray:
        seen = joint_scores(model, concepts, part, coordinates, signed, extreme, how)
        if on_images is not None:
            on_images(seen.shape[0] * seen.shape[1])
        return seen

    at_once = 1 << (AT_ONCE // len(signed)).bit_length()
    seen = in_batches(scores, latents, at_once)
    return Effects(grid, seen[:, 0], seen[:, 1:].reshape(len(latents), m, len(grid), -1))


def joint_scores(
    model: LatentModel,
    concepts: Scorer,
    latents: Array,
    coordinates: Coordinates,
    signed: np.ndarray,
    extreme: float,
    how: How = "shift",
) -> np.ndarray:
    """Computes scores of concepts after each of S joint interventions on each latent, [N, S, C].

    Arguments are those of `intervene`, but signed is [S, M], the same for all latents. This is one
    call of one compiled program with few images in memory at once. Scores are float32, in the unit
    of the concepts: log-odds.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import class_scorer, joint_scores, latent_axes
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> classes = class_scorer(lambda images: 4 * images.mean((1, 2)), ["red", "green", "blue"])
    >>> latents = model.sample(jax.random.key(0), 4)
    >>> axes = latent_axes(model.sample(jax.random.key(1), 64))
    >>> signed = jnp.array([[0.0, 0.0, 0.0], [1.0, -1.0, -1.0]])  # nothing; red up, all others down
    >>> scores = joint_scores(model, classes, latents, axes, signed, extreme=3.0)
    >>> print(scores.shape, scores[:, :, 0].mean(0).round(1))
    (4, 2, 3) [-2.5  4.9]
    """
    seen = traced_scores(
        method(model, "render"), concepts, jnp.asarray(latents), coordinates, jnp.asarray(signed),
        extreme, how=how, batch=batch_of(model, BATCH),
    )  # fmt: skip
    return np.asarray(seen)


@functools.partial(jax.jit, static_argnames=("how", "batch"))
def traced_scores(
    render: jax.tree_util.Partial,
    concepts: Scorer,
    latents: Array,
    coordinates: Coordinates,
    signed: Array,
    extreme: Array,
    *,
    how: How,
    batch: int,
) -> Array:
    """What `joint_scores` runs, for programs that call it themselves."""
    n, s = latents.shape[0], signed.shape[0]

    def look(pairs: Array) -> Array:
        """Of numbers [B] of pairs of a latent and an intervention."""
        latent, number = jnp.minimum(pairs // s, n - 1), pairs % s
        moved = intervene(latents[latent], coordinates, signed[number], extreme, how)
        return concepts(render(moved))

    batch = min(batch, n * s)
    tiles = -(-n * s // batch)
    seen = jax.lax.map(look, jnp.arange(tiles * batch).reshape(tiles, batch))
    return seen.reshape(tiles * batch, -1)[: n * s].reshape(n, s, -1)
