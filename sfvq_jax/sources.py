"""Where latents come from: arrays, files larger than memory, samplers on the device, iterators.

All are one small protocol, `Readable`. To add your own, write a class with these four names; the
whole of a source on the host can be as short as

    class Database:
        latent_dim, num_latents, on_device = 512, 10**9, False

        def read(self, key, start, count):
            return select_rows(start, start + count)  # a NumPy array [count, 512]

This is the one place that asks what a source is.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax.struct
import jax
import numpy as np
from jax.sharding import Mesh

from sfvq_jax.curve import Curve
from sfvq_jax.devices import replicate
from sfvq_jax.latent_model import LatentModel, method
from sfvq_jax.rows.arrays import ArraySource, array_source
from sfvq_jax.rows.files import HostSource
from sfvq_jax.rows.iterators import IteratorSource
from sfvq_jax.rows.opening import open_rows
from sfvq_jax.rows.rows import Rows
from sfvq_jax.rows.samplers import SamplerSource, partial, sampler_source
from sfvq_jax.rows.source import (
    Block,
    Readable,
    Source,
    as_block,
    check_latents,
    read_in_order,
)

__all__ = [
    "ArraySource",
    "Block",
    "HostSource",
    "IteratorSource",
    "Readable",
    "SamplerSource",
    "Source",
    "as_rows",
    "as_source",
    "check_source",
    "read_in_order",
]

Array = jax.Array


def as_source(source: Any, weights: Any = None) -> Source:
    """What `fit` takes, as a source; a source stays what it is.

    Args:
      source: an array [N, D], which goes to the device; a memory-mapped one, or a path or URI
        (`open_rows`), which is read in blocks; a `LatentModel` or a function (key, n) -> [n, D],
        which draws on the device; a `datasets.Dataset`, `grain.MapDataset` or `grain.IterDataset`;
        a `Readable`. `new_kind(type)(function)` adds one.
      weights: of the rows of an array or a file, [N], an array or a path or URI; other sources give
        theirs with the latents.

    Raises:
      ValueError: an array of another rank, of no floating point type, or with NaN or infinity.
      TypeError: none of these.
    """
    if weights is None:
        return _as_source(source)
    if isinstance(weights, str | Path):
        weights = open_rows(weights)
    if isinstance(source, str | Path | np.memmap):
        return HostSource(source, weights)
    if isinstance(source, np.ndarray | jax.Array):
        if isinstance(weights, Rows):
            weights = weights.read([(0, weights.shape[0])])
        return array_source(source, weights)
    raise TypeError(
        f"weights go with an array or a file; a {type(source).__name__} gives them with its"
        " latents, as a pair (latents [n, D], weights [n])"
    )


def check_source(source: Source, curve: Curve) -> None:
    """Raises ValueError unless the latents are as wide as the curve's codewords."""
    if source.latent_dim != curve.codewords.shape[1]:
        raise ValueError(
            f"the latents have width {source.latent_dim}, but the codewords of the curve"
            f" {curve.codewords.shape[1]}"
        )


def as_rows(source: Any, curve: Curve) -> Source:
    """A source whose latents have numbers and an end, as wide as the curve's; read on the host."""
    if isinstance(source, np.ndarray | jax.Array):  # which needs no device here
        source = HostSource(np.asarray(source))
    source = as_source(source)
    if source.num_latents is None or source.per_process:
        raise ValueError("the latents have no order and no end: give an array or an .npy of them")
    check_source(source, curve)
    return source


@functools.singledispatch
def _as_source(source: Any) -> Source:
    if isinstance(source, type):
        raise TypeError(f"source is the class {source.__name__}; pass one of it")
    if isinstance(source, Readable):
        return Plain(source) if source.on_device else _HostPlain(source)
    if isinstance(source, LatentModel):
        return sampler_source(method(source, "sample"))
    for kind in type(source).__mro__:
        make = _OF_LIBRARIES.get((kind.__module__.partition(".")[0], kind.__name__))
        if make is not None:
            return make(source)
    if callable(source):
        return sampler_source(partial(source))
    if isinstance(source, Iterator):
        raise TypeError(
            "source is an iterator, which can be read only once, and a fit reads more often: pass"
            " sfvq_jax.IteratorSource(function) of a function that gives a fresh one"
        )
    raise TypeError(
        f"source is a {type(source).__name__}; expected an array [N, D] (of a list or a table,"
        " np.asarray(…)), a path or URI, a LatentModel with `sample` and `render`, a function"
        " (key, n) -> [n, D], or a source"
    )


def _of_dataset(dataset: Any) -> Source:
    from sfvq_jax.rows.arrow import DatasetRows

    return HostSource(DatasetRows(dataset), name="the dataset")


def _of_hdf5(dataset: Any) -> Source:
    from sfvq_jax.rows.hdf5 import ChunkedRows

    return HostSource(ChunkedRows(dataset), name=dataset.name)


def _of_records(dataset: Any) -> Source:
    from sfvq_jax.rows.grain import RecordRows

    return HostSource(RecordRows(dataset), name="the grain.MapDataset")


def _of_iteration(dataset: Any) -> Source:
    from sfvq_jax.rows.grain import RecordBlocks

    return IteratorSource(RecordBlocks(dataset))


# objects of libraries that need not be installed, by package and class
_OF_LIBRARIES: dict[tuple[str, str], Callable[[Any], Source]] = {
    ("datasets", "Dataset"): _of_dataset,
    ("grain", "IterDataset"): _of_iteration,
    ("grain", "MapDataset"): _of_records,
    ("h5py", "Dataset"): _of_hdf5,
    ("tensorstore", "TensorStore"): HostSource,
    ("zarr", "Array"): HostSource,
}

new_kind = _as_source.register  # (type)(function that makes a source of it)
new_kind(Source)(lambda source: source)
new_kind(str)(HostSource)
new_kind(Path)(HostSource)
new_kind(np.memmap)(HostSource)
new_kind(np.ndarray)(array_source)
new_kind(jax.Array)(array_source)
new_kind(jax.tree_util.Partial)(sampler_source)


@flax.struct.dataclass
class Plain(Source):
    """A user's own source on the device, which has only the four names."""

    source: Any
    on_device = True

    @property
    def latent_dim(self) -> int:
        return self.source.latent_dim

    @property
    def num_latents(self) -> int | None:
        return self.source.num_latents

    def read(self, key: Array | None, start: Any, count: int) -> Block:
        return as_block(self.source.read(key, start, count))

    def placed(self, mesh: Mesh) -> "Plain":
        return Plain(replicate(self.source, mesh))


class _HostPlain(Source):
    """A user's own source on the host, likewise; what it gives is checked."""

    def __init__(self, source: Readable):
        self._source = source
        self.latent_dim, self.num_latents = source.latent_dim, source.num_latents

    def read(self, key: Array | None, start: int, count: int) -> Block:
        found = self._source.read(key, start, count)
        x = np.asarray(found[0] if isinstance(found, tuple) else found)
        check_latents(x, f"what the source gives from number {start} on")
        return as_block((x, found[1]) if isinstance(found, tuple) else x)
