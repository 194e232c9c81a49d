"""New latents on the curve and around it.

Letters: N samples, D dimensions.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from sfvq_jax.curve import Curve, decode
from sfvq_jax.projection import project

Array = jax.Array

REAL_LATENTS = 2**14  # drawn of a model, for the noise around its curve
DRAWN_AT_ONCE = 256  # latents of `sample_around` in memory at once, each with its neighbours


def positions_along(curve: Curve, start: float, stop: float, count: int) -> Array:
    """Spreads positions [count] evenly over a stretch: the middles of `count` equal pieces.

    Both ends are left out, so that neighbouring stretches, such as the lines j to j + 1, have no
    position in common.

    Raises:
      ValueError: positions outside the curve or not in order, or a count below 1.

    >>> curve = Curve(jnp.zeros((9, 2)))
    >>> positions_along(curve, 2, 4, 4).tolist()
    [2.25, 2.75, 3.25, 3.75]
    """
    for position in (start, stop):
        if not 0 <= position <= curve.num_lines:
            raise ValueError(
                f"position {position:g} is outside 0-{curve.num_lines}, the curve's positions"
            )
    if not start < stop:
        raise ValueError(f"the stretch from {start:g} to {stop:g} is none: start before its end")
    if count < 1:
        raise ValueError(f"count is {count}; ask for at least one sample")
    piece = (stop - start) / count
    return start + (jnp.arange(count, dtype=jnp.float32) + 0.5) * piece


def sample_around(
    key: Array,
    curve: Curve,
    positions: Array,
    latents: Array,
    *,
    noise: float = 1.0,
    neighbours: int = 32,
) -> Array:
    """Samples latents around positions of the curve, spread as real latents are.

    Real latents lie around the curve, not on it. So the point at a position gets a random residual.
    It is drawn from the normal distribution with the mean and covariance of the residuals (latent
    minus nearest point) of the real latents with the nearest positions. To copy whole residuals
    would almost copy the real latents, because points move little along the curve.

    Args:
      key: a PRNG key; the same key gives the same latents.
      curve: a curve of width D.
      positions: positions on the curve, [count].
      latents: real latents, fresh draws of the model, [N, D]; with more of them, the residuals are
        more local.
      noise: factor on the residuals, from 0, on the curve, to 1, as far from it as real latents.
      neighbours: number of real latents whose residuals a position uses.

    Returns:
      Latents, [count, D].

    Raises:
      ValueError: no latents, ones of another width, or a noise outside 0-1.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax import Curve
    >>> from sfvq_jax.interpret import positions_along, sample_around
    >>> curve = Curve(jnp.array([[-2.0, 0.0], [0.0, 0.0], [2.0, 0.0]]))
    >>> latents = jax.random.normal(jax.random.key(0), (512, 2)) * jnp.array([[1.0, 0.1]])
    >>> new = sample_around(jax.random.key(1), curve, positions_along(curve, 1, 2, 100), latents)
    >>> print(new.shape, new.std(0).round(1))
    (100, 2) [0.6 0.1]
    """
    if not 0 <= noise <= 1:
        raise ValueError(
            f"noise is {noise:g}; expected 0, on the curve, to 1, as far from it as real latents"
        )
    real = project(curve, latents).position
    if real.shape[0] == 0:
        raise ValueError("there are no real latents that new ones could be like: draw some")
    residuals = _residuals(key, curve, positions, latents, real, neighbours)
    return decode(curve, positions) + noise * residuals


@functools.partial(jax.jit, static_argnames="neighbours")
def _residuals(
    key: Array,
    curve: Curve,
    positions: Array,
    latents: Array,
    real_positions: Array,
    neighbours: int,
) -> Array:
    """Random residuals [count, D] at positions, like those of the latents next to each."""
    n = latents.shape[0]
    neighbours = min(neighbours, n)
    order = jnp.argsort(real_positions)
    real_positions = real_positions[order]
    residuals = latents[order] - decode(curve, real_positions)
    place_key, residual_key = jax.random.split(key)
    # many latents lie at exactly the position of a codeword: any of them may be the middle one
    left, right = (jnp.searchsorted(real_positions, positions, side) for side in ("left", "right"))
    middle = jax.random.randint(place_key, positions.shape, left, right + 1)
    first = jnp.clip(middle - neighbours // 2, 0, n - neighbours)

    def draw(argument: tuple[Array, Array]) -> Array:
        key, first = argument
        near = lax.dynamic_slice_in_dim(residuals, first, neighbours)
        mean = near.mean(0)
        # a normal combination of the deviations has their covariance
        weights = jax.random.normal(key, (neighbours,)) / max(neighbours - 1, 1) ** 0.5
        return mean + jnp.matmul(weights, near - mean[None], precision="highest")

    keys = jax.random.split(residual_key, positions.shape[0])
    return lax.map(draw, (keys, first), batch_size=DRAWN_AT_ONCE)
