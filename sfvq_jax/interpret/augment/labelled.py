"""Places to draw a labelled dataset from: lines of a curve that a person labelled."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from sfvq_jax.interpret.geometry import numpy_generator

Array = jax.Array


class LabelledPlaces(NamedTuple):
    """Positions on the curve, [N] float32, and the index of each one's class in the names, [N]."""

    positions: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


def labelled_places(key: Array, lines: Mapping[str, Sequence[int]], count: int) -> LabelledPlaces:
    """Random places on lines of known classes, equally many of each, in random order.

    Args:
      key: a PRNG key; the same one gives the same places.
      lines: of each class, whose lines all get about as many.
      count: how many, N; where it is no multiple of the classes, the first get one more.

    Raises:
      ValueError: no lines, or a count below 1.

    >>> places = labelled_places(jax.random.key(0), {"bag": [3], "boot": [7, 8]}, 4)
    >>> sorted(int(p) for p in places.positions), sorted(places.labels.tolist())
    ([3, 3, 7, 8], [0, 0, 1, 1])
    """
    if not lines:
        raise ValueError(
            "no two neighbouring codewords have the same label, so that there is no line to draw"
            " from: label more of them"
        )
    if count < 1:
        raise ValueError(f"count is {count}; ask for at least one sample")
    random = numpy_generator(key)
    labels = np.arange(count) % len(lines)
    chosen = np.empty(count, np.int64)
    for label, of_class in enumerate(lines.values()):
        at = np.flatnonzero(labels == label)
        chosen[at] = np.resize(random.permutation(of_class), len(at))
    positions = (chosen + random.uniform(0, 1, count)).astype(np.float32)
    order = random.permutation(count)
    return LabelledPlaces(positions[order], labels[order].astype(np.int32), tuple(lines))
