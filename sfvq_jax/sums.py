"""Sums over samples, by row of the codebook and over devices."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array

TILE = 1024  # samples whose part of the sums is one matrix product
ACCELERATOR_TILE = 2**16  # on an accelerator, which each part costs some launches
PRODUCT_ROWS = 64  # beyond them a product with all rows is mostly one with zeros, on a CPU
ACCELERATOR_PRODUCT_ROWS = 256  # an accelerator adds up more of them row by row
SORTED_TILE, WINDOW = 512, 16  # sorted samples, and rows of the result, in one product


def sum_over(axis: str | None, tree: Any) -> Any:
    """The sum over the shards of an axis of `shard_map` or `pmap`; None: there is one shard."""
    return tree if axis is None else lax.psum(tree, axis)


def on_each(axis: str | None, tree: Any) -> Any:
    """A value that all shards have, as one that each has for itself."""
    return tree if axis is None else lax.pcast(tree, axis, to="varying")


def weights_of(x: Array, weight: Any = None, dtype: Any = None) -> Array:
    """The weights [N] of samples x [N, D]: 1 by default, and of the dtype of x by default.

    Raises:
      ValueError: of another shape, which would be broadcast.
    """
    dtype = x.dtype if dtype is None else dtype
    if weight is None:
        return jnp.ones_like(x[:, 0], dtype)
    weight = jnp.asarray(weight, dtype)
    if weight.shape != x.shape[:1]:
        raise ValueError(
            f"the weights have shape {weight.shape}; expected one a sample, {x.shape[:1]}"
        )
    return weight


def by_row(index: Array, weight: Array, x: Array, rows: int) -> Array:
    """Σ w x over the samples [N, D] of each row, [rows, D], of indices [N] and weights [N]."""
    return by_line(index, weight, jnp.zeros_like(weight), x, rows)[0]


def by_line(
    line: Array,
    start: Array,
    stop: Array,
    x: Array,
    rows: int,
    *,
    origin: Array | None = None,
    columns: Array | None = None,
) -> tuple[Array, Array]:
    """Sums over the samples of each line, in one pass.

    Args:
      line: [N] int32.
      start: share of each sample that its line's first row gets, [N].
      stop: share that the next row gets, [N].
      x: samples, [N, D].
      rows: of the results.
      origin: o, which is subtracted from every sample, tile by tile, [D]; 0 by default.
      columns: other numbers of each sample, [N, C]; none by default.

    Returns:
      Σ start (x - o) at row `line` and Σ stop (x - o) at the next, [rows, D]; Σ columns at row
      `line`, [rows, C].
    """
    columns = jnp.zeros_like(x, shape=(len(x), 0)) if columns is None else columns
    origin = jnp.zeros_like(x, shape=x.shape[1:]) if origin is None else origin
    samples = tuple(map(jnp.asarray, (origin[None], line, start, stop, x, columns)))
    most = PRODUCT_ROWS if jax.default_backend() == "cpu" else ACCELERATOR_PRODUCT_ROWS
    if rows <= most:
        return _by_product(rows, *samples)
    by_window, by_scatter = (functools.partial(way, rows) for way in (_by_window, _by_scatter))
    return lax.platform_dependent(*samples, cpu=by_window, default=by_scatter)


def _by_product(
    rows: int, origin: Array, line: Array, start: Array, stop: Array, x: Array, columns: Array
) -> tuple[Array, Array]:
    """By products of the shares [rows, tile] of each tile of samples."""
    row = jnp.arange(rows, dtype=line.dtype)[:, None]
    n = x.shape[0]
    tile = min(TILE if jax.default_backend() == "cpu" else ACCELERATOR_TILE, n)

    def add_tile(i: Array, totals: tuple[Array, Array]) -> tuple[Array, Array]:
        # the last tile reaches back over samples of the one before, which then count nothing
        first = jnp.minimum(i * tile, n - tile)
        its_line, *rest = (
            lax.dynamic_slice_in_dim(a, first, tile) for a in (line, start, stop, x, columns)
        )
        its_line = jnp.where(first + jnp.arange(tile) >= i * tile, its_line, -2)
        return tuple(map(jnp.add, totals, _products(row, origin, its_line, *rest)))  # pyright: ignore

    return lax.fori_loop(0, -(-n // tile), add_tile, _nothing(rows, x, columns))


def _by_scatter(
    rows: int, origin: Array, line: Array, start: Array, stop: Array, x: Array, columns: Array
) -> tuple[Array, Array]:
    x, (total, of_columns) = x - origin, _nothing(rows, x, columns)
    total = total.at[line].add(start[:, None] * x).at[line + 1].add(stop[:, None] * x)
    return total, of_columns.at[line].add(columns)


def _by_window(
    rows: int, origin: Array, line: Array, start: Array, stop: Array, x: Array, columns: Array
) -> tuple[Array, Array]:
    """Samples in the order of their lines: a tile of them belongs to few rows, a window or more."""
    n = x.shape[0]
    tile, window = min(SORTED_TILE, n), min(WINDOW, rows)
    order = jnp.pad(jnp.argsort(line).astype(jnp.int32), (0, -n % tile), mode="edge")
    real = jnp.arange(len(order)) < n

    def add_tile(i: Array, totals: tuple[Array, Array]) -> tuple[Array, Array]:
        its_order, its_real = (lax.dynamic_slice_in_dim(a, i * tile, tile) for a in (order, real))
        its_line, *rest = (
            a.at[its_order].get(mode="promise_in_bounds") for a in (line, start, stop, x, columns)
        )
        last = jnp.minimum(its_line[-1] + 1, rows - 1)

        def add_window(carry: tuple[Array, Any]) -> tuple[Array, Any]:
            first, totals = carry
            # a window at the end reaches back over rows that have been counted
            base = jnp.minimum(first, rows - window)
            row = base + jnp.arange(window, dtype=line.dtype)[:, None]
            row = jnp.where(row >= first, row, -3)
            added = _products(row, origin, jnp.where(its_real, its_line, -6), *rest)
            totals = tuple(
                lax.dynamic_update_slice_in_dim(
                    total, lax.dynamic_slice_in_dim(total, base, window) + more, base, 0
                )
                for total, more in zip(totals, added, strict=True)
            )
            return base + window, totals

        return lax.while_loop(lambda carry: carry[0] <= last, add_window, (its_line[0], totals))[1]

    return lax.fori_loop(0, len(order) // tile, add_tile, _nothing(rows, x, columns))


def _products(
    row: Array, origin: Array, line: Array, start: Array, stop: Array, x: Array, columns: Array
) -> tuple[Array, Array]:
    """The sums at some rows [M, 1] over some samples."""
    on_line = row == line[None]
    share = jnp.where(on_line, start[None], 0) + jnp.where(row == line[None] + 1, stop[None], 0)
    total = jnp.matmul(share, x - origin, precision="highest")
    if jax.default_backend() == "cpu":
        return total, jnp.matmul(on_line.astype(x.dtype), columns, precision="highest")
    # a GPU takes ten times as long for a product with so few columns as for the one above
    return total, jnp.where(on_line[:, None], columns.T[None], 0).sum(-1)


def _nothing(rows: int, x: Array, columns: Array) -> tuple[Array, Array]:
    # built from the samples, so that it varies over the shards as they do
    return tuple(  # pyright: ignore
        jnp.zeros((rows, a.shape[1]), x.dtype) + jnp.zeros_like(a[:1]) for a in (x, columns)
    )
