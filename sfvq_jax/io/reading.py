"""Reads .npz, .npy and JSON that anybody may have written.

What a file says of itself is checked before memory is taken for it: only arrays that are asked for
are read, each after its header, and all together may be little larger than the file.
"""

import contextlib
import io
import json
import math
import os
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from sfvq_jax.lazy import objects_at

INFLATION = 8  # times its own size that a file may unpack to, since numbers hardly shrink
SLACK = 2**24  # bytes beyond that
MOST_HEADER = 2**14  # bytes of an array's header; NumPy reads up to 10,000
DEEPEST = 32  # levels of lists and dicts in JSON
MOST_SHOWN = 200  # characters of a reason

_KINDS = {"f": "floating point", "i": "integer", "u": "unsigned", "b": "true or false", "U": "text"}


class NewerFormatError(ValueError):
    """A file of a format that a later version of this library writes."""


@contextlib.contextmanager
def reading(path: str | Path, what: str) -> Iterator[BinaryIO]:
    """Opens a file; whatever goes wrong while it is read is an error that names it.

    Args:
      path: of the file, or a URI, whose object is read as a whole.
      what: it should be, such as "curve file".

    Raises:
      FileNotFoundError: no file there.
      OSError: it cannot be opened.
      ValueError: the body of the `with` failed, in whatever way.
    """
    with _opened(path, what) as file:
        try:
            yield file
        except NewerFormatError as error:
            raise NewerFormatError(f"{path} {error}") from error
        except Exception as error:  # damaged bytes make zipfile and NumPy raise errors of all kinds
            reason = one_line(error)
            raise ValueError(f"{path} is no {what}, or a damaged one ({reason})") from error


def _opened(path: str | Path, what: str) -> BinaryIO:
    if (objects := objects_at(path)) is not None:
        data = objects.read_object(str(path))
        if data is not None:
            return io.BytesIO(data)
    elif Path(path).is_file():
        return Path(path).open("rb")
    raise FileNotFoundError(f"there is no {what} {path}")


def one_line(error: BaseException) -> str:
    """What an error says, as a part of a sentence: short, and without terminal codes."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = "".join(c if c.isprintable() else "?" for c in text[:MOST_SHOWN])
    return text + "…" * (len(text) == MOST_SHOWN)


def check_format(version: Any, newest: int) -> None:
    """Raises NewerFormatError for a version that this library does not read yet."""
    if type(version) is not int or version < 1:
        raise ValueError("its format_version is no number from 1")
    if version > newest:
        raise NewerFormatError(f"has format {version}; this version reads up to {newest}")


def parse_json(text: bytes | str) -> dict[str, Any]:
    """A JSON object without infinite numbers, little nested, all of it text that can be written.

    Raises:
      ValueError: something else.
    """
    try:
        content = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested far too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    level: list[Any] = [content]
    for _ in range(DEEPEST):
        level = [part for node in level for part in _parts(node)]
    if level:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep")
    json.dumps(content, ensure_ascii=False).encode()  # not of half a surrogate pair
    return content


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is no finite number")
    return number


def _parts(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


class Arrays:
    """The arrays of an .npz, or the one of an .npy; for use within `reading`, which names the file.

    Args:
      file: open.
      alone: what the array of an .npy is called; None where that is no such file.
      inflation: times its own size that the file may unpack to.
    """

    def __init__(self, file: BinaryIO, *, alone: str | None = None, inflation: int = INFLATION):
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        file.seek(0)
        self._allowance = inflation * self._size + SLACK
        self._archive = None
        if alone is not None and file.read(len(_MAGIC)) == _MAGIC:
            self.names = [alone]
            return
        self._archive = zipfile.ZipFile(file)
        self.names = [name.removesuffix(".npy") for name in self._archive.namelist()]
        if len(set(self.names)) < len(self.names):
            raise ValueError("it holds two arrays of the same name")

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def array(
        self, name: str, shape: tuple[int | None, ...] | None = None, kinds: str = "fiub"
    ) -> np.ndarray:
        """An array, once its header says that it is as expected.

        Args:
          name: of the array.
          shape: that it must have, in which None may be any size; None for any shape.
          kinds: of NumPy's dtypes, letters.

        Raises:
          ValueError: another shape or kind, or a size that the file cannot have; and whatever
            NumPy and zipfile raise for damaged bytes.
        """
        with self._open(name) as (stream, size):
            try:
                header = read_header(stream)
            except Exception as error:
                raise ValueError(f"the array {name} has no header ({one_line(error)})") from error
        if header.dtype.hasobject:
            raise ValueError(f"the array {name} is of Python objects, which are not read")
        if header.dtype.itemsize == 0 or any(side < 0 for side in header.shape):
            raise ValueError(f"the array {name} has shape {header.shape} and type {header.dtype}")
        if header.dtype.kind not in kinds:
            expected = " or ".join(_KINDS[kind] for kind in kinds)
            raise ValueError(f"the array {name} is of type {header.dtype}, expected {expected}")
        if shape is not None and not _matches(header.shape, shape):
            wanted = ", ".join("any" if want is None else str(want) for want in shape)
            raise ValueError(f"the array {name} has shape {header.shape}, expected ({wanted})")
        taken = math.prod(header.shape) * header.dtype.itemsize
        if header.length + taken != size:
            raise ValueError(f"the array {name} is not as long as its header says")
        self._allowance -= taken
        if self._allowance < 0:
            size = f"{taken / 2**20:,.0f} MiB"
            raise ValueError(f"the array {name} would take {size}, far more than the file")
        with self._open(name) as (stream, _), warnings.catch_warnings(action="ignore"):
            return np.lib.format.read_array(stream, allow_pickle=False)

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number; `default`, where there is one, where the name is not there."""
        if default is not None and name not in self:
            return default
        return int(self.array(name, (), "iu"))

    def text(self, name: str, default: str | None = None) -> str:
        """A text; `default`, where there is one, where the name is not there."""
        if default is not None and name not in self:
            return default
        text = str(self.array(name, (), "U"))
        text.encode()  # not of half a surrogate pair
        return text

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[tuple[Any, int]]:
        """The bytes of an array, its header first, and how many they are."""
        if name not in self:
            raise ValueError(f"there is no array {name}")
        if self._archive is None:
            self._file.seek(0)
            yield self._file, self._size
            return
        entry = self._archive.getinfo(f"{name}.npy")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # the others unpack all at once, to any size
            raise ValueError(f"the array {name} is compressed by another method than deflate")
        with self._archive.open(entry) as stream:
            yield stream, entry.file_size


class Header(NamedTuple):
    """Of an array: `length` of the header itself in bytes, `by_columns` for Fortran's order."""

    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype
    length: int


def read_header(stream: Any) -> Header:
    """The header of an .npy, of which no more is read than one can be long.

    Raises:
      Exception: of many kinds, since NumPy parses it as Python.
    """
    start = io.BytesIO(stream.read(MOST_HEADER))
    version = np.lib.format.read_magic(start)
    if version not in _HEADERS:
        raise ValueError(f"it is of version {version}")
    with warnings.catch_warnings(action="ignore"):  # that Python 2 wrote it, and of its syntax
        header = Header(*_HEADERS[version](start), start.tell())
    if any(type(size) is not int or size < 0 for size in header.shape):  # True is one to NumPy
        raise ValueError(f"its shape is {header.shape}")
    return header


_MAGIC = np.lib.format.MAGIC_PREFIX
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def _matches(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        want in (None, have) for have, want in zip(shape, wanted, strict=True)
    )
