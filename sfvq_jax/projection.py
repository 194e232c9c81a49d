"""The nearest point of the curve: exact over all lines, tiled, jit-compiled.

For a sample x and line j with start c_j, step s_j = c_{j+1} - c_j and w = 2 (x - c_j)·s_j,

    |x - point|² = |x|² + |c_j|² - 2 x·c_j - t (w - t |s_j|²),   t = clip(w / 2|s_j|², 0, 1),

and -2 x·c_j for all codewords is one matrix product from which both ends of every line come.
Latents and codewords are first centred on the curve's mean, since those differences of large
numbers would otherwise lose the distances of data that lies far from the origin; the winner's
fraction and distance are then computed again from x - c_j itself.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sfvq_jax.curve import Curve, check_curve, wide
from sfvq_jax.divided import lowest, mean_of_rows, own_size, with_next
from sfvq_jax.short import short_repr
from sfvq_jax.sums import on_each

Array = jax.Array

PRECISIONS = ("highest", "tf32", "bfloat16")
LEAST_ROWS = 256  # samples in a tile that is compared with all codewords, unless there are fewer


class Projection(NamedTuple):
    """The point of the curve that is nearest to each of N samples.

    Attributes:
      line: index of its line, [N] int32. A point at a codeword belongs to two lines: compare
        positions, not lines.
      fraction: its place on the line, [N], from 0 to 1.
      squared_distance: |x - point|², [N].
    """

    line: Array
    fraction: Array
    squared_distance: Array

    __repr__ = short_repr

    @property
    def position(self) -> Array:
        """line + fraction, [N]."""
        return self.line.astype(self.fraction.dtype) + self.fraction


def project(
    curve: Curve, x: Array, *, precision: str = "highest", curve_axis: str | None = None
) -> Projection:
    """Finds the nearest point of the curve to each sample, over all lines.

    This is equation 2 of docs/explanation/equations.md.

    Besides input and result, memory holds one tile of samples by lines (`tile_sizes`). N is padded
    to one of a few sizes (`bucket_size`), so that a varying N compiles only a few programs. Samples
    of such a size, as every power of two is, are not copied.

    Args:
      curve: K codewords of width D.
      x: samples, [N, D]; computed in the dtype of the codewords, or in float32 if that is half
        precision, where squares overflow and fractions are coarse. float32 cannot hold the squares
        of distances below 1e-19 or above 1e18: scale curve and samples.
      precision: precision of the products that choose the line. "highest" is exact within float32.
        "tf32" and "bfloat16" (with float32 sums) are faster on accelerators that have them, and
        may choose another line if two are about equally near. Fraction and squared distance on
        the chosen line are always computed in full precision.
      curve_axis: name of the axis of `shard_map` over which the codewords are divided. Then the
        curve has the rows of this shard, and its size, if any, is that of the whole curve; x is the
        same on all shards of the axis. Each shard searches its own lines (`sfvq_jax.divided`) and
        exchanges 16 bytes per sample.

    Returns:
      Projection of [N] arrays, the same on all shards. Fraction and squared distance are
      differentiable in x and curve.

    >>> curve = Curve(jnp.array([[0.0, 0.0], [2.0, 0.0], [2.0, 4.0]]))
    >>> line, fraction, squared_distance = project(curve, jnp.array([[3.0, 1.0]]))
    >>> int(line[0]), float(fraction[0]), float(squared_distance[0])
    (1, 0.25, 1.0)
    """
    if curve_axis is not None:
        part = with_next(curve, curve_axis)
        place = project(part, on_each(curve_axis, x), precision=precision)
        mine, line = nearest_part(part, place, curve_axis)
        numbers = (place.fraction, place.squared_distance)
        numbers = tuple(jnp.where(mine, number, 0) for number in numbers)
        return Projection(line, *lax.psum(numbers, curve_axis))
    check_width(curve, x)
    check_precision(precision)
    n = x.shape[0]
    curve = Curve(wide(curve.codewords), curve.size)
    x = jnp.asarray(x, curve.codewords.dtype)
    if n < bucket_size(n):  # padding by nothing would be a copy too
        x = jnp.pad(x, ((0, bucket_size(n) - n), (0, 0)))
    return Projection(*(value[:n] for value in _project(curve, x, precision)))


def nearest_part(part: Curve, place: Projection, axis: str) -> tuple[Array, Array]:
    """Whether samples' nearest points of all are on this shard's lines; 8 bytes a sample cross.

    Args:
      part: this shard's lines (`with_next`).
      place: the samples' on them, [N].
      axis: name of the axis over which the codewords are divided.

    Returns:
      That, [N] bool; the line of the nearest point of all in the whole curve, [N] int32.
    """
    distance = jnp.where(part.num_lines > 0, place.squared_distance, jnp.inf)
    return lowest(distance, place.line, len(part.codewords) - 1, axis)


def encode(curve: Curve, x: Array) -> Array:
    """Positions of the nearest points of samples, [N, D] -> [N]; `decode` gives the points.

    >>> curve = Curve(jnp.array([[0.0, 0.0], [2.0, 0.0], [2.0, 4.0]]))
    >>> encode(curve, jnp.array([[3.0, 1.0]])).tolist()
    [1.25]
    """
    return project(curve, x).position


def distortion(curve: Curve, x: Array) -> Array:
    """Mean over samples [N, D] and dimensions of (x - nearest point)², a scalar.

    The literature's mean squared error (Vali & Bäckström 2023, eq. 1, divided by D);
    equation 3 of docs/explanation/equations.md.

    >>> curve = Curve(jnp.array([[0.0, 0.0], [2.0, 0.0]]))
    >>> float(distortion(curve, jnp.array([[1.0, 2.0], [1.0, 0.0]])))
    1.0
    """
    check_some(curve, x)
    return project(curve, x).squared_distance.mean() / curve.latent_dim


def check_width(curve: Curve, x: Array) -> None:
    """Raises ValueError unless x is [N, D] with the curve's D; TypeError if one is neither."""
    check_curve(curve)
    if not hasattr(x, "ndim"):
        hint = f"np.load({str(x)!r})" if isinstance(x, str | Path) else "np.asarray(x)"
        hint = "x.codewords" if isinstance(x, Curve) else hint
        raise TypeError(
            f"x is a {type(x).__name__}; expected an array [N, {curve.latent_dim}], such as {hint}"
        )
    if x.ndim != 2 or x.shape[1] != curve.latent_dim:
        raise ValueError(
            f"x has shape {x.shape}; this curve projects samples of shape [N, {curve.latent_dim}]"
            f"{': take x[None]' if x.ndim == 1 else ''}"
        )


