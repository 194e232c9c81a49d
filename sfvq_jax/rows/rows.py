"""Rows that lie in files and object stores; a format is one function that opens them."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Rows(Protocol):
    """An array [N, …] that is read in parts.

    Attributes:
      shape: [N, …].
      dtype: of the numbers, as they are stored.
      chunk: rows that are stored, hence best read, together.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    chunk: int

    def read(self, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        """Rows start … stop - 1 of each span, one span after the other; the type is the stored one.

        Many spans at once, since object stores answer late and want many requests in flight.

        Raises:
          ValueError: they cannot be read, or have changed; it names where they lie and which rows.
        """
        ...

    def check_unchanged(self) -> None:
        """Raises ValueError where what is stored is another than when it was opened."""
