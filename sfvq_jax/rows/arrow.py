"""Columns of Arrow as arrays, and the rows of a `datasets.Dataset` of Hugging Face."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sfvq_jax.rows.rows import in_groups


class DatasetRows:
    """A column of lists of one length; read where it is mapped, without a copy of the whole.

    Args:
      dataset: a `datasets.Dataset` with one column of lists of floats, which
        `dataset.select_columns` chooses where it has several.

    Raises:
      ValueError: it has none or several, or its rows were shuffled or selected.
    """

    chunk, stamp = 1, ""

    def __init__(self, dataset: Any):
        schema = dataset.data.schema
        names = list_columns(schema)
        if len(names) != 1:
            raise ValueError(
                f"the dataset has {_several(names)}, of {', '.join(schema.names)}; choose one by"
                " dataset.select_columns(name)"
            )
        self._name = f"column {names[0]} of the dataset"
        if dataset._indices is not None:
            raise ValueError(
                f"the rows of {self._name} were shuffled or selected, so that they lie apart: pass"
                " the dataset as it was before (a fit draws its own order), or"
                " dataset.flatten_indices()"
            )
        column = dataset.data.column(names[0])
        self._chunks = column.chunks
        self._ends = np.cumsum([0, *map(len, self._chunks)])
        one = as_array(column.slice(0, 1), None, 0, self._name)
        self.shape, self.dtype = (len(column), *one.shape[1:]), one.dtype

    def read(self, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        """As `Rows.read`."""
        nothing = np.empty((0, *self.shape[1:]), self.dtype)
        pieces = in_groups(self._ends, spans)
        return np.concatenate([nothing, *(self._chunk(i)[a:b] for i, a, b in pieces)])

    def _chunk(self, i: int) -> np.ndarray:
        """Of Arrow, as a view; looked at once."""
        if not isinstance(self._chunks[i], np.ndarray):
            column = pa.chunked_array([self._chunks[i]])
            first = int(self._ends[i])
            self._chunks[i] = as_array(column, self.shape[1], first, self._name)
        return self._chunks[i]

    def check_unchanged(self) -> None:
        """A dataset is one table for ever."""


def list_columns(schema: pa.Schema) -> list[str]:
    """The names of the columns of lists of floats."""
    return [
        field.name
        for field in schema
        if (value := list_value(field.type)) is not None and pa.types.is_floating(value)
    ]


def list_value(kind: pa.DataType) -> pa.DataType | None:
    """The type of a list's entries; None for what is no list."""
    if isinstance(kind, pa.BaseExtensionType):  # a tensor of one shape, as lists of one length
        kind = kind.storage_type
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return kind.value_type if any(is_it(kind) for is_it in lists) else None


def as_array(column: pa.ChunkedArray, width: int | None, first: int, name: str) -> np.ndarray:
    """Lists of one length as [n, D], numbers as [n].

    Args:
      column: of numbers, or of lists of them.
      width: D; by default that of the first list.
      first: number of the first row, for messages.
      name: of the column, likewise.

    Raises:
      ValueError: a missing value or a list of another length; it names the row.
    """
    parts = []
    for chunk in column.chunks:
        chunk = chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk
        _check_present(chunk, 1, first, name)
        if list_value(chunk.type) is not None and len(chunk):
            flat = chunk.flatten()
            sizes = np.full(len(chunk), len(flat) // len(chunk))
            if not pa.types.is_fixed_size_list(chunk.type):
                sizes = np.diff(chunk.offsets.to_numpy())
            width = int(sizes[0]) if width is None else width
            if (bad := np.flatnonzero(sizes != width)).size:
                raise ValueError(
                    f"{name} has {sizes[bad[0]]} numbers in row {first + bad[0]}; expected as many"
                    f" in every row, {width}"
                )
            _check_present(flat, width, first, name)
            parts.append(flat.to_numpy(zero_copy_only=False).reshape(len(chunk), width))
        elif list_value(chunk.type) is None:
            parts.append(chunk.to_numpy(zero_copy_only=False))
        first += len(chunk)
    if parts:
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
    value = list_value(column.type)
    shape = (0,) if value is None else (0, width or 0)
    return np.empty(shape, (value or column.type).to_pandas_dtype())


def _check_present(values: pa.Array, width: int, first: int, name: str) -> None:
    """Raises ValueError where one of the values, `width` a row, is missing."""
    if values.null_count:
        row = first + int(np.argmax(values.is_null().to_numpy(zero_copy_only=False))) // width
        raise ValueError(f"{name} has a missing value in row {row}: remove such rows")


def _several(names: list[str]) -> str:
    return f"{len(names) or 'no'} column{'s' * (len(names) != 1)} of lists of floats"
