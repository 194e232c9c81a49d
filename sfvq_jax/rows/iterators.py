"""Blocks of latents as your own loader gives them."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from sfvq_jax.rows.source import Block, Source, as_block, check_latents, check_weights

Array = jax.Array


class IteratorSource(Source):
    """Latents in blocks [n, D] of any sizes from an iterator, in the order of the iterator.

    A block may also be a pair of latents and their weights [n]. The first latents are used to start
    and to measure, so they should be a fair sample. In a fit of several processes, each iterates
    over its own part of the data.

    An iterator with `get_state` and `set_state`, as in Grain, continues where a fit was
    interrupted. Other iterators are read again up to that place.

    Args:
      blocks: a function that returns an iterator, or an object that can be iterated over again,
        such as a list. One iteration is a pass over the data.

    >>> import numpy as np
    >>> from sfvq_jax import IteratorSource
    >>> source = IteratorSource(lambda: (np.full((n, 8), n, np.float32) for n in (3, 5)))
    >>> source.read(None, 0, 100).x.shape
    (8, 8)
    """

    num_latents = None
    per_process = True

    def __init__(self, blocks: Iterable[Any] | Callable[[], Iterable[Any]]):
        if isinstance(blocks, Iterator):
            raise TypeError(
                "an iterator can be read only once, and a fit reads more often: pass a function"
                " that gives a fresh one"
            )
        self._open = blocks if callable(blocks) else lambda: blocks
        self._restart()
        if self._rest is None:
            raise ValueError("the iterator gives no blocks")
        self.latent_dim = self._rest.x.shape[1]

    def read(self, key: Array | None, start: int, count: int) -> Block:
        """With a key, one pass follows another; without a key, a read at the end is short."""
        endless = key is not None
        if start < self._position:
            self._restart()
        self._take(start - self._position, endless)
        parts = self._take(count, endless)
        nothing = Block(np.zeros((0, self.latent_dim), np.float32), np.zeros(0, np.float32))
        return Block(*(np.concatenate(rows) for rows in zip(nothing, *parts, strict=True)))

    def bookmark(self) -> Any:
        if self._state is None:
            return None
        unread = 0 if self._rest is None else len(self._rest.x)
        return [self._position, self._number - 1, self._size - unread, self._state]

    def go_to(self, bookmark: Any) -> None:
        self._position, self._number, used, state = bookmark
        blocks: Any = iter(self._open())
        blocks.set_state(state)
        self._blocks, self._rest = blocks, None
        if used and (block := self._next_block()) is not None:
            self._rest = Block(*(rows[used:] for rows in block))

    def _restart(self) -> None:
        self._position = 0
        self._begin_pass()

    def _begin_pass(self) -> None:
        again, before = hasattr(self, "_blocks"), getattr(self, "_blocks", None)
        self._blocks = iter(self._open())
        self._number = 0  # of the next block
        self._rest: Block | None = None
        if self._blocks is not before:
            self._rest = self._next_block()
        if self._rest is None and again:
            raise ValueError(
                "the iterator gives no blocks the second time: pass a function that makes a fresh"
                " iterator at each call, not one that returns the same"
            )

    def _take(self, count: int, endless: bool) -> list[Block]:
        """The next latents, in parts."""
        parts = []
        while count > 0:
            if self._rest is None or len(self._rest.x) == 0:
                self._rest = self._next_block()
            if self._rest is None:
                if not endless:
                    break
                self._begin_pass()
                continue
            part = Block(*(rows[:count] for rows in self._rest))
            self._rest = Block(*(rows[count:] for rows in self._rest))
            parts.append(part)
            count -= len(part.x)
            self._position += len(part.x)
        return parts

    def _next_block(self) -> Block | None:
        """The next block that has rows, or None at the end of a pass."""
        while True:
            # what leads to the block once more, for bookmarks
            self._state, self._size = _state_of(self._blocks), 0
            try:
                found = next(self._blocks)
            except StopIteration:
                return None
            x = np.asarray(found[0] if isinstance(found, tuple) else found)
            name = f"block {self._number} of the iterator"
            self._number += 1
            check_latents(x, name)
            if hasattr(self, "latent_dim") and x.shape[1] != self.latent_dim:
                raise ValueError(
                    f"{name} has shape {x.shape}; the ones before have width {self.latent_dim}"
                )
            block = as_block((x, found[1]) if isinstance(found, tuple) else x)
            check_weights(block.weight, len(x), name)
            if len(x):
                self._size = len(x)
                return block


def _state_of(blocks: Iterator[Any]) -> Any:
    """Where an iterator is, as a JSON value; None of one that does not say so."""
    try:
        return json.loads(json.dumps(blocks.get_state()))  # pyright: ignore
    except (AttributeError, TypeError, NotImplementedError):
        return None
