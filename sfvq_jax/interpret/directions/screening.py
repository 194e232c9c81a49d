"""The fast screen of all candidate directions, by derivatives or by the images of codewords.

Letters: N latents, A attributes, L layers, D dimensions, K codewords, M vectors.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from sfvq_jax.curve import Curve
from sfvq_jax.interpret.directions.candidates import (
    all_lines,
    all_pairs,
    deviation_by_length,
    layer_ranges,
    layers_price,
)
from sfvq_jax.interpret.edit import Direction

OF_A_RANGE = 3  # candidates of the same layers come before others of them
LOOKED_AT = 100  # of each attribute's best candidates, whether their sign is that of every latent


class Candidate(NamedTuple):
    """A direction that moves an attribute, by the screen.

    Attributes:
      codewords: it goes from the first to the second; neighbours make a line of the curve.
      layers: first and last layer of the range.
      score: what it was chosen by (`search`).
    """

    codewords: tuple[int, int]
    layers: tuple[int, int]
    score: float


def search(
    curve: Curve,
    gradients: np.ndarray,
    columns: Sequence[int],
    covariance: np.ndarray,
    *,
    count: int,
    pairs: bool = True,
) -> list[list[Candidate]]:
    """The best candidates for some attributes: over lines or all pairs, and all layer ranges.

    With e the mean derivatives of all attributes along a candidate, at one standard deviation of
    the latents along it, the score for attribute a is e_a²/|e|: large where a changes much and
    nothing else does; times `layers_price`. The best by it are then ranked by score × (2 q - 1),
    with q the share of latents at which a rises.

    Args:
      curve: K codewords.
      gradients: of attributes in comparable units, [N, A, L, D].
      columns: the attributes to search for, indices below A.
      covariance: of latents, [D, D].
      count: how many candidates to give each.
      pairs: whether any two codewords are a candidate; else neighbours alone, the lines.

    Returns:
      For each of the columns at most `count` candidates, spread over ranges of layers and pairs of
      codewords, best first.
    """
    codewords = np.asarray(curve.codewords, np.float64)
    along = np.einsum("ald,kd->lak", gradients.mean(0, dtype=np.float64), codewords)
    below = np.concatenate([np.zeros_like(along[:1]), np.cumsum(along, 0)])
    starts, stops = all_pairs(len(codewords)) if pairs else all_lines(len(codewords))
    unit = deviation_by_length(codewords, starts, stops, covariance)

    def effects(layers: tuple[int, int]) -> np.ndarray:
        of_range = below[layers[1] + 1] - below[layers[0]]  # [A, K]
        return (of_range[:, stops] - of_range[:, starts]) * unit

    def step(ranked: _Ranked) -> np.ndarray:
        return codewords[stops[ranked.number]] - codewords[starts[ranked.number]]

    best = _search(gradients, columns, layer_ranges(gradients.shape[2]), effects, step, count)
    return [[_between(starts, stops, ranked) for ranked in of_column] for of_column in best]


def search_vectors(
    vectors: Mapping[tuple[int, int], np.ndarray],
    deviations: Mapping[tuple[int, int], np.ndarray],
    gradients: np.ndarray,
    columns: Sequence[int],
    *,
    count: int,
) -> list[list[Direction]]:
    """As `search`, among unit vectors [M, D] by the layer range that they are for.

    Args:
      vectors: [M, D] for each range.
      deviations: of the latents along them, [M] for each range.
      gradients, columns, count: see `search`.

    Returns:
      For each of the columns at most `count` directions that raise the attribute, best first; their
      unit is one standard deviation of the latents along them.
    """
    mean = gradients.mean(0, dtype=np.float64)

    def effects(layers: tuple[int, int]) -> np.ndarray:
        of_range = mean[:, layers[0] : layers[1] + 1].sum(1)  # [A, D]
        return of_range @ vectors[layers].T * deviations[layers]

    def step(ranked: _Ranked) -> np.ndarray:
        return vectors[ranked.layers][ranked.number]

    def direction(ranked: _Ranked) -> Direction:
        unit = float(deviations[ranked.layers][ranked.number])
        return Direction(jnp.asarray(ranked.sign * step(ranked), jnp.float32), ranked.layers, unit)

    best = _search(gradients, columns, list(vectors), effects, step, count)
    return [[direction(ranked) for ranked in of_column] for of_column in best]


def search_reached(
    curve: Curve,
    scores: np.ndarray,
    columns: Sequence[int],
    covariance: np.ndarray,
    *,
    num_layers: int,
    count: int,
    pairs: bool = True,
) -> list[list[Candidate]]:
    """Candidates that end where an attribute is had, which derivatives far from there do not see.

    As `search`, with differences of the scores at both codewords in place of derivatives. They tell
    nothing of layers: candidates come with the first three quarters of them.

    Args:
      curve: K codewords.
      scores: of the codewords' images, in comparable units, [K, A].
      columns: the attributes to search for, indices below A.
      covariance: of latents, [D, D].
      num_layers: L.
      count: how many candidates to give each.
      pairs: see `search`.
    """
    starts, stops = all_pairs(len(scores)) if pairs else all_lines(len(scores))
    codewords = np.asarray(curve.codewords, np.float64)
    effects = (scores[stops] - scores[starts]).T
    effects = effects * deviation_by_length(codewords, starts, stops, covariance)
    sizes = np.maximum(np.linalg.norm(effects, axis=0), 1e-30)
    layers = (0, -(-3 * num_layers // 4) - 1)
    found = []
    for column in columns:
        merit = effects[column] ** 2 / sizes
        candidates = []
        for c in np.argsort(-merit, kind="stable")[:count]:
            sign = 1 if effects[column, c] > 0 else -1
            candidates.append(_between(starts, stops, _Ranked(int(c), sign, layers, merit[c])))
        found.append(candidates)
    return found


class _Ranked(NamedTuple):
    """A candidate by its number, the sign with which it raises an attribute, and its score."""

    number: int
    sign: int
    layers: tuple[int, int]
    score: float


def _search(
    gradients: np.ndarray,
    columns: Sequence[int],
    ranges: Sequence[tuple[int, int]],
    effects: Callable[[tuple[int, int]], np.ndarray],
    step: Callable[[_Ranked], np.ndarray],
    count: int,
) -> list[list[_Ranked]]:
    """The best for every column, of what `effects` [A, M] says of the candidates in a range."""
    best: list[list[_Ranked]] = [[] for _ in columns]
    for layers in ranges:
        of_range = effects(layers)
        sizes = np.maximum(np.linalg.norm(of_range, axis=0), 1e-30)
        price = layers_price(layers, gradients.shape[2])
        for ranked, column in zip(best, columns, strict=True):
            effect = of_range[column]
            score = price * effect**2 / sizes
            for c in np.argsort(-score, kind="stable")[:LOOKED_AT]:
                sign = 1 if effect[c] > 0 else -1
                ranked.append(_Ranked(int(c), sign, layers, float(score[c])))
    return [
        _agreeing(ranked, gradients[:, column], step, count)
        for ranked, column in zip(best, columns, strict=True)
    ]


def _between(starts: np.ndarray, stops: np.ndarray, ranked: _Ranked) -> Candidate:
    start, stop = int(starts[ranked.number]), int(stops[ranked.number])
    ends = (start, stop) if ranked.sign > 0 else (stop, start)
    return Candidate(ends, ranked.layers, ranked.score)


def _agreeing(
    ranked: list[_Ranked],
    gradients: np.ndarray,
    step: Callable[[_Ranked], np.ndarray],
    count: int,
) -> list[_Ranked]:
    """The best, once it is looked at how many latents an attribute's gradients [N, L, D] agree."""
    ranked = sorted(ranked, key=lambda c: -c.score)
    looked_at = [*ranked[:LOOKED_AT], *_spread(ranked[LOOKED_AT:])]
    again = []
    for candidate in looked_at:
        first, last = candidate.layers
        changes = gradients[:, first : last + 1].sum(1) @ (candidate.sign * step(candidate))
        agree = float((changes > 0).mean())
        again.append(candidate._replace(score=candidate.score * (2 * agree - 1)))
    again.sort(key=lambda c: -c.score)
    different: dict[tuple[int, int], _Ranked] = {}
    for candidate in again:
        different.setdefault((candidate.number, candidate.sign), candidate)
    ones, others = list(different.values()), _spread(again)
    order = [*_spread(ones), *others, *ones]
    chosen = list(dict.fromkeys(order))[:count]
    return sorted(chosen, key=lambda c: -c.score)


def _spread(ranked: list[_Ranked]) -> list[_Ranked]:
    """Of each range of layers the first few."""
    of_range: dict[tuple[int, int], int] = {}
    chosen = []
    for candidate in ranked:
        of_range[candidate.layers] = of_range.get(candidate.layers, 0) + 1
        if of_range[candidate.layers] <= OF_A_RANGE:
            chosen.append(candidate)
    return chosen
