"""What a person or a script sees of a long fit: a line on the terminal, JSON lines in a file."""

import contextlib
import json
import math
import os
import sys
import time
import warnings
from pathlib import Path
from typing import IO

from sfvq_jax.history import Report

INTERVAL = 0.2  # seconds between lines within a round; a notebook keeps all of them


class Progress:
    """One line on standard error, rewritten as the fit goes on; each stage leaves its last line.

    Until the first report it says that programs are compiled. Silent where standard error is no
    terminal and no notebook's, and from when it is gone.
    """

    def __init__(self, stream: IO[str] | None = None):
        self._stream = sys.stderr if stream is None else stream
        self._show = self._stream is not None and (
            self._stream.isatty() or _is_of_notebook(self._stream)
        )
        self._codewords, self._distortion, self._width = 0, math.nan, 0
        self._told = -math.inf
        if self._show:
            self._rewrite("reading latents and compiling")

    def __call__(self, report: Report) -> None:
        if not self._show:
            return
        if report.share < 1 and time.monotonic() - self._told < INTERVAL:
            return
        self._told = time.monotonic()
        if self._codewords and report.codewords != self._codewords:
            self._write("\n")
        self._codewords = report.codewords
        if not math.isnan(report.distortion):
            self._distortion = report.distortion
        self._rewrite(progress_line(report, self._distortion)[: _columns(self._stream) - 1])

    def close(self) -> None:
        """Ends the line."""
        if self._width:
            self._write("\n")

    def _rewrite(self, text: str) -> None:
        self._write("\r" + text.ljust(self._width))
        self._width = len(text)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone, and the fit may outlive it
            self._show = False


def _is_of_notebook(stream: IO[str]) -> bool:
    """Whether it is one of Jupyter's, which rewrite a line as a terminal does."""
    return type(stream).__module__.partition(".")[0] == "ipykernel"


def _columns(stream: IO[str]) -> int:
    """Of a terminal; a longer line would not be rewritten in place."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 1000


class JsonLog:
    """A JSON object a round, appended to a file as the rounds end; NaN is null.

    Appending keeps what a fit wrote before it was killed and resumed. Where the file can no longer
    be written, a warning says so and the fit goes on.
    """

    def __init__(self, path: str | Path):
        try:
            self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        except OSError as error:
            raise type(error)(f"the log {path} cannot be written: {error.strerror}") from error
        self._failed = False

    def __call__(self, report: Report) -> None:
        if self._failed or report.share < 1 or math.isnan(report.loss):
            return
        values = {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in report._asdict().items()
        }
        try:
            self._file.write(json.dumps(values) + "\n")
        except OSError as error:
            self._failed = True
            warnings.warn(
                f"the rest of the log {self._file.name} is missing: {error.strerror}", stacklevel=2
            )

    def close(self) -> None:
        with contextlib.suppress(OSError):  # which was told
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
