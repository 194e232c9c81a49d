"""Rows that are read from the host as they are needed: an .npy of any size, a dataset of h5py."""

import contextlib
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sfvq_jax.rows.looking import look_through
from sfvq_jax.rows.npy import FileRows, mapped_rows, npy_rows
from sfvq_jax.rows.source import (
    Block,
    Far,
    Source,
    check_latents,
    check_shape,
    check_weights,
    generator,
)

Array = jax.Array

PIECE_BYTES = 2**17  # read together when a file is read in random order


class HostSource(Source):
    """Rows of anything with `shape`, `dtype` and slices: an array on the host, a dataset of h5py.

    In random order, runs of 128 KiB of neighbouring rows are read together, each run once, so that
    a disk keeps up.

    Args:
      rows: the array; an `FileRows`, which is read and never mapped; or a function that opens it
        anew for each block.
      weights: of each row, [N], likewise; 1 by default.
      name: what a message calls the rows.
    """

    def __init__(self, rows: Any, weights: Any = None, name: str = "the array of latents"):
        self._rows, self._name = _of_file(rows), name
        with _opened(self._rows) as found:
            check_shape(found, name)
            self.num_latents, self.latent_dim = (int(size) for size in found.shape)
            row_bytes = self.latent_dim * np.dtype(found.dtype).itemsize
        self._weights = None if weights is None else _of_file(weights)
        if self._weights is not None:
            with _opened(self._weights) as found:
                if tuple(found.shape) != (self.num_latents,):
                    raise ValueError(
                        f"the weights of {name} have shape {tuple(found.shape)}; expected"
                        f" ({self.num_latents},)"
                    )
        # at most a thousandth, so that few rows wait
        self._piece = max(1, min(PIECE_BYTES // row_bytes, self.num_latents // 1000))
        self._stride = _stride(self.num_latents // self._piece)
        self._left_out = np.zeros(0, np.int64)

    @classmethod
    def of_file(cls, path: str | Path, weights: Any = None) -> "HostSource":
        """An .npy of any size.

        Raises:
          FileNotFoundError: nothing there.
          ValueError: no .npy of floating point numbers [N, D], or a damaged one.
        """
        return cls(npy_rows(path), weights, name=str(path))

    def __repr__(self) -> str:
        return f"HostSource({self._name}, {self.num_latents} × {self.latent_dim})"

    def read(self, key: Array | None, start: int, count: int) -> Block:
        """As `Readable.read`; a file that has changed raises ValueError."""
        if key is None:
            stop = max(start, min(start + count, self.num_latents))
            numbers = np.arange(start, stop)
        else:
            numbers = self._numbers(key, start, count)
        stored = self._read(self._rows, numbers)
        check_latents(stored, self._name, numbers)
        weight = np.ones(len(numbers), np.float32)
        if self._weights is not None:
            weight = self._read(self._weights, numbers).astype(np.float32)
            check_weights(weight, len(weight), self._name, numbers)
        weight[np.isin(numbers, self._left_out)] = 0
        return Block(stored.astype(np.float32), weight)

    def _read(self, rows: Any, numbers: np.ndarray) -> np.ndarray:
        with _opened(rows) as found:
            return _read_runs(found, numbers)

    def held_out(self, key: Array, count: int) -> "HostSource":
        other = HostSource(self._rows, self._weights, self._name)
        other._left_out = np.unique(self._numbers(key, 0, count))
        return other

    def numbers(self, key: Array, count: int) -> np.ndarray:
        return self._numbers(key, 0, count)

    def look_through(self) -> Far | None:
        """Reads all rows once."""
        with contextlib.ExitStack() as files:
            rows = files.enter_context(_opened(self._rows))
            weights = None
            if self._weights is not None:
                weights = files.enter_context(_opened(self._weights))

            def read(start: int, stop: int) -> tuple[np.ndarray, np.ndarray | None]:
                weight = None
                if weights is not None:
                    weight = np.asarray(weights[start:stop]).astype(np.float32)
                    check_weights(weight, stop - start, self._name, range(start, stop))
                return np.asarray(rows[start:stop]), weight

            shape = (self.num_latents, self.latent_dim)
            return look_through(self._name, shape, read, divided=True)

    def check_unchanged(self) -> None:
        for rows in (self._rows, self._weights):
            if isinstance(rows, FileRows):
                rows.check_unchanged()

    def _numbers(self, key: Array, start: int, count: int) -> np.ndarray:
        """Rows start … start + count of a walk over pieces of neighbouring rows, pass after pass.

        A pass starts from a random row; any stretch of it is spread evenly over all the data. Rows
        that make no whole piece wait for the next pass.
        """
        if count <= 0:
            return np.zeros(0, np.int64)
        pieces = self.num_latents // self._piece
        numbers = np.arange(start // self._piece, -(-(start + count) // self._piece))
        passes, within = np.divmod(numbers, pieces)
        offsets = {
            i: int(generator(key, i).integers(self.num_latents)) for i in np.unique(passes).tolist()
        }
        first = np.array([offsets[i] for i in passes.tolist()])
        first = first + within * self._stride % pieces * self._piece
        rows = (first[:, None] + np.arange(self._piece)).reshape(-1) % self.num_latents
        return rows[start % self._piece :][:count]


def _of_file(rows: Any) -> Any:
    """Rows that need no map where a file has them; lists as arrays."""
    if isinstance(rows, np.memmap):
        found = mapped_rows(rows)
        return rows if found is None else found
    return rows if callable(rows) or hasattr(rows, "shape") else np.asarray(rows)


def _opened(rows: Any) -> contextlib.AbstractContextManager:
    if isinstance(rows, FileRows):
        return rows.opened()
    return contextlib.nullcontext(rows() if callable(rows) else rows)


def _read_runs(rows: Any, numbers: np.ndarray) -> np.ndarray:
    """Rows of these numbers, neighbours together, as slices."""
    if len(numbers) == 0:
        return np.asarray(rows[:0])
    ends = np.flatnonzero(np.diff(numbers) != 1) + 1
    runs = np.split(numbers, ends)
    return np.concatenate([np.asarray(rows[run[0] : run[-1] + 1]) for run in runs])


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
