"""What a page is of: a generator, a curve, directions, scorers, latents of the user's own.

Letters: N rows, D dimensions, K codewords, L layers, C classes.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.curve import Curve, trimmed
from sfvq_jax.interpret import DirectionRecord, Scorer, deviation_along
from sfvq_jax.interpret.map.rows import as_classes
from sfvq_jax.io.curve_file import CurveRecord
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.projection import project
from sfvq_jax.sources import Source, as_rows, read_in_order

Array = jax.Array

MOST_CODEWORDS = 4096  # of a page
SEEDS = 6  # that are moved along a line side by side
TRUNCATION = 0.5  # of the published edits (arXiv 2410.20573)
SPREAD = 2**14  # latents, of which standard deviations and shares are taken
BLOCK = 2**14  # rows that are projected at once


class NamedDirection(NamedTuple):
    """A direction, and the file that it is from, as the user named it."""

    file: str
    record: DirectionRecord


class Photographs(NamedTuple):
    """Latents of the user's own that are moved in place of seeds, such as `invert` found.

    Attributes:
      latents: [N, D], or one code a layer, [N, L, D], float32.
      file: that they are of.
      rows: their numbers in it, N.
      names: of their photographs, N.
    """

    latents: np.ndarray
    file: str
    rows: Sequence[int]
    names: Sequence[str]


class OwnData(NamedTuple):
    """Latents of the user's own on the curve.

    Attributes:
      source: N rows of them.
      name: of their file.
      positions: where they lie, [N] float32.
      squared_distance: how far off, [N] float32.
      of_rows: their classes, [N]; all 0 where they have none.
      names: of the classes; none where there are none.
    """

    source: Source
    name: str
    positions: np.ndarray
    squared_distance: np.ndarray
    of_rows: np.ndarray
    names: list[str]


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a page shows.

    Attributes:
      model: the generator.
      record: of the curve, K from 3 to 4096 codewords.
      find: the scorer whose attributes are traced.
      judge: another one, by which lines are measured.
      classes: names of attributes of `find` of which each image has one; may be none.
      directions: beside the lines of the curve.
      model_name: as the user calls it.
      curve_name: likewise.
      data: latents of the user's own, shown where they fall.
      photographs: others, moved in place of seeds.
    """

    model: LatentModel
    record: CurveRecord
    find: Scorer
    judge: Scorer
    classes: tuple[str, ...] = ()
    directions: tuple[NamedDirection, ...] = ()
    model_name: str = ""
    curve_name: str = ""
    data: OwnData | None = None
    photographs: Photographs | None = None

    def __post_init__(self):
        k = self.curve.num_codewords
        if not 3 <= k <= MOST_CODEWORDS:
            raise ValueError(
                f"the curve has {k} codewords, and a page shows 3 to {MOST_CODEWORDS:,}: choose"
                " another one, or fit one of fewer bits"
            )

    @functools.cached_property
    def curve(self) -> Curve:
        return trimmed(self.record.curve)

    @functools.cached_property
    def codewords(self) -> np.ndarray:
        """[K, D] float32."""
        return np.asarray(self.curve.codewords, np.float32)

    @functools.cached_property
    def spread(self) -> Array:
        """Latents of the model, [16384, D]."""
        return self.model.sample(jax.random.key(0), SPREAD)

    @functools.cached_property
    def lines(self) -> np.ndarray:
        """Unit vectors from codeword to codeword, [K - 1, D]; 0 where two are in one place."""
        steps = np.diff(self.codewords, axis=0)
        lengths = np.linalg.norm(steps, axis=1, keepdims=True)
        return steps / np.where(lengths > 0, lengths, 1)

    @functools.cached_property
    def line_units(self) -> np.ndarray:
        """One standard deviation of the latents along each line, [K - 1]."""
        centred = self.spread - self.spread.mean(0, keepdims=True)
        along = jax.lax.map(
            lambda line: deviation_along(centred, line), jnp.asarray(self.lines), batch_size=64
        )
        return np.asarray(along)

    @functools.cached_property
    def truncation(self) -> float | None:
        """Of seeds, at first; None of a space that has none to choose."""
        try:
            self.model.sample(jax.random.key(0), 1, truncation=TRUNCATION)
        except (ValueError, TypeError):
            return None
        return TRUNCATION


def own_data(
    source: Any, curve: Curve, *, name: str = "", labels: np.ndarray | None = None
) -> OwnData:
    """Projects rows onto the curve, in blocks.

    Args:
      source: an array [N, D], a path or URI, a source on the host with an end.
      curve: of width D.
      name: of the file.
      labels: classes of the rows, [N] whole numbers or texts.

    Raises:
      ValueError: latents of another width or without an end, or labels that are none.
    """
    source = as_rows(source, curve)
    n = source.num_latents
    of_rows, names = np.zeros(n, np.int64), []
    if labels is not None:
        of_rows, names = as_classes(labels, n)
    block, found = min(BLOCK, n), []
    for start in range(0, n, block):
        x = np.zeros((block, curve.latent_dim), np.float32)  # of one shape, compiled once
        stop = min(start + block, n)
        x[: stop - start] = read_in_order(source, start, stop - start)
        place = project(curve, jnp.asarray(x))
        columns = np.stack([np.asarray(place.position), np.asarray(place.squared_distance)])
        found.append(columns[:, : stop - start])
    positions, squared_distance = np.concatenate(found, 1)
    return OwnData(source, name, positions, squared_distance, of_rows, names)


def rows_of(data: OwnData, bin: int, label: int | None, most: int) -> list[int]:
    """Numbers of the rows in a bar of the histogram, those nearest to the curve first."""
    at = np.flatnonzero(nearest_codewords(data.positions) == bin)
    if label is not None:
        at = at[data.of_rows[at] == label]
    return at[np.argsort(data.squared_distance[at], kind="stable")][:most].tolist()


def nearest_codewords(positions: np.ndarray) -> np.ndarray:
    """The codeword next to which each position lies, [N]."""
    return np.rint(positions).astype(np.int64)


def read_rows(data: OwnData, rows: Sequence[int]) -> np.ndarray:
    """These rows, [N, D] float32."""
    return np.concatenate([read_in_order(data.source, r, 1) for r in rows])
