"""Data sets of Grain: `MapDataset`, whose records have numbers, and `IterDataset`."""

import itertools
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

THREADS = 16  # that make records at once, as Grain's own readers have
TOGETHER = 256  # records of one latent that are a block


class RecordRows:
    """Rows of a `grain.MapDataset` whose records are latents [D], or blocks of them [n, D].

    Its order is that of the data set, shuffled if that is; a fit draws its own on top. All records
    have the same shape, the last block may be shorter.

    Raises:
      ValueError: no records, no end of them, or no arrays of numbers.
    """

    stamp = ""

    def __init__(self, dataset: Any):
        if len(dataset) == 0:
            raise ValueError("the grain.MapDataset has no records")
        if len(dataset) == sys.maxsize:
            raise ValueError(
                "the grain.MapDataset has no end: leave .repeat() out, since a fit reads it as"
                " often as it needs"
            )
        self._dataset = dataset
        first, last = self._record(0), self._record(len(dataset) - 1)
        self.chunk, self.dtype = len(first), first.dtype
        self.shape = ((len(dataset) - 1) * self.chunk + len(last), *first.shape[1:])

    def read(self, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        """As `Rows.read`."""
        pieces = []  # of each record: which rows
        for start, stop in spans:
            while start < stop:
                i, skipped = divmod(start, self.chunk)
                count = min(self.chunk - skipped, stop - start)
                pieces.append((i, skipped, skipped + count))
                start += count
        numbers = list(dict.fromkeys(i for i, _, _ in pieces))
        of_thread = -(-len(numbers) // THREADS) or 1
        runs = [numbers[at : at + of_thread] for at in range(0, len(numbers), of_thread)]
        with ThreadPoolExecutor(THREADS) as pool:
            made = pool.map(lambda run: [(i, self._checked(i)) for i in run], runs)
            records = dict(itertools.chain.from_iterable(made))
        nothing = np.empty((0, *self.shape[1:]), self.dtype)
        return np.concatenate([nothing, *(records[i][start:stop] for i, start, stop in pieces)])

    def check_unchanged(self) -> None:
        """A data set that gives another record for the same number is not told."""

    def _checked(self, i: int) -> np.ndarray:
        found = self._record(i)
        count = min(self.chunk, self.shape[0] - i * self.chunk)
        if found.shape != (count, *self.shape[1:]) or found.dtype != self.dtype:
            raise ValueError(
                f"record {i} of the grain.MapDataset is {found.dtype}{list(found.shape)}; expected"
                f" {self.dtype}{[count, *self.shape[1:]]}, as record 0 has it"
            )
        return found

    def _record(self, i: int) -> np.ndarray:
        return as_block_of(self._dataset[i], f"record {i} of the grain.MapDataset")


class RecordBlocks:
    """What iterates over a `grain.IterDataset` in blocks [n, D]; records of one latent are stacked.

    `iter` gives an iterator with `get_state` and `set_state`, as Grain's have.
    """

    def __init__(self, dataset: Any):
        self._dataset = dataset

    def __iter__(self) -> Iterator[np.ndarray]:
        return _Blocks(iter(self._dataset))


class _Blocks(Iterator[Any]):
    def __init__(self, records: Any):
        self._records = records
        self.get_state, self.set_state = records.get_state, records.set_state

    def __next__(self) -> Any:
        first = next(self._records)
        if isinstance(first, tuple) or np.ndim(first) == 2:
            return first
        found = [first, *itertools.islice(self._records, TOGETHER - 1)]
        blocks = [as_block_of(record, "a record of the grain.IterDataset") for record in found]
        return np.concatenate(blocks)


def as_block_of(record: Any, name: str) -> np.ndarray:
    """A record as latents [n, D]; raises ValueError where it is something else."""
    if record is None:
        raise ValueError(
            f"{name} was left out by a filter, so that the others' numbers are not known: pass"
            " dataset.to_iter_dataset()"
        )
    if isinstance(record, dict | tuple | list):
        what = f"has {', '.join(map(str, record))}" if isinstance(record, dict) else "is several"
        raise ValueError(
            f"{name} {what}; expected latents [D] or [n, D], such as"
            " dataset.map(lambda record: record[NAME]) gives"
        )
    found = np.asarray(record)
    if found.ndim not in (1, 2):
        raise ValueError(f"{name} has shape {found.shape}; expected [D] or [n, D]")
    return found if found.ndim == 2 else found[None]
