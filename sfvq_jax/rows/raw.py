"""Rows that lie one after another in a file or an object: .npy, .safetensors, .fbin and its kin."""

import io
import json
import math
import struct
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from sfvq_jax.io.reading import MOST_HEADER, one_line, read_header
from sfvq_jax.io.store import is_remote, open_store, reason, settled
from sfvq_jax.rows.npy import FileRows, changed, npy_rows
from sfvq_jax.rows.rows import pieces_of, unreadable

OBJECT_CHUNK = 2**21  # bytes read together: objects answer late
OBJECT_REQUEST = 2**22  # bytes at most in one of many requests
MOST_TENSORS = 10**8  # bytes of the header of a .safetensors, as its format has it
MOST_NAMED = 20  # tensors, in a message

Head = Callable[[int, int], bytes]  # bytes start … stop - 1, fewer where it ends before


class Layout(NamedTuple):
    """Where an array lies in a file."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype


def raw_rows(uri: str, name: str = "") -> "FileRows | ObjectRows":
    """Of a file or an object, whose suffix says how they lie.

    Args:
      uri: ends in .npy, .safetensors, .fbin, .u8bin or .i8bin.
      name: of a tensor; "" for the only one, or the only one of rank 2.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: another kind of file, or a damaged one.
    """
    suffix = Path(uri).suffix.lower()
    if suffix == ".npy" and not is_remote(uri):
        return npy_rows(uri)
    if is_remote(uri):
        stored = _Object(uri)
        layout = _layout(uri, suffix, stored.head, name)
        stored.check_holds(layout)
        return _scaled(ObjectRows(stored, layout), suffix)
    path = Path(uri)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {uri}")

    def head(start: int, stop: int) -> bytes:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    state = path.stat()
    layout = _layout(uri, suffix, head, name)
    return _scaled(FileRows(path, *layout, state=state), suffix)


def _scaled(rows: Any, suffix: str) -> Any:
    """With the scale of formats whose whole numbers are vectors by definition."""
    if suffix in (".u8bin", ".i8bin"):
        rows.scale = 1.0
    return rows


def _layout(uri: str, suffix: str, head: Head, name: str) -> Layout:
    try:
        return LAYOUTS[suffix](head, name)
    except _Unnamed as error:
        raise ValueError(f"{uri} {error}") from error
    except (ValueError, KeyError, TypeError, struct.error, SyntaxError) as error:
        raise ValueError(
            f"{uri} is no {suffix} of numbers, or a damaged one ({one_line(error)})"
        ) from error


def _npy(head: Head, name: str) -> Layout:
    found = read_header(io.BytesIO(head(0, MOST_HEADER)))
    if found.by_columns and sum(side > 1 for side in found.shape) > 1:
        raise ValueError("it has columns first: np.save(…, np.ascontiguousarray(x)) has rows")
    if found.dtype.hasobject:
        raise ValueError("it is of Python objects")
    dtype = np.dtype(ml_dtypes.bfloat16) if found.dtype == np.dtype("V2") else found.dtype
    return Layout(found.length, found.shape, dtype)


class _Unnamed(ValueError):
    """A file of several tensors, of which none is named."""


_TENSORS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16,
    "I8": "i1", "U8": "u1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "I64": "<i8",
}  # fmt: skip


def _safetensors(head: Head, name: str) -> Layout:
    (size,) = struct.unpack("<Q", head(0, 8))
    if size > MOST_TENSORS:
        raise ValueError(f"its header would be {size} bytes")
    tensors = json.loads(head(8, 8 + size))
    tensors.pop("__metadata__", None)
    chosen = [name] if name else list(tensors)
    if len(chosen) > 1:
        chosen = [key for key in tensors if len(tensors[key]["shape"]) == 2]
    if len(chosen) != 1 or chosen[0] not in tensors:
        names = ", ".join(sorted(tensors)[:MOST_NAMED]) + ", …" * (len(tensors) > MOST_NAMED)
        raise _Unnamed(
            f"holds the tensors {names}: name one, FILE.safetensors#NAME, or, if it is a generator,"
            " convert it by sfvq-jax convert"
        )
    tensor = tensors[chosen[0]]
    if tensor["dtype"] not in _TENSORS:
        raise ValueError(f"{chosen[0]} is of type {tensor['dtype']}")
    shape = tuple(int(side) for side in tensor["shape"])
    return Layout(8 + size + tensor["data_offsets"][0], shape, np.dtype(_TENSORS[tensor["dtype"]]))


def _counted(dtype: str) -> Callable[[Head, str], Layout]:
    """Of the files of big-ann-benchmarks: N and D, and then the rows."""

    def layout(head: Head, name: str) -> Layout:
        return Layout(8, struct.unpack("<II", head(0, 8)), np.dtype(dtype))

    return layout


LAYOUTS: dict[str, Callable[[Head, str], Layout]] = {
    ".npy": _npy,
    ".safetensors": _safetensors,
    ".fbin": _counted("<f4"),
    ".u8bin": _counted("u1"),
    ".i8bin": _counted("i1"),
}


class ObjectRows:
    """Raw rows of an object, by ranges of bytes, many of them at once."""

    scale: float | None = None

    def __init__(self, stored: "_Object", layout: Layout):
        self._object, (self._offset, self.shape, self.dtype) = stored, layout
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        self.chunk = max(1, OBJECT_CHUNK // max(1, self._row_bytes))
        self.stamp = stored.generation.hex()

    def read(self, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        """As `Rows.read`."""
        width = self._row_bytes
        parts = pieces_of(spans, max(1, OBJECT_REQUEST // max(1, width)))
        waiting = deque(
            self._object.ask(self._offset + first * width, self._offset + stop * width)
            for first, stop in parts
        )
        found = np.empty((sum(stop - first for first, stop in parts), width), np.uint8)
        at = 0
        for first, stop in parts:
            try:
                value = self._object.answer(waiting.popleft())
            except _Unread as error:
                raise unreadable(self._object.uri, first, stop, str(error)) from error
            found[at : at + stop - first] = np.frombuffer(value, np.uint8).reshape(-1, width)
            at += stop - first
        return found.reshape(-1).view(self.dtype).reshape(-1, *self.shape[1:])

    def check_unchanged(self) -> None:
        """Raises ValueError where the object is another than it was."""
        self._object.head(0, 1)


class _Unread(Exception):
    """Why bytes could not be read."""


class _Object:
    """The bytes of an object, which must stay the same one."""

    def __init__(self, uri: str):
        folder, _, self._key = uri.rpartition("/")
        self.uri, self._store = uri, open_store(folder + "/")
        self.generation = b""
        self.head(0, 1)

    def ask(self, start: int, stop: int) -> object:
        return self._store.read(self._key, byte_range=slice(start, stop))

    def answer(self, future: object) -> bytes:
        """The bytes that were asked for.

        Raises:
          _Unread: they cannot be read.
          ValueError: they are those of another object.
        """
        try:
            found = settled(future, self.uri)
        except ValueError as error:
            raise _Unread(reason(error)) from error
        if found.state != "value":
            if not self.generation:
                raise FileNotFoundError(f"there is no object {self.uri}")
            raise changed(self.uri, "it is gone")
        if self.generation and found.stamp.generation != self.generation:
            raise changed(self.uri, "it is written anew")
        self.generation = found.stamp.generation
        return found.value

    def head(self, start: int, stop: int) -> bytes:
        """Bytes start … stop - 1, fewer where it ends before."""
        try:
            return self.answer(self.ask(start, stop))
        except _Unread as error:
            if not str(error).startswith("OUT_OF_RANGE"):
                raise ValueError(f"{self.uri} cannot be read: {error}") from error
        try:
            return self.answer(self._store.read(self._key))[start:stop]  # shorter than a header
        except _Unread as error:
            raise ValueError(f"{self.uri} cannot be read: {error}") from error

    def check_holds(self, layout: Layout) -> None:
        """Raises ValueError where it ends before the last row."""
        size = layout.offset + math.prod(layout.shape) * layout.dtype.itemsize
        try:
            self.answer(self.ask(size - 1, size))
        except _Unread as error:
            raise ValueError(
                f"{self.uri} is damaged or not yet whole: its header says {size} bytes ({error})"
            ) from error
