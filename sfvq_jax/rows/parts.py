"""Many files one after another: a folder, or those that a pattern names."""

import fnmatch
import glob
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sfvq_jax.io.store import is_remote, open_store, reason, settled
from sfvq_jax.rows.rows import Rows, in_groups

AT_ONCE = 32  # parts that are opened, or read, at the same time


class Parts:
    """Rows of parts one after another, of different lengths.

    Attributes:
      lengths: of the parts, whose chunks each begin anew.

    Args:
      parts: of one width and type.
      names: theirs.

    Raises:
      ValueError: parts of another width or type; it names two that differ.
    """

    def __init__(self, parts: Sequence[Rows], names: Sequence[str]):
        first = parts[0]
        for part, name in zip(parts, names, strict=True):
            for what, here, there in (
                ("rows of shape", part.shape[1:], first.shape[1:]),
                ("type", part.dtype, first.dtype),
            ):
                if here != there:
                    raise ValueError(
                        f"{name} has {what} {here}, but {names[0]} {there}: parts of one array are"
                        " alike"
                    )
        self._parts = [part for part in parts if part.shape[0]] or [first]
        self.lengths = [part.shape[0] for part in self._parts]
        self._ends = np.cumsum([0, *self.lengths])
        self.shape, self.dtype = (int(self._ends[-1]), *first.shape[1:]), first.dtype
        self.chunk = max(part.chunk for part in self._parts)
        self.scale = getattr(first, "scale", None)

    @property
    def stamp(self) -> str:
        return " ".join(part.stamp for part in self._parts)

    def read(self, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        """As `Rows.read`; each part once, several at the same time."""
        of_part: dict[int, list[tuple[int, int, int]]] = {}  # first, stop, place
        place = 0
        for i, first, stop in in_groups(self._ends, spans):
            of_part.setdefault(i, []).append((first, stop, place))
            place += stop - first
        found = np.empty((place, *self.shape[1:]), self.dtype)

        def read(i: int) -> None:
            some, at = self._parts[i].read([(a, b) for a, b, _ in of_part[i]]), 0
            for a, b, to in of_part[i]:
                found[to : to + b - a] = some[at : at + b - a]
                at += b - a

        in_parallel(read, list(of_part))
        return found

    def check_unchanged(self) -> None:
        """Raises ValueError where a part is another than it was."""
        in_parallel(lambda part: part.check_unchanged(), self._parts)


def in_parallel(function, items: Sequence) -> list:
    """What a function gives for each, in their order."""
    if len(items) <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(AT_ONCE, len(items))) as pool:
        return list(pool.map(function, items))


def is_pattern(path: str) -> bool:
    """Whether a path or URI stands for several."""
    return bool(re.search(r"[*?\[]", path)) and (is_remote(path) or not os.path.exists(path))


def natural(name: str) -> list[tuple[int, str]]:
    """Of names, the order in which 2 comes before 10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), part) if i % 2 else (0, part) for i, part in enumerate(parts)]


def listed(uri: str, suffixes: Sequence[str]) -> list[str]:
    """The files of a folder or a pattern that end so, sorted by name, 2 before 10.

    Raises:
      ValueError: what cannot be listed, or files of two kinds.
    """
    pattern = uri if is_pattern(uri) else f"{uri.rstrip('/')}/*"
    if not is_remote(pattern):
        found = glob.glob(pattern)
    else:
        base = re.split(r"[*?\[]", pattern)[0].rpartition("/")[0] + "/"
        depth = pattern.removeprefix(base).count("/") + 1
        try:
            keys = settled(open_store(base).list(), uri)
        except (ValueError, NotImplementedError) as error:
            raise ValueError(f"{uri} cannot be listed: {reason(error)}") from error
        names = {base + "/".join(key.decode().split("/")[:depth]) for key in keys}
        found = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    found = [name for name in found if os.path.splitext(name)[1].lower() in suffixes]
    found.sort(key=natural)
    kinds = {os.path.splitext(name)[1].lower(): name for name in reversed(found)}
    if len(kinds) > 1:
        one, other, *_ = sorted(kinds.values(), key=natural)
        raise ValueError(
            f"{uri} holds files of several kinds, such as {one} and {other}: name one kind, such as"
            f" {pattern}{os.path.splitext(one)[1]}"
        )
    return found
