"""Containers of one array, and a server of pages that can be told to fail."""

import http.server
import threading
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tensorstore as ts
from safetensors.numpy import save_file

N, D = 1000, 8


@pytest.fixture(scope="session")
def x():
    return np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)


def write_zarr(path, x, *, chunk=64, shard=None, version=3):
    """An array of zarr of these rows; returns it."""
    kind = {"float32": "<f4", "int8": "|i1"}
    if version == 2:
        metadata = {"shape": x.shape, "chunks": [chunk, *x.shape[1:]], "dtype": kind[x.dtype.name]}
    else:
        grid = {"name": "regular", "configuration": {"chunk_shape": [shard or chunk, *x.shape[1:]]}}
        metadata = {"shape": x.shape, "data_type": x.dtype.name, "chunk_grid": grid}
        if shard is not None:
            inner = {"chunk_shape": [chunk, *x.shape[1:]], "codecs": [{"name": "bytes"}]}
            metadata["codecs"] = [{"name": "sharding_indexed", "configuration": inner}]
    driver = {2: "zarr", 3: "zarr3"}[version]
    store = {"driver": "file", "path": f"{path}/"}
    array = ts.open({"driver": driver, "kvstore": store, "metadata": metadata}, create=True)
    array.result().write(x).result()
    return Path(path)


@pytest.fixture(scope="session")
def containers(tmp_path_factory, x):
    """A folder of all kinds of files and folders that hold x, or its bfloat16."""
    folder = tmp_path_factory.mktemp("containers")
    np.save(folder / "x.npy", x)
    np.save(folder / "half.npy", x.astype(np.float16))
    np.save(folder / "brain.npy", x.astype(ml_dtypes.bfloat16))
    save_file({"emb": x, "norm": x[:, 0].copy()}, folder / "x.safetensors")
    save_file({"x": x.astype(ml_dtypes.bfloat16)}, folder / "brain.safetensors")
    counts = np.uint32([N, D]).tobytes()
    (folder / "x.fbin").write_bytes(counts + x.tobytes())
    (folder / "x.u8bin").write_bytes(counts + quantised(x).astype(np.uint8).tobytes())
    (folder / "x.i8bin").write_bytes(counts + (quantised(x) - 128).astype(np.int8).tobytes())
    write_zarr(folder / "x2.zarr", x, version=2)
    write_zarr(folder / "x3.zarr", x)
    write_zarr(folder / "sharded.zarr", x, shard=256)
    write_zarr(folder / "brain.zarr", x.astype(ml_dtypes.bfloat16))
    write_zarr(folder / "int8.zarr", (quantised(x) - 128).astype(np.int8))
    write_zarr(folder / "group.zarr" / "emb", x)
    write_zarr(folder / "group.zarr" / "norm", x[:, 0])
    (folder / "group.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    (folder / "parts").mkdir()
    ends = [0, 300, 310, 310, N]  # of different lengths, one of them without rows
    for i, first, last in zip((0, 1, 2, 10), ends[:-1], ends[1:], strict=True):
        np.save(folder / "parts" / f"emb_{i}.npy", x[first:last])
    return folder


def quantised(x):
    return np.clip(np.round(16 * x + 128), 0, 255).astype(int)


class Pages(http.server.ThreadingHTTPServer):
    """A folder by HTTP.

    Attributes:
      address: of the folder.
      faults: of a page, the codes of its next answers; "short" ends in the middle.
      asked: the ranges that were asked for, by page.
    """

    daemon_threads = True

    def __init__(self, folder):
        self.folder, self.faults, self.asked = Path(folder), {}, {}
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        pages, name = self.server, self.path.removeprefix("/")
        asked = self.headers.get("Range")
        pages.asked.setdefault(name, []).append(asked)
        fault = (pages.faults.get(name) or [None]).pop(0)
        file = pages.folder / name
        if isinstance(fault, int) or not file.is_file():
            self.answer(fault or 404, b"", {})
            return
        data, code, headers = file.read_bytes(), 200, {"ETag": f'"{file.stat().st_mtime_ns}"'}
        if asked is not None:
            first, last = asked.removeprefix("bytes=").split("-")
            start = int(first) if first else len(data) - int(last)
            stop = min(int(last) + 1 if first and last else len(data), len(data))
            headers["Content-Range"], code = f"bytes {start}-{stop - 1}/{len(data)}", 206
            if start >= len(data):
                self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            data = data[start:stop]
        self.answer(code, data, headers, short=fault == "short")

    def answer(self, code, data, headers, short=False):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if short else data)
        self.close_connection = short

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    """A function that serves a folder."""
    servers = []

    def start(folder):
        servers.append(Pages(folder))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def in_bucket(s3, containers):
    """The URI of a folder in a bucket that holds what `containers` does."""
    uri = f"{s3}/rows"
    store = ts.KvStore.open(_spec(uri)).result()
    files = [file for file in containers.rglob("*") if file.is_file()]
    writes = [store.write(str(file.relative_to(containers)), file.read_bytes()) for file in files]
    for write in writes:
        write.result()
    return uri


def _spec(uri):
    from sfvq_jax.io.store import store_spec

    return store_spec(uri + "/")
