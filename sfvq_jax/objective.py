"""What is minimised: the dithered quantisation loss of space-filling vector quantisation."""

import jax
import jax.numpy as jnp
from jax import lax

from sfvq_jax.curve import Curve

Array = jax.Array


def dithered_loss(curve: Curve, x: Array, fractions: Array) -> Array:
    """Mean squared error of a batch to one random point a line.

    Every line j gives one point (1 - λ_j) c_j + λ_j c_{j+1}; each sample goes to its nearest point.
    The gradient reaches both ends of the line (Vali & Bäckström, Interspeech 2023, §2, with λ drawn
    once a batch as in their public example).

    Args:
      curve: K codewords of width D.
      x: batch, [B, D].
      fractions: λ in [0, 1), one a line, [K - 1].

    Returns:
      Mean over the batch and dimensions of (x - nearest point)², a scalar.
    """
    weight = fractions[:, None]
    points = (1 - weight) * curve.codewords[:-1] + weight * curve.codewords[1:]
    nearest = _nearest(lax.stop_gradient(points), x)
    # a product with a one-hot matrix, because its gradient is a product too and no scatter
    choice = jax.nn.one_hot(nearest, curve.num_lines, dtype=x.dtype)
    chosen = jnp.matmul(choice, points, precision="highest")
    return jnp.mean((x - chosen) ** 2)


def _nearest(points: Array, x: Array) -> Array:
    # centred on the points' mean: |p|² - 2 x·p would lose the digits of off-centre data
    mean = points.mean(0, keepdims=True)
    points, x = points - mean, x - mean
    product = jnp.matmul(x, points.T, precision="highest")
    return jnp.argmin(jnp.sum(points**2, 1)[None] - 2 * product, 1)
