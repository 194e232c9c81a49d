"""The same step on one device, on many, and on many hosts.

A mesh has one axis, "data": samples are divided along it, the curve is on every device. A round
adds up each device's samples without a word to the others; then one sum over devices of K·D + 2K
floats ends it (`Adam` averages the gradient of every step instead). Which samples a round sees does
not depend on the devices: sources are read by number, and random draws are made in global view. So
the random rows of an array that is divided over the devices cross between them; passes over it,
samplers and files do not.
"""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sfvq_jax.curve import Curve
from sfvq_jax.solvers import Plan, Solver
from sfvq_jax.sources import ArraySource, IteratorSource, Source

Array = jax.Array

AXIS = "data"
MESSAGE_BYTES = 4096  # that a process tells the others at once


@flax.struct.dataclass
class Block:
    """Samples [N, D] divided over the devices, and the weight of each, [N]: 1, or 0 for padding."""

    x: Array
    weight: Array


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of one axis, "data", over the given devices: all of all processes by default."""
    return Mesh(np.array(jax.devices() if devices is None else devices), (AXIS,))


def default_mesh(solver_batch: int) -> Mesh:
    """All devices where there are several processes, or accelerators that get enough to do.

    One device otherwise: cores of a CPU already share the work of one.
    """
    devices = jax.devices()
    enough = solver_batch >= 1024 * len(devices)
    if jax.process_count() > 1 or (devices[0].platform != "cpu" and enough):
        return data_mesh()
    return data_mesh(devices[:1])


def check_mesh(mesh: Mesh) -> None:
    """Raises ValueError unless the mesh's only axis is "data"."""
    if mesh.axis_names != (AXIS,):
        raise ValueError(
            f'the mesh has axes {mesh.axis_names}; a fit needs the one axis "{AXIS}", such as'
            " sfvq_jax.data_mesh() has"
        )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Every array of a pytree on all devices; the values must be the same in all processes."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    if jax.process_count() == 1:
        return jax.device_put(tree, everywhere)

    def put(leaf: Any) -> Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = put(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        value = np.asarray(leaf)
        return jax.make_array_from_callback(value.shape, everywhere, lambda index: value[index])

    return jax.tree.map(put, tree)


def place_source(source: Source, mesh: Mesh) -> Source:
    """A source whose arrays are on the mesh: latents divided, a sampler's parameters on each."""
    if not source.on_device or (mesh.size == 1 and jax.process_count() == 1):
        return source
    if isinstance(source, ArraySource):
        sharding = NamedSharding(mesh, PartitionSpec(AXIS))
        latents, rest = source.latents, -source.num_latents % mesh.size
        if rest or not latents.sharding.is_equivalent_to(sharding, 2):
            if latents.is_fully_addressable:  # an array of this process, which the others have too
                latents = np.asarray(latents)
            pad = jax.jit(lambda x: jnp.pad(x, ((0, rest), (0, 0))), out_shardings=sharding)
            latents = pad(latents)
        return ArraySource(latents, source.num_latents)
    return replicate(source, mesh)


def layout(solver: Solver, mesh: Mesh) -> Any:
    """Shardings of a solver's state, a prefix of its tree."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), solver.layout(AXIS))


def with_layout(state: Any, solver: Solver, mesh: Mesh, devices: int) -> Any:
    """The shapes of a state of so many devices, with shardings to restore it to."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    shardings = layout(solver, mesh) if devices == mesh.size else everywhere
    shardings = jax.tree.broadcast(shardings, state)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        shardings,
    )


def adopt(state: Any, solver: Solver, mesh: Mesh) -> Any:
    """A state of another number of devices on this mesh: the first one takes over all sums."""
    specs = jax.tree.broadcast(solver.layout(AXIS), state)

    def convert(leaf: Array, spec: PartitionSpec) -> Array:
        if spec == PartitionSpec() or leaf.shape[0] == mesh.size:
            return leaf
        empty = jnp.zeros((mesh.size - 1, *leaf.shape[1:]), leaf.dtype)
        return jnp.concatenate([leaf.sum(0, keepdims=True), empty])

    convert_all = jax.jit(
        lambda state: jax.tree.map(convert, state, specs), out_shardings=layout(solver, mesh)
    )
    return convert_all(state)


