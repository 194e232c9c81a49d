"""Rows of what a user has in hand: arrays of NumPy, h5py, zarr and TensorStore."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from sfvq_jax.rows.npy import mapped_rows
from sfvq_jax.rows.opening import open_rows
from sfvq_jax.rows.rows import Rows
from sfvq_jax.rows.zarr import StoreRows, strict


def as_stored(rows: Any) -> Rows:
    """Rows of a path or URI, or of anything with `shape`, `dtype` and slices."""
    if isinstance(rows, Rows):
        return rows
    if isinstance(rows, str | Path):
        return open_rows(rows)
    if isinstance(rows, np.memmap) and (found := mapped_rows(rows)) is not None:
        return found  # read and never mapped
    if isinstance(rows, ts.TensorStore):
        return StoreRows(strict(rows), "the array of TensorStore")
    return ArrayRows(rows if callable(rows) or hasattr(rows, "shape") else np.asarray(rows))


class ArrayRows:
    """Rows of an array, or of a function that opens it anew whenever it is read."""

    stamp = ""

    def __init__(self, rows: Any):
        self._open: Callable[[], Any] = rows if callable(rows) else lambda: rows
        found = self._open()
        self.shape, self.dtype = tuple(map(int, found.shape)), np.dtype(found.dtype)
        first = next(iter(getattr(found, "chunks", None) or ()), 1)
        self.chunk = first if isinstance(first, int) and first > 0 else 1  # dask's are tuples

    def read(self, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        """As `Rows.read`."""
        rows = self._open()
        if len(spans) == 1:
            return np.asarray(rows[spans[0][0] : spans[0][1]])
        found = np.empty((sum(stop - first for first, stop in spans), *self.shape[1:]), self.dtype)
        at = 0
        for first, stop in spans:
            found[at : at + stop - first] = rows[first:stop]
            at += stop - first
        return found

    def check_unchanged(self) -> None:
        """Nothing tells."""
