"""A curve that is divided over devices: each has a range of its lines.

Along the axis of `shard_map` over which the codewords are divided each shard has its rows, in
order. The lines of a shard start at them, so that the last one ends at a codeword of the next
shard. A sample is projected onto every shard's lines, and the nearest point of all wins: the one on
the lowest line where several are as near. Its sums are then those of the winner's lines, and what
belongs to the codeword that ends them goes to the shard that has it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from sfvq_jax.curve import Curve

Array = jax.Array


def with_next(curve: Curve, axis: str) -> Curve:
    """This shard's lines: its codewords [R, D], and the one that follows them, [R + 1, D].

    Args:
      curve: this shard's codewords; the size is that of the whole curve, or None.
      axis: name of the axis over which the codewords are divided.
    """
    own = curve.codewords
    shards, shard = lax.axis_size(axis), lax.axis_index(axis)
    following = lax.ppermute(own[:1], axis, [(i + 1, i) for i in range(shards - 1)])
    following = jnp.where(shard == shards - 1, own[-1:], following)
    lines = _own_count(_size(curve, axis) - 1, len(own), axis)
    return Curve(jnp.concatenate([own, following]), lines + 1)


def own_size(curve: Curve, axis: str) -> Array:
    """How many of this shard's rows are codewords of the curve, int32 []."""
    return _own_count(_size(curve, axis), len(curve.codewords), axis)


def _size(curve: Curve, axis: str) -> Any:
    return len(curve.codewords) * lax.axis_size(axis) if curve.size is None else curve.size


def _own_count(count: Any, rows: int, axis: str) -> Array:
    return jnp.clip(count - lax.axis_index(axis) * rows, 0, rows)


def mean_of_rows(rows: Array, axis: str | None) -> Array:
    """The mean of the rows [R, D] of all shards, [1, D]."""
    mean = rows.mean(0, keepdims=True)
    return mean if axis is None else lax.pmean(mean, axis)


def lowest(value: Array, index: Array, rows: int, axis: str) -> tuple[Array, Array]:
    """Which shard has the least value of each sample, at the lowest index where several have.

    Args:
      value: this shard's, [N].
      index: where it has it, counted from its first row, [N] int32.
      rows: of this shard.
      axis: name of the axis.

    Returns:
      Whether it is this shard, [N] bool; the winner's index in the whole, [N] int32, on all.
    """
    value = lax.stop_gradient(value)
    shards, first = lax.axis_size(axis), lax.axis_index(axis) * rows
    least = ~(value > lax.pmin(value, axis))  # so that of values that are no numbers one wins
    found = lax.pmin(jnp.where(least, first + index, shards * rows), axis)
    return least & (found == first + index), found


def own_sums(sums: Any, axis: str) -> Any:
    """Sums [R + 1, …] over this shard's lines and the codeword after them -> its own, [R, …].

    Numbers [] are added up over the shards.
    """
    shards = lax.axis_size(axis)

    def of_leaf(leaf: Array) -> Array:
        if leaf.ndim == 0:
            return lax.psum(leaf, axis)
        before = lax.ppermute(leaf[-1:], axis, [(i, i + 1) for i in range(shards - 1)])
        return jnp.concatenate([leaf[:1] + before, leaf[1:-1]])

    return jax.tree.map(of_leaf, sums)
