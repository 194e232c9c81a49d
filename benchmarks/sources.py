"""What reading costs where latents lie, beside a memory map of an .npy of the same rows.

    python -m benchmarks.sources              # all parts: ten minutes, 8 GiB of a temporary folder
    python -m benchmarks.sources soak large   # some of them
    python -m benchmarks.sources --quick      # a trial: small sizes, nothing saved

Each part has a JSON of its own, results/sources_PART.json:

    rates    of each container, read in random order: pieces of 128 KiB, or of a chunk where that is
             larger, many in one call. A memory map gives the same pieces right after; the files are
             in the system's cache, so that no disk is measured but what a container adds to one.
             The same in seconds of processors, which what else the machine does hardly changes
    objects  the same of S3, served by moto on this machine, in another process that answers 30 ms
             late; the pieces are 2 MiB at least
    soak     200 blocks of a fit from there: how long the device waits for the next block, beside
             the same blocks read without a fit, and fitted from memory
    large    the most memory that a process has when it fits a zarr of 8 GiB, in two passes
"""

import argparse
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
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

N, D = 2**17, 512  # 256 MiB of float32
PIECE_BYTES = 2**17  # read together, as a fit does
CALL_BYTES = 2**26  # in one call: a block of a fit
REPEATS = 3

DELAY = 0.03  # seconds that the server waits before it answers
OBJECTS_N = 2**14  # 32 MiB
SOAK_N, SOAK_D = 2**16, 256  # 64 MiB: more than a round takes
SOAK_BLOCKS, SOAK_ROUNDS = 200, 8
SOAK_CODEWORDS, SOAK_BLOCK = 2048, 2048
BUCKET = "latents"

LARGE_N = 2**22  # 8 GiB
SHARD_BYTES, INNER_BYTES = 2**27, 2**20

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all by default")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing saved")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
    elif options.fit:
        print(json.dumps(fit_large(options.fit)))
    else:
        for part in options.parts or PARTS:
            report(
                f"sources_{part}",
                {part: PARTS[part](options.quick)},
                packages=("jax", "numpy", "tensorstore", "pyarrow", "h5py", "datasets", "moto"),
                save=not options.quick,
                load=os.getloadavg(),
            )


def latents(n: int, d: int = D) -> np.ndarray:
    """Gaussian [n, d] float32."""
    return np.random.default_rng(0).standard_normal((n, d), np.float32)


# Rates.


