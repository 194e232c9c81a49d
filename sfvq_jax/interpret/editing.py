"""Edits: moving latents along a line of the curve, in chosen layers."""

import jax
import jax.numpy as jnp

from sfvq_jax.curve import Curve

Array = jax.Array


def line_direction(curve: Curve, line: int) -> Array:
    """The unit vector from codeword `line` to the next, [D].

    Raises:
      ValueError: no such line, or one of no length.
    """
    check_line(curve, line)
    step = curve.codewords[line + 1] - curve.codewords[line]
    length = jnp.linalg.norm(step)
    if not length > 0:
        raise ValueError(f"line {line} has no length, and so no direction: choose another")
    return step / length


def edit_latents(
    latents: Array, direction: Array, strengths: Array, layers: tuple[int, int], num_layers: int
) -> Array:
    """Codes w+ of every latent at every strength: w[l] + strength · direction in the chosen layers.

    Args:
      latents: w, [N, D].
      direction: unit vector, [D].
      strengths: distances to move, [S].
      layers: first and last layer of the edit, both included, counted from 0.
      num_layers: L, the number of codes that make an image.

    Returns:
      [N, S, L, D].

    Raises:
      ValueError: a layer range outside the model.

    Source: Vali & Bäckström, TMLR 2025 (arXiv 2410.20573), §4.
    """
    first, last = layers
    if not 0 <= first <= last < num_layers:
        raise ValueError(
            f"layers {first}-{last} are outside 0-{num_layers - 1}, the model's layers"
        )
    index = jnp.arange(num_layers)
    chosen = ((index >= first) & (index <= last)).astype(latents.dtype)
    shift = (
        strengths[None, :, None, None]
        * chosen[None, None, :, None]
        * direction[None, None, None, :]
    )
    return latents[:, None, None, :] + shift


def deviation_along(latents: Array, direction: Array) -> Array:
    """Standard deviation of latents [N, D] along a unit vector [D], a scalar."""
    return jnp.std(jnp.matmul(latents, direction, precision="highest"))


def check_line(curve: Curve, line: int) -> None:
    """Raises ValueError unless the curve has this line."""
    if not 0 <= line < curve.num_lines:
        raise ValueError(f"line {line} is outside 0-{curve.num_lines - 1}, the curve's lines")
