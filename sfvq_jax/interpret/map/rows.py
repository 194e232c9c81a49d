"""Latents that are rows with pictures or classes of their own: what of them lies at each codeword.

Letters: N rows, D dimensions, K codewords, M rows at each.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.curve import Curve, check_curve, trimmed
from sfvq_jax.projection import nearest_codeword
from sfvq_jax.short import short_repr
from sfvq_jax.sources import as_rows, read_in_order

Array = jax.Array

BLOCK_DISTANCES = 2**24  # between rows and codewords, in memory at once: 64 MiB
MAX_BLOCK = 2**14  # rows


class Classes(NamedTuple):
    """The classes of N rows.

    Attributes:
      of_rows: numbers of their names, [N] int64.
      names: each once; of numbers in the order of the numbers.
    """

    of_rows: np.ndarray
    names: list[str]

    __repr__ = short_repr


class RowsAt(NamedTuple):
    """The rows at each codeword.

    Attributes:
      rows: numbers of the M rows nearest to each codeword, the nearest first, [K, M] int64.
      distance: their distances, [K, M] float32.
      size: number of rows whose nearest codeword it is, [K] int64.
      labels: commonest label of these rows, K texts; if there are none, the label of the nearest
        row. None without labels.
    """

    rows: np.ndarray
    distance: np.ndarray
    size: np.ndarray
    labels: list[str] | None

    __repr__ = short_repr


def as_classes(labels: Any, count: int, *, distinct: bool = False) -> Classes:
    """Labels [N] as classes.

    Args:
      labels: whole numbers, truth values or texts.
      count: N.
      distinct: whether all may differ, which rows' labels never do.

    Raises:
      ValueError: not one a row, of another type, or all different.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iubUST":
        number = labels.dtype.kind == "f"
        raise ValueError(
            f"labels are of type {labels.dtype} and shape {labels.shape}; expected whole numbers or"
            f" texts, [N]{', such as labels.astype(int) makes' * number}"
        )
    if len(labels) != count:
        raise ValueError(f"there are {len(labels)} labels of {count} latents: give each one label")
    names, of_rows = np.unique(labels, return_inverse=True)
    if not distinct and 1 < count == len(names):
        raise ValueError(
            f"each of the {count} labels is another one: expected classes, which rows share"
        )
    if labels.dtype.kind == "S":
        names = np.char.decode(names, "utf-8", "replace")
    return Classes(of_rows, [str(name) for name in names])


def rows_at(curve: Curve, source: Any, *, labels: Any = None, count: int = 1) -> RowsAt:
    """Finds the rows of an array or a file at each codeword; reads them once, in blocks.

    Args:
      curve: K codewords of width D.
      source: N rows: an array, a path or URI, or a finite source on the host.
      labels: labels of the rows, [N] integers or texts.
      count: number M of nearest rows that are kept; fewer if there are no more rows.

    Raises:
      ValueError: a source without numbered rows, or of another width; or unsuitable labels.

    >>> x = jnp.array([[0.0, 0.1], [0.0, 3.0], [2.0, 0.2], [0.1, 0.0]])
    >>> at = rows_at(Curve(jnp.array([[0.0, 0.0], [2.0, 0.0]])), x, labels=list("abba"), count=2)
    >>> at.rows.tolist(), at.size.tolist(), at.labels
    ([[0, 3], [2, 3]], [3, 1], ['a', 'b'])
    """
    check_curve(curve)
    source, curve = as_rows(source, curve), trimmed(curve)
    n, (k, d) = source.num_latents, curve.codewords.shape
    if count < 1:
        raise ValueError(f"count is {count}; expected 1 or more")
    count = min(count, n)
    of_rows, names = as_classes(np.zeros(n, int) if labels is None else labels, n)
    block = min(max(count, BLOCK_DISTANCES // max(k, d)), MAX_BLOCK, n)
    rows, distance = np.zeros((k, 0), np.int64), np.zeros((k, 0), np.float32)
    counts = np.zeros((k, len(names)), np.int64)
    for start in range(0, n, block):
        stop = min(start + block, n)
        x = np.zeros((block, d), np.float32)  # of one shape, compiled once
        x[: stop - start] = read_in_order(source, start, stop - start)
        found = _look(curve, x, stop - start, min(count, block))
        new_rows, new_distance, nearest = map(np.asarray, found)
        np.add.at(counts, (nearest[: stop - start], of_rows[start:stop]), 1)
        rows = np.append(rows, new_rows + start, 1)
        distance = np.append(distance, new_distance, 1)
        order = np.argsort(distance, 1, kind="stable")[:, :count]
        rows = np.take_along_axis(rows, order, 1)
        distance = np.take_along_axis(distance, order, 1)
    source.check_unchanged()
    found = [names[c] for c in commonest(counts, of_rows[rows[:, 0]])]
    return RowsAt(rows, distance, counts.sum(1), None if labels is None else found)


def commonest(counts: np.ndarray, of_nearest: np.ndarray) -> np.ndarray:
    """The class of each codeword, [K]: by counts [K, C] of the rows nearest to it; of none, that of
    its nearest row, [K]."""
    return np.where(counts.any(1), counts.argmax(1), of_nearest)


@functools.partial(jax.jit, static_argnames="count")
def _look(curve: Curve, x: Array, valid: Array, count: int) -> tuple[Array, Array, Array]:
    """The rows of x nearest to each codeword and their distances, [K, M], and the nearest codeword
    of each row, [B]; those from `valid` on are padding."""
    origin = curve.codewords.mean(0, keepdims=True)
    codewords, centred = curve.codewords - origin, x - origin
    closeness = jnp.matmul(codewords, centred.T, precision="highest")
    closeness -= jnp.sum(centred**2, 1)[None] / 2
    closeness = jnp.where(jnp.arange(len(x))[None] < valid, closeness, -jnp.inf)
    value, rows = jax.lax.top_k(closeness, count)
    # from the differences themselves, which have lost no digits
    distance = jax.lax.map(
        lambda pair: jnp.linalg.norm(x[pair[1]] - pair[0][None], axis=1),
        (curve.codewords, rows),
        batch_size=64,
    )
    distance = jnp.where(jnp.isfinite(value), distance, jnp.inf)
    return rows, distance, nearest_codeword(curve, x)
