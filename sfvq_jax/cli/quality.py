"""`quality`: tells in words whether a curve is a good map."""

import argparse

import jax

from sfvq_jax.cli.common import (
    add_examples,
    add_memory,
    add_scorer_option,
    add_seed,
    fitted_scorers,
    table,
)
from sfvq_jax.cli.map import add_labels, check_drawn, read_labels
from sfvq_jax.cli.models import add_model_and_curve, is_of_latents, load_for
from sfvq_jax.interpret import map_quality, report
from sfvq_jax.io.curve_file import load_curve
from sfvq_jax.sources import HostSource


def add_quality(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_quality)
    add_examples(
        command,
        "quality ffhq/ curve.npz",
        "quality ffhq/ curve.npz --scorer scorer.npz",
        "quality latents.npy curve.npz --labels labels.npy",
    )
    add_model_and_curve(command, arrays=True)
    add_scorer_option(command)
    add_labels(command)
    add_seed(command)
    add_memory(command)


def run_quality(options: argparse.Namespace) -> None:
    record, labels = load_curve(options.curve), None
    if is_of_latents(options.model):
        if options.scorer is not None:
            raise ValueError(
                f"--scorer judges images, and {options.model} has none: leave it out, or name the"
                " generator"
            )
        model, source = None, HostSource(options.model, scale=options.scale)
        labels = read_labels(options)
    else:
        check_drawn(options)
        model = source = load_for(options.model, [record])
    fitted = None if model is None else fitted_scorers(options)
    if fitted is not None and fitted.kind != "classes":
        raise ValueError(
            f"{options.scorer} scores {fitted.kind}, and a map is measured by classes, one an"
            " image: leave --scorer out, or name one of classes"
        )
    scorer = None if fitted is None else fitted.judge
    key = jax.random.key(options.seed)
    quality = map_quality(key, record.curve, source, model=model, scorer=scorer, labels=labels)
    found = report(quality)
    print(table([(f.measure, f.value, f.verdict) for f in found]))