def check_some(curve: Curve, x: Array) -> None:
    """The same, and raises ValueError unless there are samples."""
    check_width(curve, x)
    if x.shape[0] == 0:
        raise ValueError("x has no rows, and a mean over no samples is no number")


def check_precision(precision: str) -> None:
    """Raises ValueError unless it is one of `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")


def tile_sizes(platform: str | None = None) -> tuple[int, int]:
    """Samples in a tile, and lines in a block of lines, at most; by default as JAX computes here.

    On a CPU their products stay in the cache. An accelerator takes larger parts, since each costs
    it a few launches.
    """
    return (2048, 512) if (platform or jax.default_backend()) == "cpu" else (65536, 2048)


def bucket_size(n: int) -> int:
    """The least of 1, 2, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, … that holds n: at most 1/4 above."""
    n = max(n, 1)
    quantum = 1 << max((n - 1).bit_length() - 3, 0)
    return -(-n // quantum) * quantum


@functools.partial(jax.jit, static_argnames="precision")
def _project(curve: Curve, x: Array, precision: str) -> Projection:
    n, d = x.shape
    max_rows, max_lines = tile_sizes()
    mean = lax.stop_gradient(curve.codewords.mean(0, keepdims=True))
    blocks, visited = _line_blocks(
        lax.stop_gradient(curve.codewords) - mean, curve.num_lines, max_lines
    )
    step = jnp.diff(curve.codewords, axis=0)
    squared_length = jnp.sum(step**2, 1)

    def project_tile(tile: Array) -> Projection:
        line = _nearest_line_of_tile(blocks, visited, lax.stop_gradient(tile) - mean, precision)
        return project_on_line(tile, line)

    def project_on_line(tile: Array, line: Array) -> Projection:
        """From the differences themselves."""
        offset = tile - _rows(curve.codewords, line)
        its_step = _rows(step, line)
        fraction = _safe_ratio(jnp.sum(offset * its_step, 1), _rows(squared_length, line))
        squared_distance = jnp.sum((offset - fraction[:, None] * its_step) ** 2, 1)
        return Projection(line, fraction, squared_distance)

    num_tiles, rows = _equal_parts(n, max_rows)
    tiles = jnp.pad(x, ((0, num_tiles * rows - n), (0, 0))).reshape(num_tiles, rows, d)
    return Projection(*(value.reshape(-1)[:n] for value in lax.map(project_tile, tiles)))


def _equal_parts(n: int, most: int) -> tuple[int, int]:
    """How many equal parts of at most `most` hold n, and the size of one."""
    number = -(-n // most)
    return number, -(-n // number)


def _rows(array: Array, index: Array) -> Array:
    """array[index] without a look at whether it is negative or too large: it is neither."""
    return array.at[index].get(mode="promise_in_bounds")


def _safe_ratio(along: Array, squared_length: Array) -> Array:
    """clip(along / squared_length, 0, 1), and 0 on a line of no length."""
    positive = squared_length > 0
    ratio = along / jnp.where(positive, squared_length, 1)
    return jnp.where(positive, jnp.clip(ratio, 0, 1), 0)


class _Blocks(NamedTuple):
    """The lines in blocks of `lines`; blocks overlap by one codeword."""

    codewords: Array  # times -2, [blocks, lines + 1, D]
    squared_norm: Array  # |c_j|² of each line's start, infinite for padding, [blocks, lines, 1]
    start_dot_step: Array  # 2 c_j·s_j
    squared_length: Array  # |s_j|²
    reciprocal: Array  # 1 / 2|s_j|², 0 for a line of no length
    first: Array  # index of each block's first line, [blocks]


def _line_blocks(codewords: Array, num_lines: int, max_lines: int) -> tuple[_Blocks, int]:
    """The blocks, and how many of them hold lines."""
    last = codewords.shape[0] - 1
    num_blocks, lines = _equal_parts(last, max_lines)
    index = jnp.arange(num_blocks, dtype=jnp.int32)[:, None] * lines
    index = index + jnp.arange(lines + 1, dtype=jnp.int32)[None]
    corners = codewords[jnp.minimum(index, last)]
    start, step = corners[:, :-1], jnp.diff(corners, axis=1)
    padding = index[:, :-1, None] >= num_lines
    squared_length = jnp.sum(step**2, 2, keepdims=True)
    positive = squared_length > 0
    blocks = _Blocks(
        codewords=-2 * corners,
        squared_norm=jnp.where(padding, jnp.inf, jnp.sum(start**2, 2, keepdims=True)),
        start_dot_step=2 * jnp.sum(start * step, 2, keepdims=True),
        squared_length=squared_length,
        reciprocal=jnp.where(positive, 0.5 / jnp.where(positive, squared_length, 1), 0),
        first=index[:, 0].astype(jnp.int32),
    )
    # rows beyond the curve's size cost no time
    return blocks, -(-num_lines // lines)


def _nearest_line_of_tile(blocks: _Blocks, visited: int, x: Array, precision: str) -> Array:
    """Index of the nearest line of each sample [rows, D], [rows] int32; all centred alike."""

    def visit(i: Array | int, best: tuple[Array, Array]) -> tuple[Array, Array]:
        block = jax.tree.map(lambda v: lax.dynamic_index_in_dim(v, i, keepdims=False), blocks)
        product = _product(block.codewords, x.T, precision)  # [lines + 1, rows]
        start, stop = product[:-1], product[1:]
        along = start - stop - block.start_dot_step
        # a clip that need not pass NaN on
        fraction = along * block.reciprocal
        fraction = jnp.where(fraction > 0, fraction, 0)
        fraction = jnp.where(fraction < 1, fraction, 1)
        # less |x|², the same for all lines
        distance = start + block.squared_norm - fraction * (along - fraction * block.squared_length)
        least, index = _least(distance)
        nearer = least < best[0]
        return (
            jnp.where(nearer, least, best[0]),
            jnp.where(nearer, index + block.first, best[1]),
        )

    nothing = (jnp.full_like(x[:, 0], jnp.inf), jnp.zeros_like(x[:, 0], jnp.int32))
    if len(blocks.first) == 1:  # a loop whose end is traced makes an accelerator wait for the host
        return visit(0, nothing)[1]
    return lax.fori_loop(0, visited, visit, nothing)[1]


def nearest_codeword(curve: Curve, x: Array, *, curve_axis: str | None = None) -> Array:
    """Index of the nearest codeword, not point of the curve: [N, D] -> [N] int32, tile by tile.

    Args:
      curve: K codewords of width D.
      x: samples.
      curve_axis: that over which the codewords are divided; see `project`.
    """
    codewords, size = wide(curve.codewords), curve.num_codewords
    if curve_axis is not None:
        x, size = on_each(curve_axis, x), own_size(curve, curve_axis)
    mean = mean_of_rows(codewords, curve_axis)
    codewords = codewords - mean
    real = jnp.arange(len(codewords), dtype=jnp.int32) < size
    half = jnp.where(real, jnp.sum(codewords**2, 1) / 2, jnp.inf)[:, None]
    index = jnp.arange(len(codewords), dtype=jnp.int32)[:, None]

    def of_tile(tile: Array) -> tuple[Array, Array]:
        tile = tile.astype(codewords.dtype) - mean
        distance = half - jnp.matmul(codewords, tile.T, precision="highest")
        least = distance.min(0, keepdims=True)
        return least[0], jnp.where(distance <= least, index, len(codewords) - 1).min(0)

    n = x.shape[0]
    # all codewords at once, so that more of them take fewer samples
    max_rows, max_lines = tile_sizes()
    most = min(max_rows, max(LEAST_ROWS, max_rows * max_lines // len(codewords)))
    num_tiles, rows = _equal_parts(n, most)
    tiles = jnp.pad(x, ((0, num_tiles * rows - n), (0, 0))).reshape(num_tiles, rows, -1)
    least, found = (of_all.reshape(-1)[:n] for of_all in lax.map(of_tile, tiles))
    if curve_axis is None:
        return found
    return lowest(least, found, len(codewords), curve_axis)[1]


class Search(NamedTuple):
    """How samples find their places: as here, or as `rounds.search_on` a curve that is divided.

    Attributes:
      point: the nearest of the curve, `project`.
      codeword: the nearest one, `nearest_codeword`.
    """

    point: Callable[[Curve, Array], Projection] = project
    codeword: Callable[[Curve, Array], Array] = nearest_codeword


WHOLE = Search()


def _least(distance: Array) -> tuple[Array, Array]:
    """The least of each column and the first row that has it, of [M, N]: [N] and [N] int32."""
    return lax.platform_dependent(distance, cpu=_least_in_two, default=_least_in_one)


def _least_in_two(distance: Array) -> tuple[Array, Array]:
    # on a CPU a second least of floats takes a fraction of the time of integers or argmin
    least = distance.min(0)
    index = jnp.arange(distance.shape[0], dtype=jnp.float32)[:, None]
    index = jnp.where(distance <= least[None], index, distance.shape[0] - 1).min(0)
    return least, index.astype(jnp.int32)


def _least_in_one(distance: Array) -> tuple[Array, Array]:
    # an accelerator is kept busy by reading, so it reads once
    def lesser(one: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array]:
        first = (one[0] < other[0]) | ((one[0] == other[0]) & (one[1] < other[1]))
        return jnp.where(first, one[0], other[0]), jnp.where(first, one[1], other[1])

    index = lax.broadcasted_iota(jnp.int32, distance.shape, 0)
    none = (jnp.asarray(jnp.inf, distance.dtype), jnp.int32(0))
    return lax.reduce((distance, index), none, lesser, (0,))


def _product(codewords: Array, x: Array, precision: str) -> Array:
    """codewords [M, D] times x [D, N]."""
    if precision == "bfloat16":
        codewords, narrow = codewords.astype(jnp.bfloat16), x.astype(jnp.bfloat16)
        product = jnp.matmul(codewords, narrow, preferred_element_type=jnp.float32)
        return product.astype(x.dtype)
    names = {"highest": "highest", "tf32": "tensorfloat32"}  # in JAX
    return jnp.matmul(codewords, x, precision=names[precision])
