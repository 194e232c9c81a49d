"""`map` and `quality`: a curve as a picture, and whether it is a good map."""

import argparse

import jax
from matplotlib.figure import Figure

from sfvq_jax.cli.common import (
    FIGURE_ENDINGS,
    add_examples,
    add_model_and_curve,
    add_output,
    add_scorer_option,
    add_seed,
    fitted_scorers,
    is_of_latents,
    load_both,
    load_for,
    save_figure,
    table,
)
from sfvq_jax.interpret import map_quality, report
from sfvq_jax.io.curve_file import CurveRecord, load_curve
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.sources import as_source
from sfvq_jax.views import distance_figure, history_figure, map_figure, render_images
from sfvq_jax.views.figures import MAP_SIDE


def add_map(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_map)
    add_examples(
        command,
        "map ffhq/ curve.npz -o map.png",
        "map fashion_mnist curve.npz -o map.png --distances distances.png --history history.png",
    )
    add_model_and_curve(command)
    add_output(command, "the figure", endings=FIGURE_ENDINGS)
    for name, what in (("distances", "the distances of codewords"), ("history", "the fit")):
        add_output(command, f"also draw {what}, here", f"--{name}", endings=FIGURE_ENDINGS)


def add_quality(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_quality)
    add_examples(
        command,
        "quality ffhq/ curve.npz",
        "quality ffhq/ curve.npz --scorer scorer.npz",
        "quality latents.npy curve.npz",
    )
    add_model_and_curve(command, arrays=True)
    add_scorer_option(command)
    add_seed(command)


def run_map(options: argparse.Namespace) -> None:
    model, record = load_both(options)
    if options.history is not None and record.history is None:
        raise ValueError(f"{options.curve} keeps no history of its fit: leave out --history")
    save_figure(draw_map(model, record), options.output, options)
    if options.distances is not None:
        save_figure(distance_figure(record.curve), options.distances, options)
    if options.history is not None and record.history is not None:
        save_figure(history_figure(record.history), options.history, options)


def run_quality(options: argparse.Namespace) -> None:
    record = load_curve(options.curve)
    if is_of_latents(options.model):
        if options.scorer is not None:
            raise ValueError(
                f"--scorer judges images, and {options.model} has none: leave it out, or name the"
                " generator"
            )
        model, source = None, as_source(options.model)
    else:
        model = source = load_for(options.model, [record])
    fitted = None if model is None else fitted_scorers(options)
    if fitted is not None and fitted.kind != "classes":
        raise ValueError(
            f"{options.scorer} scores {fitted.kind}, and a map is measured by classes, one an"
            " image: leave --scorer out, or name one of classes"
        )
    scorer = None if fitted is None else fitted.judge
    key = jax.random.key(options.seed)
    found = report(map_quality(key, record.curve, source, model=model, scorer=scorer))
    print(table([(f.measure, f.value, f.verdict) for f in found]))


def draw_map(model: LatentModel, record: CurveRecord) -> Figure:
    images = render_images(model, record.curve.codewords, max_side=MAP_SIDE)
    return map_figure(images, f"{len(images)} codewords in order")
