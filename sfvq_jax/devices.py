"""Meshes: how latents and curves lie on devices.

A mesh has an axis "data": samples are divided along it, the curve is on every device. A round adds
up each device's sums without a word to the others; then one sum over devices ends it, of
K·D + 3K + 1 floats for least squares (`Adam` adds the gradient of every step instead). Which
samples a round sees does not depend on the devices: sources are read by number, and random draws
are made in global view. So the random rows of an array that is divided over the devices cross
between them; passes over it, samplers and files do not.

It may have a second axis, "curve", along which the codewords are divided, and all that is as large
as they are (`sfvq_jax.divided`). Then the codewords lie in one of two ways: by rows, a range of
codewords on each device, where samples meet them; and by columns, some dimensions of all of them on
each device, where the solve and the moves go along the curve. One turns into the other by an
all-to-all.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sfvq_jax.curve import SMALL_ROWS, Curve

Array = jax.Array

AXIS = "data"
LINES = "curve"


def data_mesh(devices: Sequence[Any] | None = None, *, curve: int = 1) -> Mesh:
    """A mesh of devices for `fit`; by default it has all devices of all processes.

    Args:
      devices: the devices; neighbours in the list hold neighbouring ranges of a curve.
      curve: number of devices over which the codewords are divided; a power of two up to 64. The
        samples are divided over the rest: 8 devices and `curve=4` give two parts of the samples.

    Raises:
      ValueError: `curve` does not divide the number of devices.

    >>> dict(data_mesh(jax.devices()[:1]).shape)
    {'data': 1}
    """
    found = np.array(jax.devices() if devices is None else devices)
    if curve == 1:
        return Mesh(found, (AXIS,))
    if curve < 1 or len(found) % curve:
        raise ValueError(
            f"curve is {curve}; expected a number that divides the {len(found)} devices"
        )
    return Mesh(found.reshape(-1, curve), (AXIS, LINES))


def default_mesh(batch: int) -> Mesh:
    """All devices where there are several processes, or accelerators that get enough to do.

    One device otherwise: cores of a CPU already share the work of one.

    Args:
      batch: samples of an update, or of a block where updates take more.
    """
    devices = jax.devices()
    enough = batch >= 1024 * len(devices)
    if jax.process_count() > 1 or (devices[0].platform != "cpu" and enough):
        return data_mesh()
    return data_mesh(devices[:1])


def check_mesh(mesh: Mesh) -> None:
    """Raises ValueError for other axes than "data" and "curve"; TypeError for what is no mesh."""
    if not isinstance(mesh, Mesh):
        raise TypeError(
            f"mesh is a {type(mesh).__name__}; expected a Mesh, such as mesh=sfvq_jax.data_mesh()"
        )
    if mesh.axis_names not in ((AXIS,), (AXIS, LINES)):
        raise ValueError(
            f'the mesh has axes {mesh.axis_names}; a fit needs the axis "{AXIS}", and'
            f' "{LINES}" after it where the curve is divided too, as sfvq_jax.data_mesh() has them'
        )
    lines = mesh.shape.get(LINES, 1)
    if SMALL_ROWS % lines:
        raise ValueError(
            f'the axis "{LINES}" of the mesh has {lines} devices; expected a power of two up to'
            f" {SMALL_ROWS}"
        )
    if any(len({device.process_index for device in row}) > 1 for row in _rows(mesh)):
        raise ValueError(
            f'the axis "{LINES}" of the mesh goes over several processes; give each process whole'
            " copies of the curve, and divide the samples over processes"
        )


def lines_axis(mesh: Mesh) -> str | None:
    """The name of the axis over which the curve is divided; None: it is not."""
    return LINES if mesh.shape.get(LINES, 1) > 1 else None


def parts(mesh: Mesh) -> int:
    """Into how many parts the samples are divided."""
    return mesh.shape[AXIS]


def local_parts(mesh: Mesh) -> int:
    """How many of them are on devices of this process."""
    here = jax.process_index()
    return sum(any(device.process_index == here for device in row) for row in _rows(mesh))


def _rows(mesh: Mesh) -> np.ndarray:
    """The devices of each part of the samples."""
    return mesh.devices.reshape(parts(mesh), -1)


def everywhere(mesh: Mesh) -> NamedSharding:
    """Of what lies whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def divided(mesh: Mesh) -> NamedSharding:
    """Of samples, and what is theirs: divided along the first axis."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def curve_spec(curve: Curve, mesh: Mesh) -> Curve:
    """How codewords lie where samples meet them: by rows."""
    size = None if curve.size is None else PartitionSpec()
    return Curve(PartitionSpec(lines_axis(mesh)), size)  # pyright: ignore[reportArgumentType]


def sums_spec(sums: Any, mesh: Mesh) -> Any:
    """How the sums of each part of the samples, [parts, …], lie: those of codewords as these do."""
    lines = lines_axis(mesh)

    def of_leaf(leaf: Any) -> PartitionSpec:
        return PartitionSpec(AXIS, lines) if lines and leaf.ndim > 1 else PartitionSpec(AXIS)

    return jax.tree.map(of_leaf, sums)


def shardings(specs: Any, mesh: Mesh) -> Any:
    """Those of a pytree of specs."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def by_rows(curve: Curve, mesh: Mesh) -> Curve:
    """Within a program: the curve with a range of its codewords on each device."""
    if lines_axis(mesh) is None:
        return curve
    # by columns before that, or the loops that made it would send every row for itself
    curve = by_columns(curve, mesh)
    return lax.with_sharding_constraint(curve, shardings(curve_spec(curve, mesh), mesh))


def by_columns(tree: Any, mesh: Mesh) -> Any:
    """Within a program: tables [K, D] by columns, all else whole on every device."""
    lines = lines_axis(mesh)
    if lines is None:
        return tree

    def of_leaf(leaf: Array) -> Array:
        spec = PartitionSpec(None, lines) if leaf.ndim == 2 else PartitionSpec()
        return lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(of_leaf, tree)


def on_host(array: Any) -> np.ndarray:
    """An array whose parts are all on devices of this process, here; without a copy on a device."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    whole = np.empty(array.shape, array.dtype)
    for shard in array.addressable_shards:
        whole[shard.index] = shard.data
    return whole


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Every array of a pytree on all devices; the values must be the same in all processes."""
    return place(tree, jax.tree.map(lambda leaf: everywhere(mesh), tree))


def place(tree: Any, where: Any) -> Any:
    """Every array of a pytree by its sharding; the values must be the same in all processes."""
    if jax.process_count() == 1:
        return jax.device_put(tree, where)

    def put(leaf: Any, where: NamedSharding) -> Array:
        if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
            data = put(jax.random.key_data(leaf), where)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        value = np.asarray(leaf)
        return jax.make_array_from_callback(value.shape, where, lambda at: value[at])

    return jax.tree.map(put, tree, where)


def place_curve(curve: Curve, mesh: Mesh) -> Curve:
    """A curve on a mesh, by rows; the same in all processes."""
    return place(curve, shardings(curve_spec(curve, mesh), mesh))


def divide(x: np.ndarray, mesh: Mesh) -> Array:
    """An array that all processes have, divided along its first axis, which the parts divide."""
    return place(x, divided(mesh))


@functools.partial(jax.jit, static_argnames="mesh")
def gather(tree: Any, mesh: Mesh) -> Any:
    """Every array of a pytree whole on all devices."""
    return lax.with_sharding_constraint(tree, everywhere(mesh))


def round_up(number: int, quantum: int) -> int:
    """The least multiple of the quantum that is not below the number."""
    return -(-number // quantum) * quantum
