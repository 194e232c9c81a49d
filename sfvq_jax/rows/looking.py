"""Rows are looked through as a whole before a fit, so that what is found depends on no key."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from sfvq_jax.processes import in_all_processes, in_every_process
from sfvq_jax.rows.source import Far, Faults

BLOCK_FLOATS = 2**20  # looked at together: 4 MiB, which a cache holds
READ_FLOATS = 2**23  # of chunks, read together while those before are looked at
MIDDLE_ROWS = 256  # whose median is the middle
MIDDLE_CHUNKS = 32  # that they are in, where chunks are larger than these rows
FEW = 8  # rows at most that are told as far from the others
ALIKE = 0.1  # of the squared distance of the one before
FEW_OF = 100  # as many times as many there must be

Read = Callable[[Sequence[tuple[int, int]]], tuple[np.ndarray, np.ndarray | None]]


def look_through(
    name: str,
    shape: tuple[int, int],
    read: Read,
    *,
    chunk: int = 1,
    divided: bool,
) -> Far | None:
    """Raises ValueError for rows that cannot be fitted; else tells those far from all others.

    Args:
      name: what a message calls the rows.
      shape: N and D.
      read: gives latents and weights of rows in spans; weights may be None.
      chunk: rows that are stored together.
      divided: whether each process looks at a part, and they tell each other.
    """
    n, d = shape
    process, processes = (jax.process_index(), jax.process_count()) if divided else (0, 1)
    first, last = (n * i // processes // chunk * chunk for i in (process, process + 1))
    last = n if process + 1 == processes else last

    def look() -> tuple[Faults, float, list[float], list[int]]:
        faults, middle = Faults(name), _middle(n, read, chunk)
        total, squares, rows = 0.0, np.zeros(0), np.zeros(0, np.int64)
        for start, stored, weight in _blocks(first, last, d, read, chunk):
            numbers = np.arange(start, start + len(stored))
            faults.look(stored, numbers)
            found = _squares(stored, middle)
            found = found if weight is None else found * weight
            total += float(found.sum())
            squares, rows = np.append(squares, found), np.append(rows, numbers)
            keep = np.argsort(-squares, kind="stable")[:FEW]
            squares, rows = squares[keep], rows[keep]
        return faults, total, squares.tolist(), rows.tolist()

    if not divided or processes == 1:
        faults, total, squares, rows = look()
    else:
        faults, total, squares, rows = in_every_process(look)
        told = in_all_processes([faults.found, total, squares, rows])
        faults, total = Faults(name), sum(part[1] for part in told)
        faults.rows = n
        for part in told:
            faults.add(part[0])
        squares = [square for part in told for square in part[2]]
        rows = [row for part in told for row in part[3]]
    faults.check()
    squares = np.array(squares)
    order = np.argsort(-squares, kind="stable")[:FEW]
    share = np.cumsum(squares[order]) / (total or 1)
    most = np.flatnonzero(share > 0.5)
    if not most.size:
        return None
    end = most[0]  # and those that are about as far
    while end + 1 < len(order) and squares[order[end + 1]] > ALIKE * squares[order[end]]:
        end += 1
    if n < FEW_OF * (end + 1):
        return None
    return Far([int(rows[i]) for i in order[: end + 1]], float(share[end]))


def _blocks(
    first: int, last: int, d: int, read: Read, chunk: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """The first row of each block, its latents and weights; the next ones are read meanwhile."""
    rows = max(1, BLOCK_FLOATS // d)
    step = rows if chunk == 1 else chunk * max(1, READ_FLOATS // (d * chunk))
    starts = range(first, last, step)
    with ThreadPoolExecutor(1) as reader:
        ahead = [reader.submit(read, [(at, min(at + step, last))]) for at in starts[:1]]
        for start in starts:
            stored, weight = ahead.pop().result()
            if start + step < last:
                ahead.append(reader.submit(read, [(start + step, min(start + 2 * step, last))]))
            for at in range(0, len(stored), rows):
                part = slice(at, at + rows)
                yield start + at, stored[part], None if weight is None else weight[part]


def _middle(n: int, read: Read, chunk: int) -> np.ndarray:
    """Where most rows are, however far a few may lie: [D] float32."""
    rows = min(n, MIDDLE_ROWS)
    width = 1 if chunk <= MIDDLE_ROWS or n <= rows else MIDDLE_ROWS // MIDDLE_CHUNKS
    places = np.linspace(0, n - width, rows // width).astype(int).tolist()
    with np.errstate(over="ignore", invalid="ignore"):
        x = read([(place, place + width) for place in places])[0].astype(np.float32)
    x = x[np.isfinite(x).all(axis=1)]
    return np.median(x, axis=0) if len(x) else np.zeros(x.shape[1], np.float32)


def _squares(stored: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Squared distances from the middle, [N] float64; of what is not finite anything."""
    with np.errstate(over="ignore", invalid="ignore"):
        x = stored.astype(np.float32) - middle
        return np.einsum("nd,nd->n", x, x).astype(np.float64)
