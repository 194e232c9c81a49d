"""What reading costs where latents lie, beside a memory map of an .npy of the same rows.

    python -m benchmarks.sources          # six minutes or so; 8 GiB of a temporary folder
    python -m benchmarks.sources --large  # and a zarr of 8 GiB, three minutes more
    python -m benchmarks.sources --quick  # a trial: small sizes, nothing saved

Four tables:

    rates    of each container, read in random order: pieces of 128 KiB, or of a chunk where that is
             larger, many in one call. A memory map gives the same pieces right after; the files are
             in the system's cache, so that no disk is measured but what a container adds to one
    objects  the same of S3, served by moto on this machine, in another process that answers 30 ms
             late; the pieces are 2 MiB at least
    soak     200 blocks of a fit from there: how long the device waits for the next block, beside
             the same blocks read without a fit, and fitted from memory
    large    the most memory that a process has when it fits a zarr of 8 GiB, in one pass a stage
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import h5py
import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorstore as ts
from safetensors.numpy import save_file

import sfvq_jax.stages
from benchmarks.report import report
from sfvq_jax import Curve, HostSource, LeastSquares, fit
from sfvq_jax.io.store import store_spec
from sfvq_jax.rows.arrow import DatasetRows
from sfvq_jax.rows.opening import open_rows
from sfvq_jax.rows.rows import Rows
from sfvq_jax.sources import as_source

N, D = 2**18, 512  # 512 MiB of float32
PIECE_BYTES = 2**17  # read together, as a fit does
CALL_BYTES = 2**25  # in one call: a block
REPEATS = 5

DELAY = 0.03  # seconds that the server waits before it answers
OBJECTS_N = 2**16  # 128 MiB
SOAK_BLOCKS, SOAK_ROUNDS = 200, 8
SOAK_CODEWORDS, SOAK_BLOCK = 1024, 4096
BUCKET = "latents"

LARGE_N = 2**22  # 8 GiB
SHARD_BYTES, INNER_BYTES = 2**27, 2**20

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="fit a zarr of 8 GiB too")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing saved")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    less = 16 if options.quick else 1
    tables = {}
    with tempfile.TemporaryDirectory() as folder:
        x = latents(N // less)
        tables["Rates, in random order"] = rates(Path(folder), x, 2 if options.quick else REPEATS)
    with server():
        x = latents(OBJECTS_N // less)
        put_objects(x)
        tables["Objects, answered 30 ms late"] = object_rates(x, 2 if options.quick else REPEATS)
        tables["Soak"] = soak(x, SOAK_BLOCKS // (5 if options.quick else 1))
    if options.large:
        tables["A large zarr"] = [large(LARGE_N // (4 * less if options.quick else 1))]
    report(
        "sources",
        tables,
        packages=("jax", "numpy", "tensorstore", "pyarrow", "h5py", "datasets", "moto"),
        save=not options.quick,
        load=os.getloadavg(),
    )


def latents(n: int) -> np.ndarray:
    """Gaussian [n, D] float32."""
    return np.random.default_rng(0).standard_normal((n, D), np.float32)


# Rates.


def rates(folder: Path, x: np.ndarray, repeats: int) -> list[Row]:
    """Of all containers beside the map, in turn."""
    np.save(folder / "x.npy", x)
    containers = {name: write(folder, x) for name, write in CONTAINERS.items()}
    return timed(containers, np.load(folder / "x.npy", mmap_mode="r"), repeats, PIECE_BYTES)


def timed(
    containers: dict[str, Rows], mapped: np.ndarray, repeats: int, piece_bytes: int
) -> list[Row]:
    """Rows a table; medians over passes, each over all rows, of a container and then of the map."""
    times: dict[str, list[list[float]]] = {name: [] for name in containers}
    for repeat in range(repeats):
        for name, rows in containers.items():
            calls = in_random_order(rows, repeat, piece_bytes)
            times[name].append([seconds(rows.read, calls), seconds(of_map(mapped), calls)])
    table = []
    for name, rows in containers.items():
        own, of_the_map = np.median(times[name], axis=0)
        ratio = np.median([map_ / mine for mine, map_ in times[name]])
        table.append(
            {
                "container": name,
                "rows a chunk": rows.chunk,
                "MB/s": mapped.nbytes / 1e6 / own,
                "memory map MB/s": mapped.nbytes / 1e6 / of_the_map,
                "of the map": float(ratio),
            }
        )
    return table


def in_random_order(rows: Rows, seed: int, piece_bytes: int) -> list[list[tuple[int, int]]]:
    """All rows once, as the spans of each call; pieces begin where chunks do."""
    n, row_bytes = rows.shape[0], D * rows.dtype.itemsize
    piece = -(-max(1, piece_bytes // row_bytes) // rows.chunk) * rows.chunk
    starts = np.random.default_rng(seed).permutation(np.arange(0, n, piece))
    spans = [(start, min(start + piece, n)) for start in starts.tolist()]
    step = max(1, CALL_BYTES // (piece * row_bytes))
    return [spans[at : at + step] for at in range(0, len(spans), step)]


def of_map(mapped: np.ndarray) -> Callable[[list[tuple[int, int]]], np.ndarray]:
    return lambda spans: np.concatenate([mapped[start:stop] for start, stop in spans])


def seconds(read: Callable, calls: list) -> float:
    """That reading takes, one call after another."""
    began = time.perf_counter()
    for spans in calls:
        read(spans)
    return time.perf_counter() - began


# Containers: functions (folder, x) -> rows that read what they wrote.


def fbin(folder: Path, x: np.ndarray) -> Rows:
    with (folder / "x.fbin").open("wb") as file:
        np.uint32(x.shape).tofile(file)
        x.tofile(file)
    return open_rows(folder / "x.fbin")


def safetensors(folder: Path, x: np.ndarray) -> Rows:
    save_file({"latents": x}, folder / "x.safetensors")
    return open_rows(folder / "x.safetensors")


def npy_parts(folder: Path, x: np.ndarray) -> Rows:
    (folder / "parts").mkdir()
    for i, part in enumerate(np.array_split(x, 10)):
        np.save(folder / "parts" / f"part_{i}.npy", part)
    return open_rows(folder / "parts")


def zarr(uri: str, shape: tuple[int, int], chunk: int, inner: int | None, kind: str = "zarr3"):
    """An array of TensorStore, uncompressed: rows a chunk, and of those in a shard."""
    metadata: dict[str, Any] = {"shape": shape, "compressor": None, "dtype": "<f4"}
    metadata["chunks"] = [chunk, shape[1]]
    if kind == "zarr3":
        codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]
        if inner is not None:
            within = {"chunk_shape": [inner, shape[1]], "codecs": codecs}
            codecs = [{"name": "sharding_indexed", "configuration": within}]
        grid = {"name": "regular", "configuration": {"chunk_shape": [chunk, shape[1]]}}
        metadata = {
            "shape": shape, "data_type": "float32", "chunk_grid": grid, "codecs": codecs
        }  # fmt: skip
    spec = {"driver": kind, "kvstore": store_spec(uri + "/"), "metadata": metadata}
    return ts.open(spec, create=True, delete_existing=True).result()


def zarr3_whole(folder: Path, x: np.ndarray) -> Rows:
    zarr(f"{folder}/whole.zarr", x.shape, 512, None)[:].write(x).result()
    return open_rows(folder / "whole.zarr")


def zarr3_sharded(folder: Path, x: np.ndarray) -> Rows:
    zarr(f"{folder}/sharded.zarr", x.shape, 2**14, 512)[:].write(x).result()
    return open_rows(folder / "sharded.zarr")


def zarr2(folder: Path, x: np.ndarray) -> Rows:
    zarr(f"{folder}/old.zarr", x.shape, 512, None, "zarr")[:].write(x).result()
    return open_rows(folder / "old.zarr")


def arrow(folder: Path, x: np.ndarray) -> Rows:
    table = lists(x)
    with pa.OSFile(f"{folder}/x.arrow", "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
        out.write_table(table, max_chunksize=1000)
    return DatasetRows(datasets.Dataset.from_file(f"{folder}/x.arrow"))


def parquet(folder: Path, x: np.ndarray) -> Rows:
    pq.write_table(lists(x), folder / "x.parquet", row_group_size=1024)
    return open_rows(folder / "x.parquet")


def parquet_plain(folder: Path, x: np.ndarray) -> Rows:
    options = {"use_dictionary": False, "compression": "none"}
    pq.write_table(lists(x), folder / "plain.parquet", row_group_size=1024, **options)
    return open_rows(folder / "plain.parquet")


def lists(x: np.ndarray) -> pa.Table:
    return pa.table({"latents": pa.FixedSizeListArray.from_arrays(x.reshape(-1), x.shape[1])})


def hdf5(folder: Path, x: np.ndarray) -> Rows:
    with h5py.File(folder / "x.h5", "w") as file:
        file["latents"] = x
    return open_rows(folder / "x.h5")


def hdf5_chunked(folder: Path, x: np.ndarray) -> Rows:
    with h5py.File(folder / "chunked.h5", "w") as file:
        file.create_dataset("latents", data=x, chunks=(512, x.shape[1]))
    return open_rows(folder / "chunked.h5")


CONTAINERS: dict[str, Callable[[Path, np.ndarray], Rows]] = {
    ".npy": lambda folder, x: open_rows(folder / "x.npy"),
    "ten .npy": npy_parts,
    ".fbin": fbin,
    ".safetensors": safetensors,
    "zarr v3, chunks of 1 MiB": zarr3_whole,
    "zarr v3, the same in shards of 32 MiB": zarr3_sharded,
    "zarr v2, chunks of 1 MiB": zarr2,
    "datasets.Dataset (Arrow)": arrow,
    "Parquet, groups of 2 MiB": parquet,
    "Parquet, no dictionary, uncompressed": parquet_plain,
    "HDF5": hdf5,
    "HDF5, chunks of 1 MiB": hdf5_chunked,
}


# Objects.


@contextlib.contextmanager
def server() -> Iterator[None]:
    """An S3 of moto in another process, to which this process's stores go."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [sys.executable, "-m", "benchmarks.sources", "--serve", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.terminate()
        process.wait()


