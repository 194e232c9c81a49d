"""How good a curve is: use of its lines, and what the order of its codewords is worth."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sfvq_jax.curve import Curve, check_curve, trimmed
from sfvq_jax.projection import WHOLE, Projection, Search, check_some
from sfvq_jax.short import short_repr
from sfvq_jax.sums import sum_over, weights_of

Array = jax.Array

TRUSTWORTHINESS_NEIGHBOURS = 5
TWO_OPT_CODEWORDS = 2048  # at most: there 2-opt takes a minute, some minutes from a random order


class CodebookQuality(NamedTuple):
    """Measures of a codebook and its order, without data.

    Attributes:
      mean_norm: mean norm of the codewords.
      mean_step: mean length of a line.
      step_ratio: mean_step ÷ mean distance of two codewords; 1 is a random order.
      neighbour_share: share of codewords whose nearest codeword comes right before or after.
      length_ratio: length of the curve ÷ length in the order that `shorter_order` finds; None for
        K > 2048.
      trustworthiness: trustworthiness of the order, with 5 neighbours (`trustworthiness`).
      continuity: continuity of the order, with 5 neighbours (`continuity`).
    """

    mean_norm: float
    mean_step: float
    step_ratio: float
    neighbour_share: float
    length_ratio: float | None
    trustworthiness: float
    continuity: float


class Health(NamedTuple):
    """What samples tell of a codebook of K codewords in R rows.

    Attributes:
      distortion: mean (x - nearest point)², over samples and dimensions, [].
      load: weight of the samples whose nearest codeword is each, [R]; 0 is a dead one.
      use: weight of the samples on each line, [R - 1] (`line_of`).
      dead: how many codewords are nobody's nearest, int32 [].
      worst: share of the error that one sample has at most, [].
    """

    distortion: Array
    load: Array
    use: Array
    dead: Array
    worst: Array

    __repr__ = short_repr


def health(
    curve: Curve,
    x: Array,
    weight: Array | None = None,
    axis: str | None = None,
    search: Search = WHOLE,
) -> Health:
    """Looks at samples [N, D] of weights [N] by exact projection; pure, for jit and vmap.

    Args:
      curve: K codewords of width D.
      x: samples, [N, D].
      weight: of each, [N]; 0 leaves it out. 1 by default.
      axis: name of the axis over which the samples are divided.
      search: how samples find their places.
    """
    check_some(curve, x)
    place = search.point(curve, x)
    weight = weights_of(x, weight, place.fraction.dtype)
    of_each = weight * place.squared_distance
    largest = jnp.max(of_each, initial=0)
    if axis is not None:
        largest = lax.pmax(largest, axis)
    zero = jnp.zeros_like(weight, shape=curve.codewords.shape[:1])
    load, use, error = sum_over(
        axis,
        (
            zero.at[search.codeword(curve, x)].add(weight),
            zero[1:].at[line_of(place, curve.num_lines)].add(weight),
            jnp.sum(of_each),
        ),
    )
    real = jnp.arange(len(load), dtype=jnp.int32) < curve.num_codewords
    dead = jnp.sum(real & (load == 0), dtype=jnp.int32)
    worst = largest / jnp.where(error > 0, error, 1)
    return Health(error / (load.sum() * curve.latent_dim), load, use, dead, worst)


def codebook_quality(curve: Curve) -> CodebookQuality:
    """Measures the order of a codebook.

    The memory grows as K², and the time, up to K = 2048, as K³.

    Raises:
      ValueError: fewer than three codewords, all at one point, or not all finite.

    >>> import jax.numpy as jnp
    >>> curve = Curve(jnp.arange(8.0)[:, None])
    >>> float(codebook_quality(curve).neighbour_share)
    1.0
    """
    check_curve(curve)
    codewords = np.asarray(trimmed(curve).codewords, np.float64)
    k = len(codewords)
    if k < 3:
        raise ValueError(f"the order of {k} codewords says nothing; a quality needs three or more")
    if not np.isfinite(codewords).all():
        raise ValueError("the codewords have NaN or infinity, so that they have no order")
    if (codewords == codewords[0]).all():
        raise ValueError("all codewords are the same point, so that their order says nothing")
    distances = pairwise_distances(codewords)
    steps = np.diagonal(distances, 1)
    others = distances + np.diag(np.full(k, np.inf))
    neighbours = min(TRUSTWORTHINESS_NEIGHBOURS, (k - 1) // 2)
    length_ratio = None
    if k <= TWO_OPT_CODEWORDS:
        order = shorter_order(codewords)
        length_ratio = float(steps.sum() / distances[order[:-1], order[1:]].sum())
    return CodebookQuality(
        mean_norm=float(np.linalg.norm(codewords, axis=1).mean()),
        mean_step=float(steps.mean()),
        step_ratio=float(steps.mean() / distances[np.triu_indices(k, 1)].mean()),
        neighbour_share=float((np.abs(others.argmin(1) - np.arange(k)) == 1).mean()),
        length_ratio=length_ratio,
        trustworthiness=trustworthiness(distances, neighbours),
        continuity=continuity(distances, neighbours),
    )


def line_of(place: Projection, num_lines: Array | int) -> Array:
    """The line of each point, [N] int32; a codeword belongs to the line that it begins.

    It is the end of another one too, and which of the two a projection names is rounding's choice.
    """
    at_end = (place.fraction >= 1) & (place.line < num_lines - 1)
    return place.line + at_end.astype(place.line.dtype)


def line_use(place: Projection, num_lines: int) -> Array:
    """Share of the samples on each line, [num_lines], of the projection of N samples."""
    if place.line.shape[0] == 0:
        raise ValueError("no samples, which have no share of any line")
    share = 1.0 / place.line.shape[0]
    return jnp.zeros(num_lines).at[line_of(place, num_lines)].add(share)


@jax.jit
def perplexity(use: Array) -> Array:
    """exp of the entropy of shares [M]: how many lines are in effect used, from 1 to M."""
    return jnp.exp(jax.scipy.special.entr(use).sum())


def same_class_share(classes: np.ndarray) -> float:
    """Share of neighbouring entries of `classes` [K], K >= 2, with the same class (class runs).

    >>> same_class_share(np.array(["boot", "boot", "bag"]))
    0.5
    """
    classes = _two_or_more(classes)
    return float((classes[1:] == classes[:-1]).mean())


def class_runs_by_chance(classes: np.ndarray) -> float:
    """The expected `same_class_share` of classes [K], K >= 2, in random order."""
    classes = _two_or_more(classes)
    counts, k = np.bincount(classes), len(classes)
    return float((counts * (counts - 1)).sum() / (k * (k - 1)))


def _two_or_more(classes: np.ndarray) -> np.ndarray:
    classes = np.asarray(classes)
    if classes.ndim != 1 or len(classes) < 2:
        raise ValueError(f"classes have shape {classes.shape}; expected [K] with K >= 2")
    return classes


def pairwise_distances(points: np.ndarray) -> np.ndarray:
    """Euclidean distances [K, K] of points [K, D], exact where points repeat."""
    return np.stack([np.linalg.norm(points - point, axis=1) for point in points])


def trustworthiness(distances: np.ndarray, neighbours: int) -> float:
    """Trustworthiness of the order as a one-dimensional embedding (Venna & Kaski, 2001).

    1 where the nearest in order are among the nearest in space; ties in order (i - n, i + n) go to
    the smaller index.

    Args:
      distances: between all points, in order, [K, K].
      neighbours: how many of each point's neighbours are looked at, below K / 2.
    """
    return _rank_agreement(_distances_in_order(len(distances)), distances, neighbours)


def continuity(distances: np.ndarray, neighbours: int) -> float:
    """Continuity of the order as a one-dimensional embedding (Venna & Kaski, 2001).

    1 where the nearest in space are among the nearest in order: the partner of `trustworthiness`,
    with the same arguments and ties. A fold of the curve that comes close to another costs
    continuity, a long jump costs trustworthiness.
    """
    return _rank_agreement(distances, _distances_in_order(len(distances)), neighbours)


def _distances_in_order(k: int) -> np.ndarray:
    index = np.arange(k, dtype=float)
    return np.abs(index[:, None] - index[None])


def _rank_agreement(distances: np.ndarray, others: np.ndarray, neighbours: int) -> float:
    """1 where each point's nearest by `distances` are its nearest by `others` too, [K, K] both.

    Those that are not are penalised by how many ranks they are beyond.
    """
    k = len(distances)
    if not 1 <= neighbours < k / 2:
        raise ValueError(f"neighbours is {neighbours}; of {k} points expected 1 to less than half")
    itself = np.diag(np.full(k, np.inf))
    near = (distances + itself).argsort(1, kind="stable")[:, :neighbours]
    rank = np.empty((k, k), np.int64)
    by_others = (others + itself).argsort(1, kind="stable")
    np.put_along_axis(rank, by_others, np.arange(k)[None] + 1, axis=1)
    excess = np.maximum(np.take_along_axis(rank, near, axis=1) - neighbours, 0).sum()
    return float(1 - excess * 2 / (k * neighbours * (2 * k - 3 * neighbours - 1)))


def shorter_order(points: np.ndarray) -> np.ndarray:
    """A short path through points [K, D], [K] indices: nearest neighbour, then 2-opt.

    2-opt (Croes, 1958) reverses the stretch that shortens the path most until none does.
    """
    distances = pairwise_distances(np.asarray(points, np.float64))
    return two_opt(distances, nearest_neighbour_order(distances))


def nearest_neighbour_order(distances: np.ndarray) -> np.ndarray:
    """From point 0 always to the nearest point not yet visited."""
    order, free = [0], np.ones(len(distances), bool)
    free[0] = False
    while free.any():
        nearest = np.where(free, distances[order[-1]], np.inf).argmin()
        order.append(int(nearest))
        free[nearest] = False
    return np.array(order)


def two_opt(distances: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Reverses stretches of an open path while that shortens it."""
    k = len(order)
    # a point at distance 0 from all, before the first and after the last, makes both ends free
    distances = np.pad(distances, (0, 1))
    path = np.concatenate([[k], order, [k]])
    while True:
        before, after = path[:-1], path[1:]
        edges = distances[before, after]
        # the stretch after[i] … before[j] is reversed, for i < j
        change = (
            distances[np.ix_(before, before)]
            + distances[np.ix_(after, after)]
            - edges[:, None]
            - edges[None]
        )
        change = np.where(np.tri(k + 1, dtype=bool), 0, change)
        i, j = np.unravel_index(change.argmin(), change.shape)
        if not change[i, j] < -1e-12 * edges.sum():
            return path[1:-1]
        path[i + 1 : j + 1] = path[i + 1 : j + 1][::-1]
