"""A fit that was interrupted anywhere and resumed is the fit that was not."""

import dataclasses
import hashlib
import json
import os
import random
import shutil
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
from sfvq_jax import Adam, IteratorSource, LeastSquares, data_mesh, fit, load_curve
from sfvq_jax.io.checkpoints import Checkpoints, Stopped
from sfvq_jax.io.store import open_store

KEY = jax.random.key(0)
BLOCKS = LeastSquares(rounds=2, tolerance=0, samples="all", block=150)
STEPS = Adam(samples=2**8, batch_size=2, epochs=2, learning_rate=1e-2)  # two blocks an epoch
X = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)


class Interrupt(Exception):
    """Raised by `on_report` to end a fit."""


def sampler(key, n):
    return jax.random.normal(key, (n, 3))


def iterator():
    return (X[i : i + 70] for i in range(0, 500, 70))


def interrupted(after, *arguments, **settings):
    """Runs a fit up to its report of that number; whether it was interrupted."""
    reports = iter(range(after))

    def on_report(report):
        if next(reports, None) is None:
            raise Interrupt

    try:
        fit(*arguments, on_report=on_report, checkpoint_seconds=0, **settings)
    except Interrupt:
        return True
    return False


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same(result, expected):
    assert_array_equal(result.curve.codewords, expected.curve.codewords)
    for column, other in zip(result.history, expected.history, strict=True):
        assert column.dtype == other.dtype
        assert_array_equal(column, other)
    assert result[2:] == expected[2:]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("latents") / "x.npy"
    np.save(path, X)
    return path


@pytest.fixture(scope="module")
def undisturbed(file):
    return fit(KEY, file, bits=3, solver=BLOCKS)