def whole_block(source: ArraySource, mesh: Mesh) -> Block:
    """All rows of an array that is placed on the mesh, with those that pad it."""
    weight = (np.arange(source.latents.shape[0]) < source.num_latents).astype(np.float32)
    weight = jax.device_put(weight, NamedSharding(mesh, PartitionSpec(AXIS)))
    return Block(source.latents, weight)


class HostBlock(NamedTuple):
    """A block and how many latents this process found for it."""

    block: Block
    found: int


def read_block(
    source: Source, key: Array | None, start: int, count: int, plan: Plan, mesh: Mesh
) -> HostBlock:
    """Latents start … start + count of a source on the host, each device's read for it alone.

    Padded to the same size whatever the count, so that the last block of a pass compiles nothing.
    """
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    rows = _rows(plan, mesh)
    own = rows // mesh.size
    found: dict[int, int] = {}  # by the device's first row

    def read(index: Any) -> np.ndarray:
        first = index[0].start or 0
        if isinstance(source, IteratorSource):  # each process has its own
            begin = start * len(mesh.local_devices) // mesh.size + len(found) * own
            latents = source.read(key, begin, own)
        else:
            latents = source.read(key, start + first, max(0, min(own, count - first)))
        found[first] = len(latents)
        x = np.zeros((own, source.latent_dim), np.float32)
        x[: len(latents)] = latents
        return x

    def weigh(index: Any) -> np.ndarray:
        return (np.arange(own) < found[index[0].start or 0]).astype(np.float32)

    x = jax.make_array_from_callback((rows, source.latent_dim), sharding, read)
    weight = jax.make_array_from_callback((rows,), sharding, weigh)
    return HostBlock(Block(x, weight), sum(found.values()))


def found_by_all(found: int) -> int:
    """The sum of what the processes found."""
    return sum(in_all_processes(found))


def in_all_processes(value: Any) -> list[Any]:
    """A JSON value of each process, of at most `MESSAGE_BYTES`: all of them, in every process."""
    if jax.process_count() == 1:
        return [value]
    text = json.dumps(value).encode()
    if len(text) > MESSAGE_BYTES:
        raise ValueError(f"processes tell each other at most {MESSAGE_BYTES} bytes: {value!r}")
    padded = np.frombuffer(text.ljust(MESSAGE_BYTES), np.uint8)
    return [json.loads(row.tobytes()) for row in multihost_utils.process_allgather(padded)]


def as_first_process(function: Callable[[], Any]) -> Any:
    """The JSON value that a function gives in the first process, where alone it is called.

    Raises:
      ValueError, OSError: in every process, what the function raised in the first one.
    """
    value = in_every_process(lambda: function() if jax.process_index() == 0 else None)
    return in_all_processes(value)[0]


