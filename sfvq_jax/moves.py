"""What rounds cannot do: codewords that no sample holds, and stretches in the wrong order.

Refining moves codewords only a little at a time, so two faults stay for ever: codewords that are
nobody's nearest, and a path that another order of the same codewords would shorten. A move mends
one of them at once; the rounds of the solver go on from there, and the better curve stays.
Everything is a sum over samples or a table of the codewords, deterministic, and keeps its shape.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sfvq_jax.curve import SMALL_ROWS, Curve, tied, wide
from sfvq_jax.projection import WHOLE, Search
from sfvq_jax.sums import by_row, on_each, sum_over, weights_of

Array = jax.Array

DIRECTION_STEPS = 2  # power steps to a cell's leading direction, from that along the curve
SHORTER = 1e-3  # share of its length by which a new order must shorten the curve
SEGMENT = 3  # codewords that Or-opt moves together, at most
CHANGES = 16  # of the order, a codeword, at most


class Proposal(NamedTuple):
    """A curve to go on from, and whether it is worth the rounds, bool []."""

    curve: Curve
    worthwhile: Array


class Reseeded(NamedTuple):
    """A reseeded curve, and where its rows come from.

    Attributes:
      curve: the new one.
      worthwhile: whether there was something to mend and something to mend it with, bool [].
      was: the row of the old curve that each row was, or is a half of, [R] int32; -1 beyond the
        codewords.
      halved: whether it is a half, [R] bool.
    """

    curve: Curve
    worthwhile: Array
    was: Array
    halved: Array


def reseed(
    curve: Curve, x: Array, weight: Array, axis: str | None = None, search: Search = WHOLE
) -> Proposal:
    """Dead codewords are taken out, and as many cells of the largest n·variance are split in two.

    A cell holds the samples nearest to a codeword. Its halves are the means of the two halves of a
    Gaussian, mean ± √(2/π · variance) along the cell's leading direction, turned so that the curve
    is shorter. So the order is kept. Worthwhile where codewords are dead and cells can be split.

    Args:
      curve: K codewords, in R rows.
      x: samples, [N, D]; some thousands serve for 64 codewords.
      weight: of each, [N]; 0 leaves it out.
      axis: name of the axis over which the samples are divided.
      search: how samples find their places.
    """
    found = reseeded(curve, x, weight, axis, search)
    return Proposal(found.curve, found.worthwhile)


def reseeded(
    curve: Curve,
    x: Array,
    weight: Array,
    axis: str | None = None,
    search: Search = WHOLE,
    *,
    dead: Array | None = None,
) -> Reseeded:
    """The same, with what became of each row.

    Args:
      dead: which codewords are to be taken out, [R] bool; by default those that none of the samples
        is nearest to.
    """
    codewords = wide(curve.codewords)
    x = jnp.asarray(x, codewords.dtype)
    weight = weights_of(x, weight)
    rows = codewords.shape[0]
    index = jnp.arange(rows, dtype=jnp.int32)
    real = index < curve.num_codewords
    cells = _cells(Curve(codewords, curve.size), x, weight, axis, search)
    dead = real & (cells.load == 0 if dead is None else dead)
    score = jnp.where(real & ~dead & (cells.samples > 1), cells.load * cells.variance, 0)
    rank = jnp.zeros(rows, jnp.int32).at[jnp.argsort(-score)].set(index)
    split = (rank < dead.sum(dtype=jnp.int32)) & (score > 0)
    kept = real & ~dead

    half = jnp.sqrt(2 / jnp.pi * cells.variance)[:, None] * cells.direction
    before = lax.cummax(jnp.where(kept, index, -1))
    before = jnp.concatenate([jnp.full(1, -1, jnp.int32), before[:-1]])  # the living one before
    after = lax.cummin(jnp.where(kept, index, rows), reverse=True)
    after = jnp.concatenate([after[1:], jnp.full(1, rows, jnp.int32)])

    def length(first: Array, second: Array) -> Array:
        ends = (
            (first - codewords[before], before >= 0),
            (second - _at(codewords, after), after < rows),
        )
        return sum(jnp.where(there, jnp.linalg.norm(end, axis=1), 0) for end, there in ends)  # pyright: ignore

    lower, upper = cells.mean - half, cells.mean + half
    turned = (length(upper, lower) < length(lower, upper))[:, None]
    first = jnp.where(split[:, None], jnp.where(turned, upper, lower), codewords)
    second = jnp.where(turned, lower, upper)

    count = kept.astype(jnp.int32) + split.astype(jnp.int32)
    place = jnp.cumsum(count, dtype=jnp.int32) - count
    kept_at = jnp.where(kept, place, rows)  # what would lie beyond the rows is dropped
    half_at = jnp.where(split, place + 1, rows)
    new = jnp.zeros_like(codewords).at[kept_at].set(first, mode="drop")
    new = new.at[half_at].set(second, mode="drop")
    # where few cells can be split, the last codeword is repeated
    new = tied(new, count.sum(dtype=jnp.int32)).codewords.astype(curve.codewords.dtype)
    was = jnp.full_like(index, -1).at[kept_at].set(index, mode="drop")
    was = was.at[half_at].set(index, mode="drop")
    halved = jnp.zeros_like(real).at[kept_at].set(split, mode="drop")
    halved = halved.at[half_at].set(True, mode="drop")
    return Reseeded(Curve(new, curve.size), jnp.any(dead) & jnp.any(split), was, halved)


def reorder(curve: Curve) -> Proposal:
    """The same codewords in a shorter order: 2-opt and Or-opt from the present one.

    2-opt (Croes, 1958) reverses a stretch, Or-opt (Or, 1976) moves up to three codewords elsewhere;
    of all such changes the best is made, until none shortens the path. Worthwhile where it is
    shorter by a thousandth; never beyond 64 codewords, whose table of changes would be large.
    """
    rows = curve.codewords.shape[0]
    if rows > SMALL_ROWS:
        return Proposal(curve, jnp.zeros((), bool))
    points = wide(curve.codewords)
    points = points - points.mean(0, keepdims=True)
    norm = jnp.sum(points**2, 1)
    squared = norm[:, None] + norm[None] - 2 * jnp.matmul(points, points.T, precision="highest")
    distance = jnp.sqrt(jnp.maximum(squared, 0))
    # a point at distance 0 from all, before the first and after the last, frees both ends
    distance = jnp.pad(distance, (0, 1))
    size = jnp.asarray(curve.num_codewords, jnp.int32)
    index = jnp.arange(rows + 2, dtype=jnp.int32)
    path = jnp.where((index >= 1) & (index <= size), index - 1, rows)

    def length(path: Array) -> Array:
        return distance[path[:-1], path[1:]].sum()

    before = length(path)

    def change(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        path, number, _ = carry
        gain, place = _best_change(distance, path, size)
        better = gain > 1e-6 * before
        return jnp.where(better, path[jnp.argsort(place)], path), number + 1, better

    start = (path, jnp.int32(0), jnp.ones((), bool))
    path = lax.while_loop(lambda carry: carry[2] & (carry[1] < CHANGES * rows), change, start)[0]
    order = jnp.minimum(path[1:-1], rows - 1)
    new = tied(curve.codewords[order], size).codewords
    worthwhile = length(path) < (1 - SHORTER) * before
    return Proposal(Curve(new, curve.size), worthwhile)


MOVES: dict[str, Callable[[Curve, Array, Array, str | None, Search], Proposal]] = {
    "reseed": reseed,
    "reorder": lambda curve, x, weight, axis, search: reorder(curve),
}


class _Cells(NamedTuple):
    """Of the samples nearest to each codeword: weight, number [R]; mean, leading direction [R, D];
    variance along it [R]."""

    load: Array
    samples: Array
    mean: Array
    direction: Array
    variance: Array


def _cells(curve: Curve, x: Array, weight: Array, axis: str | None, search: Search) -> _Cells:
    codewords, rows = curve.codewords, curve.codewords.shape[0]
    near = search.codeword(curve, x)
    columns = jnp.stack([weight, (weight > 0).astype(weight.dtype)], 1)
    load, samples = sum_over(axis, jnp.zeros_like(columns, shape=(rows, 2)).at[near].add(columns)).T
    total = jnp.where(load > 0, load, 1)
    # from the curve's mean, since the moments of far data would lose their digits
    origin = codewords.mean(0, keepdims=True)
    mean = sum_over(axis, by_row(near, weight, x - origin, rows)) / total[:, None] + origin
    offset = x - mean[near]

    def along(direction: Array) -> Array:
        return weight * jnp.sum(offset * on_each(axis, direction)[near], 1)

    direction = _unit(
        jnp.concatenate([codewords[1:], codewords[-1:]])
        - jnp.concatenate([codewords[:1], codewords[:-1]])
    )
    for _ in range(DIRECTION_STEPS):
        direction = _unit(sum_over(axis, by_row(near, along(direction), offset, rows)))
    square = along(direction) * jnp.sum(offset * direction[near], 1)
    variance = sum_over(axis, jnp.zeros_like(square, shape=(rows,)).at[near].add(square)) / total
    return _Cells(load, samples, mean, direction, variance)


def _unit(vectors: Array) -> Array:
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)


def _at(codewords: Array, index: Array) -> Array:
    return codewords[jnp.minimum(index, codewords.shape[0] - 1)]


def _best_change(distance: Array, path: Array, size: Array) -> tuple[Array, Array]:
    """The change of a path [P] that shortens it most: by how much, and where each entry goes, [P].

    Entries 1 … size of the path are codewords, those around them the point that frees the ends.
    """
    d = distance[path][:, path]
    at = jnp.arange(len(path), dtype=jnp.int32)
    i, j = at[:, None], at[None]
    edge = jnp.pad(jnp.diagonal(d, 1), (0, 1))  # from each entry to the next
    before, after = jnp.roll(d, 1, 0), jnp.roll(d, -1, 1)  # d[i - 1, j], d[i, j + 1]
    gain = jnp.roll(edge, 1)[:, None] + edge[None] - before - after
    tables = [jnp.where((i >= 1) & (i < j) & (j <= size), gain, -jnp.inf)]
    for number in range(1, SEGMENT + 1):
        # entries i … stop go between entries j and j + 1
        stop = jnp.minimum(at + number - 1, len(path) - 1)
        beyond = jnp.minimum(stop + 1, len(path) - 1)
        saved = jnp.roll(edge, 1) + edge[stop] - d[jnp.maximum(at - 1, 0), beyond]
        valid = (i >= 1) & (stop[:, None] <= size) & (j <= size)
        valid &= (j < i - 1) | (j > stop[:, None])
        one, other = d, jnp.roll(d, -1, 1)  # from entry to j, and to j + 1
        for joined in (one + other[stop], one[stop] + other):
            gain = saved[:, None] + edge[None] - joined
            tables.append(jnp.where(valid, gain, -jnp.inf))
    table = jnp.stack(tables)
    best = jnp.argmax(table)
    kind, i, j = (index.astype(jnp.int32) for index in jnp.unravel_index(best, table.shape))
    number = (kind + 1) // 2  # of codewords that move together; 0: a stretch is reversed
    reversed_place = jnp.where((at >= i) & (at <= j), i + j - at, at).astype(distance.dtype)
    within = (at - i + 1).astype(distance.dtype) / (SEGMENT + 2)
    backwards = (number + i - at).astype(distance.dtype) / (SEGMENT + 2)
    moving = (at >= i) & (at < i + number)
    moved = j.astype(distance.dtype) + jnp.where(kind % 2 == 1, within, backwards)
    moved_place = jnp.where(moving, moved, at.astype(distance.dtype))
    return table.reshape(-1)[best], jnp.where(kind == 0, reversed_place, moved_place)
