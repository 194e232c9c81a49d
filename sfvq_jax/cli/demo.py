"""`demo`: a curve of a bundled generator, every figure of it, and how ordered its map is."""

import argparse
import sys
from pathlib import Path

import jax
import numpy as np

import ports
from sfvq_jax.cli.augment import write_stretch
from sfvq_jax.cli.common import DEVIATION_SAMPLES, add_examples, add_output, with_statistics
from sfvq_jax.cli.edit import draw_edit, truncated
from sfvq_jax.cli.explore import exported
from sfvq_jax.cli.fit import add_fit_options, fit_model
from sfvq_jax.cli.latents import seed_latents
from sfvq_jax.cli.map import draw_map
from sfvq_jax.cli.models import load_model
from sfvq_jax.explore.subject import Subject
from sfvq_jax.interpret import Direction, DirectionRecord, line_direction, load_scorers
from sfvq_jax.interpret.augment.dataset import MANIFEST
from sfvq_jax.io.curve_file import CurveRecord, save_curve
from sfvq_jax.io.output import new_folder
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.quality import class_runs_by_chance, codebook_quality, same_class_share
from sfvq_jax.views import distance_figure, history_figure

DEMO_MODELS = DEMO_MODEL, _ = "fashion_mnist", "fashion_mnist_biggan"
DEMO_LINE = 12
SAMPLES, PAGE = "samples", "map.html"
DEMO_MARKER = f"{SAMPLES}/{MANIFEST}"  # what the folder always holds, and hardly another one


def add_demo(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_demo)
    add_output(
        command, "output folder (default: %(default)s)", marker=DEMO_MARKER, default="sfvq-jax-demo"
    )
    add_examples(command, "demo", "demo fashion_mnist_biggan --bits 5 -o biggan-demo/")
    command.add_argument(
        "model",
        nargs="?",
        default=DEMO_MODEL,
        choices=DEMO_MODELS,
        help="bundled generator: fashion_mnist (StyleGAN2, the default) or fashion_mnist_biggan"
        " (BigGAN)",
    )
    add_fit_options(command)


def run_demo(options: argparse.Namespace) -> None:
    """Fits the bundled generator's W and draws every figure."""
    model = load_model(options.model, options)
    result, record = fit_model(model, options)
    line = min(DEMO_LINE, record.curve.num_lines - 1)
    with new_folder(options.output, overwrite=options.overwrite, marker=DEMO_MARKER) as folder:
        save_curve(folder / "curve.npz", record)
        draw_map(model, record).savefig(folder / "map.png")
        distance_figure(record.curve).savefig(folder / "distances.png")
        history_figure(result.history).savefig(folder / "history.png")
        strengths, seeds = [-3.0, -1.5, 0.0, 1.5, 3.0], range(6)
        vector, layers = line_direction(record.curve, line), (0, model.num_layers - 1)
        spread = model.sample(jax.random.key(0), DEVIATION_SAMPLES)
        moved = [
            DirectionRecord(Direction.along(vector, layers, spread), f"Line {line}, all layers")
        ]
        latents = seed_latents(model, seeds, None)
        title = f"{moved[0].name}{truncated(latents)}"
        figure = draw_edit(model, latents, moved, [1.0], strengths, title=title)
        figure.savefig(folder / "edit.png")
        subject = _subject(model, record, options.model)
        page = exported(subject, (), limits=False)
        (folder / PAGE).write_text(page, encoding="utf-8")
        write_stretch(
            model, record, (line, line + 1), 64, folder / SAMPLES, key=jax.random.key(0), about={}
        )
    for warning in result.warnings:
        print(f"sfvq-jax {options.command}: warning: {warning}", file=sys.stderr)
    print(f"{options.output}: curve.npz, map.png, distances.png, history.png, edit.png, samples/")
    print(
        f"{Path(options.output) / PAGE}: open it in a browser to walk the curve; sfvq-jax explore"
        f" {options.model} {Path(options.output) / 'curve.npz'} renders it live, with the"
        " extra [explore]"
    )
    print(_map_report(model, record))


def _subject(model: LatentModel, record: CurveRecord, name: str) -> Subject:
    """What the page shows: the curve, measured by the bundled scorers."""
    scorers = load_scorers(ports.BUNDLED / "fashion_mnist_scorers.npz")
    find, judge = with_statistics(scorers, model)
    return Subject(
        model, record, find, judge, classes=scorers.classes, model_name=name, curve_name="curve.npz"
    )


def _map_report(model: LatentModel, record: CurveRecord) -> str:
    """How ordered the demo's map is: class runs beside the same codewords in a random order."""
    classifier = ports.load(ports.bundled(f"{DEMO_MODEL}_classifier"))
    assert isinstance(classifier, ports.Classifier)
    classes = np.asarray(classifier(model.render(record.curve.codewords))[0].argmax(1))
    quality, by_chance = codebook_quality(record.curve), class_runs_by_chance(classes)
    return (
        f"neighbours of the same class: {same_class_share(classes):.2f} (random order"
        f" {by_chance:.2f}); nearest codeword is a neighbour: {quality.neighbour_share:.2f}; step ÷"
        f" mean distance: {quality.step_ratio:.2f}"
    )