def in_every_process(function: Callable[[], Any]) -> Any:
    """What a function gives, once it is known that it gave something in every process.

    Raises:
      ValueError, OSError: in every process, what the function raised in the first that it failed
        in; its own in those where it failed.
    """
    if jax.process_count() == 1:
        return function()
    value, error = None, None
    try:
        value = function()
    except (ValueError, OSError) as raised:
        error = raised
    text = None if error is None else str(error)[: MESSAGE_BYTES // 8]
    failures = in_all_processes([isinstance(error, OSError), text])
    if error is not None:
        raise error
    for process, (of_system, text) in enumerate(failures):
        if text is not None:
            raise (OSError if of_system else ValueError)(f"process {process}: {text}")
    return value


def read_samples(source: Source, key: Array, count: int, mesh: Mesh) -> Array:
    """Some latents on every device, [count, D] float32; all, as stored, if there are no more."""
    n = source.num_latents
    order = None if n is not None and n <= count else key
    count = count if n is None else min(n, count)
    if source.on_device:
        order = None if order is None else replicate(order, mesh)
        return _read_on_device(source, order, count, mesh)
    if isinstance(source, IteratorSource):  # one pass at most, and as many for each device
        order, count = None, count + -count % mesh.size
    block = read_block(source, order, 0, count, Plan(1, count, 1), mesh).block
    block = _gather(block, mesh)
    return replicate(np.asarray(block.x)[np.asarray(block.weight) > 0], mesh)


@functools.partial(jax.jit, static_argnames=("count", "mesh"))
def _read_on_device(source: Source, key: Array | None, count: int, mesh: Mesh) -> Array:
    everywhere = NamedSharding(mesh, PartitionSpec())
    return lax.with_sharding_constraint(source.read(key, 0, count), everywhere)


@functools.partial(jax.jit, static_argnames="mesh")
def _gather(block: Block, mesh: Mesh) -> Block:
    return lax.with_sharding_constraint(block, NamedSharding(mesh, PartitionSpec()))


@functools.partial(jax.jit, static_argnames=("solver", "mesh", "change"))
def init(
    solver: Solver, mesh: Mesh, curve: Curve, change: Callable[[Curve], Curve] | None = None
) -> Any:
    """The state at a stage's start, of a curve or of what `change` makes of it."""
    state = solver.init(curve if change is None else change(curve), mesh.size)
    shardings = jax.tree.broadcast(layout(solver, mesh), state)
    return lax.with_sharding_constraint(state, shardings)


@functools.partial(jax.jit, static_argnames=("solver", "mesh", "plan"), donate_argnames="state")
def add_drawn(
    solver: Solver,
    mesh: Mesh,
    plan: Plan,
    state: Any,
    source: Source,
    keys: Array,
    first: Array,
    stop: Array,
) -> Any:
    """Takes in blocks first … stop - 1 of a round, drawn in here from a source on the device.

    Args:
      keys: one that names the order and one for the solver, [2].
    """

    def add(i: Array, state: Any) -> Any:
        x = source.read(keys[0], i * plan.block_samples, plan.block_samples)
        weight = jnp.ones_like(x[:, 0])
        padding = _rows(plan, mesh) - plan.block_samples
        block = Block(jnp.pad(x, ((0, padding), (0, 0))), jnp.pad(weight, (0, padding)))
        block = lax.with_sharding_constraint(block, NamedSharding(mesh, PartitionSpec(AXIS)))
        return _add(solver, mesh, state, jax.random.fold_in(keys[1], i), block)

    return lax.fori_loop(first, stop, add, state)


@functools.partial(jax.jit, static_argnames=("solver", "mesh"), donate_argnames="state")
def add_block(solver: Solver, mesh: Mesh, state: Any, key: Array, block: Block) -> Any:
    """Takes in a block that is at hand."""
    return _add(solver, mesh, state, key, block)


@functools.partial(jax.jit, static_argnames=("solver", "mesh"), donate_argnames="state")
def finish(solver: Solver, mesh: Mesh, state: Any) -> tuple[Any, Array]:
    """Ends a round: the next state and the round's loss."""
    if mesh.size == 1:
        return solver.finish(state, None)
    layout = solver.layout(AXIS)
    per_shard = jax.shard_map(
        lambda state: solver.finish(state, AXIS),
        mesh=mesh,
        in_specs=(layout,),
        out_specs=(layout, PartitionSpec()),
    )
    return per_shard(state)


def _add(solver: Solver, mesh: Mesh, state: Any, key: Array, block: Block) -> Any:
    if mesh.size == 1:
        return solver.add(state, key, block.x, block.weight, None)
    layout = solver.layout(AXIS)
    per_shard = jax.shard_map(
        lambda state, key, block: solver.add(state, key, block.x, block.weight, AXIS),
        mesh=mesh,
        in_specs=(layout, PartitionSpec(), PartitionSpec(AXIS)),
        out_specs=layout,
    )
    return per_shard(state, key, block)


def _rows(plan: Plan, mesh: Mesh) -> int:
    """Of a block, with those that pad the batch to a multiple of the devices."""
    return -(-plan.batch // mesh.size) * mesh.size * plan.steps
