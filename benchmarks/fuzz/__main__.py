"""Damaged files: each must be read or refused, quickly, in little memory, and touch nothing.

    python -m benchmarks.fuzz                                # 10,000 cases of all kinds
    python -m benchmarks.fuzz --checkpoints FOLDER           # also of upstream's checkpoints there
    python -m benchmarks.fuzz --kinds curve,model --case 7   # one case of these

`kinds.py` makes small curves, their labels, scorers, directions, converted models, states of fits,
labelled images, images and latents; `mutations.py` damages them: their bytes, JSON, arrays and
archives, and pickles opcode by opcode. In half of the cases checksums are made right again. A child
process (`reader.py`) reads each mutant as a command does and goes on to use it.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.fuzz.kinds import KINDS, find_checkpoints, make_subjects
from benchmarks.fuzz.reader import MOST_SECONDS, TIMES_SIZE, Case, make_case, run
from benchmarks.report import report


def main() -> None:
    parser = argparse.ArgumentParser(description="Reads damaged files.")
    parser.add_argument("--checkpoints", type=Path, help="a folder of upstream's, searched through")
    parser.add_argument("--kinds", type=lambda text: text.split(","), help="some of them only")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="one case only, by its number")
    parser.add_argument("--keep", type=Path, help="where to write that case instead of reading it")
    options = parser.parse_args()
    one = options.case is not None
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        subjects = make_subjects(Path(folder), options.kinds)
        if options.checkpoints is not None:
            subjects = find_checkpoints(options.checkpoints) + subjects
        if options.kinds is not None:
            subjects = [subject for subject in subjects if subject.kind in options.kinds]
        if options.keep is not None:
            options.keep.write_bytes(make_case(subjects, options.seed, options.case).data)
            return
        for case in run(subjects, options.seed, [options.case] if one else range(options.cases)):
            cases.append(case)
            if case.error:
                what = f"{case.kind} {case.name}, {case.damaged}"
                print(f"case {case.number}, {what}: {case.error}", flush=True)
    rows = [_summarise(kind, [case for case in cases if case.kind == kind]) for kind in KINDS]
    failed = [case._asdict() for case in cases if case.error]
    report(
        "fuzz",
        {"damaged files": [row for row in rows if row]} | ({"failed": failed} if failed else {}),
        packages=("numpy", "jax", "pillow"),
        save=not one and options.kinds is None,
        cases=len(cases),
        seed=options.seed,
        most_seconds=MOST_SECONDS,
        times_size=TIMES_SIZE,
    )


def _summarise(kind: str, cases: Sequence[Case]) -> dict[str, Any]:
    if not cases:
        return {}
    refused, wrong = (sum(bool(getattr(case, of)) for case in cases) for of in ("refused", "error"))
    return {
        "kind": kind,
        "cases": len(cases),
        "read": len(cases) - refused - wrong,
        "refused": refused,
        "other errors": wrong,
        "longest, CPU ms": 1e3 * max(case.seconds for case in cases),
        "peak, MB": max(case.peak for case in cases) / 1e6,
    }


if __name__ == "__main__":
    main()