@pytest.fixture(scope="module")
def states_halfway(file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("states") / "states"
    assert interrupted(14, KEY, file, bits=3, solver=BLOCKS, checkpoint=folder)
    return folder


@pytest.fixture
def halfway(states_halfway, tmp_path):
    """A folder with the states of a fit that was interrupted in the middle of a round."""
    return Path(shutil.copytree(states_halfway, tmp_path / "states"))


class TestInterrupted:
    @pytest.mark.parametrize("after", range(0, 20, 6))
    def test_at_any_block_of_a_file(self, file, undisturbed, tmp_path, after):
        settings = {"bits": 3, "solver": BLOCKS, "checkpoint": tmp_path / "states"}
        assert interrupted(after, KEY, file, **settings)
        assert_same(fit(KEY, file, **settings), undisturbed)

    @pytest.mark.parametrize(
        ("source", "solver"),
        [
            (sampler, LeastSquares(rounds=2, samples=400, block=150, dithered=True)),
            (sampler, STEPS),
            (X, STEPS),
            (IteratorSource(iterator), BLOCKS),
            (IteratorSource(iterator), STEPS),
        ],
        ids=["sampler", "Adam on a sampler", "Adam on an array", "iterator", "Adam on an iterator"],
    )
    def test_at_every_report(self, tmp_path, source, solver):
        """One interruption after another, each five reports after the state that it began with."""
        settings = {"bits": 3, "solver": solver, "checkpoint": tmp_path / "states"}
        interruptions = 0
        while interrupted(5, KEY, source, **settings):
            interruptions += 1
        assert interruptions > 1
        undisturbed = fit(KEY, source, bits=3, solver=solver)
        assert_same(fit(KEY, source, **settings), undisturbed)

    @pytest.mark.parametrize(("before", "after"), [((1, 1), (4, 1)), ((4, 1), (4, 2))])
    def test_and_resumed_on_other_devices(self, file, undisturbed, tmp_path, before, after):
        """As many devices as said, and the curve on one of them or two."""
        meshes = [data_mesh(jax.devices()[:n], curve=curve) for n, curve in (before, after)]
        settings = {"bits": 3, "solver": BLOCKS, "checkpoint": tmp_path / "states"}
        assert interrupted(14, KEY, file, mesh=meshes[0], **settings)
        result = fit(KEY, file, mesh=meshes[1], **settings)
        assert_allclose(result.curve.codewords, undisturbed.curve.codewords, rtol=1e-4, atol=1e-4)
        assert_allclose(result.history.loss, undisturbed.history.loss, rtol=1e-5)
        assert_array_equal(result.history.samples, undisturbed.history.samples)

    def test_on_several_devices(self, file, tmp_path):
        settings = {"bits": 3, "solver": BLOCKS, "mesh": data_mesh(jax.devices()[:4])}
        assert interrupted(14, KEY, file, checkpoint=tmp_path / "states", **settings)
        resumed = fit(KEY, file, checkpoint=tmp_path / "states", **settings)
        assert_same(resumed, fit(KEY, file, **settings))


class TestFinished:
    def test_a_finished_fit_gives_its_result_at_once(self, file, undisturbed, tmp_path):
        settings = {"bits": 3, "solver": BLOCKS, "checkpoint": tmp_path / "states"}
        reports = []
        assert_same(fit(KEY, file, **settings), undisturbed)
        before = contents(tmp_path)
        assert_same(fit(KEY, file, on_report=reports.append, **settings), undisturbed)
        assert reports == []
        assert contents(tmp_path) == before

    def test_an_empty_folder_may_be_given(self, file, undisturbed, tmp_path):
        result = fit(KEY, file, bits=3, solver=BLOCKS, checkpoint=tmp_path)
        assert_same(result, undisturbed)

    def test_two_states_are_kept(self, file, tmp_path):
        states = tmp_path / "states"
        fit(KEY, file, bits=3, solver=BLOCKS, checkpoint=states, checkpoint_seconds=0)
        numbers = sorted(number(path) for path in states.iterdir() if path.name != "fit.json")
        assert numbers == [numbers[-1] - 1, numbers[-1]]
        assert numbers[0] > 10


class TestFurther:
    """A checkpoint belongs to a fit, not to how it is spelt."""

    def test_more_bits_go_on_from_the_last_stage(self, file, tmp_path):
        settings = {"solver": BLOCKS, "checkpoint": tmp_path / "states"}
        coarse = fit(KEY, file, bits=2, **settings)
        fine = fit(KEY, file, bits=4, **settings)
        assert fine.curve.codewords.shape == (16, 3)
        rounds = len(coarse.history.loss)
        assert_array_equal(fine.history.loss[:rounds], coarse.history.loss)
        assert fine.history.codewords[rounds] == 8

    def test_fewer_bits_than_it_has_come_to_are_refused(self, file, tmp_path):
        settings = {"solver": BLOCKS, "checkpoint": tmp_path / "states"}
        fit(KEY, file, bits=3, **settings)
        with pytest.raises(ValueError, match="has gone beyond 4 codewords: ask for as many bits"):
            fit(KEY, file, bits=2, **settings)

    def test_more_rounds_go_on_where_the_last_ones_still_gained(self, file, tmp_path):
        settings = {"bits": 2, "checkpoint": tmp_path / "states"}
        first = fit(KEY, file, solver=LeastSquares(rounds=2), **settings)
        assert first.converged == (False,)
        more = fit(KEY, file, solver=LeastSquares(rounds=50), **settings)
        assert more.converged == (True,)
        assert_array_equal(more.history.loss[:2], first.history.loss)
        assert (np.diff(more.history.objective) < 1e-6).all()

    def test_the_same_blocks_told_otherwise_are_the_same(self, halfway, file, undisturbed):
        solver = dataclasses.replace(BLOCKS, samples=500)
        assert_same(fit(KEY, file, bits=3, solver=solver, checkpoint=halfway), undisturbed)

    def test_numbers_of_numpy_are_numbers(self, halfway, file, undisturbed):
        solver = dataclasses.replace(BLOCKS, length_penalty=np.float64(0.2), rounds=np.int64(2))
        settings = {"bits": np.int64(3), "solver": solver, "checkpoint": halfway}
        assert_same(fit(KEY, file, **settings), undisturbed)

    def test_a_setting_that_came_later_is_at_its_default(self, halfway, file, undisturbed):
        described = json.loads((halfway / "fit.json").read_text())
        del described["solver"]["dithered"], described["defaults"]["dithered"]
        (halfway / "fit.json").write_text(json.dumps(described))
        other = dataclasses.replace(BLOCKS, dithered=True)
        with pytest.raises(ValueError, match="its dithered is False, and here it is True"):
            fit(KEY, file, bits=3, solver=other, checkpoint=halfway)
        assert_same(fit(KEY, file, bits=3, solver=BLOCKS, checkpoint=halfway), undisturbed)


class TestForeign:
    def refused(self, folder, match, key=KEY, source=X, **settings):
        before = contents(folder)
        with pytest.raises(ValueError, match=match) as refusal:
            fit(key, source, checkpoint=folder, **({"bits": 3, "solver": BLOCKS} | settings))
        assert str(folder) in str(refusal.value)
        assert contents(folder) == before

    def test_a_folder_of_other_files(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("all of it")
        self.refused(tmp_path, r"holds no fit\.json, so it is no folder of checkpoints")

    @pytest.mark.parametrize("text", ["", '{"format_version": 2, "key"', "[1]", "\x00\xff"])
    def test_a_damaged_description(self, halfway, text):
        (halfway / "fit.json").write_text(text, encoding="latin-1")
        self.refused(halfway, r"fit\.json is damaged")

    def test_a_file(self, file, tmp_path):
        with pytest.raises(ValueError, match=r"x\.npy holds no fit\.json, so it is no folder"):
            fit(KEY, file, bits=3, checkpoint=file)

    def test_another_fit(self, halfway):
        self.refused(halfway, r"its key is \[0, 0\], and here it is \[0, 1\]", jax.random.key(1))
        self.refused(halfway, "its solver is LeastSquares, and here it is Adam", solver=STEPS)
        other = dataclasses.replace(BLOCKS, length_penalty=0.3)
        self.refused(halfway, "its length_penalty is 0.2, and here it is 0.3", solver=other)

    def test_other_blocks(self, file, halfway, monkeypatch):
        """Also where they come from a constant of the library, which a new version may change."""
        other = dataclasses.replace(BLOCKS, block=151)
        self.refused(halfway, "its stage is .4, 4, 150, 1, True., and", source=file, solver=other)
        settings = {"bits": 2, "solver": LeastSquares(rounds=1), "checkpoint": halfway / "new"}
        fit(KEY, file, **settings)
        monkeypatch.setattr("sfvq_jax.blocks.MAX_BLOCK", 300)
        with pytest.raises(
            ValueError, match=r"its stage is .4, 1, 500, 1, True., and here it is .4, 2, 3"
        ):
            fit(KEY, file, **settings)

    def test_other_latents(self, halfway):
        self.refused(halfway, r"its latents is \[500, 3\]", source=X[:499])
        self.refused(halfway, "its sketch of some latents is", source=-X)
        one_row = X.copy()
        one_row[123] += 1
        self.refused(halfway, "its sketch of some latents is", source=one_row)


def damaged(data, how):
    if how == "truncated":
        return data[: len(data) // 2]
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


class TestDamaged:
    @pytest.mark.parametrize("how", ["flipped", "truncated", "deleted", "added"])
    def test_a_damaged_state_is_named_and_left_untouched(self, halfway, file, how):
        newest = max((path for path in halfway.iterdir() if path.name.isdigit()), key=number)
        whole = contents(halfway)
        for path in [path for path in whole if path.is_relative_to(newest)]:
            if path.name in ("_CHECKPOINT_METADATA", "commit_success.txt"):
                continue  # these say when it was written, and that it was
            if how == "deleted":
                path.unlink()
            elif how == "added":
                path.with_name("another").write_bytes(whole[path])
            else:
                path.write_bytes(damaged(whole[path], how))
            before = contents(halfway)
            with pytest.raises(ValueError, match=f"the checkpoint {newest} is damaged") as refusal:
                fit(KEY, file, bits=3, solver=BLOCKS, checkpoint=halfway)
            assert "delete that folder to go on from the one before" in str(refusal.value)
            assert contents(halfway) == before
            path.with_name("another").unlink(missing_ok=True)
            path.write_bytes(whole[path])

    def test_without_it_the_fit_goes_on_from_the_one_before(self, halfway, file, undisturbed):
        newest = max((path for path in halfway.iterdir() if path.name.isdigit()), key=number)
        shutil.rmtree(newest)
        assert_same(fit(KEY, file, bits=3, solver=BLOCKS, checkpoint=halfway), undisturbed)

    def test_a_half_written_state_is_removed_by_the_next_fit(self, halfway, file, undisturbed):
        newest = max((path for path in halfway.iterdir() if path.name.isdigit()), key=number)
        for name in (f"{int(newest.name) + 1}.orbax-checkpoint-tmp", "40.orbax-checkpoint-tmp"):
            shutil.copytree(newest, halfway / name)
            (halfway / name / "manifest.ocdbt").write_bytes(b"")
        kept = halfway / "mine.orbax-checkpoint-tmp"  # no state's
        kept.touch()
        assert_same(fit(KEY, file, bits=3, solver=BLOCKS, checkpoint=halfway), undisturbed)
        assert list(halfway.glob("*.orbax*")) == [kept]

    @pytest.mark.parametrize("change", ["read", "round", "devices", "stage"])
    def test_notes_that_were_changed_with_their_checksums_are_of_other_arrays(
        self, halfway, file, change
    ):
        newest = max((path for path in halfway.iterdir() if path.name.isdigit()), key=number)
        about = json.loads((newest / "about.json").read_text())
        inside = about if change in about else about["at"]
        inside[change] = {"devices": 10**9, "stage": -1}.get(change, inside[change] + 1)
        seal(newest, json.dumps(about))
        with pytest.raises(ValueError, match=f"the checkpoint {newest} is damaged"):
            fit(KEY, file, bits=3, solver=BLOCKS, checkpoint=halfway)

    @pytest.mark.parametrize("text", ["[" * 10**5, "{}", '{"at": 3}', "[1]", " " * 2**21, "\xff"])
    def test_notes_of_any_kind_are_refused(self, halfway, file, text):
        newest = max((path for path in halfway.iterdir() if path.name.isdigit()), key=number)
        seal(newest, text)
        with pytest.raises(ValueError, match=f"the checkpoint {newest} is damaged"):
            fit(KEY, file, bits=3, solver=BLOCKS, checkpoint=halfway)

    def test_notes_are_those_of_the_moment_of_the_save(self, tmp_path):
        """They are written in the background, while the fit goes on in its lists."""
        state, about = {"x": jnp.arange(10**6)}, {"converged": [False]}
        for expected in (None, {"converged": [False]}):
            with Checkpoints.open(tmp_path / "states", {}, 0) as checkpoints:
                restored = checkpoints.restore(lambda about: state)
                assert (restored and restored[1]) == expected
                checkpoints.save(state, about)
                about["converged"].append(True)

    def test_a_state_of_another_fit_is_refused(self, halfway, file, tmp_path):
        settings = {"bits": 3, "solver": BLOCKS}
        fit(KEY, -X, checkpoint=tmp_path / "other", **settings)
        newest = max(int(path.name) for path in (tmp_path / "other").iterdir() if path.is_dir())
        shutil.copytree(tmp_path / "other" / str(newest), halfway / "99")
        with pytest.raises(ValueError, match=r"99 is damaged .it is of another fit"):
            fit(KEY, file, checkpoint=halfway, **settings)

    def test_other_names_in_the_folder_are_no_states(self, halfway, file, undisturbed):
        for name in ("²", "007", "٣", "-1"):
            (halfway / name).mkdir()
        assert_same(fit(KEY, file, bits=3, solver=BLOCKS, checkpoint=halfway), undisturbed)


def seal(state, about):
    """Writes about.json and its checksum."""
    (state / "about.json").write_text(about, encoding="latin-1")
    sha256 = hashlib.sha256((state / "about.json").read_bytes()).hexdigest()
    lines = (state / "SHA256SUMS").read_text().splitlines()
    lines = [f"{sha256}  about.json" if line.endswith("  about.json") else line for line in lines]
    (state / "SHA256SUMS").write_text("\n".join(lines) + "\n")


class TestAtWork:
    def test_a_second_fit_is_told_who_is_at_work(self, file, undisturbed, tmp_path):
        settings = {"bits": 3, "solver": BLOCKS, "checkpoint": tmp_path / "states"}
        refusals = []

        def on_report(report):
            if not refusals:
                with pytest.raises(ValueError, match="another fit is at work in") as refusal:
                    fit(KEY, file, **settings)
                refusals.append(str(refusal.value))

        result = fit(KEY, file, on_report=on_report, checkpoint_seconds=0, **settings)
        assert f"(process {os.getpid()} on " in refusals[0]
        assert "delete" not in refusals[0]
        assert_same(result, undisturbed)
        assert not (tmp_path / "states" / "fit.lock").exists()

    def test_the_lock_of_a_killed_one_is_none(self, halfway, file, undisturbed):
        (halfway / "fit.lock").write_text("process 4194305 on here, since long ago\n")
        assert_same(fit(KEY, file, bits=3, solver=BLOCKS, checkpoint=halfway), undisturbed)

    def test_a_folder_that_was_only_just_made_is_taken(self, file, tmp_path):
        (tmp_path / "states").mkdir()
        for name in ("fit.lock", "fit.json.unfinished"):
            (tmp_path / "states" / name).touch()
        fit(KEY, file, bits=2, solver=BLOCKS, checkpoint=tmp_path / "states")

    def test_one_that_is_told_to_stop_saves_its_state(self, file, undisturbed, tmp_path):
        settings = {"bits": 3, "solver": BLOCKS, "checkpoint": tmp_path / "states"}
        told = iter([False] * 7 + [True])
        with pytest.raises(Stopped):
            fit(KEY, file, stop=lambda: next(told), **settings)
        assert next(told, None) is None
        reads = []
        result = fit(KEY, file, on_report=lambda report: reads.append(report.samples), **settings)
        assert reads[0] == 2 * len(X)  # it went on behind the eighth block, of four in a pass
        assert_same(result, undisturbed)


def number(path):
    return int(path.name)


# fits with least squares on a file and with Adam on a sampler, saving as often as it can
WORKER = """
import sys
import jax
import numpy as np
from sfvq_jax import Adam, CurveRecord, LeastSquares, fit, save_curve

source, states, output = sys.argv[1:]
print("ready", flush=True)
squares = LeastSquares(rounds=5, tolerance=0, samples="all", block=150)
steps = Adam(samples=2**9, batch_size=2, epochs=3)
for name, source, solver in [("a", source, squares), ("b", jax.random.normal, steps)]:
    if name == "b":
        source = lambda key, n: jax.random.normal(key, (n, 3))
    checkpoint = None if states == "none" else f"{states}_{name}"
    result = fit(jax.random.key(0), source, bits=3, solver=solver, checkpoint=checkpoint,
                 checkpoint_seconds=0)
    save_curve(f"{output}_{name}.npz", CurveRecord(result.curve, history=result.history))
"""

CLI = ["-m", "sfvq_jax.cli"]
ROOT = Path(sfvq_jax.__file__).parents[1]
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=1",
    "PYTHONPATH": str(ROOT),
}
# so that processes of one test need not compile the same again
CACHE = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def start(*arguments, cache=None):
    command = [sys.executable, *map(str, arguments)]
    environment = os.environ | ENVIRONMENT
    if cache is not None:
        environment |= CACHE | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def finish(process):
    """Waits for a process; its standard error."""
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return errors


def kill_after_a_state(process, folder, rest):
    """Sends SIGKILL a moment after a new state is there; False if the process ended before."""
    before = {path for path in folder.glob("states*/*") if path.name.isdigit()}
    while process.poll() is None:
        if {path for path in folder.glob("states*/*") if path.name.isdigit()} - before:
            time.sleep(rest)
            process.kill()
            process.communicate()
            return True
        time.sleep(0.005)
    process.communicate()
    return False


def assert_same_curves(path, expected):
    record, other = load_curve(path), load_curve(expected)
    assert_array_equal(record.curve.codewords, other.curve.codewords)
    for column, other_column in zip(record.history, other.history, strict=True):
        assert_array_equal(column, other_column)


class TestKilled:
    def test_a_fit_that_is_killed_at_random_moments_is_the_same_bit_for_bit(self, file, tmp_path):
        script = tmp_path / "worker.py"
        script.write_text(WORKER)
        cache = tmp_path / "cache"
        finish(start(script, file, "none", tmp_path / "expected", cache=cache))
        moments = random.Random(0)
        kills = 0
        for _ in range(3):
            process = start(script, file, tmp_path / "states", tmp_path / "curve", cache=cache)
            kills += kill_after_a_state(process, tmp_path, moments.uniform(0, 0.4))
        assert kills >= 2
        finish(start(script, file, tmp_path / "states", tmp_path / "curve", cache=cache))
        for name in "ab":
            assert_same_curves(tmp_path / f"curve_{name}.npz", tmp_path / f"expected_{name}.npz")

    def test_the_command_line_goes_on_by_itself(self, file, tmp_path):
        command = [*CLI, "fit", file, "--bits", "3", "--rounds", "4", "--checkpoint-seconds", "0"]
        resumable = [*command, "--checkpoint", tmp_path / "states", "-o", tmp_path / "curve.npz"]
        finish(start(*command, "-o", tmp_path / "expected.npz"))
        assert kill_after_a_state(start(*resumable), tmp_path, 0.1)
        half_written = tmp_path / "states" / "70.orbax-checkpoint-tmp"
        half_written.mkdir(exist_ok=True)
        said = finish(start(*resumable)).splitlines()
        errors = [line for line in said if "cpu_aot_loader.cc" not in line]  # older XLA's own
        assert not half_written.exists()
        assert all(line.startswith("sfvq-jax fit: ") for line in errors)
        assert_same_curves(tmp_path / "curve.npz", tmp_path / "expected.npz")


# the command line, where no file can grow beyond 20000 bytes
LIMITED = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
runpy.run_module("sfvq_jax.cli", run_name="__main__")
"""


class TestFullDisk:
    def test_is_said_and_the_state_before_is_whole(self, tmp_path):
        x = np.random.default_rng(0).normal(size=(1000, 512)).astype(np.float32)
        np.save(tmp_path / "x.npy", x)
        command = ["fit", tmp_path / "x.npy", "--bits", "4", "--rounds", "2", "--tolerance", "0"]
        command += ["-o", tmp_path / "curve.npz", "--checkpoint-seconds", "0"]
        command += ["--checkpoint", tmp_path / "states"]
        # states of 4 bits need more than that, those of 2 bits less
        process = start("-c", LIMITED, *command)
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 2
        assert errors == (
            f"sfvq-jax fit: the checkpoint in {tmp_path / 'states'} cannot be written (the disk is"
            " full); the one before is whole, and the same fit goes on from it later\n"
        )
        settings = {"bits": 4, "solver": LeastSquares(rounds=2, tolerance=0)}
        result = fit(KEY, tmp_path / "x.npy", checkpoint=tmp_path / "states", **settings)
        # begun by a process of one device, which adds in another order
        expected = fit(KEY, tmp_path / "x.npy", **settings)
        assert_allclose(result.curve.codewords, expected.curve.codewords, atol=1e-3)
        assert_array_equal(result.history.samples, expected.history.samples)


AT_URI = {"bits": 3, "solver": BLOCKS}


def keys(place):
    return {key.decode() for key in open_store(f"{place}/").list().result()}


def described(place):
    return json.loads(open_store(f"{place}/").read("fit.json").result().value)


@pytest.fixture
def place(s3, tmp_path):
    return f"{s3}/{tmp_path.name}/states"


@pytest.fixture(scope="module")
def states_at_uri(file, s3):
    """{name: object} of a fit that was interrupted in the middle of a round."""
    place = f"{s3}/halfway"
    assert interrupted(14, KEY, file, checkpoint=place, **AT_URI)
    return {key: open_store(f"{place}/").read(key).result().value for key in keys(place)}


@pytest.fixture
def uri_halfway(states_at_uri, place):
    writes = [open_store(f"{place}/").write(*item) for item in states_at_uri.items()]
    for write in writes:
        write.result()
    return place


class TestAtUri:
    def test_a_fit_goes_on_to_the_same_curve(self, file, uri_halfway, undisturbed):
        reads = []
        result = fit(
            KEY, file, checkpoint=uri_halfway, on_report=lambda r: reads.append(r.samples), **AT_URI
        )
        assert reads[0] > 2 * len(X)
        assert_same(result, undisturbed)
        assert len(described(uri_halfway)["states"]) == 2

    def test_also_on_another_number_of_devices_each_of_which_wrote_its_part(
        self, file, place, undisturbed
    ):
        mesh = data_mesh(jax.devices()[:4])
        assert interrupted(14, KEY, file, checkpoint=place, mesh=mesh, **AT_URI)
        newest = described(place)["states"][-1]
        sums = [key for key in keys(place) if key.startswith(f"{newest}/state.now.sums")]
        chunks = {key.partition("/c/")[2].partition("/")[0] for key in sums if "/c/" in key}
        assert chunks == {"0", "1", "2", "3"}
        result = fit(KEY, file, checkpoint=place, **AT_URI)
        assert_allclose(result.curve.codewords, undisturbed.curve.codewords, rtol=1e-4, atol=1e-4)
        assert_array_equal(result.history.samples, undisturbed.history.samples)

    def test_one_that_is_told_to_stop_saves_its_state(self, file, place, undisturbed):
        told = iter([False] * 7 + [True])
        with pytest.raises(Stopped, match="the fit is saved in s3://"):
            fit(KEY, file, stop=lambda: next(told), checkpoint=place, **AT_URI)
        reads = []
        result = fit(
            KEY, file, checkpoint=place, on_report=lambda r: reads.append(r.samples), **AT_URI
        )
        assert reads[0] == 2 * len(X)  # it went on behind the eighth block, of four in a pass
        assert_same(result, undisturbed)

    def test_what_a_killed_one_left_goes_and_nothing_else(self, file, uri_halfway, undisturbed):
        left = {"99-0123abcd/state.now.curve.codewords/c/0/0", "99-0123abcd/about.json"}
        others = {"curve.npz", "data/x.npy", "100/diary.txt"}
        for key in left | others:
            open_store(f"{uri_halfway}/").write(key, b"some").result()
        assert_same(fit(KEY, file, checkpoint=uri_halfway, **AT_URI), undisturbed)
        assert not left & keys(uri_halfway)
        assert others <= keys(uri_halfway)
        states = described(uri_halfway)["states"]
        assert {key.split("/")[0] for key in keys(uri_halfway) - others} == {"fit.json", *states}


class TestTwoAtUri:
    def test_of_two_fits_at_one_place_the_later_one_goes_on(self, file, place, undisturbed):
        results = []

        def on_report(report):
            if not results and report.samples > 300:
                results.append(fit(KEY, file, checkpoint=place, **AT_URI))

        with pytest.raises(OSError, match=r"another fit is at work in s3://.*process") as refusal:
            fit(KEY, file, checkpoint=place, on_report=on_report, checkpoint_seconds=0, **AT_URI)
        assert f"process {os.getpid()} on " in str(refusal.value)
        assert_same(results[0], undisturbed)
        before = keys(place)
        assert_same(fit(KEY, file, checkpoint=place, **AT_URI), undisturbed)
        assert keys(place) == before

    def test_another_fit_is_refused(self, file, uri_halfway):
        with pytest.raises(ValueError, match=r"states keeps another fit: its key is \[0, 0\], and"):
            fit(jax.random.key(1), file, checkpoint=uri_halfway, **AT_URI)

    def test_other_objects_are_no_checkpoints(self, file, place):
        open_store(f"{place}/").write("thesis.tex", b"all of it").result()
        with pytest.raises(ValueError, match=r"states holds no fit\.json, so it is no folder of"):
            fit(KEY, file, checkpoint=place, **AT_URI)

    def test_a_damaged_description_is_named(self, file, uri_halfway):
        open_store(f"{uri_halfway}/").write("fit.json", b"{").result()
        with pytest.raises(ValueError, match=r"s3://.*/fit\.json is damaged"):
            fit(KEY, file, checkpoint=uri_halfway, **AT_URI)


class TestDamagedAtUri:
    @pytest.mark.parametrize("how", ["changed", "truncated", "deleted"])
    def test_a_damaged_state_is_named(self, file, uri_halfway, how):
        objects, newest = open_store(f"{uri_halfway}/"), described(uri_halfway)["states"][-1]
        codewords = next(
            k for k in sorted(keys(uri_halfway)) if k.startswith(f"{newest}/state.now.curve")
        )
        for key in (f"{newest}/about.json", codewords, codewords.replace("c/0/0", "zarr.json")):
            data = objects.read(key).result().value
            assert data
            cut = data[: len(data) // 2]
            new = {"changed": cut + bytes([data[len(cut)] ^ 1]) + data[len(cut) + 1 :]}
            objects.write(key, (new | {"truncated": cut}).get(how)).result()
            with pytest.raises(
                ValueError, match=f"the checkpoint {uri_halfway}/{newest} is damaged"
            ):
                fit(KEY, file, checkpoint=uri_halfway, **AT_URI)
            objects.write(key, data).result()

    def test_without_it_the_fit_goes_on_from_the_one_before(self, file, uri_halfway, undisturbed):
        newest = described(uri_halfway)["states"][-1]
        for key in keys(uri_halfway):
            if key.startswith(newest):
                open_store(f"{uri_halfway}/").write(key, None).result()
        assert_same(fit(KEY, file, checkpoint=uri_halfway, **AT_URI), undisturbed)
