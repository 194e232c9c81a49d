"""Rounds at one number of codewords, and stages from few to many: `fit_array`, pure, one program.

A stage grows the curve and refines it by rounds. Then come the solver's moves, one after another:
each proposes a curve, which rounds refine too, and the better of the two stays. `fit` does the same
with samples from anywhere.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from sfvq_jax.curve import SMALL_ROWS, Curve, padded, row_bucket, tied, trimmed, wide
from sfvq_jax.least_squares import LeastSquares
from sfvq_jax.moves import Proposal, reorder, reseed
from sfvq_jax.projection import bucket_size
from sfvq_jax.quality import Health, health, perplexity
from sfvq_jax.solver import Solver, round_steps, step, steps
from sfvq_jax.subdivision import initial_curve, occurrence, sample_numbers, subdivide
from sfvq_jax.sums import sum_over

Array = jax.Array
Start = Callable[[Array, Array, Array, str | None], Curve]


class StageInfo(NamedTuple):
    """What happened in S stages, each of rounds and of M moves with rounds of their own, R at most.

    Attributes:
      objective: before each round, a dimension, [S, 1 + M, R]; NaN where there was no round.
      distortion: likewise.
      rounds: in each stage and its moves, [S, 1 + M] int32; 0 where a move had nothing to mend.
      converged: whether the rounds that led to the stage's curve ended before their number did,
        because they gained little, [S] bool. A rise does not count as that.
      dead: codewords that are nobody's nearest at the end of each stage, [S] int32.
      lines: lines in use at the end of each stage: exp of the entropy of their shares, [S].
      final: distortion at the end of each stage, by exact projection of all samples, [S].
    """

    objective: Array
    distortion: Array
    rounds: Array
    converged: Array
    dead: Array
    lines: Array
    final: Array


class Rounds(NamedTuple):
    """What the rounds at one number of codewords did: see `StageInfo`, here of [R] and []."""

    objective: Array
    distortion: Array
    rounds: Array
    converged: Array


def fit_array(
    key: Array,
    x: Any,
    *,
    bits: int,
    solver: Solver | None = None,
    weights: Any = None,
    start: Curve | Start | None = None,
    axis: str | None = None,
) -> tuple[Curve, StageInfo]:
    """A curve of 2**bits codewords through the samples of an array.

    Pure: it works under `jit`, `vmap` (over keys, data, weights, starts and the solver's numbers),
    `shard_map` and `pmap`. All stages up to 64 codewords are one compiled program, which another
    key, penalty, tolerance or nearly as many samples use again.

    Args:
      key: a PRNG key; another one gives another curve.
      x: samples, [N, D]; N >= 4.
      bits: 2 or more.
      solver: `LeastSquares()` by default.
      weights: of each sample, [N]; a sample of weight 0 is not there.
      start: a curve of at most 2**bits codewords to go on from, or a function
        (key, x, weights, axis) that gives one. By default four codewords (`initial_curve`).
      axis: name of the axis of `shard_map` or `pmap` over which samples are divided.

    Returns:
      The curve, and what happened in each stage; the same on all shards.

    >>> x = jax.random.normal(jax.random.key(0), (512, 2))
    >>> curve, info = fit_array(jax.random.key(1), x, bits=3)
    >>> curve.codewords.shape, info.dead.tolist()
    ((8, 2), [0, 0])
    """
    solver = LeastSquares() if solver is None else solver
    x, weights = _checked(x, weights, bits)
    function = default_start if start is None else start
    curve = None
    if isinstance(start, Curve):
        curve, function = trimmed(start), None
        if curve.codewords.shape[1] != x.shape[1]:
            raise ValueError(
                f"the start has codewords of width {curve.latent_dim}, x has shape {x.shape}"
            )
    return _fit_array(key, x, weights, solver, curve, bits, function, axis)


def default_start(key: Array, x: Array, weight: Array, axis: str | None) -> Curve:
    """Four codewords, a little different for each key (`initial_curve`)."""
    return initial_curve(x, weight, key, axis)


def stage_sizes(first: int, last: int) -> list[int]:
    """Codewords of each stage: first, 2 first, … last."""
    if first > last:
        raise ValueError(f"the start has {first} codewords, more than the {last} to end with")
    sizes = [first]
    while sizes[-1] < last:
        sizes.append(min(2 * sizes[-1], last))
    return sizes


def stage_rows(solver: Solver, size: int) -> int:
    """Rows of a stage of so many codewords: many stages share a program where rounds are few.

    A solver that goes by batches takes thousands of small steps, which padding would slow down.
    """
    return row_bucket(size) if solver.batch is None else size


def propose(
    solver: Solver,
    move: Array | int,
    curve: Curve,
    size: Array | int,
    x: Array,
    weight: Array,
    axis: str | None = None,
) -> Proposal:
    """The curve that the rounds of a stage or of one of its moves start from.

    Args:
      solver: says how curves grow, and names the moves.
      move: 0 grows the curve to `size`, or leaves it if it is of that size; i the solver's move
        i - 1, at the curve's own size. May be traced, as `size` may: one program does them all.
      curve: in at least `size` rows.
      size: of the new curve.
      x: measuring samples, [N, D].
      weight: of each, [N].
      axis: name of the axis over which they are divided.
    """

    def grow() -> Proposal:
        def grown() -> Array:
            if solver.subdivision == "published":
                return subdivide(curve, size).codewords
            return occurrence(curve, size, x, weight, axis).codewords

        now = jnp.asarray(curve.num_codewords, jnp.int32)
        codewords = lax.cond(size > now, grown, lambda: curve.codewords)
        return Proposal(Curve(codewords), jnp.ones((), bool))

    def moved(name: str) -> Callable[[], Proposal]:
        def of_this_size() -> Proposal:
            curve, worthwhile = MOVES[name](now, x, weight, axis)
            return Proposal(Curve(curve.codewords), worthwhile)

        return of_this_size

    now = Curve(curve.codewords, jnp.asarray(curve.num_codewords, jnp.int32))
    branches = [grow, *(moved(name) for name in solver.moves)]
    found = lax.switch(move, branches) if len(branches) > 1 else grow()
    return Proposal(tied(found.curve.codewords, size), found.worthwhile)


MOVES: dict[str, Callable[[Curve, Array, Array, str | None], Proposal]] = {
    "reseed": reseed,
    "reorder": lambda curve, x, weight, axis: reorder(curve),
}


def better(
    solver: Solver, state: Any, old: tuple[Curve, Health], new: tuple[Curve, Health]
) -> Array:
    """Whether the curve that a move led to takes the place of the one before it, bool [].

    It does if fewer codewords are dead and the distortion is not higher, or if no more are dead and
    the objective is lower, by the terms of the old curve's `state`.
    """
    (old_curve, before), (new_curve, after) = old, new
    fewer = (after.dead < before.dead) & (after.distortion <= before.distortion)
    lower = after.distortion + solver.penalty(new_curve, state) < (
        before.distortion + solver.penalty(old_curve, state)
    )
    return fewer | ((after.dead <= before.dead) & lower)


def stage(
    solver: Solver,
    curve: Curve,
    key: Array,
    x: Array,
    weight: Array,
    axis: str | None = None,
    active: Array | bool = True,
) -> tuple[Curve, Any, Rounds]:
    """Rounds at one number of codewords, until one gains little; none if not `active`.

    Returns:
      The last curve, the solver's state and what the rounds did.
    """

    class Loop(NamedTuple):
        codewords: Array  # the size is not carried: under vmap it stays one number
        state: Any
        objective: Array
        done: Rounds

    def one(loop: Loop) -> Loop:
        now, done = Curve(loop.codewords, curve.size), loop.done
        of_round = jax.random.fold_in(key, done.rounds)
        new, state, info = _round(solver, now, loop.state, of_round, x, weight, axis)
        # both curves by the terms of the older one
        gain = loop.objective - (info.distortion + solver.penalty(now, loop.state))
        little = (gain >= 0) & (gain <= solver.tolerance * loop.objective)
        done = Rounds(
            done.objective.at[done.rounds].set(info.objective),
            done.distortion.at[done.rounds].set(info.distortion),
            done.rounds + 1,
            little & (done.rounds > 0),
        )
        return Loop(new.codewords, state, info.objective, done)

    dtype = wide(curve.codewords).dtype
    nothing = jnp.full(solver.rounds, jnp.nan, dtype)
    done = Rounds(nothing, nothing, jnp.int32(0), jnp.zeros((), bool))
    loop = Loop(curve.codewords, solver.init(curve), jnp.asarray(jnp.inf, dtype), done)
    active = jnp.asarray(active)
    loop = lax.while_loop(
        lambda loop: active & (loop.done.rounds < solver.rounds) & ~loop.done.converged, one, loop
    )
    return Curve(loop.codewords, curve.size), loop.state, loop.done


@functools.partial(jax.jit, static_argnames=("bits", "function", "axis"))
def _fit_array(
    key: Array,
    x: Array,
    weight: Array,
    solver: Solver,
    start: Curve | None,
    bits: int,
    function: Start | None,
    axis: str | None,
) -> tuple[Curve, StageInfo]:
    x = wide(x)
    weight = weight.astype(x.dtype)
    start_key, stages_key = jax.random.split(key)
    if function is not None:
        start = trimmed(function(start_key, x, weight, axis))
    assert start is not None
    curve = Curve(start.codewords.astype(x.dtype))
    sizes, infos = stage_sizes(curve.codewords.shape[0], 2**bits), []
    for rows, of_rows in _by_rows(solver, sizes):
        first = sizes.index(of_rows[0])
        before = [sizes[max(first - 1, 0)], *of_rows[:-1]]
        left = np.arange(len(of_rows))[::-1] + len(sizes) - first - len(of_rows)
        keys = jax.random.split(jax.random.fold_in(stages_key, first), len(of_rows))
        plan = (jnp.array(before), jnp.array(of_rows), jnp.array(left), keys)
        codewords = padded(curve, rows).codewords
        codewords, info = _stages(solver, codewords, plan, x, weight, axis)
        curve, infos = Curve(codewords), [*infos, info]
    info = jax.tree.map(lambda *parts: jnp.concatenate(parts), *infos)
    return Curve(curve.codewords[: sizes[-1]]), info


def _by_rows(solver: Solver, sizes: list[int]) -> list[tuple[int, list[int]]]:
    """The sizes that share a number of rows, and it; no more rows than the last size needs."""
    groups: dict[int, list[int]] = {}
    for size in sizes:
        rows = stage_rows(solver, size)
        rows = min(rows, sizes[-1]) if rows <= SMALL_ROWS else rows
        groups.setdefault(rows, []).append(size)
    return list(groups.items())


class _Kept(NamedTuple):
    """The curve of a stage so far."""

    codewords: Array
    state: Any
    health: Health
    converged: Array


def _stages(
    solver: Solver, codewords: Array, plan: Any, x: Array, weight: Array, axis: str | None
) -> tuple[Array, StageInfo]:
    """Stages in one number of rows, R: one scan over stages, within it one over their moves."""

    def one(codewords: Array, this: tuple[Array, ...]) -> tuple[Array, StageInfo]:
        before, size, left, key = this
        its_solver = solver.anneal(left, size)

        def refine(kept: _Kept, move: Array) -> tuple[_Kept, Rounds]:
            now = Curve(kept.codewords, jnp.where(move == 0, before, size))
            proposal = propose(its_solver, move, now, size, x, weight, axis)
            of_move = jax.random.fold_in(key, move)
            new, state, done = stage(
                its_solver, proposal.curve, of_move, x, weight, axis, proposal.worthwhile
            )
            its_health = health(new, x, weight, axis)
            old = Curve(kept.codewords, size)
            taken = (move == 0) | (
                proposal.worthwhile
                & better(its_solver, kept.state, (old, kept.health), (new, its_health))
            )
            candidate = _Kept(new.codewords, state, its_health, done.converged)
            kept = jax.tree.map(lambda new, old: jnp.where(taken, new, old), candidate, kept)
            return kept, done

        now = Curve(codewords, size)
        state, unknown = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
            jax.eval_shape(lambda: (its_solver.init(now), health(now, x, weight))),
        )
        kept = _Kept(codewords, state, unknown, jnp.zeros((), bool))
        kept, done = lax.scan(refine, kept, jnp.arange(1 + len(solver.moves)))
        use = kept.health.use / kept.health.use.sum()
        info = StageInfo(
            done.objective,
            done.distortion,
            done.rounds,
            kept.converged,
            kept.health.dead,
            perplexity(use),
            kept.health.distortion,
        )
        return kept.codewords, info

    return lax.scan(one, codewords, plan)


def _round(
    solver: Solver, curve: Curve, state: Any, key: Array, x: Array, weight: Array, axis: str | None
) -> tuple[Curve, Any, Any]:
    """One pass over samples at hand, or over as many as the solver asks for, drawn from them."""
    if solver.batch is None:
        if solver.samples is None or isinstance(solver.samples, str):
            return step(solver, curve, state, key, x, weight, axis)
        draw_key, key = jax.random.split(key)
        x, weight = _drawn(draw_key, solver.samples, x, weight, axis)
        return step(solver, curve, state, key, x, weight, axis)
    blocks, number = round_steps(solver)
    batch = solver.batch

    def block(carry: tuple[Array, Any], key: Array) -> tuple[tuple[Array, Any], Any]:
        draw_key, key = jax.random.split(key)
        drawn = _drawn(draw_key, batch * number, x, weight, axis)
        now = Curve(carry[0], curve.size)
        new, state, info = steps(solver, now, carry[1], key, *drawn, number=number, axis=axis)
        return (new.codewords, state), info

    keys = jax.random.split(key, blocks)
    (codewords, state), info = lax.scan(block, (curve.codewords, state), keys)
    info = info._replace(load=info.load * blocks)
    return Curve(codewords, curve.size), state, jax.tree.map(lambda leaf: leaf.mean(0), info)


def _drawn(
    key: Array, count: int, x: Array, weight: Array, axis: str | None
) -> tuple[Array, Array]:
    """Samples drawn with replacement among those of weight above 0, [count, D], and their weights.

    The same on any number of shards: each draws all, and weighs those of others with 0.
    """
    number = sample_numbers(weight, axis)
    present = weight > 0
    total = sum_over(axis, jnp.sum(present, dtype=jnp.int32))
    drawn = jax.random.randint(key, (count,), 0, jnp.maximum(total, 1))
    until = number + present.astype(number.dtype)  # ascending: of samples up to and with this one
    row = jnp.searchsorted(until, drawn + 1).astype(jnp.int32)
    mine = (row < len(weight)) & (drawn >= number[0])
    row = jnp.minimum(row, len(weight) - 1)
    return x[row], jnp.where(mine, weight[row], 0)


def _checked(x: Any, weights: Any, bits: int) -> tuple[Array, Array]:
    """Samples and weights, padded to a bucket's size where their values are at hand."""
    if bits < 2:
        raise ValueError(f"bits is {bits}; a curve starts with four codewords, so it must be >= 2")
    x = x if isinstance(x, jax.Array) else np.asarray(x)
    if x.ndim != 2 or x.shape[0] < 4 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"x is of shape {x.shape} and type {x.dtype}; expected floating point samples [N, D]"
            " with N >= 4"
        )
    n = x.shape[0]
    if not isinstance(weights, jax.Array):  # a tracer is one too
        weights = np.ones(n, np.float32) if weights is None else np.asarray(weights, np.float32)
    if weights.shape != (n,):
        raise ValueError(f"weights has shape {weights.shape}; expected one a sample, ({n},)")
    if not isinstance(weights, Tracer):
        weights = np.asarray(weights)
        if not (weights >= 0).all() or not np.isfinite(weights).all() or not (weights > 0).any():
            raise ValueError("weights must be numbers of at least 0, and some above it")
    if isinstance(x, Tracer) or isinstance(weights, Tracer):
        return jnp.asarray(x), jnp.asarray(weights)
    more = bucket_size(n) - n
    if more and (not isinstance(x, jax.Array) or x.is_fully_addressable):
        x, weights = np.pad(np.asarray(x), ((0, more), (0, 0))), np.pad(weights, (0, more))
    return jnp.asarray(x), jnp.asarray(weights, jnp.float32)
