"""Rows that are read from the host as they are needed: files, objects, datasets of any size."""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.rows.adapted import as_stored
from sfvq_jax.rows.looking import look_through
from sfvq_jax.rows.order import Order
from sfvq_jax.rows.rows import Rows
from sfvq_jax.rows.source import (
    Block,
    Far,
    Faults,
    Source,
    check_shape,
    check_weights,
    generator,
)

Array = jax.Array

PIECE_BYTES = 2**17  # read together in random order, so that a disk keeps up
LARGEST_PIECE = 2**12  # rows: of the 2¹⁶ samples of the smallest round, there are 16 pieces
SCATTERED = 256  # pieces at least, of few samples that stand for all
MOST_KEPT = 2**30  # bytes of a chunk that is kept for the next rows in order
KEPT_SHARE = 8  # of what is asked for, a chunk that is larger than the 8th part is kept


class HostSource(Source):
    """Latents that the host reads in blocks: a path, a URI, or an array that can be sliced.

    Such an array has `shape`, `dtype` and slices, as a dataset of h5py has.

    In random order, pieces of neighbouring rows are read together, each once in a pass. A piece has
    128 KiB, 2 MiB of an object in a store, or is a chunk if the rows are stored in chunks. If a
    chunk has more than 4,096 rows, a piece is only a part of it, so that samples do not all come
    from a few places. The chunk is still read whole: this takes longer, and a warning says so.

    Latents keep the type in which they are stored until they are on the device.

    Args:
      rows: a path or URI (see `open_rows`), an array, `Rows`; or a function that opens an array
        for each block.
      weights: weight of each row, [N], in any of these forms; 1 by default.
      name: name of the rows in messages.
      scale: factor applied to the stored numbers, such as those of quantised latents. Integers
        need one, except in .u8bin and .i8bin, where the default is 1.

    >>> import numpy as np
    >>> from sfvq_jax import HostSource
    >>> HostSource(np.zeros((1000, 8), np.uint8), scale=1 / 255, name="the quantised latents")
    HostSource(the quantised latents, 1000 × 8)
    """

    def __init__(
        self, rows: Any, weights: Any = None, name: str | None = None, scale: float | None = None
    ):
        named = str(rows) if isinstance(rows, str | Path) else "the array of latents"
        self.name = named if name is None else name
        masked = np.ma.is_masked(rows)
        self._rows = as_stored(rows)
        scale = getattr(self._rows, "scale", None) if scale is None else scale
        self.scale = None if scale is None else np.float32(scale)
        check_shape(rows if masked else self._rows, self.name, scaled=scale is not None)
        self.num_latents, self.latent_dim = self._rows.shape
        self._weights = None if weights is None else as_stored(weights)
        if self._weights is not None and self._weights.shape != (self.num_latents,):
            raise ValueError(
                f"the weights of {self.name} have shape {self._weights.shape}; expected"
                f" ({self.num_latents},)"
            )
        self._order = self._order_of(_piece(self._rows))
        self._left_out = np.zeros(0, np.int64)
        self._few = False  # whether few rows stand for all
        self._kept: tuple[int, np.ndarray] | None = None

    def __repr__(self) -> str:
        return f"HostSource({self.name}, {self.num_latents} × {self.latent_dim})"

    def read(self, key: Array | None, start: int, count: int) -> Block:
        """See `Readable.read`; rows keep their type. Lost or changed rows raise ValueError."""
        if key is None:
            stop = max(start, min(start + count, self.num_latents))
            spans = [(start, stop)]
            stored = self._in_order(start, stop)
        else:
            self._warn_of_chunks()
            spans = self._spans(key, start, count)
            stored = self._rows.read(spans)
        numbers = _numbers(spans)
        if jnp.issubdtype(stored.dtype, jnp.floating):
            faults = Faults(self.name)
            faults.look(stored, numbers)
            faults.check()
        weight = np.ones(len(numbers), np.float32)
        if self._weights is not None:
            weight = self._weights.read(spans).astype(np.float32)
            check_weights(weight, len(weight), self.name, numbers)
        if len(self._left_out):
            weight[np.isin(numbers, self._left_out)] = 0
        return Block(stored.astype(_on_devices(stored.dtype), copy=False), weight)

    def scattered(self, count: int) -> "HostSource":
        found = copy.copy(self)
        found._few = True
        found._order = self._order_of(min(self._order.piece, max(1, count // SCATTERED)))
        return found

    def held_out(self, key: Array, count: int) -> "HostSource":
        other = copy.copy(self)
        other._left_out = np.unique(self.numbers(key, count))
        return other

    def numbers(self, key: Array, count: int) -> np.ndarray:
        return _numbers(self.scattered(count)._spans(key, 0, count))

    @property
    def stamp(self) -> str:
        return self._rows.stamp + ("" if self._weights is None else f", {self._weights.stamp}")

    def look_through(self) -> Far | None:
        """Reads all rows once."""

        def read(spans: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray | None]:
            weight = None
            if self._weights is not None:
                numbers = _numbers(spans)
                weight = self._weights.read(spans).astype(np.float32)
                check_weights(weight, len(numbers), self.name, numbers)
            return self._rows.read(spans), weight

        shape = (self.num_latents, self.latent_dim)
        return look_through(self.name, shape, read, chunk=self._rows.chunk, divided=True)

    def check_unchanged(self) -> None:
        for rows in (self._rows, self._weights):
            if rows is not None:
                rows.check_unchanged()

    def _order_of(self, piece: int) -> Order:
        return Order(getattr(self._rows, "lengths", [self.num_latents]), piece)

    def _spans(self, key: Array, start: int, count: int) -> list[tuple[int, int]]:
        """The rows of some positions in the order that a key names."""
        return self._order.spans(
            lambda turn: int(generator(key, turn).integers(2**62)), start, count
        )

    def _in_order(self, start: int, stop: int) -> np.ndarray:
        """Rows as they are stored; of a large chunk, what is not asked for yet is kept."""
        chunk = self._rows.chunk
        row_bytes = self.latent_dim * self._rows.dtype.itemsize
        small = chunk == 1 or chunk * KEPT_SHARE <= stop - start
        if small or start == stop or chunk * row_bytes > MOST_KEPT:
            return self._rows.read([(start, stop)])
        parts, kept = [], self._kept
        if kept is not None and kept[0] <= start < kept[0] + len(kept[1]):
            parts.append(kept[1][start - kept[0] : stop - kept[0]])
            start += len(parts[0])
        if start < stop:
            end = min(-(-stop // chunk) * chunk, self.num_latents)
            found = self._rows.read([(start, end)])
            parts.append(found[: stop - start])
            self._kept = (stop, found[stop - start :].copy())
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _warn_of_chunks(self) -> None:
        chunk, piece = self._rows.chunk, self._order.piece
        if chunk > LARGEST_PIECE and piece < chunk and not self._few:
            warnings.warn(
                f"{self.name} lies in chunks of {chunk} rows, which are read whole for each"
                f" {piece} of their rows in random order: chunks of 128 KiB to 2 MiB are faster,"
                ' or samples="all", which reads in order',
                stacklevel=2,
            )


def _piece(rows: Rows) -> int:
    """Rows that are read together in random order."""
    n, row_bytes = rows.shape[0], rows.shape[1] * rows.dtype.itemsize
    small = max(1, min(PIECE_BYTES // row_bytes, n // 1000, LARGEST_PIECE))
    if rows.chunk <= LARGEST_PIECE:
        return rows.chunk * max(1, small // rows.chunk)
    return max(1, min(LARGEST_PIECE, n // 1000))


def _numbers(spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Of the rows in spans, [count]."""
    first, stop = np.asarray(spans, np.int64).reshape(-1, 2).T
    count = stop - first
    return np.arange(count.sum()) + np.repeat(first - (np.cumsum(count) - count), count)


def _on_devices(dtype: np.dtype) -> np.dtype:
    """The type that goes to the devices: the stored one, but for what they do not know."""
    if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize > 4:
        return np.dtype(np.float32)
    return dtype.newbyteorder("=")
