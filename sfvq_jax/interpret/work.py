"""A long task in parts: how far it is, and what of it was done before."""

import contextlib
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

DERIVATIVE = 3  # images take as long to render as one derivative


class Progress(NamedTuple):
    """How far a task is.

    Attributes:
      images: that were rendered; a derivative counts as three.
      total: how many there will be, as far as that is known: it is corrected on the way.
      part: what is being done.
    """

    images: int
    total: int
    part: str


OnProgress = Callable[[Progress], Any]
Done = MutableMapping[str, Any]


class Work:
    """The parts of a task, each of a kind.

    Args:
      expected: kind -> how many parts, and of how many images each; what the parts that are done
        took replaces that.
      done: results of parts by name; those in it are taken, and what is made is put in.
      on_progress: called while images are rendered, and when parts are done.
    """

    def __init__(
        self,
        expected: Mapping[str, tuple[int, float]],
        done: Done | None = None,
        on_progress: OnProgress | None = None,
    ):
        self._left = {kind: count for kind, (count, _) in expected.items()}
        self._each = {kind: images for kind, (_, images) in expected.items()}
        self._made = dict.fromkeys(expected, 0)
        self._took = dict.fromkeys(expected, 0.0)
        self._now = 0  # images of the part that is being made
        self._kind, self._part = "", ""
        self._done, self._on_progress = done, on_progress

    def expect(self, kind: str, count: int) -> None:
        """So many parts of a kind are left."""
        self._left[kind] = count

    def part(self, kind: str, name: str, make: Callable[[], T], *, keep: bool = True) -> T:
        """The result of a part: what was done before, or what `make` gives.

        Args:
          kind: one of those that are expected.
          name: of the part, another for each.
          make: makes it.
          keep: whether the result is put into what is done.
        """
        self._left[kind] -= 1
        if keep and self._done is not None and name in self._done:
            with contextlib.suppress(KeyError):  # a damaged one
                return self._done[name]
        self._kind, self._part, self._now = kind, name, 0
        self.images(0)
        made = make()
        self._made[kind] += 1
        self._took[kind] += self._now or self._each[kind]
        self._kind, self._now = "", 0
        self.images(0)
        if keep and self._done is not None:
            self._done[name] = made
        return made

    def images(self, count: int) -> None:
        """So many more were rendered."""
        self._now += count
        if self._on_progress is None:
            return
        before = sum(self._took.values())
        rest = sum(count * self._mean(kind) for kind, count in self._left.items())
        now = max(self._now, self._mean(self._kind)) if self._kind else 0
        total = round(before + now + rest)
        self._on_progress(Progress(round(before + self._now), total, self._part))

    def _mean(self, kind: str) -> float:
        made = self._made[kind]
        return self._took[kind] / made if made else self._each[kind]
