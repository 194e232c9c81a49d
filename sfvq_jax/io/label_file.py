"""What a person says of a curve's codewords, lines and stretches: one small JSON file."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sfvq_jax.io.output import library_version, new_file
from sfvq_jax.io.reading import check_format, parse_json, reading

FORMAT_VERSION = 1
MOST_LABELS = 10_000
LONGEST = 100  # characters of a label
MOST_BYTES = 2**21


class Label(NamedTuple):
    """A text on a stretch of the curve.

    Attributes:
      start: position where it begins.
      stop: where it ends; a codeword's is where it begins.
      text: what it says.
      leave_out: whether nothing is to be drawn there.
    """

    start: float
    stop: float
    text: str
    leave_out: bool = False


class Labels(NamedTuple):
    """What a file of labels holds: they, in the order in which they were given, and their curve."""

    labels: tuple[Label, ...]
    curve_sha256: str = ""


def labels_path(curve: str | Path) -> Path:
    """Where the labels of a curve's file lie: beside it, `curve.labels.json` of `curve.npz`.

    Those of a curve at a URI lie in the working folder.
    """
    if "://" in str(curve):
        curve = str(curve).rpartition("/")[2]
    return Path(curve).with_suffix(".labels.json")


def check_labels(content: Any, num_lines: int | None = None) -> tuple[Label, ...]:
    """Labels out of JSON values.

    Raises:
      ValueError: other values, too many of them, or stretches that are not on the curve.
    """
    if not isinstance(content, list) or len(content) > MOST_LABELS:
        raise ValueError(f"labels are no list of at most {MOST_LABELS:,}")
    return tuple(_check_label(entry, num_lines) for entry in content)


def _check_label(entry: Any, num_lines: int | None) -> Label:
    if not isinstance(entry, dict) or not set(entry) <= set(Label._fields):
        raise ValueError(f"a label has other fields than {', '.join(Label._fields)}")
    start, stop = _place(entry.get("start")), _place(entry.get("stop"))
    most = math.inf if num_lines is None else num_lines
    if not 0 <= start <= stop <= most:
        raise ValueError(f"a label goes from {start:g} to {stop:g}, and the curve from 0 to {most}")
    text = entry.get("text")
    if not isinstance(text, str) or not 1 <= len(text.strip()) <= LONGEST or not text.isprintable():
        raise ValueError(f"a label is no text of one line and 1 to {LONGEST} characters")
    leave_out = entry.get("leave_out", False)
    if type(leave_out) is not bool:
        raise ValueError("a label's leave_out is neither true nor false")
    return Label(start, stop, text.strip(), leave_out)


def _place(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError("a label's start and stop are not two finite numbers")
    return float(value)


def save_labels(path: str | Path, labels: Labels, *, overwrite: bool = False) -> None:
    """Writes labels, whole or not at all; raises what `new_file` raises."""
    content = {
        "format_version": FORMAT_VERSION,
        "sfvq_jax": library_version(),
        "curve_sha256": labels.curve_sha256,
        "labels": [label._asdict() for label in labels.labels],
    }
    with new_file(path, overwrite=overwrite) as temporary:
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8")


def load_labels(path: str | Path, *, curve_sha256: str, num_lines: int) -> Labels:
    """Reads what `save_labels` wrote.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: no labels, a damaged file, one of a newer format, or labels of another curve.
    """
    with reading(path, "file of labels") as file:
        text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        content = parse_json(text)
        check_format(content.get("format_version"), FORMAT_VERSION)
        found = content.get("curve_sha256")
        if type(found) is not str:
            raise ValueError("its curve_sha256 is no text")
        labels = Labels(check_labels(content.get("labels"), num_lines), found)
    if labels.curve_sha256 not in ("", curve_sha256):
        raise ValueError(
            f"{path} labels another curve than this one: move it away, or name the curve that it"
            " is of"
        )
    return labels


def codeword_labels(labels: Iterable[Label], count: int) -> list[str | None]:
    """Of each of `count` codewords the latest label that covers it, None without or left out."""
    labels = list(labels)
    latest = np.full(count, len(labels))
    for i, label in enumerate(labels):
        latest[math.ceil(label.start) : math.floor(label.stop) + 1] = i
    texts = [*(None if label.leave_out else label.text for label in labels), None]
    return [texts[i] for i in latest.tolist()]


def agreeing_lines(labels: Iterable[Label], num_lines: int) -> dict[str, list[int]]:
    """By label, in order of the alphabet, the lines whose two ends have it, none of it left out."""
    labels = list(labels)
    ends = codeword_labels(labels, num_lines + 1)
    left_out = np.zeros(num_lines, bool)
    for label in labels:
        if label.leave_out:
            left_out[math.floor(label.start) : math.ceil(label.stop)] = True
    lines: dict[str, list[int]] = {}
    for j in np.flatnonzero(~left_out).tolist():
        text = ends[j]
        if text is not None and ends[j + 1] == text:
            lines.setdefault(text, []).append(j)
    return dict(sorted(lines.items()))
