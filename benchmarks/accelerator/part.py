"""One part, in this process: `python -m benchmarks.accelerator.part NAME`, started by `__main__`.

It imports what it needs, waits for a line of JSON that says where to write and how long it has, and
measures then.
"""

import contextlib
import importlib
import json
import sys
from pathlib import Path

from benchmarks.accelerator import timing
from benchmarks.accelerator.record import Part


def main() -> None:
    name = sys.argv[1]
    module = f"benchmarks.accelerator.{name}"
    with contextlib.suppress(Exception):  # what it raises is raised again below, and recorded
        importlib.import_module(module)
    line = sys.stdin.readline()
    if not line:  # nobody wants it any more
        return
    order = json.loads(line)
    timing.trial = order["quick"]
    part = Part(
        name,
        Path(order["path"]),
        seconds=order["seconds"],
        quick=order["quick"],
        driver=order["driver"],
    )
    with part.recorded():
        importlib.import_module(module).measure(part)


if __name__ == "__main__":
    main()
