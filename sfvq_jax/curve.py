"""The curve: a pytree of codewords, and what follows from their order alone."""

from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from sfvq_jax.short import short_repr

Array = jax.Array

SMALL_ROWS = 64  # curves of up to so many codewords share the programs of one of so many rows


@flax.struct.dataclass
class Curve:
    """A piecewise-linear curve.

    Letters, here and everywhere: N samples, D dimensions, K codewords, R rows. Line j goes from
    codeword j to codeword j + 1; a *position* is j + fraction, a float in [0, K - 1].

    Attributes:
      codewords: the corner points in order, [K, D] floating point, K >= 2.
      size: number of rows that are codewords, int32 []; None means all rows. With a size,
        `codewords` is [R, D], and rows beyond the size repeat the last codeword (`tied`): a curve
        that grows keeps one shape.
    """

    codewords: Array
    size: Array | None = None

    __repr__ = short_repr

    def _repr_html_(self) -> str | None:
        from sfvq_jax.views.notebook import curve_html  # which only a notebook needs

        return curve_html(self)

    def __eq__(self, other: object) -> bool:
        """Whether all entries are the same; not for traced ones."""
        if not isinstance(other, Curve):
            return NotImplemented
        one, another = (jax.tree.leaves(curve) for curve in (self, other))
        return len(one) == len(another) and all(map(np.array_equal, one, another))

    @property
    def num_codewords(self) -> int:
        """K; traced if `size` is traced."""
        return self.codewords.shape[0] if self.size is None else self.size  # pyright: ignore

    @property
    def num_lines(self) -> int:
        """K - 1; traced if `size` is traced."""
        return self.num_codewords - 1

    @property
    def latent_dim(self) -> int:
        return self.codewords.shape[1]


def tied(codewords: Array, size: Array | int) -> Curve:
    """A curve of the first `size` of the rows [R, D]; the rows beyond become the last of them."""
    size = jnp.asarray(size, jnp.int32)
    last = lax.dynamic_index_in_dim(codewords, size - 1, keepdims=True)
    real = jnp.arange(codewords.shape[0], dtype=jnp.int32)[:, None] < size
    return Curve(jnp.where(real, codewords, last), size)


def padded(curve: Curve, rows: int) -> Curve:
    """The same curve in so many rows, at least as many as it has."""
    more = rows - curve.codewords.shape[0]
    codewords = jnp.pad(curve.codewords, ((0, more), (0, 0)), mode="edge")
    return Curve(codewords, jnp.asarray(curve.num_codewords, jnp.int32))


def trimmed(curve: Curve) -> Curve:
    """The same curve without the rows that repeat the last; its size must not be traced."""
    return curve if curve.size is None else Curve(curve.codewords[: int(curve.size)])


def row_bucket(size: int) -> int:
    """Rows for a curve of so many codewords: 64, beyond that the next power of two."""
    return max(SMALL_ROWS, 1 << (size - 1).bit_length())


def decode(curve: Curve, position: Array | np.ndarray | float) -> Array:
    """Points on the curve at positions of any shape, [...] -> [..., D]; `encode` finds positions.

    A position is line + fraction (equation 1 of docs/explanation/equations.md). Positions outside
    [0, K - 1] are moved to the nearer end. Codewords of half precision are interpolated in float32.

    >>> curve = Curve(jnp.array([[0.0, 0.0], [2.0, 0.0], [2.0, 4.0]]))
    >>> decode(curve, jnp.array(1.25)).tolist()
    [2.0, 1.0]
    """
    check_curve(curve)
    codewords = wide(curve.codewords)
    last = jnp.asarray(curve.num_lines, codewords.dtype)
    position = jnp.clip(jnp.asarray(position, codewords.dtype), 0, last)
    line = jnp.minimum(position.astype(jnp.int32), curve.num_lines - 1)
    fraction = (position - line.astype(position.dtype))[..., None]
    points = (1 - fraction) * codewords[line] + fraction * codewords[line + 1]
    return points.astype(curve.codewords.dtype)


def line_lengths(curve: Curve) -> Array:
    """Euclidean length of each line, [K - 1]; a line of length 0 has the gradient 0.

    >>> curve = Curve(jnp.array([[0.0, 0.0], [3.0, 4.0], [3.0, 6.0]]))
    >>> line_lengths(curve).tolist()
    [5.0, 2.0]
    """
    check_curve(curve)
    return optax.safe_norm(jnp.diff(wide(curve.codewords), axis=0), 0.0, axis=1)


def curve_length(curve: Curve) -> Array:
    """Length of the whole curve, a scalar.

    >>> curve = Curve(jnp.array([[0.0, 0.0], [3.0, 4.0], [3.0, 6.0]]))
    >>> float(curve_length(curve))
    7.0
    """
    return line_lengths(curve).sum()


def check_curve(curve: Any) -> None:
    """Raises TypeError for what is no curve, ValueError for fewer codewords [K, D] than two."""
    if not isinstance(curve, Curve):
        hint = ": pass its .curve" if hasattr(curve, "curve") else ""
        if isinstance(curve, str | Path):
            hint = f": pass sfvq_jax.load_curve({str(curve)!r}).curve"
        elif hasattr(curve, "ndim"):
            hint = ", which comes first; of codewords [K, D] it is sfvq_jax.Curve(codewords)"
        raise TypeError(f"curve is a {type(curve).__name__}; expected a Curve{hint}")
    if not hasattr(curve.codewords, "ndim"):
        raise TypeError(
            f"the codewords are a {type(curve.codewords).__name__}; a curve has an array [K, D] of"
            " them"
        )
    if curve.codewords.ndim != 2 or curve.codewords.shape[0] < 2:
        raise ValueError(
            f"the codewords have shape {curve.codewords.shape}; a curve has [K, D] of them, K >= 2"
        )


def wide(array: Array) -> Array:
    """Half precision as float32, since sums and positions lose their digits in it."""
    return array.astype(jnp.float32) if array.dtype.itemsize < 4 else jnp.asarray(array)
