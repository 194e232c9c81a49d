"""The run for a borrowed accelerator, tried on a CPU: whatever fails, the rest is measured."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.accelerator.__main__ import PARTS, ending, part_process
from benchmarks.accelerator.record import OutOfTimeError, Part, compact_tables, read, settle

CHECKOUT = Path(__file__).parents[2]
# imports of these modules fail, or end the process
BLOCKER = """
import importlib.abc, os, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in os.environ.get("DEADLY", "").split():
            os._exit(3)
        if name in os.environ.get("BLOCKED", "").split():
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
"""


def run(folder, *options, **environment):
    command = [sys.executable, "-m", "benchmarks.accelerator", "--quick", "--save", str(folder)]
    return subprocess.run(
        [*command, *options],
        cwd=CHECKOUT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """What was printed, and the parts' records by name."""
    folder = tmp_path_factory.mktemp("accelerator")
    finished = run(folder)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout, {path.stem: read(path) for path in folder.glob("*.json")}


def test_every_part_leaves_its_record(whole_run):
    printed, records = whole_run
    assert set(records) == set(PARTS)
    for name, record in records.items():
        assert record["failure"] is None
        assert record["quick"] is True
        assert not record["skipped"]
        assert not any("error" in row for row in record["rows"]), record["rows"]
        assert {"device", "backend", "cpu", "python", "jax", "jaxlib"} <= set(record["machine"])
        assert f"quick, {name}: {len(record['rows'])} rows" in printed


def test_results_are_within_their_tolerances(whole_run):
    rows = whole_run[1]["correctness"]["rows"]
    assert {row["at"] for row in rows} >= {"highest", "tf32", "bfloat16", "float32"}
    checks = {row["check"].split(",")[0] for row in rows}
    assert checks >= {"projection", "least squares", "Adam", "the same fit twice"}
    assert [row for row in rows if not row["ok"]] == []


def test_every_contender_is_measured_at_every_precision(whole_run):
    _, records = whole_run
    for part, who, value in (
        ("projection", "ours", "TFLOP/s"),
        ("projection", "JAX", "TFLOP/s"),
        ("generators", "ours", "images/s"),
    ):
        rows = [row for row in records[part]["rows"] if row.get("who") == who]
        assert {row["products"] for row in rows} == {"highest", "tf32", "bfloat16"}
        assert all(row[value] > 0 for row in rows)
    rounds = [row for row in records["fits"]["rows"] if row["what"] == "round"]
    assert all(row["samples/s"] > 0 for row in rounds)
    assert all(row["steps/s"] > 0 for row in records["adam"]["rows"])
    programs = [row for row in records["programs"]["rows"] if row["what"] == "program"]
    assert all(row["temporary MiB"] >= 0 and row["floor ms"] > 0 for row in programs)


def test_it_runs_without_pytorch_and_goes_on_after_parts_that_fail(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    finished = run(
        tmp_path,
        "--parts",
        "fits,generators,adam,nearest",
        PYTHONPATH=str(tmp_path),
        BLOCKED="torch triton ports.stylegan2",
        DEADLY="benchmarks.accelerator.fits",
    )
    assert finished.returncode == 1, finished.stdout + finished.stderr
    records = {name: read(tmp_path / f"{name}.json") for name in ("fits", "generators")}
    assert records["fits"]["failure"] == "the process ended with code 3"
    assert "ImportError: ports.stylegan2 is blocked" in records["generators"]["failure"]
    for name in ("adam", "nearest"):
        record = read(tmp_path / f"{name}.json")
        assert record["failure"] is None
        assert record["left out"] == ["PyTorch is left out: it is not installed"]
    assert {row["who"] for row in read(tmp_path / "adam.json")["rows"]} == {"ours"}
    assert "fits: 0 rows in 0 s; FAILED: the process ended with code 3" in finished.stdout


def test_an_unknown_part_is_refused(tmp_path):
    finished = run(tmp_path, "--parts", "projection,speed")
    assert finished.returncode == 2
    assert "there is no part speed" in finished.stderr


def part_at(path, seconds=100.0):
    return Part("fits", path, seconds=seconds, quick=True, driver=None)


def test_a_row_that_fails_is_recorded_and_the_next_is_measured(tmp_path):
    part = part_at(tmp_path / "fits.json")
    assert part.row(lambda: {"ms": 1 / 0}, K=64) == {}
    assert part.row(lambda: {"ms": 2.0}, K=128) == {"ms": 2.0}
    failed, measured = read(tmp_path / "fits.json")["rows"]
    measured.pop("took s")
    assert failed["K"] == 64
    assert "ZeroDivisionError" in failed["error"]
    assert measured == {"K": 128, "ms": 2.0}


def test_rows_for_which_no_time_is_left_are_listed(tmp_path):
    def stopped():
        raise OutOfTimeError("no time was left at 7 bits")

    part_at(tmp_path / "late.json", seconds=-1).row(lambda: {"ms": 1.0}, K=64)
    assert read(tmp_path / "late.json")["skipped"] == [{"K": 64, "why": "no time was left"}]
    part_at(tmp_path / "stopped.json").row(stopped, K=64)
    record = read(tmp_path / "stopped.json")
    assert record["skipped"] == [{"K": 64, "why": "no time was left at 7 bits"}]
    assert record["rows"] == []


def test_the_record_tells_what_was_under_way_when_a_part_was_stopped(tmp_path):
    path, left = tmp_path / "fits.json", tmp_path / "left.json"
    part_at(path).row(lambda: {"seen": left.write_text(path.read_text())}, K=64)
    assert json.loads(left.read_text())["under way"] == {"K": 64}
    assert "under way" not in read(path)
    settle(left, "fits", "stopped after 3 seconds")
    assert read(left)["failure"] == "stopped after 3 seconds"


def test_a_part_that_hangs_is_stopped():
    with part_process("fits", quick=True) as process:  # it waits for its order
        start = time.monotonic()
        assert ending(process, 0.2) == "stopped after 0 seconds"
        assert time.monotonic() - start < 5
        assert process.returncode != 0


def test_a_table_has_a_column_for_each_contender(tmp_path):
    part = part_at(tmp_path / "fits.json")
    layout = {"index": ["K"], "across": ["who", "products"], "values": ["ms"]}
    part.describe(tables=[layout])
    part.row(lambda: {"ms": 2.0}, K=64, who="ours", products="tf32")
    part.row(lambda: {"ms": 1 / 0}, K=64, who="JAX", products="tf32")
    lines = compact_tables(read(tmp_path / "fits.json")).splitlines()
    assert lines[1].split() == ["K", "ours", "tf32", "JAX", "tf32"]
    assert lines[2].split() == ["64", "2", "failed"]
