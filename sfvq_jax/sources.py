"""Where latents come from: arrays, files larger than memory, samplers on the device, iterators.

All are one small protocol, `Source`. To add your own, write a class with these four names; the
whole of a source on the host can be as short as

    class Database:
        latent_dim, num_latents, on_device = 512, 10**9, False

        def read(self, key, start, count):
            return select_rows(start, start + count)  # a NumPy array [count, 512]
"""

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.latent_model import LatentModel, method

Array = jax.Array

PIECE_BYTES = 2**17  # read together when a file is read in random order


@runtime_checkable
class Source(Protocol):
    """Latents, read some at a time.

    Attributes:
      latent_dim: D.
      num_latents: N, or None where there is no end of them.
      on_device: whether `read` is pure JAX code that fits call inside their compiled programs. The
        source is then a pytree, `start` may be traced, and the latents never visit the host.
        Otherwise fits call it on the host, ahead of the device, in a thread of its own.
    """

    @property
    def latent_dim(self) -> int: ...

    @property
    def num_latents(self) -> int | None: ...

    @property
    def on_device(self) -> bool: ...

    def read(self, key: Array | None, start: Any, count: int) -> Any:
        """Latents [count, D] from number `start` on, in the order that `key` names.

        A key names a random order, with or without replacement; None is the order of storage, in
        which a finite source gives each latent once. The same arguments give the same latents.
        Processes of one fit each ask for the numbers that are theirs.
        """
        ...


@flax.struct.dataclass
class ArraySource:
    """Rows of an array on the devices; in random order they are drawn with replacement.

    Attributes:
      latents: [N, D] float32; rows from `num_latents` on are padding.
      num_latents: N.
    """

    latents: Array
    num_latents: int = flax.struct.field(pytree_node=False)
    on_device = True

    @property
    def latent_dim(self) -> int:
        return self.latents.shape[1]

    def read(self, key: Array | None, start: Any, count: int) -> Array:
        if key is None:
            return jax.lax.dynamic_slice_in_dim(self.latents, start, count)
        key = jax.random.fold_in(key, start)
        return self.latents[jax.random.randint(key, (count,), 0, self.num_latents)]


@flax.struct.dataclass
class SamplerSource:
    """A function (key, n) -> [n, D], a generator's mapping network, say."""

    sampler: Callable[[Array, int], Array]  # a jax.tree_util.Partial: its arguments are leaves
    latent_dim: int = flax.struct.field(pytree_node=False)
    num_latents = None
    on_device = True

    def read(self, key: Array | None, start: Any, count: int) -> Array:
        assert key is not None, "a sampler has no order of storage"
        latents = self.sampler(jax.random.fold_in(key, start), count)
        if latents.shape != (count, self.latent_dim):
            raise ValueError(
                f"asked for {count} latents, the sampler drew an array of shape {latents.shape}: a"
                " sampler (key, n) gives [n, D]"
            )
        return latents.astype(jnp.float32)


