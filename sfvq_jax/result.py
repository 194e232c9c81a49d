"""What a fit gives, and what a user should be told about it."""

from typing import NamedTuple

import numpy as np

from sfvq_jax.curve import Curve
from sfvq_jax.history import History
from sfvq_jax.quality import (
    TRUSTWORTHINESS_NEIGHBOURS,
    continuity,
    pairwise_distances,
    trustworthiness,
)
from sfvq_jax.rows.source import Far
from sfvq_jax.short import short_repr

GOOD = 0.8  # of use and order, see below; what is less is told
FEWEST_ORDERED = 8  # codewords; the order of fewer says little
ORDERED_CODEWORDS = 2048  # the order of more takes long to measure
FEW = 0.5  # share of the lines; fewer in use are told
MOST = 0.5  # share of the distortion; more of one row is told
MANY = 100  # samples; of fewer one may well have most
OUTSIDE = 1e-4  # share of the variance outside the span that is told


class FitResult(NamedTuple):
    """A fitted curve and the record of its fit.

    Attributes:
      curve: the curve, with K codewords.
      history: one entry for each round.
      converged: for each stage, whether it ended because a round gained little, and not because all
        rounds were done.
      dead: number of dead codewords: nearest to no measuring sample.
      measured_on: description of the measuring samples, such as "8192 latents held out of the
        rounds".
      rank: dimension of the span that the curve was fitted in; None means all dimensions.
      outside: share of the latents' variance outside that span.
      warnings: a sentence for each problem that a user should know.
    """

    curve: Curve
    history: History
    converged: tuple[bool, ...]
    dead: int
    measured_on: str
    rank: int | None
    outside: float
    warnings: tuple[str, ...]

    __repr__ = short_repr


def warnings_of(
    codewords: np.ndarray,
    load: np.ndarray,
    use: np.ndarray,
    *,
    converged: list[bool],
    sizes: list[int],
    rounds: int,
    judged: bool,
    rank: int | None,
    outside: float,
    distinct: int,
    far: Far | None,
    worst: tuple[float, int | None],
) -> tuple[str, ...]:
    """Sentences about a curve, none where all is well.

    Args:
      codewords: [K, D].
      load: weight of the samples whose nearest codeword is each, [K].
      use: weight of the samples on each line, [K - 1].
      converged: of each stage.
      sizes: its codewords.
      rounds: of a stage, at most.
      judged: whether a stage may end before that, so that one that does not is worth a word.
      rank: dimensions of the span, or None.
      outside: share of the variance outside of it.
      distinct: how many measuring samples differ, K if no fewer do.
      far: rows far from all others, if any.
      worst: the largest share of the distortion that one row has, and its number, if it has one;
        0 where the samples are few.
    """
    found = []
    k, dead = len(load), int((load == 0).sum())
    if far is not None:
        found.append(_far(far))
    share, row = worst
    if share > MOST and (far is None or row not in far.rows):
        which = "one measuring sample" if row is None else f"row {row}"
        found.append(
            f"{which} alone has {100 * share:.3g} % of the distortion, so far is it from the curve:"
            " look whether it belongs to the others"
        )
    if distinct < k:
        found.append(
            f"only {distinct} of the measuring samples are different, fewer than the {k} codewords:"
            " fit fewer bits, or latents that repeat less"
        )
    if dead:
        found.append(
            f"{dead} of {k} codewords are dead: they are the nearest codeword of no measuring"
            " sample; fit fewer bits, or more samples"
        )
    found.extend([*_evenness(load, use), *_order(codewords[load > 0])])
    unfinished = [size for size, done in zip(sizes, converged, strict=True) if not done]
    if judged and unfinished:
        many = ", ".join(map(str, unfinished))
        found.append(
            f"the stage of {many} codewords still gained after {rounds} rounds: allow more rounds,"
            " or more samples a round"
        )
    if outside > OUTSIDE:
        found.append(
            f"{100 * outside:.2g} % of the variance lies outside of the {rank} dimensions that the"
            " first samples span, where the curve does not go: shuffle the latents"
        )
    return tuple(found)


def _far(far: Far) -> str:
    one = len(far.rows) == 1
    rows = f"row {far.rows[0]} is an outlier" if one else f"rows {far.rows} are outliers"
    return (
        f"{rows}: of all squared distance from the middle of the latents {100 * far.share:.4g} % is"
        f" {'its' if one else 'theirs'}, so that the curve goes there; remove"
        f" {'it if it does' if one else 'them if they do'} not belong"
    )


def _evenness(load: np.ndarray, use: np.ndarray) -> list[str]:
    """Whether few codewords or lines are used."""
    codewords, lines = (_effective(weights) for weights in (load, use))
    if lines < FEW * len(use):
        return [f"few lines are used: of {len(use)} only about {lines:.0f} are in even use"]
    if codewords < GOOD * len(load):
        return [f"of {len(load)} codewords only about {codewords:.0f} are in even use"]
    return []


def _effective(weights: np.ndarray) -> float:
    """How many are in effect used: exp of the entropy of their shares."""
    share = weights / weights.sum()
    return float(np.exp(-np.sum(share * np.log(np.where(share > 0, share, 1)))))


def _order(living: np.ndarray) -> list[str]:
    """The lesser of two shares, if it is low; of the codewords [L, D] that live."""
    if not FEWEST_ORDERED <= len(living) <= ORDERED_CODEWORDS:
        return []
    distances = pairwise_distances(living.astype(np.float64))
    neighbours = min(TRUSTWORTHINESS_NEIGHBOURS, (len(living) - 1) // 2)
    trust, whole = (m(distances, neighbours) for m in (trustworthiness, continuity))
    if min(trust, whole) >= GOOD:
        return []
    if trust < whole:
        return [f"what is near on the curve need not be alike (trustworthiness {trust:.2f})"]
    return [f"what is alike is scattered over the curve (continuity {whole:.2f})"]
