"""Where each of many latents lies on a curve, written to an .npy as large as need be.

While it is made, the file lies in a folder beside it, `positions.npy.part`, with notes of the rows
that are done: what is interrupted goes on there. Several processes write one file that all of them
see, each its own rows.
"""

import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from sfvq_jax.curve import Curve
from sfvq_jax.devices import AXIS, data_mesh, divided, round_up
from sfvq_jax.io.output import check_free, followed
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
MAX_BLOCK = 2**16
NOTE_SECONDS = 5.0  # between notes of what is done
SAMPLED = 256  # rows that tell latents from others
ABOUT, DATA = "about.json", "positions.npy"


def write_positions(
    path: str | Path,
    curve: Curve,
    source: Any,
    *,
    overwrite: bool = False,
    on_rows: Callable[[int], Any] | None = None,
) -> None:
    """Writes position and squared distance of every latent, in the source's order.

    The file is an .npy [N, 2] of float64: `position, squared_distance = np.load(path).T`, or with
    `mmap_mode="r"`. No more than two blocks of latents are in memory. A call that was interrupted
    goes on from where it was, if it is made again.

    Args:
      path: of the .npy.
      curve: K codewords of width D.
      source: what has an order and an end: an array, the path of an .npy, a source on the host.
      overwrite: replace a file that is there.
      on_rows: called with the number of rows that are new, now and then.

    Raises:
      ValueError: latents of another width, or without an end; or a folder of other latents.
      FileExistsError: `path` exists and `overwrite` is false.
    """
    path, source = followed(path), as_rows(source, curve)
    n = source.num_latents
    if jax.process_count() > 1:
        check_alike(
            {
                "number and width of latents": [n, source.latent_dim],
                "latents": likeness(source),
                "curve": hash_of(np.asarray(curve.codewords)),
            }
        )
    folder = path.with_name(path.name + ".part")
    as_first_process(lambda: _prepare(folder, path, curve, source, overwrite))
    in_every_process(lambda: _fill(folder, curve, source, on_rows))
    in_every_process(source.check_unchanged)
    in_all_processes(True)  # all have written
    as_first_process(lambda: _finish(folder, path))


def _fill(folder: Path, curve: Curve, source: Source, on_rows: Callable[[int], Any] | None) -> None:
    """This process's rows that are not done."""
    devices = jax.local_devices()
    mesh = data_mesh(devices[:1] if devices[0].platform == "cpu" else devices)
    curve = jax.device_put(curve, jax.sharding.NamedSharding(mesh, PartitionSpec()))
    block = min(MAX_BLOCK, max(1, BLOCK_FLOATS // source.latent_dim), source.num_latents)
    rows = round_up(bucket(block), mesh.size)
    data = np.load(folder / DATA, mmap_mode="r+")
    process, processes = jax.process_index(), jax.process_count()
    own = [source.num_latents * i // processes for i in (process, process + 1)]

    def read(first: int, stop: int) -> Array:
        x = np.zeros((rows, source.latent_dim), np.float32)
        x[: stop - first] = read_in_order(source, first, stop - first)
        return jax.device_put(x, divided(mesh))

    with ThreadPoolExecutor(1) as reader:
        for first, stop in _missing(folder, *own):
            starts = range(first, stop, block)
            ahead = reader.submit(read, first, min(first + block, stop))
            noted = time.monotonic()
            for begin in starts:
                end = min(begin + block, stop)
                x = ahead.result()
                if end < stop:
                    ahead = reader.submit(read, end, min(end + block, stop))
                line, fraction, squared_distance = (
                    np.asarray(values)[: end - begin] for values in _project(mesh, curve, x)
                )
                data[begin:end, 0] = line.astype(np.float64) + fraction
                data[begin:end, 1] = squared_distance
                if on_rows is not None:
                    on_rows(end - begin)
                if end == stop or time.monotonic() - noted >= NOTE_SECONDS:
                    data.flush()
                    _note(folder, first, end)
                    noted = time.monotonic()


@functools.partial(jax.jit, static_argnames="mesh")
def _project(mesh: Mesh, curve: Curve, x: Array) -> Projection:
    if mesh.size == 1:
        return project(curve, x)
    return jax.shard_map(
        project, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
        out_specs=PartitionSpec(AXIS),
    )(curve, x)  # fmt: skip


# The folder.


def _prepare(folder: Path, path: Path, curve: Curve, source: Source, overwrite: bool) -> None:
    """Makes the folder, or checks that it is of these latents and this curve."""
    done = folder.exists()  # where it is, the space is taken
    size = 0 if done else source.num_latents * 2 * 8
    check_free(path, overwrite=overwrite, size=size)
    codewords = np.ascontiguousarray(curve.codewords, np.float32)
    some = read_in_order(source, 0, min(SAMPLED, source.num_latents))
    about = {
        "latents": [source.num_latents, source.latent_dim],
        "first latents": hashlib.sha256(some.tobytes()).hexdigest(),
        "curve": hashlib.sha256(codewords.tobytes()).hexdigest(),
    }
    if done:
        try:
            found = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if found != about:
            raise ValueError(
                f"{folder} keeps the positions of other latents or of another curve: delete it, or"
                " write elsewhere"
            )
        return
    folder.mkdir()
    shape = (source.num_latents, 2)
    np.lib.format.open_memmap(folder / DATA, "w+", np.float64, shape).flush()
    _write(folder / ABOUT, json.dumps(about))


def _finish(folder: Path, path: Path) -> None:
    os.replace(folder / DATA, path)
    shutil.rmtree(folder)


def _note(folder: Path, first: int, stop: int) -> None:
    """Keeps that rows first … stop - 1 are done."""
    _write(folder / f"done-{first:015d}", str(stop))


def _missing(folder: Path, first: int, stop: int) -> Iterator[tuple[int, int]]:
    """The stretches of rows first … stop - 1 that no note says are done."""
    for note in sorted(folder.glob("done-*")):
        begin, end = int(note.name.removeprefix("done-")), int(note.read_text())
        if end <= first or begin >= stop:
            continue
        if begin > first:
            yield first, begin
        first = max(first, end)
    if first < stop:
        yield first, stop


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f"new-{path.name}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
