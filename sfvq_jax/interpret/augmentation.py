"""Augmentation: new latents on the curve."""

import jax
import jax.numpy as jnp

from sfvq_jax.curve import Curve
from sfvq_jax.interpret.editing import check_line

Array = jax.Array


def positions_along_line(curve: Curve, line: int, count: int) -> Array:
    """Positions [count] spread evenly along a line: the middles of `count` equal pieces of it.

    Both ends are left to the lines that share them, so that lines side by side give no point twice.

    Raises:
      ValueError: no such line, or a count below 1.
    """
    check_line(curve, line)
    if count < 1:
        raise ValueError(f"count is {count}; ask for at least one sample")
    return line + (jnp.arange(count, dtype=jnp.float32) + 0.5) / count
