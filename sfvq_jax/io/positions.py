"""Where each of many latents lies on a curve, written to an .npy or a .zarr as large as need be.

While it is made, its chunks lie beside it, in `positions.npy.part`; an array of zarr at a URI,
where nothing is renamed, is made in its place and named by its zarr.json at last. A chunk that is
there is done, so that what is interrupted goes on from there. Several processes, which all see one
place, write each its own chunks.
"""

import functools
import hashlib
import json
import os
import re
import shutil
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore as ts
from jax.sharding import Mesh, PartitionSpec

from sfvq_jax.curve import Curve
from sfvq_jax.devices import AXIS, data_mesh, divided, round_up
from sfvq_jax.io.objects import ZARR, open_zarr, store_errors, zarr_metadata
from sfvq_jax.io.output import check_free, followed, new_file, new_folder
from sfvq_jax.io.store import is_remote, open_store, settled
from sfvq_jax.likeness import hash_of, likeness
from sfvq_jax.processes import (
    as_first_process,
    check_alike,
    in_all_processes,
    in_every_process,
)
from sfvq_jax.projection import Projection, project
from sfvq_jax.rows.arrays import bucket
from sfvq_jax.sources import Source, as_rows, read_in_order

Array = jax.Array

BLOCK_FLOATS = 2**24  # of latents that are projected at once: 64 MiB
MAX_BLOCK = 2**16  # rows; those of a block are a chunk
SAMPLED = 256  # rows that tell latents from others
UNFINISHED = "unfinished.json"  # what zarr.json says once all chunks are there
LARGEST_PUT = 5 * 2**30  # bytes, of an object that is put in one piece
CHUNK = re.compile(rb"c/(\d+)/0")


def write_positions(
    path: str | Path,
    curve: Curve,
    source: Any,
    *,
    overwrite: bool = False,
    on_rows: Callable[[int], Any] | None = None,
) -> None:
    """Writes position and squared distance of every latent, in the source's order.

    The file is an .npy [N, 2] of float64, `position, squared_distance = np.load(path).T`, or with
    `mmap_mode="r"`; or an array of zarr v3 of the same, `zarr.open_array(path)[:].T`. No more than
    two blocks of latents are in memory. A call that was interrupted goes on from where it was, if
    it is made again.

    Args:
      path: of the .npy or .zarr, or its URI, such as s3://bucket/positions.zarr.
      curve: K codewords of width D.
      source: what has an order and an end: an array, a path or URI, a source on the host.
      overwrite: replace a file that is there.
      on_rows: called with the number of rows that are new, now and then.

    Raises:
      ValueError: another ending; latents of another width, or without an end; what is there of the
        output is of other latents.
      FileExistsError: `path` exists and `overwrite` is false.
      OSError: it cannot be written.
    """
    made, source = _Made(path), as_rows(source, curve)
    n = source.num_latents
    if jax.process_count() > 1:
        check_alike(
            {
                "number and width of latents": [n, source.latent_dim],
                "latents": likeness(source),
                "curve": hash_of(np.asarray(curve.codewords)),
            }
        )
    metadata = as_first_process(lambda: _prepare(made, curve, source, overwrite))
    in_every_process(lambda: _fill(made, metadata, curve, source, on_rows))
    in_every_process(source.check_unchanged)
    in_all_processes(True)  # all have written
    as_first_process(lambda: _finish(made, metadata, overwrite))


class _Made:
    """An output under way: its path or URI, and where its chunks are meanwhile."""

    def __init__(self, path: str | Path):
        path = str(path).rstrip("/")
        ending = path.rpartition("/")[2].rpartition(".")[2]
        if ending not in ("npy", "zarr"):
            raise ValueError(f"{path} is to be written, but its name does not end in .npy or .zarr")
        self.is_zarr, self.remote = ending == "zarr", is_remote(path)
        self.path = path if self.remote else str(followed(path))
        self.in_place = self.is_zarr and self.remote
        self.folder = self.path if self.in_place else f"{self.path}.part"
        self.store = open_store(f"{self.folder}/")

    def note(self, name: str) -> str | None:
        with store_errors(self.folder):
            found = settled(self.store.read(name), self.folder)
        return found.value.decode("utf-8", "replace") if found.state == "value" else None

    def set_note(self, name: str, text: str | None) -> None:
        with store_errors(self.folder):
            settled(self.store.write(name, None if text is None else text.encode()), self.folder)

    def keys(self) -> list[bytes]:
        with store_errors(self.folder):
            return settled(self.store.list(), self.folder)

    def chunks(self) -> set[int]:
        """The numbers of those that are done."""
        return {int(match[1]) for match in map(CHUNK.fullmatch, self.keys()) if match}

    def delete_chunks(self) -> None:
        with store_errors(self.folder):
            settled(self.store.delete_range(ts.KvStore.KeyRange("c/", "c0")), self.folder)


