"""What a person and a script see of a fit."""

import io
import json
import math

import jax
import numpy as np

from sfvq_jax import LeastSquares, Report, fit
from sfvq_jax.io.progress import JsonLog, Progress, progress_line

MIDDLE = Report(
    codewords=32, last_codewords=64, move="", round=3, rounds=10, share=0.4, samples=10**6,
    samples_per_second=8.123e5, seconds=1.5, seconds_left=125.2, loss=math.nan, objective=math.nan,
    distortion=math.nan, perplexity=math.nan,
)  # fmt: skip
END = MIDDLE._replace(share=1.0, loss=0.3, distortion=0.26118, perplexity=30.0, seconds_left=3725.0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


class TestLine:
    def test_says_where_the_fit_is_and_how_long_it_will_take(self):
        assert progress_line(MIDDLE, 0.25) == (
            "32 of 64 codewords, round 3 of 10, 40 %, distortion 0.25, 812k samples/s,"
            " about 2:05 left"
        )
        assert progress_line(END, END.distortion) == (
            "32 of 64 codewords, round 3 of 10, distortion 0.2612, 812k samples/s,"
            " about 1:02:05 left"
        )
        moved = progress_line(END._replace(move="reseed"), END.distortion)
        assert moved.startswith("32 of 64 codewords, reseed round 3 of 10, ")

    def test_leaves_out_what_is_not_known(self):
        report = MIDDLE._replace(seconds_left=math.nan, samples_per_second=12.0, share=math.nan)
        assert progress_line(report, math.nan) == "32 of 64 codewords, round 3 of 10, 12 samples/s"

    def test_is_rewritten_in_place_and_kept_once_a_stage(self):
        stream = Terminal()
        progress = Progress(stream)
        for report in (MIDDLE, END, END._replace(codewords=64, round=1)):
            progress(report)
        progress.close()
        lines = [line.split("\r")[-1] for line in stream.getvalue().split("\n")]
        assert [line[:27] for line in lines] == [
            "32 of 64 codewords, round 3",
            "64 of 64 codewords, round 1",
            "",
        ]

    def test_a_shorter_line_hides_all_of_the_longer_one(self):
        stream = Terminal()
        progress = Progress(stream)
        progress(MIDDLE)
        progress(END._replace(distortion=math.nan, seconds_left=math.nan))
        first, second = stream.getvalue().split("\r")[2:]
        assert len(second) >= len(first)

    def test_is_silent_where_there_is_no_terminal(self):
        stream = io.StringIO()
        progress = Progress(stream)
        progress(END)
        progress.close()
        assert stream.getvalue() == ""


class TestInANotebook:
    """Its standard error is no terminal, but rewrites lines as one."""

    def test_the_first_line_says_that_it_compiles_and_later_ones_how_long_it_takes(self):
        stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
        reports, progress = [], Progress(stream)

        def on_report(report):
            reports.append(report)
            progress(report)

        x = np.random.default_rng(0).normal(size=(500, 2))
        fit(jax.random.key(0), x, bits=3, on_report=on_report)
        lines = stream.getvalue().split("\r")[1:]
        assert lines[0] == "reading latents and compiling"
        assert "left" in lines[-2]
        # an estimate comes after the first round, of which compiling is no part
        rounds = [report for report in reports if report.share == 1]
        known = [not math.isnan(report.seconds_left) for report in rounds]
        assert known[-1]
        assert known == sorted(known)


class TestLog:
    def test_has_an_object_a_round_with_what_the_history_says(self, tmp_path):
        path = tmp_path / "log.jsonl"
        log = JsonLog(path)
        x = np.random.default_rng(0).normal(size=(500, 2))
        solver = LeastSquares(rounds=3, tolerance=0.0)
        history = fit(jax.random.key(0), x, bits=3, solver=solver, on_report=log).history
        log.close()
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert [row["codewords"] for row in rows] == history.codewords.tolist()
        assert [row["round"] for row in rows if not row["move"]] == [1, 2, 3, 1, 2, 3]
        np.testing.assert_allclose([row["distortion"] for row in rows], history.distortion)
        np.testing.assert_allclose([row["objective"] for row in rows], history.objective)
        np.testing.assert_allclose([row["samples"] for row in rows], history.samples)
        assert rows[-1]["seconds_left"] == 0
        assert all(row["samples_per_second"] > 0 for row in rows)
        seconds = [row["seconds"] for row in rows]
        assert seconds == sorted(seconds)

    def test_is_appended_to(self, tmp_path):
        path = tmp_path / "log.jsonl"
        for _ in range(2):
            log = JsonLog(path)
            log(END)
            log(MIDDLE)
            log.close()
        assert len(path.read_text().splitlines()) == 2

    def test_writes_what_is_not_known_as_null(self, tmp_path):
        log = JsonLog(tmp_path / "log.jsonl")
        log(END._replace(seconds_left=math.nan))
        log.close()
        assert json.loads((tmp_path / "log.jsonl").read_text())["seconds_left"] is None
