"""Coordinates of latents, and interventions on them: some are moved, the others stay.

The coordinates of a latent are its own dimensions, or what it has of any other directions: the
lines of a curve, say. They are counted in standard deviations from the mean.

Letters: N latents, D dimensions, M coordinates.
"""

from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.curve import Curve
from sfvq_jax.interpret.geometry import unit_rows
from sfvq_jax.short import short_repr

Array = jax.Array

How = Literal["shift", "set"]
HOWS = ("shift", "set")


@flax.struct.dataclass
class Coordinates:
    """Coordinates of latents along M directions, which interventions move.

    Attributes:
      vectors: the directions, vectors of length 1, [M, D].
      mean: mean of latents, [D].
      deviation: standard deviation of latents along each vector, [M].
    """

    vectors: Array
    mean: Array
    deviation: Array

    __repr__ = short_repr

    @property
    def count(self) -> int:
        return self.vectors.shape[0]

    def of(self, latents: Array) -> Array:
        """Coordinates of latents [N, D], in standard deviations from the mean, [N, M]."""
        along = jnp.matmul(latents - self.mean[None], self.vectors.T, precision="highest")
        return along / self.deviation[None]

    def moved(self, latents: Array, steps: Array) -> Array:
        """Moves latents [N, D] by steps [N, M], in standard deviations."""
        return latents + jnp.matmul(steps * self.deviation[None], self.vectors, precision="highest")


def coordinates_along(vectors: Array | np.ndarray, latents: Array) -> Coordinates:
    """Makes coordinates from vectors [M, D] of any length, measured on latents [N, D].

    Vectors are normalised in float64 and kept in float32.

    Raises:
      ValueError: vectors of another width than the latents, one of length 0, or one along which
        the latents do not differ.

    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import coordinates_along
    >>> latents = jnp.array([[0.0, 0.0], [4.0, 0.0], [0.0, 2.0], [4.0, 2.0]])
    >>> axes = coordinates_along(jnp.array([[3.0, 0.0]]), latents)
    >>> axes.vectors.tolist(), axes.deviation.tolist(), axes.of(latents)[:, 0].tolist()
    ([[1.0, 0.0]], [2.0], [-1.0, 1.0, -1.0, 1.0])
    """
    vectors, seen = np.asarray(vectors, np.float64), np.asarray(latents, np.float64)
    if vectors.ndim != 2 or vectors.shape[1] != seen.shape[1] or not len(vectors):
        raise ValueError(
            f"vectors have shape {vectors.shape}; expected [M, {seen.shape[1]}], as wide as latents"
        )
    units = unit_rows(vectors)
    if len(units) < len(vectors):
        raise ValueError("a vector has length 0, and is no direction: leave it out")
    deviation = np.std(seen @ np.asarray(units, np.float64).T, axis=0)
    still = np.flatnonzero(deviation <= 1e-9 * deviation.max())
    if len(still):
        raise ValueError(
            f"latents do not differ along vector {still[0]}, so there is no standard deviation to"
            " move them by: leave it out"
        )
    return Coordinates(
        units, jnp.asarray(seen.mean(0), jnp.float32), jnp.asarray(deviation, jnp.float32)
    )


def latent_axes(latents: Array) -> Coordinates:
    """Makes each dimension of latents [N, D] a coordinate: D coordinates.

    >>> latent_axes(jnp.array([[0.0, 4.0], [2.0, 0.0]])).count
    2
    """
    return coordinates_along(np.eye(latents.shape[1]), latents)


def curve_lines(curve: Curve, latents: Array) -> Coordinates:
    """Makes each line of a curve a coordinate of latents [N, D]: K - 1 unit vectors.

    Errors are those of `coordinates_along`; a line of length 0 is one.

    >>> import jax.numpy as jnp
    >>> from sfvq_jax import Curve
    >>> from sfvq_jax.interpret import curve_lines
    >>> latents = jnp.array([[0.0, 0.0], [4.0, 0.0], [0.0, 2.0], [4.0, 2.0]])
    >>> lines = curve_lines(Curve(jnp.array([[0.0, 0.0], [4.0, 0.0], [4.0, 2.0]])), latents)
    >>> lines.vectors.tolist(), lines.deviation.tolist()
    ([[1.0, 0.0], [0.0, 1.0]], [2.0, 1.0])
    """
    return coordinates_along(np.diff(np.asarray(curve.codewords, np.float64), axis=0), latents)


def intervene(
    latents: Array, coordinates: Coordinates, signed: Array, extreme: float | Array, how: How
) -> Array:
    """Moves some coordinates of every latent, [N, D].

    Args:
      latents: latents, [N, D].
      coordinates: coordinates of the latents.
      signed: sign and share of each move, [N, M] in [-1, 1]: 0 leaves a coordinate unchanged, ±1
        moves it fully up or down, other values move it in part.
      extreme: size of a full move, in standard deviations.
      how: "shift" adds signed · extreme to the coordinates. "set" replaces them: at ±1 they become
        ±extreme. Coordinates that are not orthogonal are each set as if alone.

    >>> x = jnp.array([[0.0, 4.0], [2.0, 0.0]])
    >>> signed = jnp.array([[1.0, 0.0]] * 2)
    >>> intervene(x, latent_axes(x), signed, 3.0, "shift").tolist()
    [[3.0, 4.0], [5.0, 0.0]]
    """
    steps = extreme * signed
    if how == "set":
        steps = steps - jnp.abs(signed) * coordinates.of(latents)
    return coordinates.moved(latents, steps)


def check_how(how: str) -> None:
    if how not in HOWS:
        raise ValueError(f"how is {how!r}; interventions are one of {HOWS}")