class HostSource:
    """Rows of anything with `shape`, `dtype` and slices: an array on the host, a dataset of h5py.

    In random order, runs of 128 KiB of neighbouring rows are read together, each run once, so that
    a disk keeps up.

    Args:
      rows: the array, or a function that opens it anew for each block, as `HostSource.of_file`
        does: a mapped file that stays open would keep in memory all that was read.
    """

    on_device = False

    def __init__(self, rows: Any):
        self._open: Callable[[], Any] = rows if callable(rows) else lambda: rows
        rows = self._open()
        if len(rows.shape) != 2 or rows.shape[1] == 0:
            raise ValueError(
                f"the array of latents has shape {rows.shape}; expected [N, D], a row a latent"
            )
        if not np.issubdtype(rows.dtype, np.floating):
            raise ValueError(
                f"the array of latents is of type {rows.dtype}; expected floating point numbers"
            )
        self.num_latents, self.latent_dim = (int(size) for size in rows.shape)
        row_bytes = self.latent_dim * np.dtype(rows.dtype).itemsize
        # at most a thousandth, so that few rows wait
        self._piece = max(1, min(PIECE_BYTES // row_bytes, self.num_latents // 1000))
        self._stride = _stride(self.num_latents // self._piece)

    @classmethod
    def of_file(cls, path: str | Path) -> "HostSource":
        """An .npy of any size.

        Raises:
          FileNotFoundError: nothing there.
          ValueError: no .npy of floating point numbers [N, D], or a damaged one.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        try:
            np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            message = f"{path} is no .npy of numbers, or a damaged one ({error})"
            raise ValueError(message) from error
        return cls(lambda: np.load(path, mmap_mode="r", allow_pickle=False))

    def read(self, key: Array | None, start: int, count: int) -> np.ndarray:
        rows = self._open()
        if key is None:
            latents = np.asarray(rows[start : start + count], np.float32)
        else:
            latents = self._pieces(rows, key, start, count)
        check_latents(latents, f"latents {start} to {start + count} of the source")
        return latents

    def _pieces(self, rows: Any, key: Array, start: int, count: int) -> np.ndarray:
        """Numbers start … of a walk over pieces of neighbouring rows, pass after pass.

        A pass starts from a random row; any stretch of it is spread evenly over all the data. Rows
        that make no whole piece wait for the next pass.
        """
        pieces = self.num_latents // self._piece
        numbers = range(start // self._piece, -(-(start + count) // self._piece))
        offsets = {
            i: int(jax.random.randint(jax.random.fold_in(key, i), (), 0, np.iinfo(np.int32).max))
            for i in {number // pieces for number in numbers}
        }
        found = []
        for number in numbers:
            piece = number * self._stride % pieces
            row = (offsets[number // pieces] + piece * self._piece) % self.num_latents
            found.append(np.asarray(rows[row : row + self._piece]))
            if (over := row + self._piece - self.num_latents) > 0:
                found.append(np.asarray(rows[:over]))
        found = np.concatenate(found or [rows[:0]])
        return found[start % self._piece :][:count].astype(np.float32)


class IteratorSource:
    """Blocks [n, D] of any sizes from an iterator, as they come; their order is not changed.

    Since the first latents serve to start from and to measure with, they should be a fair sample.
    Where several processes fit together, each iterates over its own part of the data.

    Args:
      blocks: a function that gives an iterator, or what can be iterated over again, a list say. One
        iteration is a pass over the data.
    """

    num_latents = None
    on_device = False

    def __init__(self, blocks: Iterable[Any] | Callable[[], Iterable[Any]]):
        if isinstance(blocks, Iterator):
            raise TypeError(
                "an iterator can be read only once, and a fit reads more often: pass a function"
                " that gives a fresh one"
            )
        self._open = blocks if callable(blocks) else lambda: blocks
        self._restart()
        self._rest = self._next_block()
        if self._rest is None:
            raise ValueError("the iterator gives no blocks")
        self.latent_dim = self._rest.shape[1]

    def read(self, key: Array | None, start: int, count: int) -> np.ndarray:
        """With a key, pass follows pass; without one, a read at the end falls short."""
        endless = key is not None
        if start < self._position:
            self._restart()
        self._take(start - self._position, endless)
        return np.concatenate(
            [np.zeros((0, self.latent_dim), np.float32), *self._take(count, endless)]
        )

    def _restart(self) -> None:
        self._blocks = iter(self._open())
        self._position = 0
        self._rest: np.ndarray | None = None

    def _take(self, count: int, endless: bool) -> list[np.ndarray]:
        """The next latents, in parts."""
        parts = []
        while count > 0:
            if self._rest is None or len(self._rest) == 0:
                self._rest = self._next_block()
            if self._rest is None:
                if not endless:
                    break
                self._blocks = iter(self._open())
                self._rest = self._next_block()
                if self._rest is None:
                    raise ValueError("the iterator gives no blocks when it is iterated over again")
            part, self._rest = self._rest[:count], self._rest[count:]
            parts.append(part)
            count -= len(part)
            self._position += len(part)
        return parts

    def _next_block(self) -> np.ndarray | None:
        block = next(self._blocks, None)
        if block is None:
            return None
        block = np.asarray(block)
        check_latents(block, "a block of the iterator")
        if self._rest is not None and block.shape[1] != self._rest.shape[1]:
            raise ValueError(
                f"a block of the iterator has shape {block.shape}; the ones before have width"
                f" {self._rest.shape[1]}"
            )
        return block.astype(np.float32)


def as_source(source: Any) -> Source:
    """What `fit` takes, as a source; a source stays what it is.

    Args:
      source: an array [N, D], which goes to the device; a memory-mapped one, or the path of an
        .npy, which is read in blocks; a `LatentModel` or a function (key, n) -> [n, D], which
        draws on the device; a `Source`.

    Raises:
      ValueError: an array of another rank, of no floating point type, or with NaN or infinity.
      TypeError: none of these.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, str | Path):
        return HostSource.of_file(source)
    if isinstance(source, np.memmap):
        return HostSource(source)
    if isinstance(source, np.ndarray | jax.Array):
        check_latents(source, "the array of latents")
        return ArraySource(jnp.asarray(source, jnp.float32), len(source))
    if isinstance(source, jax.tree_util.Partial):
        return _sampler(source)
    if isinstance(source, LatentModel):
        return _sampler(method(source, "sample"))
    if callable(source):
        return _sampler(jax.tree_util.Partial(source))
    raise TypeError(
        f"source is a {type(source).__name__}; expected an array [N, D], the path of an .npy, a"
        " LatentModel with `sample` and `render`, a function (key, n) -> [n, D], or a Source"
    )


def check_latents(latents: Array | np.ndarray, name: str) -> None:
    """Raises ValueError unless latents are [N, D], of floating point type and finite."""
    if latents.ndim != 2 or latents.shape[1] == 0:
        raise ValueError(f"{name} has shape {latents.shape}; expected [N, D], a row a latent")
    if not jnp.issubdtype(latents.dtype, jnp.floating):
        raise ValueError(f"{name} is of type {latents.dtype}; expected floating point numbers")
    if isinstance(latents, jax.Array) and not latents.is_fully_addressable:
        if not bool(jnp.isfinite(latents).all()):
            raise ValueError(f"{name} has NaN or infinity: remove these rows")
        return
    bad = np.flatnonzero(~np.isfinite(np.asarray(latents)).all(1))
    if bad.size:
        raise ValueError(
            f"{name} has NaN or infinity in {bad.size} of {latents.shape[0]} rows, the first in row"
            f" {bad[0]}: remove these rows"
        )


def _sampler(sampler: jax.tree_util.Partial) -> SamplerSource:
    """With D found by tracing a draw."""
    latents = jax.eval_shape(lambda: sampler(jax.random.key(0), 4))
    if latents.ndim != 2:
        raise ValueError(
            f"what the source draws has shape {latents.shape}; expected [N, D], a row a latent"
        )
    return SamplerSource(sampler, latents.shape[1])


def _stride(number: int) -> int:
    """A step that visits all of 0 … number - 1, any stretch of the walk spread evenly over them.

    Near the golden ratio, and with small partial quotients, which bound the gaps of such a walk.
    """
    near = round(number * (5**0.5 - 1) / 2)
    steps = [step for step in range(max(1, near - 30), near + 31) if math.gcd(step, number) == 1]
    return min(steps, key=lambda step: max(_quotients(number, step)), default=1)


def _quotients(number: int, step: int) -> list[int]:
    """Of the continued fraction of number ÷ step."""
    quotients = []
    while step:
        quotients.append(number // step)
        number, step = step, number % step
    return quotients