def rates(quick: bool) -> list[Row]:
    """Of all containers beside the map, in turn."""
    x = latents(N // 4 if quick else N)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "x.npy", x)
        containers = {name: write(folder, x) for name, write in CONTAINERS.items()}
        mapped = np.load(folder / "x.npy", mmap_mode="r")
        return timed(containers, mapped, 1 if quick else REPEATS, PIECE_BYTES)


def timed(
    containers: dict[str, Rows], mapped: np.ndarray, repeats: int, piece_bytes: int
) -> list[Row]:
    """Rows a table; medians over passes, each over all rows, of a container and then of the map."""
    times: dict[str, list[np.ndarray]] = {name: [] for name in containers}
    for repeat in range(repeats):
        for name, rows in containers.items():
            calls = in_random_order(rows, repeat, piece_bytes)
            times[name].append(
                np.stack([seconds(rows.read, calls), seconds(of_map(mapped), calls)])
            )
    table = []
    for name, rows in containers.items():
        (wall, _), (map_wall, _) = np.median(times[name], axis=0)
        ratio = np.median([of_the_map / own for own, of_the_map in times[name]], axis=0)
        table.append(
            {
                "container": name,
                "rows a chunk": rows.chunk,
                "MB/s": mapped.nbytes / 1e6 / wall,
                "memory map MB/s": mapped.nbytes / 1e6 / map_wall,
                "of the map": float(ratio[0]),
                "of the map, by processor time": float(ratio[1]),
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


def seconds(read: Callable, calls: list) -> np.ndarray:
    """That reading takes, one call after another, and those of all processors together."""
    began = time.perf_counter(), time.process_time()
    for spans in calls:
        read(spans)
    return np.array([time.perf_counter() - began[0], time.process_time() - began[1]])


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
        store = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
        store.create_bucket(Bucket=BUCKET)
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


def objects(quick: bool) -> list[Row]:
    """Of S3 beside an array in memory."""
    x = latents(OBJECTS_N // 4 if quick else OBJECTS_N)
    with server():
        zarr(f"s3://{BUCKET}/x.zarr", x.shape, 1024, None)[:].write(x).result()
        store = ts.KvStore.open(store_spec(f"s3://{BUCKET}/parts/")).result()
        for i, part in enumerate(np.array_split(x, 16)):
            store.write(f"part_{i}.fbin", np.uint32(part.shape).tobytes() + part.tobytes()).result()
        names = {"zarr v3, chunks of 2 MiB": "x.zarr", "sixteen .fbin": "parts/"}
        containers = {name: open_rows(f"s3://{BUCKET}/{uri}") for name, uri in names.items()}
        return timed(containers, x, 1 if quick else REPEATS, 2**21)


def soak(quick: bool) -> list[Row]:
    """A fit from S3 beside the same blocks read alone, and the same fit from memory."""
    blocks = SOAK_BLOCKS // 5 if quick else SOAK_BLOCKS
    x = latents(SOAK_N, SOAK_D)
    start = Curve(jax.numpy.asarray(x[:SOAK_CODEWORDS]))
    solver = LeastSquares(
        rounds=SOAK_ROUNDS, samples=blocks * SOAK_BLOCK // SOAK_ROUNDS, block=SOAK_BLOCK,
        tolerance=0, moves=(),
    )  # fmt: skip
    uri, key = f"s3://{BUCKET}/x.zarr", jax.random.key(0)
    with server():
        zarr(uri, x.shape, 512, None)[:].write(x).result()
        source, began = as_source(uri), time.perf_counter()
        for i in range(blocks):
            source.read(key, i * SOAK_BLOCK, SOAK_BLOCK)
        alone = time.perf_counter() - began
        rows: list[Row] = [{"what": "read alone", "blocks": blocks, "s": alone}]
        for what, of in (("fitted from memory", HostSource(x)), ("fitted from S3", uri)):
            with watched() as watch:
                fit(key, of, bits=SOAK_CODEWORDS.bit_length() - 1, solver=solver, start=start)
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


def large(quick: bool) -> list[Row]:
    """Writes it shard by shard, and fits it in another process."""
    n, row_bytes = LARGE_N // 32 if quick else LARGE_N, 4 * D
    shard = SHARD_BYTES // row_bytes
    x, random = latents(shard), np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/latents.zarr"
        store = zarr(path, (n, D), shard, INNER_BYTES // row_bytes)
        for first in range(0, n, shard):
            store[first : first + shard].write(x + random.standard_normal(D, np.float32)).result()
        command = [sys.executable, "-m", "benchmarks.sources", "--fit", path]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    return [{"GiB": n * row_bytes / 2**30, **json.loads(found.stdout.splitlines()[-1])}]


def fit_large(path: str) -> Row:
    """In this process: all rows are looked through, and read once more in a round."""
    solver = LeastSquares(samples="all", rounds=1, moves=())
    before, began = peak_bytes(), time.perf_counter()
    fit(jax.random.key(0), path, bits=4, solver=solver, start=first_curve(path))
    return {
        "s": time.perf_counter() - began,
        "peak GiB before": before / 2**30,
        "peak GiB": peak_bytes() / 2**30,
    }


def first_curve(path: str) -> Curve:
    return Curve(jax.numpy.asarray(open_rows(path).read([(0, 16)])))


def peak_bytes() -> int:
    """The most memory that this process has had at once; from Linux's /proc."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


PARTS = {"rates": rates, "objects": objects, "soak": soak, "large": large}

if __name__ == "__main__":
    main()
