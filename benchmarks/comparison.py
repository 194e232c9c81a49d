"""SFVQ beside other methods on the bundled generators, five seeds.

    python -m benchmarks.comparison                       # both, 80 minutes each on a core
    python -m benchmarks.comparison fashion_mnist_biggan  # or one
    python -m benchmarks.comparison --quick               # a trial, nothing saved or drawn

As `sfvq-jax compare` with its defaults, by nine statistics of images and ten classes: the bundled
pair of scorers finds and judges. In W of the StyleGAN2 and the output of the BigGAN's first linear
layer. Pictures go to docs/.
"""

import argparse
from pathlib import Path
from typing import Any

import jax

import ports
from benchmarks.report import report
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
from sfvq_jax.views import comparison_figure

MODELS = ("fashion_mnist", "fashion_mnist_biggan")
DOCS = Path(__file__).parents[1] / "docs"
SEEDS = 5


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


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, Interval | Gap) else value


def main() -> None:
    parser = argparse.ArgumentParser(description="SFVQ beside other methods.")
    parser.add_argument("models", nargs="*", default=MODELS, help="bundled generators")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a trial at 3 bits, nothing saved")
    options = parser.parse_args()
    scorers = load_scorers(ports.BUNDLED / "fashion_mnist_scorers.npz")
    for name in options.models:
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
                on_progress=show,
            )
        report(
            f"comparison_{name}",
            tables(comparison),
            packages=("jax", "numpy", "optax", "scipy"),
            save=not options.quick,
            seed=options.seed,
            comparison=comparison.to_json(),
        )
        if not options.quick:
            comparison_figure(summary(comparison)).savefig(DOCS / f"comparison_{name}.png")


if __name__ == "__main__":
    main()
