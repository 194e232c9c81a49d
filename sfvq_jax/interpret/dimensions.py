"""Which latent dimensions control a concept: interventions on each, and two ways to the set.

After Li, Tao, Niu and Li, "Interpreting the Latent Space of GANs via Correlation Analysis for
Controllable Concept Manipulation" (ICPR 2020, arXiv 2006.10132): each coordinate of a latent is
moved by itself, and a classifier tells how the probability of a concept changes. The set that
controls a concept is grown along that ranking (`grow_set`), or is where a signed mask over all
coordinates stays away from zero when its joint effect is maximised (`optimise_mask`).

Concepts are a `Scorer` of log-odds written in JAX, as `class_scorer` and `fit_scorer` give them.

Letters: N latents, D dimensions, M coordinates, G values, C concepts, S sets of coordinates.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from sfvq_jax.images import batch_of
from sfvq_jax.interpret.attributes import Scorer, probability
from sfvq_jax.interpret.coordinates import Coordinates, How, check_how, intervene
from sfvq_jax.interpret.measuring import BATCH
from sfvq_jax.latent_model import LatentModel, method
from sfvq_jax.short import short_repr

Array = jax.Array

EXTREME = 3.0  # deviations
VALUES = (-3.0, -1.5, 1.5, 3.0)  # of interventions on one coordinate, in deviations
SHARE = 0.9  # of the greatest joint effect, at which a set is large enough
LEAST_GAIN = 0.02  # of the mean log-odds, by a coordinate that is taken into a set


class Effects(NamedTuple):
    """What interventions on single coordinates do to concepts.

    Attributes:
      values: that each coordinate is shifted by, or set to, in deviations; ascending, [G].
      before: scores of the concepts, log-odds, [N, C].
      after: the same after each intervention, [N, M, G, C].
    """

    values: np.ndarray
    before: np.ndarray
    after: np.ndarray

    __repr__ = short_repr

    @property
    def changes(self) -> np.ndarray:
        """Of the probabilities, [N, M, G, C]."""
        before, after = (np.asarray(probability(jnp.asarray(x))) for x in self[1:])
        return after - before[:, None, None]

    @property
    def importance(self) -> np.ndarray:
        """Mean absolute change of the probabilities at the extreme values, [M, C]."""
        return np.abs(self.changes[:, :, [0, -1]]).mean((0, 2))

    @property
    def correlations(self) -> np.ndarray:
        """Spearman's rank correlation of value and probability, [M, C].

        Over the values and 0, within each latent, and averaged over latents; 0 where the
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
        """Coordinates by how much an extreme value, low or high, raises a concept in the mean.

        What counts are log-odds: where a concept is far away, its probability hardly changes, and
        the order of changes would be chance.
        """
        ends = self.after[:, :, [0, -1], concept] - self.before[:, None, None, concept]
        low, high = ends.mean(0, dtype=np.float64).T
        raised = np.maximum(low, high)
        order = np.argsort(-raised, kind="stable")
        return Ranking(order, np.where(high >= low, 1, -1)[order], raised[order])


