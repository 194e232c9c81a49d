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

GOOD = 0.8  # of the three shares below; what is less is told
FEWEST_ORDERED = 8  # codewords; the order of fewer says little
ORDERED_CODEWORDS = 2048  # the order of more takes long to measure
OUTSIDE = 1e-4  # share of the variance outside the span that is told


class FitResult(NamedTuple):
    """A fitted curve and how it came about.

    Attributes:
      curve: K codewords.
      history: one entry a round.
      converged: of each stage, whether its last round gained little; else all rounds were done.
      dead: codewords that are the nearest one of no measuring sample.
      measured_on: what the measuring samples are, such as "8192 latents held out of the rounds".
      rank: dimensions of the span that the curve was fitted in; None: all.
      outside: share of the latents' variance outside of it.
      warnings: a sentence for each thing that a user should know.
    """

    curve: Curve
    history: History
    converged: tuple[bool, ...]
    dead: int
    measured_on: str
    rank: int | None
    outside: float
    warnings: tuple[str, ...]


def warnings_of(
    codewords: np.ndarray,
    load: np.ndarray,
    *,
    converged: list[bool],
    sizes: list[int],
    rounds: int,
    judged: bool,
    rank: int | None,
    outside: float,
) -> tuple[str, ...]:
    """Sentences about a curve, none where all is well.

    Args:
      codewords: [K, D].
      load: weight of the samples whose nearest codeword is each, [K].
      converged: of each stage.
      sizes: its codewords.
      rounds: of a stage, at most.
      judged: whether a stage may end before that, so that one that does not is worth a word.
      rank: dimensions of the span, or None.
      outside: share of the variance outside of it.
    """
    found = []
    k, dead = len(load), int((load == 0).sum())
    if dead:
        found.append(
            f"{dead} of {k} codewords are dead: they are the nearest codeword of no measuring"
            " sample; fit fewer bits, or more samples"
        )
    found.extend(_order(codewords, load))
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


def _order(codewords: np.ndarray, load: np.ndarray) -> list[str]:
    """The least of three shares, if it is low; the order is that of the living codewords."""
    share = load / load.sum()
    entropy = -np.sum(share * np.log(np.where(share > 0, share, 1)))
    shares = {
        f"of {len(load)} codewords only about {np.exp(entropy):.0f} are in even use": float(
            np.exp(entropy) / len(load)
        )
    }
    living = codewords[load > 0]
    if FEWEST_ORDERED <= len(living) <= ORDERED_CODEWORDS:
        distances = pairwise_distances(living.astype(np.float64))
        neighbours = min(TRUSTWORTHINESS_NEIGHBOURS, (len(living) - 1) // 2)
        trust, whole = (m(distances, neighbours) for m in (trustworthiness, continuity))
        shares |= {
            f"what is near on the curve need not be alike (trustworthiness {trust:.2f})": trust,
            f"what is alike is scattered over the curve (continuity {whole:.2f})": whole,
        }
    told, least = min(shares.items(), key=lambda item: item[1])
    if least >= GOOD:
        return []
    return [told]
