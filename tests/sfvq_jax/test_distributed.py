"""Fits of several processes, each of which reads its own part: the curve of one process."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import sfvq_jax
from sfvq_jax import (
    Adam,
    Curve,
    CurveRecord,
    LeastSquares,
    encode,
    fit,
    load_curve,
    save_curve,
)

N = 5003  # that no number of processes or devices divides
ROOT = Path(sfvq_jax.__file__).parents[1]

# fits that processes do together, and what each of them has read
WORKER = """
import json, sys
import jax
import jax.numpy as jnp
import numpy as np
from sfvq_jax import Adam, IteratorSource, LeastSquares, fit

coordinator, processes, process, folder, *names = sys.argv[1:]
processes, process = int(processes), int(process)
jax.distributed.initialize(coordinator, processes, process)
x = np.load(f"{folder}/x.npy")


class Recording:
    latent_dim, num_latents, on_device = x.shape[1], len(x), False

    def __init__(self):
        self.reads = []

    def read(self, key, start, count):
        self.reads.append((key is None, int(start), int(count)))
        return np.take(x, np.arange(start, start + count), axis=0, mode="wrap")


first = len(x) // 5 * 2  # uneven parts
own = x[:first] if process == 0 else x[first:][process - 1 :: processes - 1]
recording = Recording()
squares = LeastSquares(rounds=2, tolerance=0, samples="all", block=999)
steps = Adam(samples=2**10, epochs=1, learning_rate=1e-2)
fits = {
    "file": (f"{folder}/x.npy", squares),
    "source": (recording, squares),
    "array": (x, squares),
    "adam": (f"{folder}/x.npy", steps),
    "sampler": (lambda key, n: jax.random.normal(key, (n, 3)), steps),
    "iterator": (IteratorSource(np.split(own, range(70, len(own), 70))), squares),
}
results = {}
for name in names:
    source, solver = fits[name]
    result = fit(jax.random.key(0), source, bits=2, solver=solver)
    results[f"{name}_codewords"] = np.asarray(result.curve.codewords)
    results[f"{name}_distortion"] = result.history.distortion
    results[f"{name}_samples"] = result.history.samples
np.savez(f"{folder}/{process}.npz", **results)
json.dump(recording.reads, open(f"{folder}/{process}.json", "w"))
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def start(arguments, devices, cache):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": os.environ["XLA_FLAGS"] + f" --xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def finish(processes, code=0):
    """Waits for processes; what each said on standard output and error."""
    said = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), said
    return said


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32))
    (folder / "worker.py").write_text(WORKER)
    return folder


@pytest.fixture(
    scope="module",
    params=[(2, 2, ["file", "source", "array", "adam", "sampler", "iterator"]), (4, 1, ["source"])],
    ids=["2 processes of 2 devices", "4 processes"],
)
def together(request, folder):
    """What each process of a group got, and what it read."""
    count, devices, names = request.param
    arguments = [folder / "worker.py", f"localhost:{free_port()}", count]
    finish(
        [start([*arguments, i, folder, *names], devices, folder / "cache") for i in range(count)]
    )
    results = [dict(np.load(folder / f"{i}.npz")) for i in range(count)]
    reads = [json.loads((folder / f"{i}.json").read_text()) for i in range(count)]
    return names, results, reads


