"""What is minimised: the dithered quantisation loss of space-filling vector quantisation."""

import jax
import jax.numpy as jnp
from jax import lax

from sfvq_jax.curve import Curve

Array = jax.Array


def dithered_loss(curve: Curve, x: Array, fractions: Array) -> Array:
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

    Returns:
      Mean over the batch and dimensions of (x - nearest point)², a scalar.
    """
    weight = fractions[:, None]
    points = (1 - weight) * curve.codewords[:-1] + weight * curve.codewords[1:]
    # centred on the points' mean, since the sums above would lose the digits of off-centre data
    mean = lax.stop_gradient(points.mean(0, keepdims=True))
    points, x = points - mean, x - mean
    share = lax.stop_gradient(_assignment(points, x))
    number, total = share.sum(1), jnp.matmul(share, x, precision="highest")
    error = jnp.sum(x**2) - 2 * jnp.sum(points * total) + jnp.sum(number * jnp.sum(points**2, 1))
    return error / x.size


def _assignment(points: Array, x: Array) -> Array:
    """The share of each sample [B, D] that goes to each point [M, D]: [M, B], nearly all 0 or 1."""
    product = jnp.matmul(points, x.T, precision="highest")
    distance = jnp.sum(points**2, 1)[:, None] - 2 * product  # less |x|²
    nearest = (distance <= distance.min(0, keepdims=True)).astype(x.dtype)
    return nearest / nearest.sum(0, keepdims=True)
