"""A set of coordinates that grows along a ranking while its joint effect grows.

Letters: N latents, D dimensions, M coordinates, C concepts, S coordinates of a set.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.images import batch_of
from sfvq_jax.interpret.attributes import Scorer, probability
from sfvq_jax.interpret.dimensions.coordinates import Coordinates, How, check_how
from sfvq_jax.interpret.dimensions.importance import (
    EXTREME,
    Ranking,
    joint_scores,
    signed_vector,
    traced_scores,
)
from sfvq_jax.interpret.directions.bench import BATCH
from sfvq_jax.latent_model import LatentModel, method
from sfvq_jax.short import short_repr

Array = jax.Array

SHARE = 0.9  # of the greatest joint effect, at which a set is large enough
LEAST_GAIN = 0.02  # of the mean log-odds, by a coordinate that is taken into a set


class GrownSet(NamedTuple):
    """A set of coordinates that grew one by one.

    Attributes:
      order: coordinates in the order in which they were added, [S].
      signs: direction in which each is moved, ±1, [S].
      growth: mean change of the concept's probability by the first 1 … S of them together, [S], on
        the latents that chose them; `growth_of` measures it on others.
      size: size of the set that controls the concept: the smallest with the wanted share of the
        largest growth.
    """

    order: np.ndarray
    signs: np.ndarray
    growth: np.ndarray
    size: int

    __repr__ = short_repr


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
    """Grows a set of coordinates along a ranking while its joint effect grows.

    This is sequential intervention. The coordinates are tried in order. One is added if moving it
    with those in the set raises the concept's mean log-odds by `LEAST_GAIN` or more. Growth stops
    when the mean probability has risen by `share` of the possible rise, or when every coordinate
    was tried.

    Args:
      model, concepts, coordinates, extreme, how: see `intervene` and `intervention_effects`.
      latents: latents [N, D], best not those of the ranking.
      concept: column of the concept to raise.
      ranking: result of `Effects.ranking`.
      share: share of the possible rise at which growth stops; also the share of the reached rise
        that the set must keep.

    Raises:
      ValueError: a share outside (0, 1], or an unknown `how`.

    Source: after Li, Tao, Niu and Li (ICPR 2020, arXiv 2006.10132).

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import class_scorer, grow_set, intervention_effects, latent_axes
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> classes = class_scorer(lambda images: 4 * images.mean((1, 2)), ["red", "green", "blue"])
    >>> latents = model.sample(jax.random.key(0), 4)
    >>> axes = latent_axes(model.sample(jax.random.key(1), 64))
    >>> ranking = intervention_effects(model, classes, latents, axes).ranking(concept=0)
    >>> grown = grow_set(model, classes, latents, axes, 0, ranking)
    >>> grown.order[: grown.size].tolist(), grown.signs[: grown.size].tolist()  # red up, green down
    ([0, 1], [1, -1])
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


def growth_of(
    model: LatentModel,
    concepts: Scorer,
    latents: Array,
    coordinates: Coordinates,
    concept: int,
    grown: GrownSet,
    *,
    extreme: float = EXTREME,
    how: How = "shift",
) -> np.ndarray:
    """`GrownSet.growth`, [S], at latents [N, D] that had no part in choosing the set.

    Arguments are those of `grow_set`.
    """
    means = []
    for size in range(len(grown.order) + 1):
        signed = signed_vector(coordinates.count, grown.order[:size], grown.signs[:size])
        # one at a time, so that one compiled program serves sets of every size
        seen = joint_scores(model, concepts, latents, coordinates, signed[None], extreme, how)
        means.append(np.asarray(probability(jnp.asarray(seen[:, 0, concept]))).mean(dtype=float))
    return np.array(means[1:]) - means[0]


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
        scores = traced_scores(
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
