"""Meshes: how latents and curves lie on devices.

A mesh has one axis, "data": samples are divided along it, the curve is on every device. A round
adds up each device's sums without a word to the others; then one sum over devices ends it, of
K·D + 3K + 1 floats for least squares (`Adam` adds the gradient of every step instead). Which
samples a round sees does not depend on the devices: sources are read by number, and random draws
are made in global view. So the random rows of an array that is divided over the devices cross
between them; passes over it, samplers and files do not.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Array = jax.Array

AXIS = "data"


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of one axis, "data", over the given devices: all of all processes by default."""
    return Mesh(np.array(jax.devices() if devices is None else devices), (AXIS,))


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
    """Raises ValueError unless the mesh's only axis is "data"; TypeError for what is no mesh."""
    if not isinstance(mesh, Mesh):
        raise TypeError(
            f"mesh is a {type(mesh).__name__}; expected a Mesh, such as mesh=sfvq_jax.data_mesh()"
        )
    if mesh.axis_names != (AXIS,):
        raise ValueError(
            f'the mesh has axes {mesh.axis_names}; a fit needs the one axis "{AXIS}", such as'
            " sfvq_jax.data_mesh() has"
        )


def everywhere(mesh: Mesh) -> NamedSharding:
    """Of what lies whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def divided(mesh: Mesh) -> NamedSharding:
    """Of what is divided over the devices along its first axis."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Every array of a pytree on all devices; the values must be the same in all processes."""
    if jax.process_count() == 1:
        return jax.device_put(tree, everywhere(mesh))

    def put(leaf: Any) -> Array:
        if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
            data = put(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        value = np.asarray(leaf)
        return jax.make_array_from_callback(value.shape, everywhere(mesh), lambda at: value[at])

    return jax.tree.map(put, tree)


def divide(x: np.ndarray, mesh: Mesh) -> Array:
    """An array that all processes have, divided along its first axis, which the devices divide."""
    if jax.process_count() == 1:
        return jax.device_put(x, divided(mesh))
    return jax.make_array_from_callback(x.shape, divided(mesh), lambda at: x[at])


@functools.partial(jax.jit, static_argnames="mesh")
def gather(tree: Any, mesh: Mesh) -> Any:
    """Every array of a pytree whole on all devices."""
    return lax.with_sharding_constraint(tree, everywhere(mesh))


def round_up(number: int, quantum: int) -> int:
    """The least multiple of the quantum that is not below the number."""
    return -(-number // quantum) * quantum
