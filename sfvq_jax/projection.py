"""The nearest point of the curve: exact over all lines, tiled, jit-compiled.

For a sample x and line j with start c_j, step s_j = c_{j+1} - c_j and u = (x - c_j)·s_j,

    |x - point|² = |x|² + |c_j|² - 2 x·c_j - t (2u - t |s_j|²),   t = clip(u / |s_j|², 0, 1),

and x·c_j for all codewords is one matrix product from which both ends of every line come. Latents
and codewords are first centred on the curve's mean, since those differences of large numbers would
otherwise lose the distances of data that lies far from the origin; the winner's fraction and
distance are then computed again from x - c_j itself.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sfvq_jax.curve import Curve

Array = jax.Array

MAX_ROWS = 1024  # samples in a tile
MAX_LINES = 256  # lines in a block: its products stay in cache


class Projection(NamedTuple):
    """The nearest points of the curve to samples [N].

    Attributes:
      line: index of the line, [N] int32. A point nearest to a codeword belongs to two lines:
        compare `position`, not lines.
      fraction: where on the line, [N] in [0, 1].
      squared_distance: |x - point|², [N].
    """

    line: Array
    fraction: Array
    squared_distance: Array

    @property
    def position(self) -> Array:
        """line + fraction, [N]."""
        return self.line.astype(self.fraction.dtype) + self.fraction


def project(curve: Curve, x: Array) -> Projection:
    """Projects samples onto the curve.

    Memory beyond the input and the result is a tile of 1024 samples by 256 lines. Sizes N are
    padded to a few buckets, so that a varying N compiles a few programs only.

    Args:
      curve: K codewords of width D.
      x: samples, [N, D]; computed in the dtype of the codewords.

    Returns:
      Projection of [N] arrays. Fraction and squared distance are differentiable in x and curve.

    >>> curve = Curve(jnp.array([[0.0, 0.0], [2.0, 0.0], [2.0, 4.0]]))
    >>> line, fraction, squared_distance = project(curve, jnp.array([[3.0, 1.0]]))
    >>> int(line[0]), float(fraction[0]), float(squared_distance[0])
    (1, 0.25, 1.0)
    """
    check_width(curve, x)
    n = x.shape[0]
    x = jnp.asarray(x, curve.codewords.dtype)
    x = jnp.pad(x, ((0, bucket_size(n) - n), (0, 0)))
    return Projection(*(value[:n] for value in _project(curve, x)))


def distortion(curve: Curve, x: Array) -> Array:
    """Mean over samples [N, D] and dimensions of (x - nearest point)², a scalar.

    The literature's mean squared error (Vali & Bäckström 2023, eq. 1, divided by D).
    """
    return project(curve, x).squared_distance.mean() / curve.latent_dim


def check_width(curve: Curve, x: Array) -> None:
    """Raises ValueError unless x is [N, D] with the curve's D."""
    if x.ndim != 2 or x.shape[1] != curve.latent_dim:
        raise ValueError(
            f"x has shape {x.shape}; this curve projects samples of shape [N, {curve.latent_dim}]"
        )


def bucket_size(n: int) -> int:
    """The least of 1, 2, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, … that holds n: at most 1/4 above."""
    n = max(n, 1)
    quantum = 1 << max((n - 1).bit_length() - 3, 0)
    return -(-n // quantum) * quantum


@jax.jit
def _project(curve: Curve, x: Array) -> Projection:
    n, d = x.shape
    mean = lax.stop_gradient(curve.codewords.mean(0, keepdims=True))
    blocks = _line_blocks(lax.stop_gradient(curve.codewords) - mean)

    def project_tile(tile: Array) -> Projection:
        line = _nearest_line_of_tile(blocks, lax.stop_gradient(tile) - mean)
        return project_on_line(curve, tile, line)

    rows = min(MAX_ROWS, n)
    tiles = jnp.pad(x, ((0, -n % rows), (0, 0))).reshape(-1, rows, d)
    return Projection(*(value.reshape(-1)[:n] for value in lax.map(project_tile, tiles)))


def project_on_line(curve: Curve, x: Array, line: Array) -> Projection:
    """Projects samples [N, D] each onto its given line [N], from the differences themselves."""
    start = curve.codewords[line]
    step = curve.codewords[line + 1] - start
    offset = x - start
    squared_length = jnp.sum(step**2, 1)
    fraction = _safe_ratio(jnp.sum(offset * step, 1), squared_length)
    squared_distance = jnp.sum((offset - fraction[:, None] * step) ** 2, 1)
    return Projection(line, fraction, squared_distance)


class _Blocks(NamedTuple):
    """The lines in blocks of `lines`; blocks overlap by one codeword."""

    codewords: Array  # [blocks, lines + 1, D]
    squared_norm: Array  # |c_j|² of each line's start, infinite for padding, [blocks, lines]
    start_dot_step: Array  # c_j·s_j
    squared_length: Array  # |s_j|²
    first: Array  # index of each block's first line, [blocks]


def _line_blocks(codewords: Array) -> _Blocks:
    num_lines = codewords.shape[0] - 1
    lines = min(MAX_LINES, num_lines)
    num_blocks = -(-num_lines // lines)
    index = jnp.arange(num_blocks)[:, None] * lines + jnp.arange(lines + 1)[None]
    blocks = codewords[jnp.minimum(index, num_lines)]
    start, step = blocks[:, :-1], jnp.diff(blocks, axis=1)
    return _Blocks(
        codewords=blocks,
        squared_norm=jnp.where(index[:, :-1] < num_lines, jnp.sum(start**2, 2), jnp.inf),
        start_dot_step=jnp.sum(start * step, 2),
        squared_length=jnp.sum(step**2, 2),
        first=index[:, 0].astype(jnp.int32),
    )


def _nearest_line_of_tile(blocks: _Blocks, x: Array) -> Array:
    """Index of the nearest line of each sample [rows, D], [rows] int32; all centred alike."""

    def visit(best: tuple[Array, Array], block: _Blocks) -> tuple[tuple[Array, Array], None]:
        product = jnp.matmul(block.codewords, x.T, precision="highest")  # [lines + 1, rows]
        along = product[1:] - product[:-1] - block.start_dot_step[:, None]
        length = block.squared_length[:, None]
        fraction = _safe_ratio(along, length)
        distance = (  # less |x|², the same for all lines
            block.squared_norm[:, None]
            - 2 * product[:-1]
            - fraction * (2 * along - fraction * length)
        )
        least = distance.min(0)
        # two passes of min are vectorised where XLA's argmin is not
        index = jnp.arange(distance.shape[0], dtype=jnp.int32)[:, None]
        index = jnp.where(distance <= least[None], index, distance.shape[0] - 1).min(0)
        nearer = least < best[0]
        return (
            jnp.where(nearer, least, best[0]),
            jnp.where(nearer, index + block.first, best[1]),
        ), None

    nothing = (jnp.full_like(x[:, 0], jnp.inf), jnp.zeros_like(x[:, 0], jnp.int32))
    return lax.scan(visit, nothing, blocks)[0][1]


def _safe_ratio(along: Array, squared_length: Array) -> Array:
    """clip(along / squared_length, 0, 1), and 0 on a line of no length."""
    positive = squared_length > 0
    ratio = along / jnp.where(positive, squared_length, 1)
    return jnp.where(positive, jnp.clip(ratio, 0, 1), 0)
