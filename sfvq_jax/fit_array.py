"""A fit to samples at hand: pure, and one program for all stages of up to 64 codewords."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from sfvq_jax.curve import SMALL_ROWS, Curve, padded, trimmed, wide
from sfvq_jax.least_squares import LeastSquares
from sfvq_jax.projection import bucket_size
from sfvq_jax.quality import Health, health, perplexity
from sfvq_jax.rows.source import check_key
from sfvq_jax.short import short_repr
from sfvq_jax.solver import Solver, check_solver
from sfvq_jax.stage import (
    Rounds,
    Start,
    better,
    check_start,
    checked_bits,
    default_start,
    propose,
    stage,
    stage_rows,
    stage_sizes,
)

Array = jax.Array


class StageInfo(NamedTuple):
    """Report on S stages; each has at most R rounds, then M moves with at most R rounds each.

    Attributes:
      objective: objective per dimension before each round, [S, 1 + M, R]; NaN for rounds that
        did not take place.
      distortion: distortion before each round, likewise.
      rounds: number of rounds of each stage and its moves, [S, 1 + M] int32; 0 for a move that had
        nothing to repair.
      converged: whether the rounds of the stage's curve ended early because the gain was small,
        [S] bool. A rise of the objective does not count.
      dead: number of dead codewords at the end of each stage, nearest to no sample, [S] int32.
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

    __repr__ = short_repr


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
    """Fits a curve of 2**bits codewords to an array, as a pure function.

    It works under `jit`, `vmap` (over keys, data, weights, starts and the solver's numbers),
    `shard_map` and `pmap`. All stages up to 64 codewords are one compiled program. Another key,
    penalty, tolerance or slightly different number of samples uses the same program.

    Args:
      key: a PRNG key; another one gives another curve.
      x: samples, [N, D]; N >= 4.
      bits: 2 or more.
      solver: `LeastSquares()` by default.
      weights: weight of each sample, [N]; 0 leaves it out.
      start: a curve of at most 2**bits codewords to continue from, or a function
        (key, x, weights, axis) that returns one. By default four codewords (`initial_curve`).
      axis: name of the axis of `shard_map` or `pmap` over which samples are divided.

    Returns:
      The curve, and a report on each stage; the same on all shards.

    >>> x = jax.random.normal(jax.random.key(0), (512, 2))
    >>> curve, info = fit_array(jax.random.key(1), x, bits=3)
    >>> curve.codewords.shape, info.dead.tolist()
    ((8, 2), [0, 0])
    """
    solver = LeastSquares() if solver is None else solver
    check_solver(solver)
    check_key(key, "fit_array(key, x, bits=…)")
    check_start(start)
    bits = checked_bits(bits)
    x, weights = _checked(x, weights)
    function = default_start if start is None else start
    curve = None
    if isinstance(start, Curve):
        curve, function = trimmed(start), None
        if curve.codewords.shape[1] != x.shape[1]:
            raise ValueError(
                f"the start has codewords of width {curve.latent_dim}, x has shape {x.shape}"
            )
    return _fit_array(key, x, weights, solver, curve, bits, function, axis)


def _checked(x: Any, weights: Any) -> tuple[Array, Array]:
    """Samples and weights, padded to a bucket's size where their values are at hand."""
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
        plan = (*(jnp.array(numbers, jnp.int32) for numbers in (before, of_rows, left)), keys)
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
        kept, done = lax.scan(refine, kept, jnp.arange(1 + len(solver.moves), dtype=jnp.int32))
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