def serve(port: int) -> None:
    """Answers on a port, each request in a thread of its own, `DELAY` late."""
    import logging

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    answer = DomainDispatcherApplication(create_backend_app)

    def late(environment: dict, start_response: Callable) -> Any:
        time.sleep(DELAY)
        return answer(environment, start_response)

    listening = make_server("127.0.0.1", port, late, threaded=True)
    print("ready", flush=True)
    listening.serve_forever()


def put_objects(x: np.ndarray) -> None:
    import boto3

    boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).create_bucket(Bucket=BUCKET)
    zarr(f"s3://{BUCKET}/x.zarr", x.shape, 1024, None)[:].write(x).result()
    store = ts.KvStore.open(store_spec(f"s3://{BUCKET}/parts/")).result()
    for i, part in enumerate(np.array_split(x, 16)):
        head = np.uint32(part.shape).tobytes()
        store.write(f"part_{i}.fbin", head + part.tobytes()).result()


def object_rates(x: np.ndarray, repeats: int) -> list[Row]:
    names = {"zarr v3, chunks of 2 MiB": "x.zarr", "sixteen .fbin": "parts/"}
    containers = {name: open_rows(f"s3://{BUCKET}/{uri}") for name, uri in names.items()}
    return timed(containers, x, repeats, 2**21)


