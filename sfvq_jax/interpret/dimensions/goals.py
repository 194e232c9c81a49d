"""From which latents to which concept, and what was found to control that.

Letters: D dimensions, M coordinates.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.interpret.attributes import Scorer
from sfvq_jax.interpret.dimensions.growth import GrownSet
from sfvq_jax.interpret.dimensions.importance import Ranking, signed_vector
from sfvq_jax.interpret.dimensions.masks import mask_ranking
from sfvq_jax.interpret.dimensions.sparsity import overlap
from sfvq_jax.interpret.directions import Bench
from sfvq_jax.short import short_repr

Array = jax.Array

DRAWN = 2**13  # latents at most, to look for those of each source
DRAWN_AT_ONCE = 2**10


class Found(NamedTuple):
    """The coordinates that control a goal: to take latents from a source to a target.

    Attributes:
      source: what the latents are: a class, or "no …" for an attribute.
      target: the concept to raise.
      ranking: ranking of all coordinates by their own effects on the target.
      grown: the set that grew along the ranking; the first `grown.size` of its order belong to it.
      growth: mean change of the target's probability by the first 1 … S of that order together, by
        the scorer that finds, on latents that did not choose them, [S].
      mask: optimised mask, [M], or None.
    """

    source: str
    target: str
    ranking: Ranking
    grown: GrownSet
    growth: np.ndarray
    mask: np.ndarray | None

    __repr__ = short_repr

    @property
    def dimensions(self) -> np.ndarray:
        """The coordinates of the set, the most important first."""
        return self.grown.order[: self.grown.size]

    @property
    def signed(self) -> np.ndarray:
        """The set as a vector over all coordinates, [M]: ±1, the others 0."""
        grown = self.grown
        return signed_vector(len(self.ranking.order), self.dimensions, grown.signs[: grown.size])

    @property
    def overlap(self) -> float | None:
        """Jaccard's index of this set and as many coordinates of the mask, those of largest |s|."""
        if self.mask is None:
            return None
        return overlap(self.dimensions, mask_ranking(self.mask).order[: self.grown.size])


def latents_of(
    key: Array, bench: Bench, scorer: Scorer, sources: Sequence[str], count: int, exclusive: bool
) -> dict[str, Array]:
    """`count` latents [count, D] of each source, by a scorer; without those that have too few."""
    names, pools = list(scorer.names), {source: [] for source in sources}
    for round_key in jax.random.split(key, DRAWN // DRAWN_AT_ONCE):
        drawn = bench.model.sample(round_key, DRAWN_AT_ONCE)
        (scores,) = bench.look(drawn, scorer)
        for source, pool in pools.items():
            if exclusive:
                rows = scores.argmax(1) == names.index(source)
            else:
                rows = scores[:, names.index(attribute_of(source))] < 0
            pool.append(np.asarray(drawn)[rows])
        if all(sum(map(len, pool)) >= count for pool in pools.values()):
            break
    joined = {source: np.concatenate(pool)[:count] for source, pool in pools.items()}
    return {source: jnp.asarray(pool) for source, pool in joined.items() if len(pool) == count}


def goals_of(
    names: Sequence[str], sources: Sequence[str] | None, targets: Sequence[str], exclusive: bool
) -> list[tuple[str, str]]:
    """Pairs of source and target."""
    for name in [*(sources or ()), *targets]:
        if name not in names:
            raise ValueError(f"there is no concept {name!r}; both scorers have {', '.join(names)}")
    if not exclusive:
        if sources is not None:
            raise ValueError(
                "attributes that do not exclude each other have no sources: every image without"
                " the target is one"
            )
        return [(f"no {target}", target) for target in targets]
    goals = [(a, b) for a in sources or names for b in targets if a != b]
    if not goals:
        raise ValueError("there is nothing to go to: ask for a target that is not the source")
    return goals


def attribute_of(source: str) -> str:
    return source.removeprefix("no ")
