"""Rows of a Parquet file, in whole row groups, since these are compressed as a whole."""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from sfvq_jax.io.reading import one_line
from sfvq_jax.io.store import is_remote
from sfvq_jax.rows.arrow import as_array, list_columns, list_value
from sfvq_jax.rows.npy import changed
from sfvq_jax.rows.rows import in_groups, unreadable

TOGETHER = 2**26  # bytes of row groups that are in memory at once, if one is not larger


def parquet_rows(path: str, name: str = "") -> "ParquetRows":
    """Of a file on a disk, gs:// or s3://.

    Args:
      path: or a URI.
      name: of a column, of numbers or of lists of one length; "" for the only column of lists of
        floats, or for all columns where all are floats, each a dimension.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: no Parquet, no such column, or a scheme that Arrow does not read.
    """
    if not is_remote(path):
        system: fs.FileSystem = fs.LocalFileSystem()
    elif path.startswith(("gs://", "s3://")):
        system, _ = fs.FileSystem.from_uri(path)
    else:
        raise ValueError(
            f"{path}: Parquet is read from disks, gs:// and s3://; download it, or write it as zarr"
        )
    return ParquetRows(system, path, name)


class ParquetRows:
    """As `parquet_rows` says.

    Attributes:
      shape: [N, D]; [N] of a column of numbers.
      dtype: of the numbers.
      chunk: rows of the largest row group.
      stamp: the file's size and time.
    """

    def __init__(self, system: fs.FileSystem, path: str, name: str):
        self._system, self._path = system, path
        self._inside = path.partition("://")[2] or path  # a bucket and a key
        self._lock = threading.Lock()  # a ParquetFile is read by one thread at a time
        self._state = self._look()
        self.stamp = " ".join(map(str, self._state[1:]))
        if self._state[0] == fs.FileType.NotFound:
            raise FileNotFoundError(f"there is no file {path}")
        try:
            self._file = pq.ParquetFile(
                system.open_input_file(self._inside),
                pre_buffer=True,
                page_checksum_verification=True,
            )
            self._columns = _columns(self._file.schema_arrow, path, name)
            batches = self._file.iter_batches(1, columns=self._columns)
            self._width = None
            one = self._array(pa.Table.from_batches([next(batches)]), 0)
        except StopIteration:
            raise ValueError(f"{path} has no rows") from None
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{path} is no Parquet file, or a damaged one ({one_line(error)})"
            ) from error
        metadata = self._file.metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        self._ends = np.cumsum([0, *(group.num_rows for group in groups)])
        share = len(self._columns) / len(self._file.schema_arrow)
        self._bytes = [int(group.total_byte_size * share) for group in groups]
        self._last: tuple[int, np.ndarray] = (-1, one[:0])
        self.shape, self.dtype = (metadata.num_rows, *one.shape[1:]), one.dtype
        self._width = self.shape[1] if len(self.shape) == 2 else None
        self.chunk = max((group.num_rows for group in groups), default=1)

    def read(self, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        """As `Rows.read`."""
        wanted: dict[int, list[tuple[int, int, int]]] = {}  # of each group: rows, and their place
        count = 0
        for i, start, stop in in_groups(self._ends, spans):
            wanted.setdefault(i, []).append((start, stop, count))
            count += stop - start
        found = np.empty((count, *self.shape[1:]), self.dtype)
        with self._lock:
            for i, rows in self._groups(list(wanted)):
                for start, stop, place in wanted[i]:
                    found[place : place + stop - start] = rows[start:stop]
        return found

    def check_unchanged(self) -> None:
        """Raises ValueError where the file is another than when it was opened."""
        if self._look() != self._state:
            raise changed(self._path, "it is written anew")

    def _look(self) -> tuple:
        info = self._system.get_file_info(self._inside)
        return info.type, info.size, info.mtime_ns

    def _groups(self, numbers: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Row groups as arrays, several read together; the last one is kept for the next call."""
        if self._last[0] in numbers:
            numbers = [i for i in numbers if i != self._last[0]]
            yield self._last
        while numbers:
            sizes = np.cumsum([self._bytes[i] for i in numbers])
            few = max(1, int(np.searchsorted(sizes, TOGETHER, "right")))
            now, numbers = numbers[:few], numbers[few:]
            try:
                table = self._file.read_row_groups(now, columns=self._columns)
            except (pa.ArrowException, OSError) as error:
                self.check_unchanged()
                first, stop = int(self._ends[min(now)]), int(self._ends[max(now) + 1])
                raise unreadable(self._path, first, stop, one_line(error)) from error
            for i in now:
                first, count = int(self._ends[i]), int(self._ends[i + 1] - self._ends[i])
                self._last = i, self._array(table.slice(0, count), first)
                table = table.slice(count)
                yield self._last

    def _array(self, table: pa.Table, first: int) -> np.ndarray:
        """A table whose first row has that number, as rows."""
        if len(self._columns) == 1:
            name = f"column {self._columns[0]} of {self._path}"
            return as_array(table.column(0), self._width, first, name)
        parts = [
            as_array(column, None, first, f"column {name} of {self._path}")
            for name, column in zip(self._columns, table.columns, strict=True)
        ]
        return np.stack(parts, axis=1)


def _columns(schema: pa.Schema, path: str, name: str) -> list[str]:
    """Those that are read; raises ValueError where they cannot be told."""
    kinds = [f"{field.name} ({field.type})" for field in schema]
    there = f"the columns of {path} are {', '.join(kinds[:20])}{', …' * (len(kinds) > 20)}"
    if name:
        number = pa.types.is_integer, pa.types.is_floating
        kind = schema.field(name).type if name in schema.names else pa.null()
        value = list_value(kind) or kind
        if not any(is_it(value) for is_it in number):
            raise ValueError(f"{there}; expected {name} with numbers, or lists of them")
        return [name]
    lists = list_columns(schema)
    if len(lists) == 1:
        return lists
    if len(schema) and all(pa.types.is_floating(field.type) for field in schema):
        return schema.names
    raise ValueError(
        f"{there}; expected one column of lists of floats, or floats only: name one as {path}#NAME"
    )