def _fill(
    made: _Made,
    metadata: dict[str, Any],
    curve: Curve,
    source: Source,
    on_rows: Callable[[int], Any] | None,
) -> None:
    """This process's chunks that are not done; each is waited for when the next is written."""
    devices = jax.local_devices()
    mesh = data_mesh(devices[:1] if devices[0].platform == "cpu" else devices)
    curve = jax.device_put(curve, jax.sharding.NamedSharding(mesh, PartitionSpec()))
    block, n = _block(metadata), source.num_latents
    rows, number = round_up(bucket(block), mesh.size), -(-n // block)
    process, processes = jax.process_index(), jax.process_count()
    own = range(number * process // processes, number * (process + 1) // processes)
    done = made.chunks()
    missing = [i for i in own if i not in done]
    with store_errors(made.folder):
        data = open_zarr(made.folder, metadata)

    def read(i: int) -> Array:
        first, stop = i * block, min((i + 1) * block, n)
        x = np.zeros((rows, source.latent_dim), np.float32)
        x[: stop - first] = read_in_order(source, first, stop - first)
        return jax.device_put(x, divided(mesh))

    writes: deque[tuple[int, Any]] = deque()

    def wait() -> None:
        count, write = writes.popleft()
        with store_errors(made.folder):
            settled(write, made.folder)
        if on_rows is not None:
            on_rows(count)

    with ThreadPoolExecutor(1) as reader:
        ahead = deque(reader.submit(read, i) for i in missing[:1])
        for position, i in enumerate(missing, 1):
            x = ahead.popleft().result()
            ahead.extend(reader.submit(read, j) for j in missing[position : position + 1])
            first, stop = i * block, min((i + 1) * block, n)
            line, fraction, squared_distance = (
                np.asarray(values)[: stop - first] for values in _project(mesh, curve, x)
            )
            values = np.stack([line.astype(np.float64) + fraction, squared_distance], 1)
            writes.append((stop - first, data[first:stop].write(values)))
            if len(writes) > 1:
                wait()
        while writes:
            wait()


@functools.partial(jax.jit, static_argnames="mesh")
def _project(mesh: Mesh, curve: Curve, x: Array) -> Projection:
    if mesh.size == 1:
        return project(curve, x)
    return jax.shard_map(
        project, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
        out_specs=PartitionSpec(AXIS),
    )(curve, x)  # fmt: skip


# The output.


def _prepare(made: _Made, curve: Curve, source: Source, overwrite: bool) -> dict[str, Any]:
    """The metadata of the array; makes its place, or checks that it is of these latents."""
    n, width = source.num_latents, source.latent_dim
    assert n is not None
    size = n * 2 * 8
    if made.remote and not made.is_zarr and size > LARGEST_PUT:
        raise ValueError(
            f"{made.path} takes {size:,} bytes, more than an object that is put in one piece: name"
            f" {made.path.removesuffix('npy')}zarr, which has many"
        )
    found = made.note(UNFINISHED)
    # an .npy is made of the chunks
    taken = 0 if found is not None else size * (1 if made.is_zarr else 2)
    marker = ZARR if made.is_zarr else None
    check_free(made.path, overwrite=overwrite, marker=marker, size=taken)
    codewords = np.ascontiguousarray(curve.codewords, np.float32)
    some = read_in_order(source, 0, min(SAMPLED, n))
    block = min(MAX_BLOCK, max(1, BLOCK_FLOATS // width), n)
    about = {
        "latents": [n, width],
        "first latents": hashlib.sha256(some.tobytes()).hexdigest(),
        "curve": hashlib.sha256(codewords.tobytes()).hexdigest(),
    }
    metadata = zarr_metadata((n, 2), np.float64, (block, 2), about)
    if found != _text(metadata) and made.in_place and overwrite:
        for name in (ZARR, UNFINISHED):
            made.set_note(name, None)
        made.delete_chunks()
        found = None
    if found is None and not made.in_place:  # killed just before it was renamed
        found = made.note(ZARR)
    if found is None and not made.keys():
        made.set_note(UNFINISHED, _text(metadata))
    elif found != _text(metadata):
        raise ValueError(
            f"{made.folder} keeps the positions of other latents or of another curve, or something"
            " else: delete it, or write elsewhere"
        )
    return metadata


def _finish(made: _Made, metadata: dict[str, Any], overwrite: bool) -> None:
    n, block = metadata["shape"][0], _block(metadata)
    if len(made.chunks()) < -(-n // block):
        raise ValueError(
            f"{made.folder} lacks chunks that other processes have written: all processes need one"
            " place that they share"
        )
    if made.is_zarr:
        made.set_note(ZARR, _text(metadata))
        made.set_note(UNFINISHED, None)
        if not made.in_place:
            with new_folder(made.path, marker=ZARR, overwrite=overwrite) as new:
                new.rmdir()
                os.replace(made.folder, new)
        return
    header = {"descr": "<f8", "fortran_order": False, "shape": (n, 2)}
    with new_file(made.path, overwrite=overwrite) as new, new.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        with store_errors(made.folder):
            data = open_zarr(made.folder, metadata)
            for first in range(0, n, 16 * block):
                stop = min(first + 16 * block, n)
                file.write(data[first:stop].read().result().tobytes())
    made.delete_chunks()
    made.set_note(UNFINISHED, None)
    if not made.remote:
        shutil.rmtree(made.folder)


def _text(metadata: dict[str, Any]) -> str:
    return json.dumps(metadata, indent=1) + "\n"


def _block(metadata: dict[str, Any]) -> int:
    return metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
