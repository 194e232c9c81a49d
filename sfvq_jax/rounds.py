"""What a round does with blocks: absorb, update, measure, each written once.

On one device or on many, and whether a solver takes all samples of a round for one update or goes
by batches.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from sfvq_jax.blocks import Draws, Feed
from sfvq_jax.curve import Curve
from sfvq_jax.devices import (
    AXIS,
    by_columns,
    by_rows,
    curve_spec,
    everywhere,
    lines_axis,
    place,
    shardings,
    sums_spec,
)
from sfvq_jax.projection import WHOLE, Search, nearest_codeword, project
from sfvq_jax.quality import Health, health, perplexity
from sfvq_jax.rows.source import Block
from sfvq_jax.solver import Info, Solver, steps, update
from sfvq_jax.sums import on_each

Array = jax.Array


def sum_shapes(solver: Solver, curve: Curve, state: Any, parts: int) -> Any:
    """What `absorb` takes in to: the sums of each part of the samples, [parts, …], or an `Info` of
    updates."""
    block = Block(_float(1, curve.latent_dim), _float(1))

    def begin(curve: Curve, state: Any, block: Block) -> Any:
        sums = solver.statistics(curve, solver.draw(curve, jax.random.key(0)), *block)
        return sums if solver.batch is None else solver.update(curve, state, sums)[2]

    shapes = jax.eval_shape(begin, curve, state, block)
    if solver.batch is not None:
        return shapes
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((parts, *leaf.shape), leaf.dtype), shapes)


def zero_sums(mesh: Mesh, solver: Solver, shapes: Any) -> Any:
    """The sums of no samples, on the devices; made on the host, where it compiles nothing."""
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    if solver.batch is not None:
        return place(zeros, jax.tree.map(lambda leaf: everywhere(mesh), zeros))
    return place(zeros, shardings(sums_spec(zeros, mesh), mesh))


def absorb(
    mesh: Mesh,
    solver: Solver,
    number: int,
    curve: Curve,
    state: Any,
    sums: Any,
    draws: Draws,
    feed: Feed,
) -> tuple[Curve, Any, Any]:
    """Takes in blocks: adds their sums, or, of a solver that goes by batches, makes its updates."""
    blocks = (feed.feed, np.int32(feed.first), np.int32(feed.stop))
    if solver.batch is None:
        return curve, state, add_sums(mesh, solver, curve, sums, draws, *blocks)
    return descend(mesh, solver, number, curve, state, sums, draws, *blocks)


@functools.partial(jax.jit, static_argnames="mesh", donate_argnames="sums")
def add_sums(
    mesh: Mesh,
    solver: Solver,
    curve: Curve,
    sums: Any,
    draws: Draws,
    feed: Any,
    first: Array,
    stop: Array,
) -> Any:
    lines = lines_axis(mesh)
    of_part = {} if lines is None else {"curve_axis": lines}

    def of_shard(curve: Curve, key: Array, sums: Any, block: Block) -> Any:
        drawn = solver.draw(curve, key)
        new = solver.statistics(on_each(_axis(mesh), curve), drawn, *block, **of_part)
        return jax.tree.map(lambda sum, new: sum + new[None], sums, new)

    if mesh.size > 1:
        of_sums = sums_spec(sums, mesh)
        of_shard = jax.shard_map(
            of_shard,
            mesh=mesh,
            in_specs=(curve_spec(curve, mesh), PartitionSpec(), of_sums, PartitionSpec(AXIS)),
            out_specs=of_sums,
        )

    def add(i: Array, sums: Any) -> Any:
        return of_shard(curve, jax.random.fold_in(key, i), sums, feed.read(i))

    key = draws.solver_key()
    return lax.fori_loop(first, stop, add, sums)


def _axis(mesh: Mesh) -> str | None:
    return AXIS if mesh.size > 1 else None


@functools.partial(jax.jit, static_argnames=("mesh", "number"), donate_argnames=("state", "info"))
def descend(
    mesh: Mesh,
    solver: Solver,
    number: int,
    curve: Curve,
    state: Any,
    info: Info,
    draws: Draws,
    feed: Any,
    first: Array,
    stop: Array,
) -> tuple[Curve, Any, Info]:
    def of_shard(curve: Curve, state: Any, key: Array, block: Block) -> tuple[Curve, Any, Info]:
        return steps(solver, curve, state, key, *block, number=number, axis=_axis(mesh))

    if mesh.size > 1:
        everywhere = PartitionSpec()
        of_shard = jax.shard_map(
            of_shard,
            mesh=mesh,
            in_specs=(everywhere, everywhere, everywhere, PartitionSpec(AXIS)),
            out_specs=everywhere,
        )

    def one(i: Array, carry: tuple[Curve, Any, Info]) -> tuple[Curve, Any, Info]:
        curve, state, total = carry
        key_of_block = jax.random.fold_in(key, i)
        curve, state, info = of_shard(curve, state, key_of_block, feed.read(i))
        return curve, state, jax.tree.map(jnp.add, total, info)

    key = draws.solver_key()
    return lax.fori_loop(first, stop, one, (curve, state, info))


class Updated(NamedTuple):
    """After a round: curve, state and empty sums; in one array, since an accelerator takes its time
    to hand over each, the loss and the penalty of the curve before by the terms now, [2]."""

    curve: Curve
    state: Any
    sums: Any
    seen: Array


def end_round(
    mesh: Mesh, solver: Solver, curve: Curve, state: Any, sums: Any, blocks: int
) -> Updated:
    """The update by all sums; of a solver that goes by batches, what its updates came to."""
    if solver.batch is None:
        return update_by_sums(mesh, solver, curve, state, sums)
    empty = zero_sums(mesh, solver, sums)
    return Updated(curve, state, empty, jnp.stack([sums.objective / blocks, 0.0]))


@functools.partial(jax.jit, static_argnames="mesh", donate_argnames="sums")
def update_by_sums(mesh: Mesh, solver: Solver, curve: Curve, state: Any, sums: Any) -> Updated:
    total = jax.tree.map(lambda leaf: leaf.sum(0), sums)
    curve, total = by_columns((curve, total), mesh)
    new, state, info = update(solver, curve, state, total)
    # made on the devices: from the host a round would wait for as much as a codebook
    empty = jax.tree.map(jnp.zeros_like, sums)
    empty = lax.with_sharding_constraint(empty, shardings(sums_spec(sums, mesh), mesh))
    seen = jnp.stack([info.objective, jnp.asarray(solver.penalty(curve, state))])
    return Updated(by_rows(new, mesh), state, empty, seen)


class Measured(NamedTuple):
    """A curve on the measuring samples.

    Attributes:
      health: distortion, load, use.
      seen: the distortion; what the objective has beside it, by the terms of the last update; the
        perplexity of the use of lines; and the use of each line, [3 + R - 1].
    """

    health: Health
    seen: Array


@functools.partial(jax.jit, static_argnames="mesh")
def measure(mesh: Mesh, solver: Solver, curve: Curve, state: Any, block: Block) -> Measured:
    """By exact projection of measuring samples."""
    found = health(curve, *block, search=search_on(mesh))
    penalty = jnp.asarray(solver.penalty(curve, state))
    spread = perplexity(found.use / found.use.sum())
    numbers = jnp.stack([found.distortion, penalty, spread])
    return Measured(found, jnp.concatenate([numbers, found.use]))


def search_on(mesh: Mesh) -> Search:
    """How samples that are on every device find their places on a curve that lies on a mesh."""
    if lines_axis(mesh) is None:
        return WHOLE

    def over_lines(function: Any, curve: Curve, x: Array) -> Any:
        search = functools.partial(function, curve_axis=lines_axis(mesh))
        specs = (curve_spec(curve, mesh), PartitionSpec())
        search = jax.shard_map(search, mesh=mesh, in_specs=specs, out_specs=PartitionSpec())
        return search(curve, x)

    kinds = (project, nearest_codeword)
    return Search(*(functools.partial(over_lines, kind) for kind in kinds))


def _float(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
