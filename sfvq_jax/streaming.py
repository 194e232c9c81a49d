"""Streaming fits: a curve that is learnt block by block, from latents that are seen once.

The sums of `LeastSquares` are those of all samples so far, each assigned to the curve of its time,
and the older it is, the less it counts. After every block the curve is solved for anew, as in
online dictionary learning (Mairal, Bach, Ponce & Sapiro, JMLR 2010) and on-line EM (Cappé &
Moulines, JRSS B 2009). Before a block of n samples, the sums S are multiplied by

    γ = (s / (s + n))^ρ · 2^(-n / h),     S ← γ S + Σ of the block,

s the samples at this number of codewords so far and h the half-life. The first factor, with ρ = 2,
weighs sample number i as i^ρ: those that were assigned to a younger and worse curve count less,
however long the half-life. The second lets a curve follow a distribution that drifts.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from sfvq_jax.curve import Curve, check_curve, padded, trimmed, wide
from sfvq_jax.least_squares import LeastSquares, NormalSums, sums_at
from sfvq_jax.moves import reseeded
from sfvq_jax.projection import check_some
from sfvq_jax.rows.source import check_key
from sfvq_jax.short import short_repr
from sfvq_jax.solver import check_solver, is_number, update
from sfvq_jax.stage import checked_bits
from sfvq_jax.subdivision import initial_curve, occurrence
from sfvq_jax.sums import on_each, sum_over, weights_of

Array = jax.Array

DEFAULT_SOLVER = LeastSquares()
YOUTH = 2.0  # ρ
KNOWN = 16  # samples that the sums have for each codeword, before one of them can be called dead
DEAD = 1 / 64  # share of an even load, below which it is


@flax.struct.dataclass
class Stream:
    """State of a streaming fit: a pytree of fixed shapes, which can be saved as it is.

    Attributes:
      curve: curve of the codewords so far, with as many rows as the final curve, [R, D].
      sums: sums over all samples, about the mean of the curve's rows; older samples count less.
      step: state of the solver, [].
      since: weight of the samples since the last change of the number of codewords, [].
      key: PRNG key of all random draws.
      solver: the solver; its numbers are leaves, which may be traced.
      half_life: number of samples after which a sample counts half; infinity means no half-life.
      grow: number of samples for each codeword before the curve is doubled.
    """

    curve: Curve
    sums: NormalSums
    step: Array
    since: Array
    key: Array
    solver: LeastSquares
    half_life: Any
    grow: Any

    __repr__ = short_repr


class StreamInfo(NamedTuple):
    """Measures of a block by the curve before it, which has not seen these latents.

    Attributes:
      objective: objective per dimension, [].
      distortion: mean (x - nearest point)² per dimension, [].
      weight: weight of the block's samples, [].
      left_out: number of samples that are left out because they have NaN or infinity, int32 [].
      codewords: number of codewords of the curve after the block, int32 [].
      dead: number of codewords that recently had hardly any nearest samples, int32 [].
    """

    objective: Array
    distortion: Array
    weight: Array
    left_out: Array
    codewords: Array
    dead: Array

    __repr__ = short_repr


def start_stream(
    key: Array,
    start: Any,
    *,
    bits: int | None = None,
    solver: LeastSquares = DEFAULT_SOLVER,
    half_life: Any = jnp.inf,
    grow: Any = 32.0,
    trust: Any = 64.0,
    axis: str | None = None,
) -> Stream:
    """Starts a streaming fit; `partial_fit` then learns block by block.

    Args:
      key: a PRNG key.
      start: a curve to continue from, or a block of latents [N, D], alone or as a pair with weights
        [N]. A block only gives a first curve of four codewords (`initial_curve`); to learn from
        it, pass it to `partial_fit` too.
      bits: the curve is doubled until it has 2**bits codewords. By default a curve keeps its size.
      solver: a stream uses its μ (`length_penalty`, `early`), `dithered` and `precision`. With
        "reseed" among its moves, dead codewords are moved to where the error is.
      half_life: number of samples after which a sample counts half; infinity means that samples of
        the curve's present size are not forgotten. Counted by weight, as `grow` is: a sample of
        weight 2 counts as two.
      grow: number of samples for each codeword before the curve is doubled. The last size is
        reached after `grow` · 2**bits samples.
      trust: number of samples that each codeword of a start curve counts for; the four codewords
        from a block count for none.
      axis: name of the axis over which the start's samples are divided.

    Raises:
      TypeError: a start or solver of another kind, bits that are no number, or no key.
      ValueError: bits below 2 or missing; a start that is too small or too large for them.

    >>> x = jax.random.normal(jax.random.key(0), (256, 2))
    >>> start_stream(jax.random.key(1), x, bits=4).curve.codewords.shape
    (16, 2)
    """
    check_key(key, "start_stream(key, start, bits=…)")
    check_solver(solver)
    if not isinstance(solver, LeastSquares):
        raise TypeError(
            f"solver is {type(solver).__name__}; a stream forgets sums of normal equations, which"
            " LeastSquares has"
        )
    for name, value in (("half_life", half_life), ("grow", grow), ("trust", trust)):
        if is_number(value) and not (value > 0 or (name == "trust" and value == 0)):
            raise ValueError(f"{name} is {value}; expected a number of samples above 0")
    start_key, key = jax.random.split(key)
    if isinstance(start, Curve):
        check_curve(start)
        curve = trimmed(start)
        rows = curve.codewords.shape[0] if bits is None else 2 ** checked_bits(bits)
    else:
        if bits is None:
            raise ValueError("bits is missing; a block of latents does not tell it")
        x, weight = _block(start)
        curve, rows = _first_curve(x, weight, start_key, axis), 2 ** checked_bits(bits)
        trust = 0.0
    if curve.codewords.shape[0] > rows:
        raise ValueError(
            f"the start has {curve.codewords.shape[0]} codewords, more than the {rows} to end with"
        )
    curve = padded(Curve(wide(curve.codewords)), rows)
    codewords = curve.codewords
    real = jnp.arange(rows, dtype=jnp.int32) < curve.num_codewords
    load = jnp.where(real, jnp.asarray(trust, codewords.dtype), 0)
    sums = _sums_at(curve, load, _annealed(solver, curve).length_penalty)
    # arrays, as after a block: of other leaves `partial_fit` would compile twice
    rest = jax.tree.map(lambda leaf: jnp.asarray(leaf, load.dtype), (solver, half_life, grow))
    return Stream(curve, sums, solver.init(curve), load.sum(), key, *rest)


def partial_fit(stream: Stream, block: Any, axis: str | None = None) -> tuple[Stream, StreamInfo]:
    """Learns from a block of latents, which are not needed again.

    Pure, with one shape for all blocks: for `jit`, `vmap`, `shard_map`, and as the body of
    `lax.scan`. A block costs its projection, one system of K rows, and between devices one sum of
    K·D + 3K + 3 floats. A block of weight 0 changes nothing. Pad a short last block by rows of
    weight 0, so that nothing is compiled again.

    Args:
      stream: state from `start_stream` or from the block before; the same on all shards.
      block: latents [N, D], floating point, alone or as a pair with weights [N]. They should be
        drawn at random from the data at that time. Rows with NaN or infinity are left out and
        counted in `StreamInfo.left_out`.
      axis: name of the axis over which the block's samples are divided.

    Returns:
      The next state (its `.curve` is the curve), and measures of the block by the curve before.

    Raises:
      TypeError: a stream or a block of another kind.
      ValueError: samples of another width, no samples, or weights of another shape.

    >>> x = jax.random.normal(jax.random.key(0), (256, 2))
    >>> stream = start_stream(jax.random.key(1), x, bits=2)
    >>> stream, info = partial_fit(stream, x)
    >>> stream.curve.codewords.shape
    (4, 2)
    """
    if not isinstance(stream, Stream):
        raise TypeError(f"stream is a {type(stream).__name__}; expected what start_stream gives")
    x, weight = _block(block)
    check_some(stream.curve, x)
    x = jnp.asarray(x, stream.curve.codewords.dtype)
    finite = jnp.isfinite(x).all(1)
    left_out = (weight > 0) & ~finite
    x, weight = jnp.where(finite[:, None], x, 0), jnp.where(finite, weight, 0).astype(x.dtype)
    n, left_out = sum_over(axis, (weight.sum(), left_out.sum(dtype=jnp.int32)))
    some = n > 0

    stream = _grown(stream, x, weight, some, axis)
    if "reseed" in stream.solver.moves:
        stream = _mended(stream, x, weight, some, axis)
    curve, since = stream.curve, stream.since
    solver = _annealed(stream.solver, curve)
    key, drawn = jax.random.split(stream.key)
    new = sum_over(
        axis, solver.statistics(on_each(axis, curve), solver.draw(curve, drawn), x, weight)
    )
    kept = (since / (since + jnp.where(some, n, 1))) ** YOUTH * 2.0 ** (-n / stream.half_life)
    sums = jax.tree.map(lambda old, new: kept * old + new, stream.sums, new)
    solved, step, _ = update(solver, curve, stream.step, sums)
    after = Stream(
        solved, _about(sums, curve, solved), step, since + n, key,
        stream.solver, stream.half_life, stream.grow,
    )  # fmt: skip
    after = jax.tree.map(lambda new, old: jnp.where(some, new, old), after, stream)
    distortion = jnp.where(some, new.error / jnp.where(some, n * curve.latent_dim, 1), jnp.nan)
    objective = distortion + solver.penalty(curve, step)
    dead = _dead(after).sum(dtype=jnp.int32)
    return after, StreamInfo(objective, distortion, n, left_out, after.curve.size, dead)  # pyright: ignore


# at once, since many small programs take longer to compile
_first_curve = jax.jit(initial_curve, static_argnums=3)
_sums_at = jax.jit(sums_at)


def _annealed(solver: LeastSquares, curve: Curve) -> LeastSquares:
    """That of this size: μ is greater before the last one."""
    growing = jnp.asarray(curve.num_codewords < curve.codewords.shape[0], jnp.int32)
    return solver.anneal(growing, curve.num_codewords)


def _block(block: Any) -> tuple[Array, Array]:
    x, weight = block if isinstance(block, tuple) else (block, None)
    if not hasattr(x, "ndim"):
        raise TypeError(f"the block is a {type(x).__name__}; expected an array [N, D] of latents")
    x = wide(jnp.asarray(x))
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"the block has type {x.dtype}; expected floating point latents")
    return x, weights_of(x, weight)


def _grown(stream: Stream, x: Array, weight: Array, some: Array, axis: str | None) -> Stream:
    """Doubled, if it has seen enough for that: then its sums begin anew, with this block."""
    curve, rows = stream.curve, stream.curve.codewords.shape[0]
    now = jnp.asarray(curve.num_codewords, jnp.int32)
    enough = stream.since >= stream.grow * now.astype(stream.since.dtype)
    due, size = some & enough & (now < rows), jnp.minimum(2 * now, rows)

    def grow() -> Stream:
        grown = occurrence(curve, size, x, weight, axis)
        sums = jax.tree.map(jnp.zeros_like, stream.sums)
        since = jnp.zeros_like(stream.since)
        return dataclasses.replace(stream, curve=grown, sums=sums, since=since)

    return lax.cond(due, grow, lambda: stream)


def _mended(stream: Stream, x: Array, weight: Array, some: Array, axis: str | None) -> Stream:
    """Without the codewords that have died: `reseed`, by the load of all samples lately."""
    dead = _dead(stream)

    def mend() -> Stream:
        found = reseeded(stream.curve, x, weight, axis, dead=dead)
        sums = _moved(stream.sums, stream.curve, found.curve, found.was, found.halved)
        mended = dataclasses.replace(stream, curve=found.curve, sums=sums)
        keep = found.worthwhile
        return jax.tree.map(lambda new, old: jnp.where(keep, new, old), mended, stream)

    return lax.cond(some & dead.any(), mend, lambda: stream)


def _dead(stream: Stream) -> Array:
    """Codewords that hardly any sample is nearest to, [R] bool."""
    size, load = stream.curve.num_codewords, stream.sums.load
    even = load.sum() / jnp.asarray(size, load.dtype)
    real = jnp.arange(len(load), dtype=jnp.int32) < size
    return real & (load < DEAD * even) & (even >= KNOWN)


def _mass(sums: NormalSums) -> Array:
    """Σ w (1-t) + Σ w t over the lines that meet at each codeword, [R]: row sums of the matrix."""
    return sums.diagonal + sums.coupling + jnp.roll(sums.coupling, 1)


def _about(sums: NormalSums, before: Curve, after: Curve) -> NormalSums:
    """The same sums about the mean of another curve's rows."""
    shift = before.codewords.mean(0, keepdims=True) - after.codewords.mean(0, keepdims=True)
    return sums._replace(moment=sums.moment + _mass(sums)[:, None] * shift)


def _moved(sums: NormalSums, before: Curve, after: Curve, was: Array, halved: Array) -> NormalSums:
    """The sums of the rows that each row was; halves share theirs, as if it lay at them.

    Where two rows are neighbours no longer, what coupled them counts for each of them alone.
    """
    there, share = was >= 0, jnp.where(halved, 0.5, 1.0).astype(sums.load.dtype)
    share = jnp.where(there, share, 0)
    beside = there & ~halved
    beside = beside & jnp.roll(beside, -1) & (jnp.roll(was, -1) == was + 1)
    coupling = jnp.where(beside, sums.coupling[was], 0)
    mass = share * _mass(sums)[was]
    at_halves = mass[:, None] * (after.codewords - before.codewords.mean(0, keepdims=True))
    moment = jnp.where(halved[:, None], at_halves, share[:, None] * sums.moment[was])
    moved = NormalSums(
        diagonal=mass - coupling - jnp.roll(coupling, 1),
        coupling=coupling,
        moment=moment,
        load=share * sums.load[was],
        error=sums.error,
    )
    return _about(moved, before, after)
