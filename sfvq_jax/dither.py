"""The published assignment: to one random point a line, and the loss that follows from it.

Every line j gives one point p_j = (1 - λ_j) c_j + λ_j c_{j+1}; each sample goes to its nearest
point. Once samples are assigned, all that the loss and its gradient need is their number and sum at
each point, Σ|x - p_j|² = Σ|x|² - 2 p_j·Σx + n_j |p_j|², so there are two matrix products, no gather
and no scatter. Everything is counted from the codewords' mean, since those sums would otherwise
lose the digits of data that lies far from the origin.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sfvq_jax.curve import Curve, wide
from sfvq_jax.projection import Projection, check_some
from sfvq_jax.sums import weights_of

Array = jax.Array

TILE = 1024  # samples that are compared with all points at once


class DitheredSums(NamedTuple):
    """Sums over a batch; those of two batches at one curve and λ are added entry by entry.

    Attributes:
      error: Σ w |x - p|², [].
      gradient: of `error` by the codewords, [K, D].
      load: Σ w by line, [K - 1].
      weight: Σ w, []; not the sum of `load`, for which a step would have to wait.
    """

    error: Array
    gradient: Array
    load: Array
    weight: Array


def dithered_loss(curve: Curve, x: Array, fractions: Array, weight: Array | None = None) -> Array:
    """Mean squared error of a batch, with one random point on each line.

    Each sample is assigned to its nearest point, in equal parts if several are nearest. The
    gradient reaches both ends of the line (Vali & Bäckström, Interspeech 2023, §2, with λ drawn
    once for each batch as in their public example): equation 10 of docs/explanation/equations.md.

    Args:
      curve: K codewords of width D.
      x: batch, [B, D]; computed in the dtype of the codewords, or in float32 if that is half
        precision.
      fractions: λ in [0, 1), one for each line, [K - 1].
      weight: weight of each sample, [B]; 1 by default. The sum of weights must be above 0.

    Returns:
      Weighted mean over the batch, and mean over dimensions, of (x - nearest point)², a scalar.

    >>> curve = Curve(jnp.array([[0.0], [4.0]]))
    >>> float(dithered_loss(curve, jnp.array([[1.0], [2.0]]), jnp.array([0.5])))
    0.5
    """
    check_some(curve, x)
    curve = Curve(wide(curve.codewords), curve.size)
    x = jnp.asarray(x, curve.codewords.dtype)
    fractions = checked_fractions(curve, fractions)
    weight = weights_of(x, weight)
    at = _dithered(curve, x, fractions, weight)
    return _error(at) / (weight.sum() * x.shape[1])


def dithered_sums(curve: Curve, x: Array, fractions: Array, weight: Array) -> DitheredSums:
    """The same error as a sum, with its gradient written out; arguments as above."""
    at = _dithered(curve, x, fractions, weight)
    slope = 2 * (at.number[:, None] * at.points - at.total)  # by the points
    ratio = fractions[:, None]
    gradient = jnp.pad((1 - ratio) * slope, ((0, 1), (0, 0)))
    gradient += jnp.pad(ratio * slope, ((1, 0), (0, 0)))
    return DitheredSums(_error(at), gradient, at.number, weight.sum())


def nearest_dithered(curve: Curve, x: Array, fractions: Array) -> Projection:
    """Each sample's [N, D] nearest point among one a line, of fractions λ as above.

    Of several nearest points it is the first. Half precision is computed in float32.
    """
    check_some(curve, x)
    codewords = wide(curve.codewords)
    mean = codewords.mean(0, keepdims=True)
    ratio = checked_fractions(curve, fractions)
    points = _points(codewords - mean, ratio)
    index = jnp.arange(len(points), dtype=jnp.int32)[:, None]

    def of_tile(tile: Array) -> Projection:
        tile = tile.astype(codewords.dtype) - mean
        distance = _distance(points, tile, curve)
        nearest = distance <= distance.min(0, keepdims=True)
        line = jnp.where(nearest, index, len(points) - 1).min(0)
        return Projection(line, ratio[line], jnp.sum((tile - points[line]) ** 2, 1))

    n, d = x.shape
    tiles = -(-n // TILE)
    rows = -(-n // max(tiles, 1))
    x = jnp.pad(x, ((0, tiles * rows - n), (0, 0))).reshape(tiles, rows, d)
    return Projection(*(value.reshape(-1)[:n] for value in lax.map(of_tile, x)))


def checked_fractions(curve: Curve, fractions: Any) -> Array:
    """λ in the dtype of the (wide) codewords; ValueError unless there is one a line."""
    fractions = jnp.asarray(fractions, wide(curve.codewords).dtype)
    if fractions.shape != (curve.codewords.shape[0] - 1,):
        raise ValueError(
            f"fractions has shape {fractions.shape}; this curve has"
            f" {curve.codewords.shape[0] - 1} lines, each of which takes one: a shape of"
            f" ({curve.codewords.shape[0] - 1},)"
        )
    return fractions


class _Dithered(NamedTuple):
    """Points [K - 1, D] and samples [B, D] from the codewords' mean; Σ w [K - 1], Σ w x [K - 1, D]
    at each point."""

    points: Array
    x: Array
    weight: Array
    number: Array
    total: Array


def _dithered(curve: Curve, x: Array, fractions: Array, weight: Array) -> _Dithered:
    mean = lax.stop_gradient(curve.codewords.mean(0, keepdims=True))
    # centred before they are mixed: far from the origin the mixture would be rounded
    points, x = _points(curve.codewords - mean, fractions), x - mean
    distance = lax.stop_gradient(_distance(points, x, curve))
    nearest = (distance <= distance.min(0, keepdims=True)).astype(x.dtype)
    share = nearest * (weight / nearest.sum(0))[None]
    total = jnp.matmul(share, x, precision="highest")
    return _Dithered(points, x, weight, share.sum(1), total)


def _error(at: _Dithered) -> Array:
    error = jnp.sum(at.weight * jnp.sum(at.x**2, 1)) - 2 * jnp.sum(at.points * at.total)
    return error + jnp.sum(at.number * jnp.sum(at.points**2, 1))


def _points(codewords: Array, fractions: Array) -> Array:
    ratio = fractions[:, None]
    return (1 - ratio) * codewords[:-1] + ratio * codewords[1:]


def _distance(points: Array, x: Array, curve: Curve) -> Array:
    """|x - point|² less |x|², infinite for rows that are no lines, [M, B]."""
    norm = jnp.sum(points**2, 1)
    if curve.size is not None:
        norm = jnp.where(jnp.arange(len(points), dtype=jnp.int32) < curve.num_lines, norm, jnp.inf)
    return norm[:, None] - 2 * jnp.matmul(points, x.T, precision="highest")
