"""An .npy that is read from its file and never mapped: a map dies with a file that shrinks.

A file that has changed since it was first seen is refused, so that nothing is made of two of them.
"""

import contextlib
import math
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from sfvq_jax.io.reading import one_line, read_header
from sfvq_jax.rows.source import shape_hint

WANTED = "latents go in an .npy of floating point numbers [N, D]"

ALIGNMENT = 64

_ELSEWHERE = {  # what gives the array that other files hold
    ".csv": "np.loadtxt({name!r}, delimiter=',', dtype=np.float32)",
    ".tsv": "np.loadtxt({name!r}, delimiter='\\t', dtype=np.float32)",
    ".txt": "np.loadtxt({name!r}, dtype=np.float32)",
    ".pt": "torch.load({name!r}, map_location='cpu').numpy()",
    ".pth": "torch.load({name!r}, map_location='cpu').numpy()",
    ".feather": "pandas.read_feather({name!r}).to_numpy(np.float32)",
    ".mat": "scipy.io.loadmat({name!r})['NAME']",
}

GENERATORS = (".pkl", ".pt", ".pth", ".safetensors", ".npz", ".ckpt", ".h5", ".bin")


class FileRows:
    """Rows of a file, an .npy's or of raw numbers, which is opened anew whenever they are read.

    Attributes:
      path: of the file.
      shape: [N, …].
      dtype: of the numbers.
      chunk: 1.
      scale: that whole numbers are multiplied by, where the format says it.

    Raises:
      ValueError: the file ends before the last row.
    """

    chunk = 1
    scale: float | None = None

    def __init__(
        self,
        path: Path,
        offset: int,
        shape: tuple[int, ...],
        dtype: np.dtype,
        *,
        columns_first: bool = False,
        state: os.stat_result | None = None,
    ):
        # what np.save makes of bfloat16
        dtype = np.dtype(ml_dtypes.bfloat16) if dtype == np.dtype("V2") else dtype
        self.path, self.shape, self.dtype = path, shape, dtype
        self._offset, self._columns_first = offset, columns_first
        self._state = _state(path.stat() if state is None else state)
        there, size = self._state[0], offset + math.prod(shape) * dtype.itemsize
        if size > there:
            raise ValueError(
                f"{path} is damaged or not yet whole: it has {there} bytes, and its header says"
                f" {size}"
            )

    @property
    def stamp(self) -> str:
        return " ".join(map(str, self._state[:2]))

    def read(self, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        """As `Rows.read`.

        Raises:
          ValueError: the file is another than it was, before or after what was read.
        """
        n, *rest = self.shape
        width, at = math.prod(rest), 0
        found = self._buffer(sum(stop - start for start, stop in spans), width)
        with self._opened() as file:
            for start, stop in spans:
                into = found[at : at + stop - start]
                at += stop - start
                if not self._columns_first:
                    self._fill(file, into, start * width)
                    continue
                column = np.empty(stop - start, self.dtype)
                for i in range(width):
                    self._fill(file, column, i * n + start)
                    into[:, i] = column
        return found.reshape(-1, *rest)

    def _buffer(self, rows: int, width: int) -> np.ndarray:
        """To read into, as far from a multiple of 64 bytes as the file's numbers are.

        Systems copy from their cache up to five times as fast then: an .fbin begins at 8.
        """
        size = rows * width * self.dtype.itemsize
        raw = np.empty(size + ALIGNMENT, np.uint8)
        first = (self._offset - raw.ctypes.data) % ALIGNMENT
        return raw[first : first + size].view(self.dtype).reshape(rows, width)

    def check_unchanged(self) -> None:
        """Raises ValueError where the file is another than it was."""
        with self._opened():
            pass

    @contextlib.contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        try:
            file = self.path.open("rb")
        except FileNotFoundError as error:
            raise changed(self.path, "it is gone") from error
        with file:
            self._check(os.fstat(file.fileno()))
            yield file
            self._check(os.fstat(file.fileno()))

    def _check(self, found: os.stat_result) -> None:
        now, before = _state(found), self._state
        if now == before:
            return
        size, old_size = found.st_size, before[0]
        raise changed(
            self.path,
            f"it has {size} bytes and had {old_size}" if size != old_size else "it is written anew",
        )

    def _fill(self, file: BinaryIO, into: np.ndarray, first: int) -> None:
        """Reads the numbers from a place on."""
        if into.size == 0:
            return
        file.seek(self._offset + first * into.itemsize)
        if file.readinto(into.view(np.uint8).data) < into.nbytes:  # pyright: ignore
            raise changed(self.path, "it ends too early")


def changed(name: Any, how: str) -> ValueError:
    """What is raised of rows that are others than when they were opened."""
    return ValueError(
        f"{name} changed while it was read ({how}), so that nothing was made of it: start"
        " again when nothing writes it any more"
    )


def _state(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ino


def npy_rows(path: str | Path, wanted: str = WANTED) -> FileRows:
    """Of an .npy of any size.

    Args:
      path: of the file.
      wanted: what a message says that it should be.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: something else, or a damaged one; the message says how an .npy is made of it.
    """
    path = Path(path)
    if path.is_dir():
        hint = f"; a converted generator's is opened by ports.load({str(path)!r})"
        raise ValueError(f"{path} is a folder, but {wanted}{hint * (wanted is WANTED)}")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.is_file():
        raise ValueError(f"{path} is no regular file, but {wanted}")
    with path.open("rb") as file:
        state = os.fstat(file.fileno())
        magic = file.read(len(np.lib.format.MAGIC_PREFIX))
        if magic != np.lib.format.MAGIC_PREFIX:
            raise ValueError(
                _what_to_do(path, magic) if wanted is WANTED else f"{path} is no .npy, but {wanted}"
            )
        file.seek(0)
        try:
            shape, columns_first, dtype, offset = read_header(file)
        except Exception as error:  # damaged bytes are parsed as Python, with errors of all kinds
            raise ValueError(
                f"{path} is no .npy of numbers, or a damaged one ({one_line(error)})"
            ) from error
    if dtype.hasobject:
        raise ValueError(f"{path} is of Python objects, but {wanted}: np.save(…, np.stack(list))")
    return FileRows(path, offset, shape, dtype, columns_first=columns_first, state=state)


def _what_to_do(path: Path, magic: bytes) -> str:
    """What a file is that is no .npy, and how to make one of it."""
    if zipfile.is_zipfile(path):
        with contextlib.suppress(Exception), zipfile.ZipFile(path) as archive:
            shapes = {}
            for name in archive.namelist()[:100]:
                if name.endswith(".npy"):
                    with contextlib.suppress(Exception), archive.open(name) as stream:
                        shapes[name[:-4]] = read_header(stream).shape
            if shapes:
                name = next((name for name in shapes if len(shapes[name]) >= 2), next(iter(shapes)))
                hint = shape_hint(shapes[name])
                save = f"np.save('latents.npy', {hint[1] if hint else 'x'})"
                return (
                    f"{path} is an archive of arrays ({', '.join([*shapes][:20])}), but {WANTED}:"
                    f" x = np.load({path.name!r})[{name!r}], of shape {shapes[name]}"
                    f"{hint[0] if hint else ''}; {save}"
                )
    suffix = path.suffix.lower()
    generator = ""
    if suffix in GENERATORS:
        generator = f"; if it is a generator: sfvq-jax convert {path.name} FOLDER"
    if suffix in _ELSEWHERE:
        made = _ELSEWHERE[suffix].format(name=path.name)
        return f"{path} is no .npy, but {WANTED}: np.save('latents.npy', {made}){generator}"
    if not magic:
        return f"{path} is empty, but {WANTED}"
    return f"{path} is no .npy of numbers, or a damaged one; {WANTED}, as np.save writes{generator}"


def mapped_rows(rows: np.memmap) -> FileRows | None:
    """The rows of the file that a map shows; None where it may show something else."""
    path, root = rows.filename, rows
    while isinstance(root.base, np.memmap):
        root = root.base
    if path is None or root.mode != "r" or not rows.flags.c_contiguous or not rows.size:
        return None
    place = root.offset + rows.ctypes.data - root.ctypes.data
    try:
        found = FileRows(Path(path), place, rows.shape, rows.dtype)
        ends = [(i, i + 1) for i in (0, len(rows) - 1)]
        same = found.read(ends).tobytes() == rows[[0, -1]].tobytes()
    except (OSError, ValueError):
        return None
    return found if same else None
