"""Starts the parts one after another, stops those that take too long, and prints their tables."""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.accelerator.record import compact_tables, read, settle

CHECKOUT = Path(__file__).parents[2]
# shares of the time, in seconds of a full run, in the order in which parts run
PARTS = {
    "correctness": 80,
    "projection": 85,
    "fits": 80,
    "adam": 50,
    "generators": 75,
    "programs": 30,
    "nearest": 40,  # the last, as a new kernel is what most likely fails
}
SECONDS, QUICK_SECONDS = 390, 900
GRACE = 10  # seconds that a part may take beyond its share, and a quarter of the share


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator",
        description="Measures all that is to be measured on an accelerator, in seven minutes.",
    )
    parser.add_argument("--save", type=Path, required=True, help="folder for the parts' JSON files")
    parser.add_argument("--quick", action="store_true", help="a trial of tiny sizes")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of %(default)s")
    parser.add_argument("--seconds", type=float, help=f"for all parts, {SECONDS} by default")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if unknown := sorted(set(parts) - set(PARTS)):
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    folder = options.save.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    run_parts(parts, folder, seconds, options.quick)
    contents = [read(folder / f"{name}.json") for name in parts]
    for content in contents:
        print(f"\n{summary(content)}\n{compact_tables(content)}")
    sys.exit(any(failures(content) for content in contents))


def run_parts(parts: Sequence[str], folder: Path, seconds: float, quick: bool) -> None:
    """Runs each part in a process of its own; all end within some seconds of `seconds`."""
    end = time.monotonic() + seconds
    driver = nvidia_smi()
    # the next process imports its modules while the present one measures
    with contextlib.ExitStack() as stack:
        ahead = stack.enter_context(part_process(parts[0], quick))
        for i, name in enumerate(parts):
            process, path = ahead, folder / f"{name}.json"
            path.unlink(missing_ok=True)
            left = max(0.0, end - time.monotonic())
            share = left * PARTS[name] / sum(PARTS[later] for later in parts[i:])
            order = {"path": str(path), "seconds": share, "quick": quick, "driver": driver}
            with contextlib.suppress(BrokenPipeError):  # it has died, and is settled below
                process.stdin.write(json.dumps(order) + "\n")
                process.stdin.close()
            if i + 1 < len(parts):
                ahead = stack.enter_context(part_process(parts[i + 1], quick))
            longest = min(share * 1.25 + GRACE, left + GRACE)
            settle(path, name, ending(process, longest))
            print(summary(read(path)), flush=True)


@contextlib.contextmanager
def part_process(name: str, quick: bool) -> Iterator[subprocess.Popen]:
    """A process that imports what the part needs, then waits for its order; it ends with us."""
    command = [sys.executable, "-m", "benchmarks.accelerator.part", name]
    # JAX would take most of the card's memory, and PyTorch is to have some; to try Triton's
    # products beside the library's takes 6 to 8 seconds a program
    environment = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false",
    } | os.environ
    if quick:  # threads of two processes that wait for each other take long over little
        environment["OMP_NUM_THREADS"] = "1"
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
        env=environment,
        process_group=0,  # so that what it starts can be stopped with it
    )
    try:
        yield process
    finally:
        stop(process)


def ending(process: subprocess.Popen, seconds: float) -> str | None:
    """Waits for a part; why it did not end well, or None."""
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        stop(process)
        return f"stopped after {seconds:.0f} seconds"
    return f"the process ended with code {code}" if code else None


def stop(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdin.close()


def nvidia_smi() -> str | None:
    """Name, driver and state of NVIDIA's card, where it is one."""
    fields = "name,driver_version,memory.total,power.limit,clocks.sm,clocks.max.sm,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return found.stdout.strip()
    return None


def summary(content: dict[str, Any]) -> str:
    """A part in one line."""
    parts = [
        f"{content['part']}: {len(content['rows'])} rows in {content['seconds']:.0f} s",
        f"{len(content['skipped'])} skipped" if content["skipped"] else "",
        *failures(content),
        *content["left out"],
    ]
    return ("quick, " if content["quick"] else "") + "; ".join(filter(None, parts))


def failures(content: dict[str, Any]) -> list[str]:
    """What went wrong in a part, in a line each."""
    rows = content["rows"]
    failed = sum("error" in row for row in rows)
    wrong = sum(row.get("ok") is False for row in rows)
    reason = (content["failure"] or "").strip().splitlines()
    return [
        *([f"FAILED: {reason[-1]}"] if reason else []),
        *([f"{failed} rows FAILED"] if failed else []),
        *([f"{wrong} rows OUT OF TOLERANCE"] if wrong else []),
    ]


if __name__ == "__main__":
    main()
