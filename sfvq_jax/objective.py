"""What is minimised: the dithered quantisation loss of space-filling vector quantisation."""

import jax
import jax.numpy as jnp
from jax import lax

from sfvq_jax.curve import Curve
from sfvq_jax.projection import Projection

Array = jax.Array


def dithered_loss(curve: Curve, x: Array, fractions: Array, weight: Array | None = None) -> Array:
    """Mean squared error of a batch to one random point a line.

    Every line j gives one point p_j = (1 - λ_j) c_j + λ_j c_{j+1}; each sample goes to its nearest
    point, in equal parts where several are. The gradient reaches both ends of the line (Vali &
    Bäckström, Interspeech 2023, §2, with λ drawn once a batch as in their public example).

    Once samples are assigned, all that the loss and its gradient need is their number and sum at
    each point: Σ|x - p_j|² = Σ|x|² - 2 p_j·Σx + n_j |p_j|². So there are two matrix products, no
    gather and no scatter.

    Args:
      curve: K codewords of width D.
      x: batch, [B, D].
      fractions: λ in [0, 1), one a line, [K - 1].
      weight: of each sample, [B]; 1 by default. Their sum must be above 0.

    Returns:
      Weighted mean over the batch, and mean over dimensions, of (x - nearest point)², a scalar.
    """
    ratio = fractions[:, None]
    points = (1 - ratio) * curve.codewords[:-1] + ratio * curve.codewords[1:]
    weight = jnp.ones_like(x[:, 0]) if weight is None else weight
    # centred on the points' mean, since the sums above would lose the digits of off-centre data
    mean = lax.stop_gradient(points.mean(0, keepdims=True))
    points, x = points - mean, x - mean
    share = lax.stop_gradient(_assignment(points, x, weight))
    number, total = share.sum(1), jnp.matmul(share, x, precision="highest")
    error = jnp.sum(weight * jnp.sum(x**2, 1)) - 2 * jnp.sum(points * total)
    error += jnp.sum(number * jnp.sum(points**2, 1))
    return error / (weight.sum() * x.shape[1])


def nearest_dithered(curve: Curve, x: Array, fractions: Array) -> Projection:
    """Each sample's [N, D] nearest point among one a line, of fractions λ as above.

    Of several nearest points it is the first.
    """
    ratio = fractions[:, None]
    points = (1 - ratio) * curve.codewords[:-1] + ratio * curve.codewords[1:]
    mean = points.mean(0, keepdims=True)
    distance = _distance(points - mean, x - mean)
    index = jnp.arange(len(points), dtype=jnp.int32)[:, None]
    nearest = distance <= distance.min(0, keepdims=True)
    line = jnp.where(nearest, index, len(points) - 1).min(0)
    return Projection(line, fractions[line], jnp.sum((x - points[line]) ** 2, 1))


def _assignment(points: Array, x: Array, weight: Array) -> Array:
    """The part of each sample's weight [B] that goes to each point [M, D]: [M, B]."""
    distance = _distance(points, x)
    nearest = (distance <= distance.min(0, keepdims=True)).astype(x.dtype)
    return nearest * (weight / nearest.sum(0))[None]


def _distance(points: Array, x: Array) -> Array:
    """|x - point|² less |x|², [M, B]."""
    product = jnp.matmul(points, x.T, precision="highest")
    return jnp.sum(points**2, 1)[:, None] - 2 * product
