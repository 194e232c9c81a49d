"""The random order in which rows are read: pieces of neighbours, each once in a pass.

A position is one number, from which the rows follow by arithmetic: a fit goes on anywhere at no
cost, and processes that read different positions read different rows.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Order:
    """Pieces of so many rows, visited by a stride from a start that each pass has for itself.

    Any stretch of a pass is spread evenly over all rows. Pieces begin where parts do, so that they
    lie on the grid of each part's chunks; the last one of a part may be short.

    Attributes:
      piece: rows of a piece that is whole.

    Args:
      lengths: rows of each part.
      piece: rows.
    """

    def __init__(self, lengths: Sequence[int], piece: int):
        rows = np.asarray(lengths, np.int64)
        self.piece, self._rows = piece, int(rows.sum())
        pieces = -(-rows // piece)
        self._row_ends, self._ends = np.cumsum(rows), np.cumsum(pieces)
        self._row_starts, self._starts = self._row_ends - rows, self._ends - pieces
        self._pieces = int(self._ends[-1])
        missing = -rows % piece
        self._short, self._missing = (self._ends - 1)[missing > 0], missing[missing > 0]
        self._stride = _stride(self._pieces)
        self._inverse = pow(self._stride, -1, self._pieces) if self._pieces else 0
        self._pass = functools.lru_cache(4)(self._pass_of)

    def spans(self, shift: Callable[[int], int], start: int, count: int) -> list[tuple[int, int]]:
        """Rows of positions start … start + count - 1, piece by piece.

        Args:
          shift: a random number of each pass.
          start: may lie in any pass.
          count: of positions.
        """
        found = []
        while count > 0:
            turn, at = divmod(start, self._rows)
            stop = min(at + count, self._rows)
            found += self._spans_of_pass(shift(turn) % self._pieces, at, stop)
            start, count = start + stop - at, count - (stop - at)
        return found

    def _spans_of_pass(self, shift: int, at: int, stop: int) -> list[tuple[int, int]]:
        """Rows of positions at … stop - 1 of one pass."""
        of_pass = self._pass(shift)
        numbers = np.arange(of_pass.number(at), of_pass.number(stop - 1) + 1)
        pieces = (numbers * self._stride + shift) % self._pieces
        part = np.searchsorted(self._ends, pieces, "right")
        first = self._row_starts[part] + (pieces - self._starts[part]) * self.piece
        last = np.minimum(first + self.piece, self._row_ends[part])
        begin = of_pass.begin(numbers)
        last[-1] = first[-1] + stop - begin[-1]
        first[0] += at - begin[0]
        return list(zip(first.tolist(), last.tolist(), strict=True))

    def _pass_of(self, shift: int) -> "_Pass":
        """Where in a pass the short pieces come."""
        turns = (self._short - shift) * self._inverse % self._pieces
        order = np.argsort(turns)
        missing = np.concatenate([[0], np.cumsum(self._missing[order])])
        return _Pass(self.piece, turns[order], missing)


class _Pass(NamedTuple):
    """Of a pass, the numbers of the short pieces, and the rows that are missing before each."""

    piece: int
    short: np.ndarray
    missing: np.ndarray

    def begin(self, numbers: np.ndarray) -> np.ndarray:
        """Positions where pieces begin."""
        return numbers * self.piece - self.missing[np.searchsorted(self.short, numbers)]

    def number(self, position: int) -> int:
        """Of the piece that has a position."""
        ends = (self.short + 1) * self.piece - self.missing[1:]
        return int(
            (position + self.missing[np.searchsorted(ends, position, "right")]) // self.piece
        )


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