class TestTogether:
    def test_processes_find_the_curve_of_one(self, folder, together):
        names, results, _ = together
        x = np.load(folder / "x.npy")
        squares = LeastSquares(rounds=2, tolerance=0, samples="all", block=999)
        steps = Adam(samples=2**10, epochs=1, learning_rate=1e-2)
        alone = {
            "file": (folder / "x.npy", squares),
            "source": (folder / "x.npy", squares),
            "array": (x, squares),
            "adam": (folder / "x.npy", steps),
            "sampler": (lambda key, n: jax.random.normal(key, (n, 3)), steps),
        }
        for name in alone.keys() & names:
            source, solver = alone[name]
            expected = fit(jax.random.key(0), source, bits=2, solver=solver)
            for found in results:
                assert_allclose(
                    found[f"{name}_codewords"], expected.curve.codewords, rtol=1e-4, atol=1e-4
                )
                assert_allclose(found[f"{name}_distortion"], expected.history.distortion, rtol=1e-4)
                assert_array_equal(found[f"{name}_samples"], expected.history.samples)

    def test_all_processes_return_the_same(self, together):
        first, *others = together[1]
        for other in others:
            for name, value in first.items():
                assert_array_equal(other[name], value)

    def test_no_row_is_read_by_two_of_them(self, together):
        """Passes over all: one to start from and to measure with, and one a round."""
        _, _, reads = together
        counts = [sum(count for _, _, count in of_process) for of_process in reads]
        passes = sum(counts) / N
        assert passes == int(passes) >= 3
        assert max(counts) < 1.2 * passes * N / len(counts)

    def test_iterators_of_uneven_length_count_every_sample_once(self, together):
        names, results, _ = together
        if "iterator" in names:
            for result in results:
                assert_array_equal(result["iterator_samples"][:2], [N, 2 * N])
                distortions = [result[f"{name}_distortion"][-1] for name in ("iterator", "file")]
                assert_allclose(*distortions, rtol=0.05)


class TestCommandLine:
    def group(self, folder, *arguments):
        coordinator = f"localhost:{free_port()}"
        command = ["-m", "sfvq_jax.cli", "fit", folder / "x.npy", "--bits", "2", "--rounds", "3"]
        command += ["--tolerance", "0", *arguments, "--distributed", "--coordinator", coordinator]
        command += ["--processes", "2", "--process-id"]
        return [start([*command, i], 1, folder / "cache") for i in range(2)]

    def test_two_processes_that_were_killed_go_on_to_the_same_curve(self, folder, tmp_path):
        finish(self.group(folder, "-o", tmp_path / "expected.npz"))
        states = tmp_path / "states"
        resumable = ["--checkpoint", states, "--checkpoint-seconds", "0"]
        resumable += ["-o", tmp_path / "curve.npz"]
        processes = self.group(folder, *resumable)
        while not list(states.glob("[1-9]")):
            assert all(process.poll() is None for process in processes)
            time.sleep(0.01)
        for process in processes:
            process.kill()
            process.communicate()
        assert not (tmp_path / "curve.npz").exists()
        said = finish(self.group(folder, *resumable))
        assert "curve.npz: 4 codewords" in said[0][0]  # the first speaks for all
        assert "codewords" not in said[1][0]
        found, expected = (load_curve(tmp_path / f"{name}.npz") for name in ("curve", "expected"))
        assert_array_equal(found.curve.codewords, expected.curve.codewords)
        assert_array_equal(found.history.loss, expected.history.loss)

    def test_positions_are_written_by_two_processes(self, folder, tmp_path):
        curve, path = Curve(jnp.asarray(np.load(folder / "x.npy")[:4])), tmp_path / "p.npy"
        save_curve(tmp_path / "c.npz", CurveRecord(curve))
        command = ["-m", "sfvq_jax.cli", "project", folder / "x.npy", tmp_path / "c.npz"]
        command += ["-o", path, "--distributed", "--coordinator", f"localhost:{free_port()}"]
        command += ["--processes", "2", "--process-id"]
        finish([start([*command, i], 1, folder / "cache") for i in range(2)])
        expected = encode(curve, np.load(folder / "x.npy"))
        assert_allclose(np.load(path)[:, 0], expected, atol=1e-5)
        assert {entry.name for entry in tmp_path.iterdir()} == {"c.npz", "p.npy"}

    def test_what_one_process_refuses_all_refuse(self, folder, tmp_path):
        (tmp_path / "curve.npz").write_text("here already")
        for _, errors in finish(self.group(folder, "-o", tmp_path / "curve.npz"), code=2):
            assert f"{tmp_path / 'curve.npz'} exists already" in errors
