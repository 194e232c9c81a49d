"""Rows of a dataset in an HDF5 file."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from sfvq_jax.io.reading import one_line
from sfvq_jax.io.store import is_remote
from sfvq_jax.rows.npy import FileRows, changed
from sfvq_jax.rows.rows import Rows, unreadable


def hdf5_rows(path: str, name: str = "") -> Rows:
    """Of a file on a disk; what lies there in one piece, as numbers, is read without HDF5.

    Args:
      path: of the file.
      name: of a dataset; "" for the only one [N, D] of floats.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: no HDF5, no such dataset, or one with rows that were never written, which HDF5
        would give as zeros.
    """
    if is_remote(path):
        raise ValueError(f"{path}: HDF5 is read from disks; download it, or write it as zarr")
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        file = h5py.File(path)
    except OSError as error:
        raise ValueError(f"{path} is no HDF5 file, or a damaged one ({one_line(error)})") from error
    found = _dataset(file, name, path)
    offset = found.id.get_offset()
    if offset is None or not found.dtype.isnative:
        return ChunkedRows(found)
    rows = FileRows(Path(path), offset, found.shape, found.dtype)
    file.close()
    return rows


class ChunkedRows:
    """A dataset of h5py, which stays open; its chunks are read as a whole.

    Raises:
      ValueError: rows were never written, or lie in other files.
    """

    def __init__(self, dataset: h5py.Dataset):
        self._dataset, self._path = dataset, dataset.file.filename
        self._lock = threading.Lock()
        self._name = f"{dataset.name} of {self._path}"
        self._state = self._look()
        self.stamp = " ".join(map(str, self._state[:2]))
        self.shape = tuple(dataset.shape)
        self.dtype = dataset.dtype.newbyteorder("=")
        self.chunk = dataset.chunks[0] if dataset.chunks else 1
        if dataset.is_virtual:
            raise ValueError(
                f"{self._name} shows parts of other files, and those that are lost would read as"
                " zeros: name these files, as a folder or a glob"
            )
        if (row := _never_written(dataset)) is not None:
            raise ValueError(
                f"{self._name} has rows that were never written, the first of them row {row}, and"
                " would give them as zeros: write all rows"
            )

    def read(self, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        """As `Rows.read`."""
        count = sum(stop - start for start, stop in spans)
        found, place = np.empty((count, *self.shape[1:]), self.dtype), 0
        with self._lock:
            for start, stop in spans:
                part = np.s_[place : place + stop - start]
                try:
                    if stop > start:
                        self._dataset.read_direct(found, np.s_[start:stop], part)
                except (OSError, ValueError) as error:  # ValueError where the user closed the file
                    self.check_unchanged()
                    raise unreadable(self._name, start, stop, one_line(error)) from error
                place += stop - start
        return found

    def check_unchanged(self) -> None:
        """Raises ValueError where the file is another than when it was opened."""
        if self._look() != self._state:
            raise changed(self._path, "it is written anew")

    def _look(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._path)
        except OSError:  # one in memory
            return ()
        return found.st_size, found.st_mtime_ns, found.st_ino


def _dataset(file: h5py.File, name: str, path: str) -> h5py.Dataset:
    """The one that is named, or the only one that may be meant."""
    there: dict[str, h5py.Dataset] = {}

    def see(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu":
            there[name] = item

    file.visititems(see)
    if name:
        found = [there[name.strip("/")]] if name.strip("/") in there else []
    else:
        found = [item for item in there.values() if item.ndim == 2 and item.dtype.kind == "f"]
    if len(found) == 1:
        return found[0]
    named = [f"{name} {item.shape} {item.dtype}" for name, item in there.items()]
    raise ValueError(
        f"{path} has {', '.join(named[:20]) or 'no arrays of numbers'};"
        + (f" expected {name}" if name else f" name one as {path}#NAME")
    )


def _never_written(dataset: h5py.Dataset) -> int | None:
    """The first row of which a part was never stored; None where all was."""
    if not dataset.size:
        return None
    chunks: tuple[int, ...] | None = dataset.chunks
    if chunks is None:
        return None if dataset.id.get_storage_size() or dataset.external else 0
    counts = [-(-size // chunk) for size, chunk in zip(dataset.shape, chunks, strict=True)]
    if dataset.id.get_num_chunks() == np.prod(counts):
        return None
    written = np.zeros(counts, bool)

    def see(chunk: h5py.h5d.StoreInfo) -> None:
        at = zip(chunk.chunk_offset, chunks, strict=True)
        written[tuple(offset // size for offset, size in at)] = True

    dataset.id.chunk_iter(see)
    return int(np.argwhere(~written)[:, 0].min()) * chunks[0]
