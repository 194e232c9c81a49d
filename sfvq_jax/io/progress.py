"""What a person or a script sees of a long fit: a line on the terminal, JSON lines in a file."""

import json
import math
import sys
from pathlib import Path
from typing import IO

from sfvq_jax.history import Report


class Progress:
    """One line on standard error, rewritten as the fit goes on; each stage leaves its last line.

    Silent where standard error is no terminal.
    """

    def __init__(self, stream: IO[str] | None = None):
        self._stream = sys.stderr if stream is None else stream
        self._show = self._stream.isatty()
        self._codewords, self._distortion, self._width = 0, math.nan, 0

    def __call__(self, report: Report) -> None:
        if not self._show:
            return
        if self._codewords and report.codewords != self._codewords:
            self._stream.write("\n")
        self._codewords = report.codewords
        if not math.isnan(report.distortion):
            self._distortion = report.distortion
        text = progress_line(report, self._distortion)
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)

    def close(self) -> None:
        """Ends the line."""
        if self._codewords:
            self._stream.write("\n")


class JsonLog:
    """A JSON object a round, appended to a file as the rounds end; NaN is null.

    Appending keeps what a fit wrote before it was killed and resumed.
    """

    def __init__(self, path: str | Path):
        self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def __call__(self, report: Report) -> None:
        if report.share < 1 or math.isnan(report.loss):
            return
        values = {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in report._asdict().items()
        }
        self._file.write(json.dumps(values) + "\n")

    def close(self) -> None:
        self._file.close()


def progress_line(report: Report, distortion: float) -> str:
    """Such as `32 of 64 codewords, round 3 of 10, 40 %, distortion 0.2612, 812k samples/s, …`."""
    parts = [
        f"{report.codewords} of {report.last_codewords} codewords",
        f"{report.move + ' ' if report.move else ''}round {report.round} of {report.rounds}",
    ]
    if report.share < 1:
        parts.append(f"{report.share:.0%}".replace("%", " %"))
    if not math.isnan(distortion):
        parts.append(f"distortion {distortion:.4g}")
    parts.append(f"{_short(report.samples_per_second)} samples/s")
    if not math.isnan(report.seconds_left):
        parts.append(f"about {_clock(report.seconds_left)} left")
    return ", ".join(parts)


def _short(number: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
