"""How every benchmark runs and reports: its cores, aligned tables, and the same as JSON."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

RESULTS = Path(__file__).parent / "results"
STARTED = time.monotonic()  # about when the benchmark began
# what OpenBLAS takes on processors that it does not know
FALLBACK_KERNELS = ("Prescott", "Core2", "Nehalem", "ARMV8", "armv8", "generic")

Row = Mapping[str, Any]


def use_cores(number: int) -> None:
    """Leaves this process so many cores; to be called before JAX starts its threads."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:number])


def blas_kernels() -> dict[str, str]:
    """The kernel of each OpenBLAS that is loaded, by the package that brought it.

    Raises:
      SystemExit: one of them is a fallback for processors that it does not know, and what is timed
        with it would be slower than it is.
    """
    kernels = _loaded_kernels()
    for package, kernel in kernels.items():
        if kernel in FALLBACK_KERNELS:
            raise SystemExit(
                f"the OpenBLAS of {package} takes its fallback kernel {kernel} on this processor:"
                " set OPENBLAS_CORETYPE to one that suits it, such as SkylakeX, Zen or Haswell"
            )
    return kernels


def blas_kernel(package: str) -> str | None:
    """The kernel of the OpenBLAS that a package brought; None for a fallback, or without one."""
    kernel = _loaded_kernels().get(package)
    return None if kernel in FALLBACK_KERNELS else kernel


def _loaded_kernels() -> dict[str, str]:
    from threadpoolctl import threadpool_info

    return {
        # …/site-packages/faiss_cpu.libs/libopenblas….so
        Path(library["filepath"]).parent.name.removesuffix(".libs").removesuffix("_cpu"): str(
            library["architecture"]
        )
        for library in threadpool_info()
        if library["internal_api"] == "openblas"
    }


def report(
    name: str,
    tables: Mapping[str, Sequence[Row]],
    *,
    packages: Sequence[str],
    save: bool = True,
    **settings: Any,
) -> None:
    """Prints tables and writes them to benchmarks/results/NAME.json.

    Args:
      name: of the benchmark.
      tables: rows by title; a row maps names of columns to values, and may lack some.
      packages: whose versions matter.
      save: whether to write; a trial run is printed only.
      settings: of the run, for the JSON.
    """
    where = machine(packages)
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    for title, rows in tables.items():
        print(f"\n{title}\n{table(rows)}")
    if not save:
        return
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {
        "commit": commit(),
        "machine": where,
        "seconds": round(time.monotonic() - STARTED),
        "settings": settings,
        "tables": tables,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"\nsaved to {path}")


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Processor, cores that may be used, what JAX runs on, and versions."""
    facts = {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "jax device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
    }
    return facts | {package: version(package) for package in packages}


def commit() -> str:
    """Of what is measured; with a word where the library has changes beside it."""

    def git(*command: str) -> str:
        where = Path(__file__).parents[1]
        return subprocess.run(
            ["git", *command], cwd=where, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "sfvq_jax", "ports")
        return git("rev-parse", "--short", "HEAD") + (" and changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "not known"


def cpu_model() -> str:
    """As Linux calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def table(rows: Sequence[Row]) -> str:
    """Rows under the names of their columns, aligned to the right."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns] + [[_text(row.get(name)) for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
