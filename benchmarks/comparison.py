"""SFVQ beside other methods on the bundled generators, five seeds.

    python -m benchmarks.comparison                       # both, 80 minutes each on a core
    python -m benchmarks.comparison fashion_mnist_biggan  # or one
    python -m benchmarks.comparison --again SeFa          # one method, the others as they are saved
    python -m benchmarks.comparison --quick               # a trial, nothing saved or drawn

As `sfvq-jax compare` with its defaults, by nine statistics of images and ten classes: the bundled
pair of scorers finds and judges. In W of the StyleGAN2 and the output of the BigGAN's first linear
layer. Pictures go to docs/.

Seeds and methods do not touch each other, so that a method that was mended can be measured alone.
The JSON names the commit that the kept ones are of.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax

import ports
from benchmarks.report import RESULTS, report
from ports.biggan import BigGAN
from sfvq_jax import LatentModel
from sfvq_jax.cli.common import progress_bar, with_statistics
from sfvq_jax.interpret import (
    Comparison,
    Gap,
    Interval,
    compare,
    default_methods,
    load_scorers,
    order_summary,
    summary,
)
from sfvq_jax.interpret.comparison.measures import Edit, Order, Recognition
from sfvq_jax.views import comparison_figure

MODELS = ("fashion_mnist", "fashion_mnist_biggan")
DOCS = Path(__file__).parents[1] / "docs"
SEEDS = 5
KINDS = {"edits": Edit, "recognitions": Recognition, "orders": Order}  # as `Comparison` has them


def load(name: str) -> LatentModel:
    model = ports.load(ports.bundled(name))
    return model.space("linear") if isinstance(model, BigGAN) else model  # type: ignore


def tables(comparison: Comparison) -> dict[str, list[dict[str, Any]]]:
    rows = [row._asdict() for row in summary(comparison)]
    return {
        "Methods": [{name: _text(value) for name, value in row.items()} for row in rows],
        "Order of codewords": [
            {name: _text(value) for name, value in row.items()} for row in order_summary(comparison)
        ],
        "Attributes reached": reached_rows(comparison),
    }


def reached_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """In how many seeds each method gets an attribute to change as wanted."""
    rows: dict[str, dict[str, Any]] = {}
    for edit in comparison.edits:
        row = rows.setdefault(edit.attribute, {"attribute": edit.attribute})
        row[edit.method] = row.get(edit.method, 0) + edit.reached
    return list(rows.values())


def kept_parts(saved: dict[str, Any], again: str) -> dict[str, Any]:
    """What `compare` takes as done: the parts of a saved comparison of all methods but one.

    Raises:
      SystemExit: there is no method of this name.
    """
    comparison = saved["settings"]["comparison"]
    methods = list(comparison["settings"]["methods"])
    if again not in methods:
        raise SystemExit(f"there is no method {again!r}; there are {', '.join(methods)}")
    parts = {}
    for place, (name, kind) in enumerate(KINDS.items()):
        for row in comparison[name]:
            row = row | ({"layers": tuple(row["layers"])} if kind is Edit else {})
            of = next(m for m in methods if f"{row['method']}, ".startswith(f"{m}, "))
            if of != again:
                part = parts.setdefault(f"{of}, seed {row['seed']}", ([], [], []))
                part[place].append(kind(**row))
    return parts


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, Interval | Gap) else value


def main() -> None:
    parser = argparse.ArgumentParser(description="SFVQ beside other methods.")
    parser.add_argument("models", nargs="*", default=MODELS, help="bundled generators")
    parser.add_argument("--seed", type=int, default=0)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--quick", action="store_true", help="a trial at 3 bits, nothing saved")
    kind.add_argument("--again", metavar="METHOD", help="measure this one; the others are kept")
    options = parser.parse_args()
    scorers = load_scorers(ports.BUNDLED / "fashion_mnist_scorers.npz")
    for name in options.models:
        saved, done = {}, {}
        if options.again:
            saved = json.loads((RESULTS / f"comparison_{name}.json").read_text())
            done = kept_parts(saved, options.again)
        model = load(name)
        find, judge = with_statistics(scorers, model)
        with progress_bar() as show:
            comparison = compare(
                jax.random.key(options.seed),
                model,
                find,
                judge,
                methods=default_methods(model, 3 if options.quick else 6, find),
                classes=scorers.classes,
                features=scorers.features,
                seeds=2 if options.quick else SEEDS,
                done=done,
                on_progress=show,
            )
        report(
            f"comparison_{name}",
            tables(comparison),
            packages=("jax", "numpy", "optax", "scipy"),
            save=not options.quick,
            seed=options.seed,
            again=options.again,
            kept_of_commit=saved.get("commit"),
            comparison=comparison.to_json(),
        )
        if not options.quick:
            comparison_figure(summary(comparison)).savefig(DOCS / f"comparison_{name}.png")


if __name__ == "__main__":
    main()
