"""A stage: rounds at one number of codewords, and what is tried after them.

A stage grows the curve and refines it by rounds. Then come the solver's moves, one after another:
each proposes a curve, which rounds refine too, and the better of the two stays. `fit_array` does so
with samples at hand, `fit` with samples from anywhere.
"""

import operator
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sfvq_jax.curve import Curve, row_bucket, tied, wide
from sfvq_jax.moves import MOVES, Proposal
from sfvq_jax.projection import WHOLE, Search
from sfvq_jax.quality import Health
from sfvq_jax.solver import Info, Solver, round_steps, step, steps
from sfvq_jax.subdivision import initial_curve, occurrence, sample_numbers, subdivide
from sfvq_jax.sums import sum_over

Array = jax.Array
Start = Callable[[Array, Array, Array, str | None], Curve]


class Rounds(NamedTuple):
    """What the rounds at one number of codewords did, R at most.

    Attributes:
      objective: before each round, a dimension, [R]; NaN where there was no round.
      distortion: likewise.
      rounds: how many there were, int32 [].
      converged: whether they ended because one gained little, bool []; a rise is not that.
    """

    objective: Array
    distortion: Array
    rounds: Array
    converged: Array


def default_start(key: Array, x: Array, weight: Array, axis: str | None) -> Curve:
    """Four codewords, a little different for each key (`initial_curve`)."""
    return initial_curve(x, weight, key, axis)


def check_start(start: Any) -> None:
    """Raises TypeError unless it is None, a curve, or a function that gives one."""
    if start is None or isinstance(start, Curve) or callable(start):
        return
    hint = ": pass its .curve" if hasattr(start, "curve") else ""
    if isinstance(start, str | Path):
        hint = f": pass sfvq_jax.load_curve({str(start)!r}).curve"
    raise TypeError(f"start is a {type(start).__name__}; expected a Curve or a function{hint}")


def checked_bits(bits: Any) -> int:
    """A whole number from 2 on; raises TypeError or ValueError for others."""
    try:
        bits = operator.index(bits)
    except TypeError as error:
        raise TypeError(f"bits is {reprlib.repr(bits)}; expected a whole number") from error
    if bits < 2:
        raise ValueError(
            f"bits is {bits}; a curve starts with four codewords, so bits must be >= 2"
        )
    return bits


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
    search: Search = WHOLE,
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
      search: how they find their places on the curve.
    """

    def grow() -> Proposal:
        def grown() -> Array:
            if solver.subdivision == "published":
                return subdivide(curve, size).codewords
            return occurrence(curve, size, x, weight, axis, search).codewords

        now = jnp.asarray(curve.num_codewords, jnp.int32)
        codewords = lax.cond(size > now, grown, lambda: curve.codewords)
        return Proposal(Curve(codewords), jnp.ones((), bool))

    def moved(name: str) -> Callable[[], Proposal]:
        def of_this_size() -> Proposal:
            curve, worthwhile = MOVES[name](now, x, weight, axis, search)
            return Proposal(Curve(curve.codewords), worthwhile)

        return of_this_size

    now = Curve(curve.codewords, jnp.asarray(curve.num_codewords, jnp.int32))
    names = list(dict.fromkeys(solver.moves))  # a move that is made twice is compiled once
    branches = [grow, *(moved(name) for name in names)]
    branch = jnp.array([0, *(1 + names.index(name) for name in solver.moves)])[move]
    found = lax.switch(branch, branches) if names else grow()
    return Proposal(tied(found.curve.codewords, size), found.worthwhile)


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
        new, state, info = one_round(solver, now, loop.state, of_round, x, weight, axis)
        # both curves by the terms of the older one
        gain = loop.objective - (info.distortion + solver.penalty(now, loop.state))
        tolerance = jnp.asarray(solver.tolerance, gain.dtype)
        little = (gain >= 0) & (gain <= tolerance * loop.objective)
        done = Rounds(
            done.objective.at[done.rounds].set(info.objective),
            done.distortion.at[done.rounds].set(info.distortion),
            done.rounds + 1,
            little & (done.rounds > 0),
        )
        return Loop(new.codewords, state, info.objective, done)

    x, weight = jnp.asarray(x), jnp.asarray(weight)
    dtype = wide(curve.codewords).dtype
    nothing = jnp.full(solver.rounds, jnp.nan, dtype)
    done = Rounds(nothing, nothing, jnp.int32(0), jnp.zeros((), bool))
    loop = Loop(curve.codewords, solver.init(curve), jnp.asarray(jnp.inf, dtype), done)
    active = jnp.asarray(active)
    loop = lax.while_loop(
        lambda loop: active & (loop.done.rounds < solver.rounds) & ~loop.done.converged, one, loop
    )
    return Curve(loop.codewords, curve.size), loop.state, loop.done


def one_round(
    solver: Solver, curve: Curve, state: Any, key: Array, x: Array, weight: Array, axis: str | None
) -> tuple[Curve, Any, Info]:
    """One pass over samples at hand, or over as many as the solver asks for, drawn from them."""
    all_of_them = solver.samples is None or isinstance(solver.samples, str)
    if solver.batch is None and all_of_them:
        return step(solver, curve, state, key, x, weight, axis)
    present = _present(weight, axis)
    if solver.batch is None:
        draw_key, key = jax.random.split(key)
        drawn = _drawn(draw_key, solver.samples, present, x, weight)  # pyright: ignore
        return step(solver, curve, state, key, *drawn, axis)
    blocks, number = round_steps(solver)
    batch = solver.batch

    def block(carry: tuple[Array, Any], key: Array) -> tuple[tuple[Array, Any], Info]:
        draw_key, key = jax.random.split(key)
        drawn = _drawn(draw_key, batch * number, present, x, weight)
        now = Curve(carry[0], curve.size)
        new, state, info = steps(solver, now, carry[1], key, *drawn, number=number, axis=axis)
        return (new.codewords, state), info

    keys = jax.random.split(key, blocks)
    (codewords, state), info = lax.scan(block, (curve.codewords, state), keys)
    info = info._replace(load=info.load * blocks)
    return Curve(codewords, curve.size), state, jax.tree.map(lambda leaf: leaf.mean(0), info)


class _Present(NamedTuple):
    """Where the samples of weight above 0 are: this shard's rows [N], its first one's number among
    those of all shards, how many are here and on all shards."""

    rows: Array
    first: Array
    here: Array
    total: Array


def _present(weight: Array, axis: str | None) -> _Present:
    number = sample_numbers(weight, axis)
    n, place = weight.shape[0], number - number[0]
    index = jnp.arange(n, dtype=jnp.int32)
    rows = jnp.zeros_like(place).at[jnp.where(weight > 0, place, n)].set(index, mode="drop")
    here = jnp.sum(weight > 0, dtype=jnp.int32)
    return _Present(rows, number[0], here, sum_over(axis, here))


def _drawn(
    key: Array, count: int, present: _Present, x: Array, weight: Array
) -> tuple[Array, Array]:
    """Samples drawn with replacement among those of weight above 0, [count, D], and their weights.

    The same on any number of shards: each draws all, and weighs those of others with 0.
    """
    drawn = jax.random.randint(key, (count,), 0, jnp.maximum(present.total, 1), jnp.int32)
    drawn = drawn - present.first
    mine = (drawn >= 0) & (drawn < present.here)
    row = present.rows[jnp.where(mine, drawn, 0)]
    return x[row], jnp.where(mine, weight[row], 0)
