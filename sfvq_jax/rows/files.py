"""Rows that are read from the host as they are needed: an .npy of any size, a dataset of h5py."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from sfvq_jax.rows.source import (
    Block,
    Source,
    check_shape,
    check_weights,
    finite_rows,
    generator,
)

Array = jax.Array

PIECE_BYTES = 2**17  # read together when a file is read in random order


class HostSource(Source):
    """Rows of anything with `shape`, `dtype` and slices: an array on the host, a dataset of h5py.

    In random order, runs of 128 KiB of neighbouring rows are read together, each run once, so that
    a disk keeps up.

    Args:
      rows: the array, or a function that opens it anew for each block, as `HostSource.of_file`
        does: a mapped file that stays open would keep in memory all that was read.
      weights: of each row, [N], likewise; 1 by default.
      name: what a message calls the rows.
    """

    def __init__(self, rows: Any, weights: Any = None, name: str = "the array of latents"):
        self._open, self._name = _opener(rows), name
        rows = self._open()
        check_shape(rows, name)
        self.num_latents, self.latent_dim = (int(size) for size in rows.shape)
        self._open_weights = None if weights is None else _opener(weights)
        if self._open_weights is not None and self._open_weights().shape != (self.num_latents,):
            shape = self._open_weights().shape
            raise ValueError(
                f"the weights of {name} have shape {shape}; expected ({self.num_latents},)"
            )
        row_bytes = self.latent_dim * np.dtype(rows.dtype).itemsize
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
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        try:
            stored = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            message = f"{path} is no .npy of numbers, or a damaged one ({error})"
            raise ValueError(message) from error
        if not isinstance(stored, np.ndarray):
            names = ", ".join(stored.files)
            stored.close()
            raise ValueError(
                f"{path} is an archive of arrays ({names}): give one of them, such as"
                f" np.load({path.name!r})[{names.split(', ')[0]!r}], or save it as an .npy"
            )
        return cls(lambda: _mapped(path), weights, name=str(path))

    def read(self, key: Array | None, start: int, count: int) -> Block:
        rows = self._open()
        if key is None:
            numbers = np.arange(start, max(start, min(start + count, self.num_latents)))
            stored = np.asarray(rows[start : start + len(numbers)])
        else:
            numbers = self._numbers(key, start, count)
            stored = _read_runs(rows, numbers)
        self._check(stored, numbers)
        weight = np.ones(len(numbers), np.float32)
        if self._open_weights is not None:
            weight = np.asarray(_read_runs(self._open_weights(), numbers), np.float32)
            check_weights(weight, len(weight), self._name)
        weight[np.isin(numbers, self._left_out)] = 0
        return Block(stored.astype(np.float32), weight)

    def held_out(self, key: Array, count: int) -> "HostSource":
        other = HostSource(self._open, self._open_weights, self._name)
        other._left_out = np.unique(self._numbers(key, 0, count))
        return other

    def _check(self, stored: np.ndarray, numbers: np.ndarray) -> None:
        bad = np.flatnonzero(~finite_rows(stored))
        if not bad.size:
            return
        first = numbers[bad].min()
        if np.isfinite(stored[bad].astype(np.float64)).all():
            raise ValueError(
                f"{self._name}, row {first}, has numbers beyond the range of float32: scale them"
            )
        raise ValueError(
            f"{self._name} has NaN or infinity in row {first}, and in {bad.size} of the"
            f" {len(numbers)} rows read with it: remove these rows"
        )

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


def _opener(rows: Any) -> Callable[[], Any]:
    return rows if callable(rows) else lambda: rows


def _mapped(path: Path) -> np.ndarray:
    stored = np.load(path, mmap_mode="r", allow_pickle=False)
    # what np.save makes of bfloat16
    return stored.view(ml_dtypes.bfloat16) if stored.dtype == np.dtype("V2") else stored


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
