"""Fits of several processes, each of which reads its own part: the curve of one process."""

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore as ts
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
from sfvq_jax.cli.joining import _address, _listen, _meet
from sfvq_jax.io.objects import read_object
from sfvq_jax.io.store import store_spec

N = 5003  # that no number of processes or devices divides
ROOT = Path(sfvq_jax.__file__).parents[1]
ROUNDS = ["--rounds", "12"]  # enough that none ends before it is ended

# fits that processes do together, and what each of them has read
WORKER = """
import json, sys
import jax
import jax.numpy as jnp
import numpy as np
import tensorstore as ts
from sfvq_jax import Adam, Curve, IteratorSource, LeastSquares, fit
from sfvq_jax.io import positions, store

store.CACHE_BYTES = 0  # what is read is read from the disk


def bytes_read():
    name = "/tensorstore/kvstore/file/bytes_read"
    found = ts.experimental_collect_matching_metrics(name)
    return sum(metric["values"][0]["value"] for metric in found)


coordinator, processes, process, folder, output, *names = sys.argv[1:]
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
    "zarr": (f"{folder}/x.zarr", squares),
    "source": (recording, squares),
    "array": (x, squares),
    "adam": (f"{folder}/x.npy", steps),
    "sampler": (lambda key, n: jax.random.normal(key, (n, 3)), steps),
    "iterator": (IteratorSource(np.split(own, range(70, len(own), 70))), squares),
}
results = {}
for name in names:
    (source, solver), before = fits[name], bytes_read()
    result = fit(jax.random.key(0), source, bits=2, solver=solver)
    results[f"{name}_bytes"] = bytes_read() - before
    results[f"{name}_codewords"] = np.asarray(result.curve.codewords)
    results[f"{name}_distortion"] = result.history.distortion
    results[f"{name}_samples"] = result.history.samples
positions.MAX_BLOCK = 500
positions.write_positions(output, Curve(jnp.asarray(x[:4])), f"{folder}/x.npy")
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
    x = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
    np.save(folder / "x.npy", x)
    grid = {"name": "regular", "configuration": {"chunk_shape": [25, 3]}}
    metadata = {"shape": x.shape, "data_type": "float32", "chunk_grid": grid}
    place = {"driver": "file", "path": f"{folder}/x.zarr/"}
    array = ts.open({"driver": "zarr3", "kvstore": place, "metadata": metadata}, create=True)
    array.result().write(x).result()
    (folder / "worker.py").write_text(WORKER)
    return folder


@pytest.fixture(
    scope="module",
    params=[
        (2, 2, ["file", "zarr", "source", "array", "adam", "sampler", "iterator"]),
        (4, 1, ["source"]),
    ],
    ids=["2 processes of 2 devices", "4 processes"],
)
def together(request, folder, s3):
    """What each process of a group got, and what it read."""
    count, devices, names = request.param
    arguments = [folder / "worker.py", f"localhost:{free_port()}", count]
    further = [folder, f"{s3}/{count}-processes.zarr", *names]
    finish([start([*arguments, i, *further], devices, folder / "cache") for i in range(count)])
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
            "zarr": (folder / "x.npy", squares),
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
                if not name.endswith("_bytes"):
                    assert_array_equal(other[name], value)

    def test_no_row_is_read_by_two_of_them(self, together):
        """Passes over all: one to start from and to measure with, and one a round."""
        _, _, reads = together
        # but that each looks at all of so few, whether it has what the others have
        counts = [sum(count for _, _, count in of_process) - N for of_process in reads]
        passes, rest = divmod(sum(counts), N)
        assert passes >= 3
        assert rest in (0, 999)  # of a round that would come next, the first block
        assert max(counts) < 1.2 * sum(counts) / len(counts)

    def test_each_reads_the_bytes_of_its_rows_only(self, together):
        """Of an array of zarr; passes as above, and one in which rows are looked through."""
        names, results, reads = together
        if "zarr" not in names:
            return
        rows = sum(count for of_process in reads for _, _, count in of_process)
        passes = rows / N - len(reads) + 1
        size = N * 3 * 4
        for result in results:
            # but that each looks at all of so few, and at some of all places for their middle
            own = result["zarr_bytes"] - 2 * size
            assert 0.4 * passes * size < own < 0.6 * passes * size

    def test_iterators_of_uneven_length_count_every_sample_once(self, together):
        names, results, _ = together
        if "iterator" in names:
            for result in results:
                assert_array_equal(result["iterator_samples"][:2], [N, 2 * N])
                distortions = [result[f"{name}_distortion"][-1] for name in ("iterator", "file")]
                assert_allclose(*distortions, rtol=0.05)

    def test_they_write_the_positions_of_all_latents_to_one_array_at_a_uri(
        self, folder, together, s3
    ):
        spec = {
            "driver": "zarr3",
            "kvstore": store_spec(f"{s3}/{len(together[1])}-processes.zarr/"),
        }
        found = ts.open(spec | {"fill_missing_data_reads": False}).result().read().result()
        x = np.load(folder / "x.npy")
        assert_allclose(found[:, 0], encode(Curve(jnp.asarray(x[:4])), x), atol=1e-5)


def group(folder, *arguments, others=None, count=2):
    coordinator = f"localhost:{free_port()}"
    command = ["--bits", "2", "--rounds", "3", "--tolerance", "0", *arguments]
    command += ["--distributed", "--coordinator", coordinator, "--processes", count]
    sources = [folder / "x.npy", *[(others or folder) / "x.npy"] * (count - 1)]
    return [
        start(
            ["-m", "sfvq_jax.cli", "fit", source, *command, "--process-id", i],
            1,
            folder / "cache",
        )
        for i, source in enumerate(sources)
    ]


@pytest.fixture(scope="module")
def expected(folder):
    """The curve of two processes that nobody ended."""
    finish(group(folder, *ROUNDS, "-o", folder / "expected.npz"))
    return load_curve(folder / "expected.npz")


class TestCommandLine:
    def test_three_of_which_one_was_killed_go_on_as_two_from_what_a_bucket_keeps(
        self, folder, expected, s3
    ):
        states, curve = f"{s3}/three/states", f"{s3}/three/curve.npz"
        resumable = [*ROUNDS, "--checkpoint", states, "--checkpoint-seconds", "0", "-o", curve]
        processes = group(folder, *resumable, count=3)
        while len(json.loads(read_object(f"{states}/fit.json") or "{}").get("states", [])) < 2:
            assert all(process.poll() is None for process in processes)
            time.sleep(0.01)
        processes[1].kill()
        said = [process.communicate(timeout=30)[1] for process in processes]
        for process in (0, 2):
            assert processes[process].returncode == 2
            assert said[process].endswith(f"the same commands go on from what {states} keeps\n")
        assert read_object(curve) is None
        finish(group(folder, *resumable))
        found = load_curve(curve)
        assert_allclose(found.curve.codewords, expected.curve.codewords, rtol=1e-3, atol=1e-3)
        assert_array_equal(found.history.samples, expected.history.samples)

    def test_processes_of_which_one_was_ended_go_on_to_the_same_curve(
        self, folder, expected, tmp_path
    ):
        """By SIGTERM, which is told to all and saves their state, and by SIGKILL."""
        states = tmp_path / "states"
        resumable = [*ROUNDS, "--checkpoint", states, "--checkpoint-seconds", "0"]
        resumable += ["-o", tmp_path / "curve.npz"]
        go_on = f"the same commands go on from what {states} keeps\n"
        for signal_number, victim in ((signal.SIGTERM, 1), (signal.SIGKILL, 0)):
            before = set(states.glob("[1-9]*"))
            processes = group(folder, *resumable)
            while not {path for path in states.glob("[1-9]*") if path.name.isdigit()} - before:
                assert all(process.poll() is None for process in processes)
                time.sleep(0.01)
            processes[victim].send_signal(signal_number)
            said = [process.communicate(timeout=30)[1] for process in processes]
            if signal_number == signal.SIGTERM:
                assert [process.returncode for process in processes] == [143, 143]
                for errors in said:  # of itself, or of the other one, where that was first
                    assert re.fullmatch(
                        rf"sfvq-jax fit: (process [01]: )?stopped; {re.escape(go_on)}", errors
                    )
            else:
                assert processes[1].returncode == 2
                assert said[1].startswith("sfvq-jax fit: process 0 ended without a word: ")
                assert said[1].endswith(go_on)
                assert said[1].count("\n") == 1
            assert not (tmp_path / "curve.npz").exists()
        said = finish(group(folder, *resumable))
        assert "curve.npz: 4 codewords" in said[0][0]  # the first speaks for all
        assert "codewords" not in said[1][0]
        found = load_curve(tmp_path / "curve.npz")
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
        for _, errors in finish(group(folder, "-o", tmp_path / "curve.npz"), code=2):
            assert f"{tmp_path / 'curve.npz'} exists already" in errors

    def test_an_interrupt_of_one_ends_both(self, folder, tmp_path):
        log = tmp_path / "log.json"
        endless = ["--rounds", "100000", "--log-json", log, "-o", tmp_path / "curve.npz"]
        processes = group(folder, *endless)
        while not log.exists() or not log.read_text():
            assert all(process.poll() is None for process in processes)
            time.sleep(0.01)
        processes[1].send_signal(signal.SIGINT)
        said = [process.communicate(timeout=30)[1] for process in processes]
        assert [process.returncode for process in processes] == [130, 130]
        assert said == ["sfvq-jax fit: process 1: stopped\n", "sfvq-jax fit: stopped\n"]

    def test_other_latents_are_found_before_the_first_block(self, folder, tmp_path):
        """One row of 5003 is another."""
        x = np.load(folder / "x.npy")
        x[4321] += 1
        np.save(tmp_path / "x.npy", x)
        groups = group(folder, "-o", tmp_path / "c.npz", others=tmp_path)
        for _, errors in finish(groups, code=2):
            assert "process 1 differs from process 0 in its latents (of hash " in errors
            assert errors.count("\n") == 1
        assert not (tmp_path / "c.npz").exists()


class TestMeeting:
    """How processes find one another, in threads of one."""

    def meet(self, *others, processes=2, limit=10.0, where=None):
        """What process 0 and the others get: their links, or what is said."""
        port = free_port()
        facts = {"--bits": "6"}

        def run(process, told):
            options = argparse.Namespace(join_timeout=limit)
            with _listen(port) if process == 0 else contextlib.nullcontext() as listener:
                try:
                    links, _ = _meet(
                        options, [["localhost", port]], "", processes, process, listener, told
                    )
                except ValueError as error:
                    return str(error)
            for link in links.values():
                link.close()
            return sorted(links)

        with ThreadPoolExecutor() as pool:
            each = [(0, facts), *others] if where is None else others
            waiting = []
            for process, told in each:
                waiting.append(pool.submit(run, process, facts | told))
                time.sleep(0.1)  # so that they come in order
            return [future.result(timeout=20) for future in waiting], port

    def test_all_that_were_told_the_same_meet(self):
        found, _ = self.meet((1, {}), (2, {}), processes=3)
        assert found == [[1, 2], [0], [0]]

    def test_one_that_was_told_otherwise_is_named_with_what(self):
        found, _ = self.meet((1, {"--bits": "7"}))
        said = "process 1 has --bits 7, and process 0 --bits 6: tell all processes the same"
        assert found == [said, said]

    def test_one_that_never_comes_is_named_to_all(self):
        found, port = self.meet((1, {}), processes=3, limit=0.5)
        said = f"process 2 did not come to localhost:{port} within 0.5 s: start all of them"
        assert found == [said, said]

    def test_without_the_first_the_others_do_not_wait_longer(self):
        found, port = self.meet((1, {}), limit=0.5, where="nobody")
        assert found[0].startswith(f"process 0 was not found at localhost:{port} within 0.5 s")

    def test_a_stranger_with_a_taken_number_harms_nobody(self):
        found, _ = self.meet((1, {}), (1, {}), (2, {}), processes=3)
        assert found[0] == [1, 2]
        assert sorted(map(str, found[1:])) == sorted(
            ["[0]", "[0]", "process 1 is there already: give each process another --process-id"]
        )

    @pytest.mark.parametrize("address", ["abc", "localhost:abc", "localhost:80000", ":5000", "h:0"])
    def test_an_address_that_is_none(self, address):
        with pytest.raises(ValueError, match=r"--coordinator .*: expected HOST:PORT"):
            _address(address)

    def test_a_port_that_is_taken(self):
        with socket.create_server(("", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(ValueError, match=f"port {port} cannot be opened by process 0"):
                _listen(port)
