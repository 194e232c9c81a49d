"""The fast screen of all candidate directions: exact derivatives of attributes by latents.

The derivative of an attribute along a direction in some layers is the inner product of its vector
with the attribute's gradient, summed over these layers. A gradient for each attribute and latent,
by reverse mode, so gives what a forward derivative for each of thousands of candidates would.

Letters: N latents, A attributes, L layers, D dimensions, K codewords.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.curve import Curve
from sfvq_jax.images import batch_of, in_batches
from sfvq_jax.interpret.attributes import Scorer
from sfvq_jax.interpret.editing import Direction, codes_of
from sfvq_jax.latent_model import LatentModel, method

Array = jax.Array

GRADIENT_BATCH = 32
MAX_PAIRS_CODEWORDS = 1024  # beyond, only lines are candidates: pairs would be millions
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


def attribute_gradients(
    model: LatentModel, scorer: Scorer, latents: Array, *, batch: int | None = None
) -> np.ndarray:
    """Gradients of every attribute by every layer's code, [N, A, L, D] float32.

    Args:
      model: whose `render` is differentiable.
      scorer: written in JAX.
      latents: [N, D].
      batch: latents at once, at most; by default up to 32, fewer where images are large.

    Raises:
      ValueError: a scorer or `render` that JAX cannot trace.
    """
    render = method(model, "render")
    batch = batch_of(model, GRADIENT_BATCH) if batch is None else batch
    attributes = range(len(scorer.names))

    def gradients(part: Array) -> np.ndarray:
        codes = codes_of(part, model.num_layers)
        return np.stack([_gradient(render, scorer, codes, a) for a in attributes], 1)

    try:
        return in_batches(gradients, latents, batch)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
        raise ValueError(
            "directions are found by derivatives, so the scorer that finds and the model's render"
            " must be written in JAX; a function of other arrays can judge"
        ) from error


@jax.jit
def _gradient(
    render: jax.tree_util.Partial, scorer: Scorer, codes: Array, attribute: Array
) -> Array:
    """Of one attribute, so that one compiled program serves all and little is kept in memory."""
    return jax.grad(lambda codes: scorer(render(codes))[:, attribute].sum())(codes)


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
      For each of the columns at most `count` candidates between different codewords, best first.
    """
    codewords = np.asarray(curve.codewords, np.float64)
    along = np.einsum("ald,kd->lak", gradients.mean(0, dtype=np.float64), codewords)
    below = np.concatenate([np.zeros_like(along[:1]), np.cumsum(along, 0)])
    starts, stops = _pairs(len(codewords)) if pairs else _lines(len(codewords))
    unit = _deviation_by_length(codewords, starts, stops, covariance)

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


def layer_ranges(num_layers: int) -> list[tuple[int, int]]:
    """All of them, first and last layer, both included."""
    return [(first, last) for first in range(num_layers) for last in range(first, num_layers)]


def _between(starts: np.ndarray, stops: np.ndarray, ranked: _Ranked) -> Candidate:
    start, stop = int(starts[ranked.number]), int(stops[ranked.number])
    ends = (start, stop) if ranked.sign > 0 else (stop, start)
    return Candidate(ends, ranked.layers, ranked.score)


def layers_price(layers: tuple[int, int], num_layers: int) -> float:
    """A twentieth off for all layers, nothing for one: of ranges alike, the narrowest is taken."""
    first, last = layers
    return 1 - 0.05 * (last - first) / max(num_layers - 1, 1)


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
    starts, stops = _pairs(len(scores)) if pairs else _lines(len(scores))
    codewords = np.asarray(curve.codewords, np.float64)
    effects = (scores[stops] - scores[starts]).T
    effects = effects * _deviation_by_length(codewords, starts, stops, covariance)
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


def _pairs(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Codewords that all candidates come from and go to."""
    return np.triu_indices(k, 1) if k <= MAX_PAIRS_CODEWORDS else _lines(k)


def _lines(k: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(k - 1), np.arange(1, k)


def _deviation_by_length(
    codewords: np.ndarray, starts: np.ndarray, stops: np.ndarray, covariance: np.ndarray
) -> np.ndarray:
    """Deviation of latents along each step between codewords, ÷ the length of the step."""
    product = codewords @ covariance @ codewords.T
    spread = _squared_step(product, starts, stops)
    squared_length = _squared_step(codewords @ codewords.T, starts, stops)
    return np.sqrt(np.maximum(spread, 0)) / np.maximum(squared_length, 1e-12)


def _squared_step(products: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    own = np.diagonal(products)
    return own[starts] + own[stops] - 2 * products[starts, stops]


def _agreeing(
    ranked: list[_Ranked],
    gradients: np.ndarray,
    step: Callable[[_Ranked], np.ndarray],
    count: int,
) -> list[_Ranked]:
    """The best, once it is looked at how many latents an attribute's gradients [N, L, D] agree."""
    again = []
    for candidate in sorted(ranked, key=lambda c: -c.score)[:LOOKED_AT]:
        first, last = candidate.layers
        changes = gradients[:, first : last + 1].sum(1) @ (candidate.sign * step(candidate))
        agree = float((changes > 0).mean())
        again.append(candidate._replace(score=candidate.score * (2 * agree - 1)))
    again.sort(key=lambda c: -c.score)
    different: dict[tuple[int, int], _Ranked] = {}
    for candidate in again:
        different.setdefault((candidate.number, candidate.sign), candidate)
    return list(different.values())[:count]
