"""`map` and `quality`: a curve as a picture, and whether it is a good map."""

import argparse

import jax
from matplotlib.figure import Figure

from sfvq_jax.cli.common import (
    AddCommand,
    add_model_and_curve,
    add_scorer,
    fitted_scorers,
    load_both,
    load_for,
    save_figure,
    table,
)
from sfvq_jax.interpret import map_quality, report
from sfvq_jax.io.curve_file import CurveRecord, load_curve
from sfvq_jax.io.output import check_free
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.sources import as_source
from sfvq_jax.views import distance_figure, history_figure, map_figure, render_images
from sfvq_jax.views.figures import MAP_SIDE


def add_map_commands(add: AddCommand) -> None:
    map_command = add("map", run_map, "draws the codebook as images, in order", "the figure")
    add_model_and_curve(map_command)
    map_command.add_argument("--distances", help="also draw the distances of codewords, here")
    map_command.add_argument("--history", help="also draw the history of the fit, here")

    quality = add("quality", run_quality, "tells in words whether a curve is a good map")
    add_model_and_curve(quality, arrays=True)
    add_scorer(quality)
    quality.add_argument("--seed", type=int, default=0)


def run_map(options: argparse.Namespace) -> None:
    for path in (options.distances, options.history):
        if path is not None:
            check_free(path, overwrite=options.overwrite)
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
    if options.model.endswith(".npy"):
        model, source = None, as_source(options.model)
    else:
        model = source = load_for(options.model, [record])
    fitted = None if model is None else fitted_scorers(options)
    if fitted is not None and fitted.kind != "classes":
        fitted = None  # yes/no attributes and numbers put no image into one class
    scorer = None if fitted is None else fitted.judge
    key = jax.random.key(options.seed)
    found = report(map_quality(key, record.curve, source, model=model, scorer=scorer))
    print(table([(f.measure, f.value, f.verdict) for f in found]))


def draw_map(model: LatentModel, record: CurveRecord) -> Figure:
    images = render_images(model, record.curve.codewords, max_side=MAP_SIDE)
    return map_figure(images, f"{len(images)} codewords in order")
