"""Blocks of samples: what is on the devices at once, from whatever source.

Those of a source on the host are read one ahead of the device; those that are drawn on the device
are drawn inside the program that takes them in, many in one call.
"""

import functools
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from sfvq_jax.devices import (
    divided,
    everywhere,
    gather,
    local_parts,
    parts,
    replicate,
    round_up,
)
from sfvq_jax.processes import in_all_processes
from sfvq_jax.rows.arrays import bucket
from sfvq_jax.rows.source import Block, Source, in_float32
from sfvq_jax.solver import Solver, round_steps
from sfvq_jax.span import Span

Array = jax.Array

CALL_SECONDS = 0.5  # a call for blocks that are drawn on the device takes about so long
BLOCK_FLOATS = 2**24  # in a block of samples: 64 MiB
MAX_BLOCK = 2**16  # samples in a block
MIN_SAMPLES = 2**16  # in a round
SAMPLES_A_CODEWORD = 1024


class Plan(NamedTuple):
    """The samples of a round.

    Attributes:
      blocks: how many; None where only reading tells.
      batch: samples of an update; of a block where an update takes all of the round.
      steps: updates in a block.
      whole: the round is one pass over a finite source, and its last block may be short.
    """

    blocks: int | None
    batch: int
    steps: int
    whole: bool

    @property
    def block_samples(self) -> int:
        return self.batch * self.steps

    def rows(self, mesh: Mesh) -> int:
        """Of a block, with those that pad the batch to one that the devices divide."""
        batch = bucket(self.batch) if self.steps == 1 else self.batch
        return round_up(batch, parts(mesh)) * self.steps


