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
from sfvq_jax.curve_file import CurveRecord, load_curve, save_curve
from sfvq_jax.interpret import map_quality, report
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.output import check_free
from sfvq_jax.polishing import polish
from sfvq_jax.solvers import LeastSquares
from sfvq_jax.sources import HostSource
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
    quality.add_argument(
        "--polish", metavar="CURVE", help="write a polished curve here, and show what it gains"
    )
    quality.add_argument("--overwrite", action="store_true", help="replace the polished curve")


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
    if options.polish is not None:
        check_free(options.polish, overwrite=options.overwrite)
    record = load_curve(options.curve)
    if options.model.endswith(".npy"):
        model, source = None, HostSource.of_file(options.model)
    else:
        model = source = load_for(options.model, [record])
    fitted = None if model is None else fitted_scorers(options)
    if fitted is not None and fitted.kind != "classes":
        fitted = None  # yes/no attributes and numbers put no image into one class
    measure_key, polish_key = jax.random.split(jax.random.key(options.seed))

    def findings(record: CurveRecord) -> list:
        scorer = None if fitted is None else fitted.judge
        return report(map_quality(measure_key, record.curve, source, model=model, scorer=scorer))

    before = findings(record)
    if options.polish is None:
        print(table([(f.measure, f.value, f.verdict) for f in before]))
        return
    penalty = record.settings.get("length_penalty", LeastSquares.length_penalty)
    solver = LeastSquares(length_penalty=penalty)
    curve = polish(polish_key, record.curve, source, solver=solver)
    settings = {**record.settings, "polished": {"seed": options.seed, "length_penalty": penalty}}
    polished = record._replace(curve=curve, settings=settings, history=None)
    after = findings(polished)
    save_curve(options.polish, polished, overwrite=options.overwrite)
    rows = [(f.measure, f.value, g.value, g.verdict) for f, g in zip(before, after, strict=True)]
    print(table([("", "before", "polished", ""), *rows]))
    print(options.polish)


def draw_map(model: LatentModel, record: CurveRecord) -> Figure:
    images = render_images(model, record.curve.codewords, max_side=MAP_SIDE)
    return map_figure(images, f"{len(images)} codewords in order")
