"""How much memory images, and derivatives by latents, may take at once."""

import contextlib
import contextvars
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array

CPU_SHARE = 0.25  # of all memory, by default
ACCELERATOR_SHARE = 0.5  # of what JAX may take of a device's
# of what JAX keeps from a function for its derivative: compiled programs take 1.5 to 2.9 times as
# much a latent for StyleGAN2s of 64 to 1024 px (`python -m benchmarks.memory`)
OF_KEPT = 3
CGROUP = Path("/sys/fs/cgroup/memory.max")  # the limit of a container

_limit: contextvars.ContextVar[int | None] = contextvars.ContextVar("memory limit", default=None)


@contextlib.contextmanager
def limited_memory(limit: int | None) -> Iterator[None]:
    """Context manager that limits the memory for batches of images and derivatives.

    A batch has at least one image. The model, compilation and results need memory besides.

    >>> from sfvq_jax import limited_memory
    >>> with limited_memory(2**33):
    ...     memory_limit() // 2**30
    8

    Args:
      limit: number of bytes; None for the default of `memory_limit`.

    Raises:
      ValueError: the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"the memory limit is {limit}; expected a number of bytes, 1 or more")
    token = _limit.set(limit)
    try:
        yield
    finally:
        _limit.reset(token)


def memory_limit() -> int:
    """Bytes, as `limited_memory` sets them.

    By default a half of what JAX may take of an accelerator's memory, or a quarter of all memory of
    a CPU. Both are the same from run to run, as batches of another size round otherwise.
    """
    limit = _limit.get()
    if limit is not None:
        return limit
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        if "bytes_limit" in stats:
            return int(ACCELERATOR_SHARE * stats["bytes_limit"])
    return int(CPU_SHARE * _all_memory())


def _all_memory() -> int:
    """Of this machine or container, in bytes; 8 GiB where the system does not tell it."""
    sizes = []
    with contextlib.suppress(AttributeError, ValueError, OSError):  # no such names on Windows
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):  # none, or "max"
        sizes.append(int(CGROUP.read_text()))
    return min((size for size in sizes if size > 0), default=2**33)


def differentiable_rows(
    function: Callable[[Array], Array], shape: tuple[int, ...], most: int
) -> int:
    """How many rows [n, *shape] the memory limit allows derivatives at, at once; 1 at least.

    JAX tells what it keeps of a function for its derivative, without computing or compiling it.

    Args:
      function: of rows; one that JAX cannot trace gets `most`.
      shape: of a row, float32.
      most: to be asked for.
    """
    room = memory_limit() / OF_KEPT
    kept = _kept_bytes(function, (most, *shape))
    if kept is None or kept <= room or most == 1:
        return most
    alone = _kept_bytes(function, (1, *shape)) or 0
    a_row = max((kept - alone) / (most - 1), 1)
    return min(max(int((room - alone) / a_row) + 1, 1), most)


def even_part(count: int, most: int) -> int:
    """How many of `count` rows to take at once, at most `most`, so that all parts are alike."""
    return max(n for n in range(1, min(most, count) + 1) if count % n == 0)


def _kept_bytes(function: Callable[[Array], Array], shape: tuple[int, ...]) -> int | None:
    def derivative(rows: Array) -> Any:
        return jax.vjp(function, rows)[1]

    try:
        kept = jax.eval_shape(derivative, jax.ShapeDtypeStruct(shape, jnp.float32))
    except Exception:  # whoever calls the function itself says why
        return None
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))
