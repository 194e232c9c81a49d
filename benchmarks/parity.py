"""How far converted checkpoints are from the outputs that upstream's own code gives.

    python -m benchmarks.parity FOLDER

FOLDER holds checkpoints in upstream's formats and beside each its outputs: NAME.npz beside a file
NAME.pkl, NAME.pt, …, ref.npz in the folder of a BigGAN. Arrays are named as `ports.verify.compare`
has them.
"""

import argparse
from pathlib import Path

import ports
from benchmarks.report import report
from ports import upstream
from ports.verify import compare, read_reference

SUFFIXES = (".pkl", ".pt", ".pth", ".safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    rows = []
    for checkpoint, reference in pairs(parser.parse_args().folder):
        converted = upstream.read(checkpoint)
        differences = compare(ports.build(converted), read_reference(reference))
        rows.append(
            {
                "format": converted.source["format"],
                "checkpoint": checkpoint.stem,
                "arrays": len(differences),
                "largest difference ÷ largest value": max(d.relative for d in differences),
            }
        )
    tables = {"Converted checkpoints beside upstream's outputs": rows}
    report("parity", tables, packages=("jax", "flax", "numpy"))


def pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Checkpoints, or folders with one, and their references."""
    files = [p for p in sorted(folder.rglob("*")) if p.suffix in SUFFIXES]
    named = [(file, file.with_suffix(".npz")) for file in files]
    found = [(file, reference) for file, reference in named if reference.exists()]
    return found + [(ref.parent, ref) for ref in sorted(folder.rglob("ref.npz"))]


if __name__ == "__main__":
    main()
