"""`compare`: SFVQ beside other methods on a model, by labels of the user's own or statistics."""

import argparse
import json

import jax

from sfvq_jax.cli.common import (
    ATTRIBUTES_HELP,
    BITS_HELP,
    add_examples,
    add_memory,
    add_output,
    add_scorer_option,
    add_seed,
    fitted_scorers,
    kept_parts,
    name_list,
    progress_bar,
    table,
    with_statistics,
)
from sfvq_jax.cli.models import add_model, add_space_options, load_model
from sfvq_jax.cli.scorer import add_labels, read_labelled
from sfvq_jax.interpret import (
    Comparison,
    Gap,
    Interval,
    Scorers,
    compare,
    default_methods,
    fit_scorers,
    order_summary,
    summary,
)
from sfvq_jax.interpret.comparison.measures import Edit, Order, Recognition
from sfvq_jax.io.output import new_folder
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.views import comparison_figure

COMPARISON_MARKER = "comparison.json"
COLUMNS = {  # title -> field of `MethodSummary`
    "reached": "reached",
    "failed": "failed",
    "recognised": "recognition",
    "at equal steps": "recognition_equal",
    "of": "recognised",
    "shared": "shared",
    "strength": "strength",
    "dependency": "dependency",
    "content": "content",
    "path correlation": "correlation",
    "strength gap": "strength_gap",
    "dependency gap": "dependency_gap",
    "content gap": "content_gap",
    "correlation gap": "correlation_gap",
}


def add_compare(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_compare)
    add_output(command, "output folder", marker=COMPARISON_MARKER)
    add_examples(
        command,
        "compare ffhq/ --images photos/ -o comparison/",
        "compare fashion_mnist --seeds 3 -o comparison/",
    )
    add_model(command)
    add_space_options(command)
    add_scorer_option(command)
    command.add_argument(
        "--images", help="labelled images that two scorers are trained on, as `scorer` reads them"
    )
    add_labels(command)
    command.add_argument("--attributes", type=name_list, help=ATTRIBUTES_HELP)
    command.add_argument("--bits", type=int, default=6, help=BITS_HELP)
    command.add_argument(
        "--seeds",
        type=int,
        default=5,
        help="number of seeds; the whole comparison runs once for each (default: %(default)s)",
    )
    command.add_argument(
        "--latents",
        type=int,
        default=128,
        help="number of fresh latents to measure on, for each seed (default: %(default)s)",
    )
    command.add_argument(
        "--change",
        type=float,
        default=1.0,
        help="change of its attribute that each direction is scaled to, in standard deviations over"
        " images (default: %(default)s)",
    )
    add_seed(command)
    add_memory(command)


def run_compare(options: argparse.Namespace) -> None:
    model = load_model(options.model, options)
    fitted = _scorers(options)
    find, judge = with_statistics(fitted, model, options.attributes)
    methods = default_methods(model, options.bits, find)

    parts = kept_parts(
        options, model, [find, judge], [Edit, Recognition, Order],
        ["attributes", "latents", "change", "seed"], methods=list(map(repr, methods)),
    )  # fmt: skip
    with parts as done:
        with progress_bar() as show:
            comparison = compare(
                jax.random.key(options.seed),
                model,
                find,
                judge,
                methods=methods,
                attributes=options.attributes,
                classes=() if fitted is None else fitted.classes,
                features=None if fitted is None else fitted.features,
                seeds=options.seeds,
                latents=options.latents,
                change=options.change,
                done=done,
                on_progress=show,
            )
        _write(options, model, comparison)
    print(comparison_tables(comparison))
    print(f"{options.output}: {COMPARISON_MARKER}, comparison.png")


def _write(options: argparse.Namespace, model: LatentModel, comparison: Comparison) -> None:
    about = {
        "model": options.model,
        "model_hash": getattr(model, "model_hash", ""),
        "space": getattr(model, "latent_space", ""),
    }
    with new_folder(options.output, overwrite=options.overwrite, marker=COMPARISON_MARKER) as path:
        content = {**about, "seed": options.seed, **comparison.to_json()}
        (path / COMPARISON_MARKER).write_text(json.dumps(content, indent=1) + "\n")
        comparison_figure(summary(comparison)).savefig(path / "comparison.png")


def comparison_tables(comparison: Comparison) -> str:
    """What was measured, as text."""
    summaries, settings = summary(comparison), comparison.settings
    rows = [
        (s.method, str(s.directions), *(_text(getattr(s, field)) for field in COLUMNS.values()))
        for s in summaries
    ]
    told = (
        f"{table([('method', 'directions', *COLUMNS), *rows])}\n"
        f"means over {settings['seeds']} seeds and their 95 % intervals; of"
        f" {len(settings['attributes'])} attributes a seed, failed: so many are reached on the"
        " latents that chose the direction, but not on fresh ones within its limits; strength to"
        f" path correlation and the gaps from {summaries[0].method} are over the shared ones, that"
        f" both methods reach; p after Holm, over {len(summaries) - 1} methods"
    )
    orders = order_summary(comparison)
    if orders:
        rows = [tuple(map(_text, order.values())) for order in orders]
        columns = tuple(name.replace("_", " ") for name in orders[0])
        told += f"\n\n{table([columns, *rows])}"
    return told


def _scorers(options: argparse.Namespace) -> Scorers | None:
    """Learnt from --images, or as of other commands."""
    if options.images is None:
        if options.labels is not None:
            raise ValueError("--labels goes with --images")
        return fitted_scorers(options)
    if options.scorer is not None:
        raise ValueError("--images makes scorers anew: leave out --scorer, or --images")
    images, labels, names = read_labelled(options.images, options.labels)
    fits = fit_scorers(jax.random.key(options.seed), images, labels, names=names)
    find, judge = fits.find, fits.judge
    print(
        f"scorers, {find.measure} on held-out images: {find.overall:.3f} finds,"
        f" {judge.overall:.3f} judges ({judge.baseline:.3f} without looking)"
    )
    return Scorers(find.scorer, judge.scorer, {})


def _text(value: Interval | Gap | float | str | None) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)