def soak(x: np.ndarray, blocks: int) -> list[Row]:
    """A fit from S3 beside the same blocks read alone, and the same fit from memory."""
    uri = f"s3://{BUCKET}/x.zarr"
    curve = Curve(jax.numpy.asarray(x[:SOAK_CODEWORDS]))
    solver = LeastSquares(
        rounds=SOAK_ROUNDS, samples=blocks * SOAK_BLOCK // SOAK_ROUNDS, block=SOAK_BLOCK,
        tolerance=0, moves=(),
    )  # fmt: skip
    source, key = as_source(uri), jax.random.key(0)
    began = time.perf_counter()
    for i in range(blocks):
        source.read(key, i * SOAK_BLOCK, SOAK_BLOCK)
    alone = time.perf_counter() - began
    rows = [{"what": "read alone", "blocks": blocks, "s": alone}]
    for what, of in (("fitted from memory", HostSource(x)), ("fitted from S3", uri)):
        with watched() as watch:
            fit(key, of, bits=SOAK_CODEWORDS.bit_length() - 1, solver=solver, start=curve)
        shares = {"s waiting": watch.waiting, "share waiting": watch.waiting / watch.seconds}
        rows.append({"what": what, "blocks": watch.blocks, "s": watch.seconds, **shares})
    return rows


class Watch:
    """Blocks taken in after the first one, their seconds, and those of waiting for them."""

    blocks, seconds, waiting = 0, 0.0, 0.0


@contextlib.contextmanager
def watched() -> Iterator[Watch]:
    """Watches fits within the `with`, but for the first block, with which all is compiled."""
    watch, feeds = Watch(), sfvq_jax.stages.feeds
    first = True

    def watching(*arguments: Any) -> Iterator[Any]:
        nonlocal first
        feed, asked = feeds(*arguments), time.perf_counter()
        for block in feed:
            given = time.perf_counter()
            yield block
            if not first:
                watch.blocks += 1
                watch.waiting += given - asked
                watch.seconds += time.perf_counter() - asked
            first, asked = False, time.perf_counter()

    sfvq_jax.stages.feeds = watching
    try:
        yield watch
    finally:
        sfvq_jax.stages.feeds = feeds


# A large zarr.


def large(n: int) -> Row:
    """Writes it shard by shard, and fits it in another process."""
    row_bytes = 4 * D
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/latents.zarr"
        shard = SHARD_BYTES // row_bytes
        store = zarr(path, (n, D), shard, INNER_BYTES // row_bytes)
        random = np.random.default_rng(0)
        for start in range(0, n, shard):
            stop = min(start + shard, n)
            store[start:stop].write(random.standard_normal((stop - start, D), np.float32)).result()
        command = [sys.executable, "-m", "benchmarks.scaling", "--fit-file", path]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    return {"GiB": n * row_bytes / 2**30, **json.loads(found.stdout.splitlines()[-1])}


if __name__ == "__main__":
    main()