class Ranking(NamedTuple):
    """Coordinates by what they do for a concept, the most important first.

    Attributes:
      order: their numbers, [M].
      signs: whereto each is moved, ±1, [M].
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


class GrownSet(NamedTuple):
    """A set of coordinates that grew one by one.

    Attributes:
      order: coordinates that were taken in, the first one first, [S].
      signs: whereto each is moved, ±1, [S].
      growth: mean change of the concept's probability by the first 1 … S of them together, [S].
      size: of the set that controls the concept: the least that has the wanted share of the
        greatest growth.
    """

    order: np.ndarray
    signs: np.ndarray
    growth: np.ndarray
    size: int

    __repr__ = short_repr


def intervention_effects(
    model: LatentModel,
    concepts: Scorer,
    latents: Array,
    coordinates: Coordinates,
    *,
    values: Sequence[float] = VALUES,
    how: How = "shift",
) -> Effects:
    """Moves every coordinate of every latent to every value, each by itself.

    Args:
      model: the generator.
      concepts: log-odds of C concepts, written in JAX.
      latents: [N, D].
      coordinates: M of them.
      values: in deviations, ascending, without 0, below and above it.
      how: of `intervene`.

    Raises:
      ValueError: values or `how` that are none.
    """
    check_how(how)
    grid = np.asarray(values, np.float32)
    if not (np.diff(grid) > 0).all() or not grid.min() < 0 < grid.max() or (grid == 0).any():
        raise ValueError(f"values are {list(values)}; expected ascending ones below and above 0")
    extreme = float(np.abs(grid).max())
    m = coordinates.count
    steps = np.eye(m, dtype=np.float32)[:, None] * (grid / extreme)[None, :, None]
    signed = np.concatenate([np.zeros((1, m), np.float32), steps.reshape(-1, m)])
    seen = joint_scores(model, concepts, latents, coordinates, signed, extreme, how)
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
    """Scores of concepts after each of S joint interventions on each latent, [N, S, C].

    Arguments are those of `intervene`, but signed is [S, M], for all latents alike. It is one call
    of one compiled program, which has few images in memory at once.
    """
    seen = _joint_scores(
        method(model, "render"), concepts, jnp.asarray(latents), coordinates, jnp.asarray(signed),
        extreme, how=how, batch=batch_of(model, BATCH),
    )  # fmt: skip
    return np.asarray(seen)


@functools.partial(jax.jit, static_argnames=("how", "batch"))
def _joint_scores(
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


def grow_set(
    model: LatentModel,
    concepts: Scorer,
    latents: Array,
    coordinates: Coordinates,
    concept: int,
    ranking: Ranking,
    *,
    extreme: float = EXTREME,
    how: How = "shift",
    share: float = SHARE,
) -> GrownSet:
    """Sequential intervention: a set that grows along a ranking while its joint effect grows.

    The coordinates are tried in order; one is taken in where moving it, with those already in,
    raises the concept's mean log-odds by `LEAST_GAIN` or more. Growth stops when the mean
    probability has risen by `share` of all that it could, or when every coordinate was tried.

    Args:
      model, concepts, coordinates, extreme, how: of `intervene` and `intervention_effects`.
      latents: best others than the ranking comes from, [N, D].
      concept: a column of the concepts, that is to be raised.
      ranking: of `Effects.ranking`.
      share: of the possible rise, at which growth stops, and of the rise that was reached, which
        the set keeps.

    Raises:
      ValueError: a share outside (0, 1], or `how` that is none.
    """
    check_how(how)
    check_share(share)
    taken, probabilities, before = _grow(
        method(model, "render"), concepts, jnp.asarray(latents), coordinates, concept,
        jnp.asarray(ranking.order, jnp.int32), jnp.asarray(ranking.signs, jnp.float32), extreme,
        share, how=how, batch=batch_of(model, BATCH),
    )  # fmt: skip
    rows = np.flatnonzero(np.asarray(taken))
    growth = np.asarray(probabilities, np.float64)[rows] - float(before)
    if not len(rows):  # nothing raises it: the first of the ranking, with what it does
        rows, growth = np.zeros(1, int), np.zeros(1)
    # probabilities may fall a little where log-odds rise
    size = int((growth >= share * growth.max()).argmax()) + 1
    return GrownSet(ranking.order[rows], ranking.signs[rows], growth, size)


def check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; expected a part of the greatest effect, in (0, 1]")


class _Growth(NamedTuple):
    """Where `_grow` is: so many tried, ±1 of those that are in [M], the concept's mean log-odds and
    probability now, which ones were taken [M], and the probability after each [M]."""

    tried: Array
    signed: Array
    odds: Array
    now: Array
    taken: Array
    after: Array


@functools.partial(jax.jit, static_argnames=("how", "batch"))
def _grow(
    render: jax.tree_util.Partial,
    concepts: Scorer,
    latents: Array,
    coordinates: Coordinates,
    concept: Array,
    order: Array,
    signs: Array,
    extreme: Array,
    share: Array,
    *,
    how: How,
    batch: int,
) -> tuple[Array, Array, Array]:
    m = order.shape[0]

    def look(signed: Array) -> tuple[Array, Array]:
        scores = _joint_scores(
            render, concepts, latents, coordinates, signed[None], extreme, how=how, batch=batch
        )[:, 0, concept]
        return scores.mean(), probability(scores).mean()

    def go_on(state: _Growth) -> Array:
        return (state.tried < m) & (state.now - before < share * (1 - before))

    def step(state: _Growth) -> _Growth:
        i = state.tried
        trial = state.signed.at[order[i]].set(signs[i])
        odds, now = look(trial)
        taken = odds >= state.odds + LEAST_GAIN
        signed, odds, now = jax.tree.map(
            lambda new, old: jnp.where(taken, new, old),
            (trial, odds, now),
            (state.signed, state.odds, state.now),
        )
        taken = state.taken.at[i].set(taken)
        return _Growth(i + 1, signed, odds, now, taken, state.after.at[i].set(now))

    nothing = jnp.zeros(m)
    odds, before = look(nothing)
    start = _Growth(jnp.int32(0), nothing, odds, before, nothing.astype(bool), nothing)
    end = jax.lax.while_loop(go_on, step, start)
    return end.taken, end.after, before


def gini(sizes: np.ndarray) -> np.ndarray:
    """Gini's index of sizes [..., M] >= 0, from 0 (all alike) to 1 - 1/M (one alone).

    As a measure of sparsity: Hurley and Rickard, 2009 (arXiv 0811.4706), eq. for GI.
    """
    sizes = np.sort(np.asarray(sizes, np.float64), -1)
    m = sizes.shape[-1]
    weights = (m - np.arange(m) - 0.5) / m
    total = np.maximum(sizes.sum(-1), 1e-300)
    return 1 - 2 * (sizes * weights).sum(-1) / total


def hoyer(sizes: np.ndarray) -> np.ndarray:
    """Hoyer's sparsity of sizes [..., M], from 0 (all alike) to 1 (one alone); M >= 2.

    (√M - ‖x‖₁/‖x‖₂) / (√M - 1): Hoyer, JMLR 2004, §3.1.
    """
    sizes = np.asarray(sizes, np.float64)
    root = np.sqrt(sizes.shape[-1])
    length = np.maximum(np.sqrt((sizes**2).sum(-1)), 1e-300)
    return (root - np.abs(sizes).sum(-1) / length) / (root - 1)


def overlap(first: Sequence[int] | np.ndarray, second: Sequence[int] | np.ndarray) -> float:
    """Jaccard's index of two sets of coordinates: what both have ÷ what either has."""
    one, other = set(map(int, first)), set(map(int, second))
    return len(one & other) / max(len(one | other), 1)
