"""Sums over samples, by row of the codebook and over devices."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array

TILE = 1024  # samples whose part of the sums is one matrix product
PRODUCT_ROWS = 256  # beyond them, adding row by row is cheaper than a product with zeros


def sum_over(axis: str | None, tree: Any) -> Any:
    """The sum over the shards of an axis of `shard_map` or `pmap`; None: there is one shard."""
    return tree if axis is None else lax.psum(tree, axis)


def on_each(axis: str | None, tree: Any) -> Any:
    """A value that all shards have, as one that each has for itself."""
    return tree if axis is None else lax.pcast(tree, axis, to="varying")


def by_row(index: Array, weight: Array, x: Array, rows: int) -> Array:
    """Σ w x over the samples [N, D] of each row, [rows, D], of indices [N] and weights [N]."""
    return by_line(index, weight, jnp.zeros_like(weight), x, rows)


def by_line(line: Array, start: Array, stop: Array, x: Array, rows: int) -> Array:
    """Σ start x at row `line` and Σ stop x at row `line + 1`, [rows, D].

    Args:
      line: [N] int32.
      start: share of each sample that its line's first row gets, [N].
      stop: share that the next row gets, [N].
      x: samples, [N, D].
      rows: of the result.
    """
    if rows > PRODUCT_ROWS:
        zero = jnp.zeros((rows, x.shape[1]), x.dtype)
        return zero.at[line].add(start[:, None] * x).at[line + 1].add(stop[:, None] * x)
    index = jnp.arange(rows, dtype=line.dtype)[:, None]
    n = x.shape[0]
    tile = min(TILE, n)

    def add_tile(i: Array, total: Array) -> Array:
        # the last tile reaches back over samples of the one before, which then count nothing
        first = jnp.minimum(i * tile, n - tile)
        tile_x, tile_line, tile_start, tile_stop = (
            lax.dynamic_slice_in_dim(array, first, tile) for array in (x, line, start, stop)
        )
        new = (first + jnp.arange(tile) >= i * tile).astype(x.dtype)
        share = jnp.where(index == tile_line[None], (new * tile_start)[None], 0)
        share += jnp.where(index == tile_line[None] + 1, (new * tile_stop)[None], 0)
        return total + jnp.matmul(share, tile_x, precision="highest")

    # built from x, so that it varies over the shards as x does
    zero = jnp.zeros((rows, x.shape[1]), x.dtype) + jnp.zeros_like(x[:1])
    return lax.fori_loop(0, -(-n // tile), add_tile, zero)