def plan_round(solver: Solver, size: int, source: Source, mesh: Mesh) -> Plan:
    """Of a stage of so many codewords.

    Raises:
      ValueError: all of a source that has no end.
    """
    if solver.batch is not None:
        blocks, in_block = round_steps(solver)
        # of an iterator each device reads as many
        batch = int(solver.batch)
        batch = round_up(batch, parts(mesh)) if source.per_process else batch
        return Plan(blocks, batch, in_block, whole=False)
    n: int | None = source.num_latents
    samples = solver.samples
    if samples is None:
        samples = max(MIN_SAMPLES, SAMPLES_A_CODEWORD * size)
    block = int(solver.block or 0) or max(1, min(MAX_BLOCK, BLOCK_FLOATS // source.latent_dim))
    if isinstance(samples, str) or (n is not None and n <= samples):
        if n is None and not source.per_process:
            raise ValueError('samples is "all", but a sampler has no end: give a number')
        if n is not None and source.whole() is not None:
            return Plan(1, n, 1, whole=True)
        blocks = None if n is None else -(-n // block)
        batch = round_up(block, parts(mesh)) if source.per_process else min(block, n or block)
        return Plan(blocks, batch, 1, whole=True)
    blocks = -(-int(samples) // block)
    batch = -(-int(samples) // blocks)
    batch = round_up(batch, parts(mesh)) if source.per_process else batch
    return Plan(blocks, batch, 1, whole=False)


class Draws(NamedTuple):
    """Names what a round draws; its keys are made on the device, inside the program that draws.

    Attributes:
      key: of the fit, on all devices.
      numbers: codewords, move and round, int32 [3].
    """

    key: Array
    numbers: Any

    def blocks_key(self) -> Array:
        return self._key(0)

    def solver_key(self) -> Array:
        return self._key(1)

    def _key(self, number: int) -> Array:
        key = self.key
        for i in range(3):
            key = jax.random.fold_in(key, self.numbers[i])
        return jax.random.fold_in(key, number)


class Feed(NamedTuple):
    """Blocks first … stop - 1 of a round, which `feed.read(i)` gives inside a program.

    Attributes:
      samples: how many.
      bookmark: where the source was after them (`Source.bookmark`).
    """

    feed: Any
    first: int
    stop: int
    samples: int
    bookmark: Any = None


@flax.struct.dataclass
class AtHand:
    """A block on the devices, of the type that its latents are stored in.

    Attributes:
      block: latents and weights.
      span: that the latents enter.
      scale: of the source.
    """

    block: Block
    span: Span
    scale: Any = None

    def read(self, i: Array) -> Block:
        x = in_float32(self.block.x, self.scale)
        return Block(self.span.enter(x), self.block.weight)


@flax.struct.dataclass
class Drawn:
    """Blocks that a source on the device draws, or gives in order where nothing is drawn."""

    source: Source
    span: Span
    draws: Draws | None
    plan: Plan = flax.struct.field(pytree_node=False)
    mesh: Mesh = flax.struct.field(pytree_node=False)
    num_latents: int | None = flax.struct.field(pytree_node=False, default=None)

    def read(self, i: Array) -> Block:
        count = self.plan.block_samples
        start = i * count
        if self.draws is not None:
            x, weight = self.source.read(self.draws.blocks_key(), start, count)
        else:
            # the last block reaches back over latents of the one before, which then count nothing
            assert self.num_latents is not None
            first = jnp.minimum(start, self.num_latents - count)
            x, weight = self.source.read(None, first, count)
            weight = jnp.where(first + jnp.arange(count, dtype=first.dtype) >= start, weight, 0)
        rest = self.plan.rows(self.mesh) - count
        block = Block(jnp.pad(x, ((0, rest), (0, 0))), jnp.pad(weight, (0, rest)))
        x, weight = lax.with_sharding_constraint(block, divided(self.mesh))
        return Block(self.span.enter(x), weight)


def feeds(
    source: Source,
    span: Span,
    plan: Plan,
    draws: Draws,
    order: Array,
    block: int,
    read: int,
    mesh: Mesh,
    reader: "Reader | None" = None,
) -> Iterator[Feed]:
    """The blocks of a round from number `block` on, `read` latents into the fit.

    Args:
      draws: names what is drawn on the devices.
      order: a key of the process, which names an order of a source on the host; it goes on from
        round to round.
      reader: of a source on the host, where more rounds come.
    """
    if not source.on_device and reader is not None:
        yield from _host_feeds(source, span, plan, reader, block, read)
        return
    if not source.on_device:
        with Reader(source, order, mesh) as reader:
            yield from _host_feeds(source, span, plan, reader, block, read)
        return
    whole = source.whole() if plan.whole else None
    if whole is not None:
        if block == 0:
            yield Feed(AtHand(whole, span), 0, 1, source.num_latents)
        return
    assert plan.blocks is not None
    number = source.num_latents if plan.whole else None
    drawn = None if plan.whole else draws
    feed, calls = Drawn(source, span, drawn, plan, mesh, number), 1
    while block < plan.blocks:
        stop = min(block + calls, plan.blocks)
        samples = (stop - block) * plan.block_samples
        if number is not None:
            samples = min(samples, number - block * plan.block_samples)
        began = time.monotonic()
        yield Feed(feed, block, stop, samples)
        if time.monotonic() - began < CALL_SECONDS:
            calls *= 2
        block = stop


class Reader:
    """Reads blocks of a source on the host in a thread of its own, ahead of the device.

    Args:
      source: on the host.
      order: a key that names the order.
      mesh: devices.
    """

    def __init__(self, source: Source, order: Array, mesh: Mesh):
        self._source, self._order, self._mesh = source, order, mesh
        self._thread = ThreadPoolExecutor(1)
        self._ahead: tuple[Any, Future] | None = None

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *error: Any) -> None:
        self._thread.shutdown(cancel_futures=True)

    def ask(self, plan: Plan, block: int, read: int) -> None:
        """Begins to read a block of a round, `read` latents into the fit."""
        where = plan, block, None if plan.whole else read
        self._ahead = where, self._thread.submit(self._read, plan, block, read)

    def answer(self, plan: Plan, block: int, read: int) -> tuple[Block, int, Any]:
        """The block, how many latents this process found for it, and the source's bookmark."""
        if self._ahead is None or self._ahead[0] != (plan, block, None if plan.whole else read):
            self.ask(plan, block, read)
        assert self._ahead is not None
        found, self._ahead = self._ahead[1], None
        return found.result()

    def _read(self, plan: Plan, block: int, read: int) -> tuple[Block, int, Any]:
        source, count, key, start = self._source, plan.block_samples, self._order, read
        if plan.whole:
            key, start = None, block * count
            if source.num_latents is not None:
                count = min(count, source.num_latents - start)
        return *read_block(source, key, start, count, plan, self._mesh), source.bookmark()


def _host_feeds(
    source: Source, span: Span, plan: Plan, reader: Reader, block: int, read: int
) -> Iterator[Feed]:
    """Reads the next block while the device works on this one: no more than two are in memory."""
    while plan.blocks is None or block < plan.blocks:
        found, samples, bookmark = reader.answer(plan, block, read)
        samples = found_by_all(samples) if plan.whole else plan.block_samples
        if plan.blocks is None and samples == 0:
            return
        if plan.blocks is None or block + 1 < plan.blocks:
            reader.ask(plan, block + 1, read + samples)
        elif not source.per_process:  # the next round's, if there is one: it is known already
            reader.ask(plan, 0, read + samples)
        yield Feed(AtHand(found, span, source.scale), block, block + 1, samples, bookmark)
        block, read = block + 1, read + samples


def read_block(
    source: Source, key: Array | None, start: int, count: int, plan: Plan, mesh: Mesh
) -> tuple[Block, int]:
    """Latents start … start + count of a source on the host, each device's read for it alone.

    Padded to the same size whatever the count, so that the last block of a pass compiles nothing.
    Latents are as the source stores them.

    Returns:
      The block, and how many latents this process found for it.
    """
    rows = plan.rows(mesh)
    number = parts(mesh)
    own = rows // number
    found: dict[int, Block] = {}  # by the part's first row

    def read(at: Any) -> np.ndarray:
        first = at[0].start or 0
        if first in found:  # by another device that has the same part
            block = found[first]
        elif source.per_process:
            begin = start * local_parts(mesh) // number
            begin += sum(len(block.x) for block in found.values())
            block = source.read(key, begin, min(own, count // number))
        else:
            block = source.read(key, start + first, max(0, min(own, count - first)))
        found[first] = block
        return np.pad(block.x, ((0, own - len(block.x)), (0, 0)))

    def weigh(at: Any) -> np.ndarray:
        weight = found[at[0].start or 0].weight
        return np.pad(weight, (0, own - len(weight)))

    x = jax.make_array_from_callback((rows, source.latent_dim), divided(mesh), read)
    weight = jax.make_array_from_callback((rows,), divided(mesh), weigh)
    return Block(x, weight), sum(len(block.x) for block in found.values())


def found_by_all(found: int) -> int:
    """The sum of what the processes found."""
    return sum(in_all_processes(found))


def sample(source: Source, key: Array, count: int, mesh: Mesh, *, again: bool = False) -> Block:
    """Some latents on every device; all, in order, if there are no more. Padding has weight 0.

    Args:
      again: of a source that each process reads for itself, those that come after the first ones.
    """
    n = source.num_latents
    order = None if n is not None and n <= count else key
    count = count if n is None else min(n, count)
    if source.on_device:
        whole = source.whole() if order is None else None
        if whole is not None:
            return whole if mesh.size == 1 else gather(whole, mesh)
        order = None if order is None else replicate(order, mesh)
        return _read_on_device(source, order, count, mesh)
    source = source if order is None else source.scattered(count)
    if source.per_process:  # one pass at most, and as many for each device
        order, count = key if again else None, round_up(count, parts(mesh))
    start = count if again and source.per_process else 0
    block, _ = read_block(source, order, start, count, Plan(1, count, 1, whole=True), mesh)
    block = Block(_in_float32(block.x, source.scale), block.weight)
    return block if mesh.size == 1 else gather(block, mesh)


_in_float32 = jax.jit(in_float32)


@functools.partial(jax.jit, static_argnames=("count", "mesh"))
def _read_on_device(source: Source, key: Array | None, count: int, mesh: Mesh) -> Block:
    return lax.with_sharding_constraint(source.read(key, 0, count), everywhere(mesh))
