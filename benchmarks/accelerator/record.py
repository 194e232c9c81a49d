"""The record of a part: its rows, on disk from the first one on."""

import contextlib
import importlib.metadata
import json
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "torch", "triton")
ERROR_CHARACTERS = 3000  # of a traceback that are kept


class OutOfTimeError(Exception):
    """Raised within a row that was stopped on the way."""


class Part:
    """A part that is being measured.

    Args:
      name: of the part.
      path: of its JSON, written again after every row.
      seconds: rows that would start later are skipped.
      quick: whether sizes are to be tiny.
      driver: of the card, for the JSON.
    """

    def __init__(self, name: str, path: Path, *, seconds: float, quick: bool, driver: str | None):
        self.quick = quick
        self._path, self._began, self._seconds = path, time.monotonic(), seconds
        self._content = empty(name) | {"quick": quick, "machine": {"driver": driver}}
        self._write()

    @property
    def seconds_left(self) -> float:
        return self._began + self._seconds - time.monotonic()

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Keeps what is raised inside as the part's failure."""
        try:
            self._content["machine"] |= machine()
            yield
        except Exception:
            self._content["failure"] = traceback.format_exc()[-ERROR_CHARACTERS:]
        finally:
            self._write()

    def row(self, measure: Callable[[], Row], **names: Any) -> Row:
        """Measures one row.

        Args:
          measure: gives the values; what it raises becomes the row's `error`.
          names: which row it is.

        Returns:
          The values, empty if it was skipped or failed.
        """
        if self.seconds_left < 0:
            self.skip("no time was left", **names)
            return {}
        self._content["under way"] = names
        self._write()
        began = time.monotonic()
        try:
            values = measure()
            self._content["rows"].append(names | values | {"took s": time.monotonic() - began})
        except OutOfTimeError as error:
            values = {}
            self.skip(str(error), **names)
        except Exception:
            values = {}
            error = traceback.format_exc()[-ERROR_CHARACTERS:]
            self._content["rows"].append(names | {"error": error})
        del self._content["under way"]
        self._write()
        return values

    def skip(self, why: str, **names: Any) -> None:
        self._content["skipped"].append(names | {"why": why})
        self._write()

    def leave_out(self, why: str | None) -> bool:
        """Notes why contenders are left out, if there is a reason; whether there is one."""
        if why is not None and why not in self._content["left out"]:
            self._content["left out"].append(why)
        return why is not None

    def describe(self, *, tables: list[dict[str, Any]], **settings: Any) -> None:
        """Says how it is measured, and how it is printed.

        Args:
          tables: by `index` and `values`, names of what is in a row; of rows that are as `where`
            says, if it is there; with `across`, one column for each of what it names, of the only
            value. Without any table, all that the rows have is printed.
          settings: for the JSON.
        """
        self._content["settings"] |= settings
        self._content["tables"] = tables

    def _write(self) -> None:
        self._content["seconds"] = time.monotonic() - self._began
        write(self._path, self._content)


def empty(name: str) -> dict[str, Any]:
    """The record of a part that has not begun."""
    return {
        "part": name,
        "quick": False,
        "machine": {},
        "settings": {},
        "seconds": 0.0,
        "failure": None,
        "left out": [],
        "skipped": [],
        "tables": [],
        "rows": [],
    }


def settle(path: Path, name: str, reason: str | None) -> None:
    """Adds to the record of a part that has ended the reason why it did not end well."""
    if reason is None and path.exists():
        return
    content = read(path) if path.exists() else empty(name)
    reason = reason or "the part left no record"
    content["failure"] = "\n".join(filter(None, [content["failure"], reason]))
    write(path, content)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def write(path: Path, content: dict[str, Any]) -> None:
    """The whole file or the one before."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(content, indent=1, default=str) + "\n")
    temporary.rename(path)


def machine() -> dict[str, Any]:
    """What is measured on, and versions."""
    import jax

    from benchmarks.report import cpu_model

    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        **versions,
    }


def compact_tables(content: dict[str, Any]) -> str:
    """The rows of a part as text, laid out as the part says."""
    layouts = content["tables"] or [{}]
    return "\n".join(filter(None, (_compact_table(content, layout) for layout in layouts)))


def _compact_table(content: dict[str, Any], layout: dict[str, Any]) -> str:
    from benchmarks.report import table

    where = layout.get("where", {})
    rows = [row for row in content["rows"] if where.items() <= row.items()]
    if not rows:
        return ""
    if "across" not in layout:
        columns = [*layout["index"], *layout["values"]] if layout else _columns(rows)
        lines = [{name: row.get(name) for name in columns} for row in rows]
        for line, row in zip(lines, rows, strict=True):
            if "error" in row:
                line |= {"error": row["error"].strip().splitlines()[-1][:60]}
        return table(lines)
    found: dict[tuple, Row] = {}
    for row in rows:
        index = {name: row.get(name) for name in layout["index"]}
        line = found.setdefault(tuple(index.values()), index)
        column = " ".join(str(row[name]) for name in layout["across"])
        line[column] = "failed" if "error" in row else row.get(layout["values"][0])
    return f"{layout['values'][0]}\n{table(list(found.values()))}"


def _columns(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row if name != "error"))
