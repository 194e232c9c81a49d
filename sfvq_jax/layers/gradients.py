"""Gradients through a quantiser: what goes on in place of the nearest point, and what it teaches.

A nearest point has no useful derivative by the sample. Each function here gives values that lie at
the point, or as far from the sample as the point does, and through which gradients flow.

Letters: N samples x, D dimensions; points p, or both ends c and d of a line with p = (1-λ) c + λ d.
sg(·) stops gradients, v ~ N(0, I). Equations 11 to 14 of docs/explanation/equations.md.
"""

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array

GRADIENTS = ("ste", "nsvq", "diveq", "sf_diveq")
SHORT = 1e-12  # lengths below it do not divide, as in the packages `nsvq` and `diveq`


def through_point(x: Array, point: Array) -> Array:
    """Straight-through (van den Oord et al., 2017, arXiv 1711.00937, §3.2): x + sg(p - x), [N, D].

    This is equation 11. The gradient passes as if there were no quantiser. Codewords get no
    gradient: they need their own loss (`Quantised.loss`).

    >>> through_point(jnp.array([[0.0, 3.0]]), jnp.array([[1.0, 2.0]])).tolist()
    [[1.0, 2.0]]
    """
    return x + lax.stop_gradient(point - x)


def through_noise(x: Array, point: Array, noise: Array) -> Array:
    """Noise substitution (NSVQ): x + |p - x| · sg(v/|v|), [N, D].

    Vali & Bäckström, 2022, "NSVQ: Noise Substitution in Vector Quantization for Machine Learning",
    IEEE Access 10, eq. 3; here equation 12. Codewords get a gradient through the error's length.

    Args:
      x: samples, [N, D].
      point: p, [N, D].
      noise: v, [N, D].

    >>> x, point = jnp.array([[0.0, 3.0]]), jnp.array([[4.0, 0.0]])
    >>> through_noise(x, point, jnp.array([[0.0, 2.0]])).tolist()  # as far, by the noise
    [[0.0, 8.0]]
    """
    return x + _length(point - x) * lax.stop_gradient(_unit(noise))


def toward_point(x: Array, point: Array, noise: Array) -> Array:
    """DiVeQ: x + |p - x| · sg(u/|u|) with u = p - x + noise, [N, D].

    Vali et al., 2025, "DiVeQ: Differentiable Vector Quantization Using the Reparameterization
    Trick", arXiv 2509.26469; here equation 13. Noise of 0 gives the detached form, whose values
    are the points.

    Args:
      x: samples, [N, D].
      point: p, [N, D].
      noise: v times a small deviation, [N, D].

    >>> x, point = jnp.array([[0.0, 3.0]]), jnp.array([[4.0, 0.0]])
    >>> toward_point(x, point, jnp.zeros_like(x)).tolist()
    [[4.0, 0.0]]
    """
    error = point - x
    return x + _length(error) * lax.stop_gradient(_unit(noise + error))


def toward_ends(
    x: Array, first: Array, second: Array, fraction: Array, noise: tuple[Array, Array]
) -> Array:
    """SF-DiVeQ: x + |c - x| sg((1-λ) u/|u|) + |d - x| sg(λ w/|w|), [N, D].

    Here u = c - x + noise and w = d - x + another noise (arXiv 2509.26469, space-filling DiVeQ;
    here equation 14). Noise of 0 gives the detached form, whose values are the points. (The
    detached form of the authors' package uses u for w too, so its values are not on the line.)

    Args:
      x: samples, [N, D].
      first: c, [N, D].
      second: d, [N, D].
      fraction: λ, [N].
      noise: two of v times a small deviation, [N, D] each.

    >>> x, first = jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]])
    >>> second = jnp.array([[-3.0, 4.0]])
    >>> none = jnp.zeros_like(x)
    >>> toward_ends(x, first, second, jnp.array([0.5]), (none, none)).tolist()
    [[0.0, 4.0]]
    """
    ratio, value = fraction[:, None], x
    for end, share, moved in zip((first, second), (1 - ratio, ratio), noise, strict=True):
        error = end - x
        value = value + _length(error) * lax.stop_gradient(share * _unit(moved + error))
    return value


def _length(rows: Array) -> Array:
    """Of rows [N, D], [N, 1]; the gradient of a length of 0 is 0."""
    squared = jnp.sum(rows**2, 1, keepdims=True)
    some = squared > 0
    return jnp.where(some, jnp.sqrt(jnp.where(some, squared, 1)), 0)


def _unit(rows: Array) -> Array:
    return rows / jnp.maximum(_length(rows), SHORT)
