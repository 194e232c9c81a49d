"""Runs of `translate` in a few numbers: each way over all goals, and how unequal coordinates are.

Letters: M coordinates, C concepts.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sfvq_jax.interpret.dimensions.moves import RANDOM, Move
from sfvq_jax.interpret.dimensions.sparsity import gini, hoyer
from sfvq_jax.interpret.dimensions.translation import Translation
from sfvq_jax.interpret.intervals import Interval, interval


class WaySummary(NamedTuple):
    """Summary of a way over all goals: means, with 95 % intervals if there are several runs.

    Attributes:
      way: one of `WAYS`.
      size, flipped, astray, raised, damage, inside: see `Move`; None if they are None there.
      ratio: share of flipped images ÷ that of random sets of the same size; None if those flip
        none.
    """

    way: str
    size: Interval
    flipped: Interval
    ratio: Interval | None
    astray: Interval | None
    raised: Interval
    damage: Interval | None
    inside: Interval


class Concentration(NamedTuple):
    """Concentration of effects on few coordinates: means over goals, with intervals over runs.

    Attributes:
      gini, hoyer: sparsity of the coordinates' own effects on a goal; negative effects count as 0.
      size: size of the sets.
      share_of_one: mean effect of the most important coordinate alone ÷ mean of the largest joint
        effect, over goals, on fresh latents.
      overlap: see `Found`; None without masks.
      overlap_by_chance: overlap of two random sets of these sizes; None without masks.
    """

    gini: Interval
    hoyer: Interval
    size: Interval
    share_of_one: Interval
    overlap: Interval | None
    overlap_by_chance: Interval | None


def translation_summary(runs: Sequence[Translation]) -> list[WaySummary]:
    """Summarises runs that differ only by their key: a row for each way.

    Args:
      runs: results of `translate`, one or more; with several, intervals are over the runs.

    >>> from sfvq_jax.interpret import Move, Translation, translation_summary
    >>> moves = [Move("sequential", "red", "blue", 2, 0.75, 0.0, 0.6, 0.1, 0.9),
    ...          Move("random", "red", "blue", 2, 0.25, 0.2, 0.1, 0.2, 0.9)]
    >>> run = Translation(None, ("red", "blue"), {}, [], moves, {}, None, {})  # of `translate`
    >>> [(row.way, row.flipped.mean, row.ratio.mean) for row in translation_summary([run])]
    [('sequential', 0.75, 3.0), ('random', 0.25, 1.0)]
    """
    rows = []
    for way in dict.fromkeys(move.way for move in runs[0].moves):
        means = {
            field: _over_runs(
                [[getattr(m, field) for m in run.moves if m.way == way] for run in runs]
            )
            for field in Move._fields[3:]
        }
        ratios = [_flipped(run, way) / max(_flipped(run, RANDOM), 1e-12) for run in runs]
        certain = all(_flipped(run, RANDOM) > 0 for run in runs)
        ratio = _over_runs([[value] for value in ratios]) if certain else None
        rows.append(WaySummary(way=way, ratio=ratio, **means))
    return rows


def concentration(runs: Sequence[Translation]) -> Concentration:
    """Measures how few coordinates have most of the effect, in runs that differ only by key.

    Args:
      runs: results of `translate`, one or more; with several, intervals are over the runs.

    Sources: Gini's index as in Hurley and Rickard, 2009 (arXiv 0811.4706); Hoyer, JMLR 2004, §3.1.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from sfvq_jax.interpret import Found, GrownSet, Ranking, Translation
    >>> from sfvq_jax.interpret import concentration, latent_axes
    >>> order, signs = np.array([1, 0]), np.array([1, -1])
    >>> growth = np.array([0.4, 0.5])
    >>> found = Found(
    ...     "red", "blue", Ranking(order, signs, sizes=np.array([3.0, 1.0])),
    ...     GrownSet(order, signs, growth, size=2), growth, mask=None)
    >>> axes = latent_axes(jnp.array([[0.0, 4.0], [2.0, 0.0]]))
    >>> run = Translation(axes, ("red", "blue"), {}, [found], [], {}, None, {})  # of `translate`
    >>> told = concentration([run])
    >>> told.gini.mean, told.size.mean, told.share_of_one.mean
    (0.25, 2.0, 0.8)
    """
    m = runs[0].coordinates.count
    sizes = [[np.maximum(found.ranking.sizes, 0) for found in run.found] for run in runs]
    chance = [[f.mask is not None and _overlap_by_chance(f.grown.size, m) for f in run.found]
              for run in runs]  # fmt: skip
    masks = runs[0].found[0].mask is not None
    return Concentration(
        gini=_over_runs([gini(np.stack(of_run)) for of_run in sizes]),
        hoyer=_over_runs([hoyer(np.stack(of_run)) for of_run in sizes]),
        size=_over_runs([[found.grown.size for found in run.found] for run in runs]),
        share_of_one=_over_runs([[_share_of_one(run)] for run in runs]),
        overlap=_over_runs([[f.overlap for f in run.found] for run in runs]),
        overlap_by_chance=_over_runs(chance) if masks else None,
    )


def flip_matrix(runs: Sequence[Translation], way: str) -> np.ndarray:
    """Computes the shares of images that flip from each concept (row) to each other, [C, C].

    Args:
      runs: results of `translate`.
      way: a way of `Move`, such as "sequential".

    Returns:
      Shares over all runs, float64, from 0 to 1; NaN if there is no such goal.

    >>> from sfvq_jax.interpret import Move, Translation, flip_matrix
    >>> moves = [Move("sequential", "red", "blue", 2, 0.75, 0.0, 0.6, 0.1, 0.9),
    ...          Move("random", "red", "blue", 2, 0.25, 0.2, 0.1, 0.2, 0.9)]
    >>> run = Translation(None, ("red", "blue"), {}, [], moves, {}, None, {})  # of `translate`
    >>> flip_matrix([run], "sequential").tolist()
    [[nan, 0.75], [nan, nan]]
    """
    names = runs[0].concepts
    matrix = np.full((len(runs), len(names), len(names)), np.nan)
    for run, of_run in zip(runs, matrix, strict=True):
        for move in run.moves:
            if move.way == way:
                of_run[names.index(move.source), names.index(move.target)] = move.flipped
    return matrix.mean(0)


def _flipped(run: Translation, way: str) -> float:
    return float(np.mean([move.flipped for move in run.moves if move.way == way]))


def _over_runs(values: Sequence[Sequence[Any] | np.ndarray]) -> Any:
    """The interval of each run's mean; of one run, the mean alone; None where values are None."""
    if any(value is None for of_run in values for value in of_run):
        return None
    means = np.array([np.mean(of_run) for of_run in values])
    return interval(means) if len(means) > 1 else Interval(*[float(means[0])] * 3)


def _share_of_one(run: Translation) -> float:
    """Of sums over goals, since a set that raises nothing would have a share of any size."""
    growths = [np.maximum(found.growth, 0) for found in run.found]
    greatest = sum(float(growth.max()) for growth in growths)
    return sum(float(growth[0]) for growth in growths) / greatest if greatest > 0 else 0.0


def _overlap_by_chance(size: int, m: int) -> float:
    """Expected Jaccard's index of two random sets of this size, to first order."""
    common = size**2 / m
    return common / (2 * size - common)
