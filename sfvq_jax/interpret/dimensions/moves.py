"""What moving the coordinates of a goal does to fresh latents, beside random ones and beside all.

Letters: N latents, M coordinates, C concepts.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.interpret.attributes import probability
from sfvq_jax.interpret.dimensions.coordinates import Coordinates, How, intervene
from sfvq_jax.interpret.dimensions.goals import Found
from sfvq_jax.interpret.dimensions.masks import mask_ranking
from sfvq_jax.interpret.directions import Bench
from sfvq_jax.interpret.work import Work

Array = jax.Array

MOVES = "moves of a goal"

SEQUENTIAL, MASK, WHOLE_MASK, RANDOM, RANDOM_SIGNED, ALL = WAYS = (
    "sequential",
    "mask",
    "whole mask",
    "random",
    "random, signs found",
    "all",
)


class Move(NamedTuple):
    """Effect of moving coordinates on fresh latents of a source, by the judge.

    Attributes:
      way: way to choose the coordinates, one of `WAYS`. Random sets differ for each latent; their
        signs are random or those of the coordinates' own effects.
      source, target: see `Found`.
      size: number of coordinates.
      flipped: share of images that become the target.
      astray: share of images that become neither source nor target; None for attributes that do not
        exclude each other.
      raised: mean change of the target's probability.
      damage: mean absolute change of the probabilities of concepts that are neither source nor
        target; None where there are none.
      inside: share of images within the distribution (`Inside`).
    """

    way: str
    source: str
    target: str
    size: int
    flipped: float
    astray: float | None
    raised: float
    damage: float | None
    inside: float


def measured_moves(
    generator: np.random.Generator,
    bench: Bench,
    coordinates: Coordinates,
    fresh: Mapping[str, Array],
    found: Sequence[Found],
    extreme: float,
    how: How,
    exclusive: bool,
    work: Work,
) -> list[Move]:
    """All ways of all goals, measured, each goal a part of the work of kind `MOVES`."""

    def seen_before(source: str) -> np.ndarray:
        return bench.look(fresh[source], bench.judge)[0]

    before = functools.cache(seen_before)

    def of_goal(goal: Found, drawn: Mapping[str, tuple[np.ndarray, int]]) -> list[Move]:
        latents, moves = fresh[goal.source], []
        for way, (signed, size) in drawn.items():
            moved = intervene(latents, coordinates, jnp.asarray(signed), extreme, how)
            scores, *seen = bench.look(moved, bench.judge, *bench.kinds)
            moves.append(
                Move(
                    way,
                    goal.source,
                    goal.target,
                    size,
                    *_measured(bench.judge.names, goal, before(goal.source), scores, exclusive),
                    inside=float(bench.inside(seen).mean()),
                )
            )
        return moves

    moves = []
    for goal in found:
        drawn = {  # of goals that are done as well, so that the others get the same
            way: _signed(generator, way, goal, len(fresh[goal.source]))
            for way in WAYS
            if goal.mask is not None or way not in (MASK, WHOLE_MASK)
        }
        name = f"moves from {goal.source} to {goal.target}"
        moves += work.part(MOVES, name, functools.partial(of_goal, goal, drawn))
    return moves


def _signed(
    generator: np.random.Generator, way: str, goal: Found, n: int
) -> tuple[np.ndarray, int]:
    """Which coordinates of each latent a way moves, [n, M], and how many they are."""
    size, m = goal.grown.size, len(goal.ranking.order)
    if way in (RANDOM, RANDOM_SIGNED):
        chosen = generator.permuted(np.tile(np.arange(m) < size, (n, 1)), axis=1)
        signs = generator.choice([-1.0, 1.0], (n, m))
        if way == RANDOM_SIGNED:
            signs = goal.ranking.signed(m)[None]
        return (chosen * signs).astype(np.float32), size
    if way == ALL:
        signed, size = goal.ranking.signed(m), m
    elif way == SEQUENTIAL:
        signed = goal.signed
    else:
        assert goal.mask is not None
        signed = goal.mask if way == WHOLE_MASK else mask_ranking(goal.mask).signed(size)
        size = m if way == WHOLE_MASK else size
    return np.tile(signed, (n, 1)), size


def _measured(
    names: Sequence[str], goal: Found, before: np.ndarray, after: np.ndarray, exclusive: bool
) -> tuple[float, float | None, float, float | None]:
    """What is flipped, astray, raised and damaged, of scores [N, C] before and after."""
    column = names.index(goal.target)
    change = np.asarray(probability(jnp.asarray(after)) - probability(jnp.asarray(before)))
    others = [i for i, name in enumerate(names) if name not in (goal.source, goal.target)]
    seen = after.argmax(1)
    return (
        float((seen == column if exclusive else after[:, column] > 0).mean()),
        float(np.isin(seen, others).mean()) if exclusive else None,
        float(change[:, column].mean()),
        float(np.abs(change[:, others]).mean()) if others else None,
    )
