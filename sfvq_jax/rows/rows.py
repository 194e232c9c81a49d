"""Rows that lie in files and object stores; a format is one function that opens them."""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Rows(Protocol):
    """An array [N, …] that is read in parts.

    Attributes:
      shape: [N, …].
      dtype: of the numbers, as they are stored.
      chunk: rows that are stored, hence best read, together.
      stamp: what changes when the rows are written anew, such as a file's time or an object's ETag;
        "" where nothing tells.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def chunk(self) -> int: ...

    @property
    def stamp(self) -> str: ...

    def read(self, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        """Rows start … stop - 1 of each span, one span after the other; the type is the stored one.

        Many spans at once, since object stores answer late and want many requests in flight.

        Raises:
          ValueError: they cannot be read, or have changed; it names where they lie and which rows.
        """
        ...

    def check_unchanged(self) -> None:
        """Raises ValueError where what is stored is another than when it was opened."""
        ...


def pieces_of(spans: Sequence[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """Spans as parts of at most so many rows, in the same order."""
    return [
        (first, min(first + most, stop))
        for start, stop in spans
        for first in range(start, stop, most)
    ]


def in_groups(ends: np.ndarray, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Rows as pieces of groups that lie one after another.

    Args:
      ends: 0, and of each group the number of the row after its last one.
      spans: of rows.

    Returns:
      Of each piece the group, its first row within, and the one after its last.
    """
    for start, stop in spans:
        i = int(np.searchsorted(ends, start, "right")) - 1
        while start < stop:
            first, end = int(ends[i]), min(stop, int(ends[i + 1]))
            if start < end:
                yield i, start - first, end - first
            i, start = i + 1, max(start, end)


def unreadable(name: str, first: int, stop: int, why: str) -> ValueError:
    """What is raised of rows first … stop - 1 that are lost or damaged."""
    which = f"row {first}" if stop == first + 1 else f"rows {first} to {stop - 1}"
    return ValueError(f"{name}: {which} cannot be read: {why}")
