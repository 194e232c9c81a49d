"""`augment`: datasets of new images along a curve, around it, or of what is asked for."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sfvq_jax.cli.common import (
    add_examples,
    add_memory,
    add_output,
    add_scorer_option,
    add_seed,
    fitted_scorers,
    scorers_of,
    shown,
)
from sfvq_jax.cli.models import add_model_and_curve, load_both
from sfvq_jax.images import batch_of, in_batches
from sfvq_jax.interpret import (
    Scorer,
    positions_along,
    sample_around,
    sample_balanced,
    sample_by_attribute,
    sample_labelled,
    write_dataset,
)
from sfvq_jax.interpret.augment.dataset import MANIFEST
from sfvq_jax.interpret.augment.lines import REAL_LATENTS
from sfvq_jax.interpret.edit.apply import check_line
from sfvq_jax.io.curve_file import CurveRecord, curve_sha256
from sfvq_jax.io.label_file import agreeing_lines, load_labels
from sfvq_jax.latent_model import LatentModel

JUDGED_BESIDE = 512  # images that tell what is much of an attribute
BATCH = 64  # images judged at once, fewer where they are large


def add_augment(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_augment)
    add_output(
        command,
        "dataset to write: a folder of PNGs, or an .npz",
        endings=(".npz",),
        marker=MANIFEST,
    )
    add_examples(
        command,
        "augment ffhq/ curve.npz --line 12 --count 64 -o samples/",
        "augment ffhq/ curve.npz --attribute smile --scorer scorer.npz --count 10000 -o smiles/",
        "augment ffhq/ curve.npz --labels curve.labels.json --count 2000 -o labelled/",
        "augment ffhq/ curve.npz --balanced --scorer scorer.npz --count 5000 -o dataset.npz",
    )
    add_model_and_curve(command)
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--line", type=int, help="sample along this line of the curve, from 0")
    what.add_argument(
        "--stretch",
        type=stretch_of_text,
        help="sample between two positions on the curve, start:stop, such as 3.5:7",
    )
    what.add_argument(
        "--attribute", help="sample images that have this attribute: a class or a statistic"
    )
    what.add_argument(
        "--labels",
        help="sample equally many images of each label in this file (.json), which `explore` keeps"
        " beside the curve; they come from lines whose two ends have the label",
    )
    what.add_argument(
        "--balanced",
        action="store_true",
        help="sample equally many images of each class of the scorer",
    )
    command.add_argument(
        "--count", type=int, default=64, help="number of images (default: %(default)s)"
    )
    command.add_argument(
        "--noise",
        type=float,
        help="distance from the curve, from 0 (on the curve) to 1 (as far as the model's latents);"
        " default: 0 with --line, --stretch and --labels, otherwise 1",
    )
    command.add_argument(
        "--above",
        type=float,
        help="lowest score of --attribute (default: the attribute is more likely than not; for a"
        " statistic, the upper quartile of the model's images)",
    )
    command.add_argument(
        "--below", type=float, help="highest score of --attribute (default: no limit)"
    )
    add_scorer_option(command)
    add_seed(command)
    add_memory(command)


def run_augment(options: argparse.Namespace) -> None:
    by_score = options.attribute is not None or options.balanced
    if options.attribute is None and (options.above, options.below) != (None, None):
        raise ValueError("--above and --below are limits of --attribute: leave them out")
    if not by_score and options.scorer is not None:
        raise ValueError("--scorer goes with --attribute or --balanced: leave it out")
    model, record = load_both(options)
    key = jax.random.key(options.seed)
    about = {"seed": options.seed}
    if options.labels is not None:
        write_labelled(model, record, options, key)
        return
    if not by_score:
        if options.line is not None:
            check_line(record.curve, options.line)
            stretch = options.line, options.line + 1
        else:
            stretch = options.stretch
        write_stretch(
            model, record, stretch, options.count, options.output,
            key=key, noise=options.noise or 0.0, about=about, overwrite=options.overwrite,
        )  # fmt: skip
        print(f"{options.output}: {options.count} images")
        return
    noise = 1.0 if options.noise is None else options.noise
    fitted = fitted_scorers(options)
    names: tuple[str, ...]
    if options.balanced:
        if fitted is None:
            raise ValueError("--balanced needs classes: name a --scorer, as `scorer` writes it")
        find, judge, names = fitted.find, fitted.judge, fitted.find.names
        samples = sample_balanced(key, model, record.curve, find, options.count, noise=noise)
    else:
        attribute = str(options.attribute)
        (find, judge), names = scorers_of(options, model, [attribute]), (attribute,)
        samples = sample_by_attribute(
            key, model, record.curve, find, attribute, options.count,
            above=options.above, below=options.below, noise=noise,
        )  # fmt: skip
    labels = np.zeros(options.count, np.int32) if samples.labels is None else samples.labels
    write_dataset(
        options.output, model, samples.latents, positions=samples.positions, labels=labels,
        names=names, scores=samples.scores, score_names=find.names,
        about=_about(
            record,
            about | {"noise": noise, "attributes": list(names), "accepted": samples.accepted}
            | _limits(names, samples.thresholds, options.below),
        ),
        overwrite=options.overwrite,
    )  # fmt: skip
    told = f"{options.output}: {options.count} images, {samples.accepted:.1%} of those drawn"
    if options.attribute is not None:
        told += f", with {_range(names[0], float(samples.thresholds[0]), options.below)}"
    limited = (options.above, options.below) != (None, None)
    if set(names) <= set(judge.names) and not limited:
        share = judged_share(key, model, judge.select(names), samples.latents, labels)
        told += f"; {share:.1%} have their attribute by the judge"
    print(told)


def _limits(names: Sequence[str], above: np.ndarray, below: float | None) -> dict[str, Any]:
    """Of the scores, as JSON: those that there are."""
    lower = dict(zip(names, above.tolist(), strict=True))
    limits = {} if np.isinf(above).any() else {"above": lower}
    return limits | ({} if below is None else {"below": dict.fromkeys(names, below)})


def _range(name: str, above: float, below: float | None) -> str:
    lower = "" if np.isinf(above) else f" above {above:.3g}"
    return f"{name}{lower}{'' if below is None else f' below {below:.3g}'}"


def judged_share(
    key: jax.Array, model: LatentModel, judge: Scorer, latents: np.ndarray, labels: np.ndarray
) -> float:
    """Share of the images that have the attribute of their label.

    Where that is relative, beside other images of the model.
    """

    def scores(latents: np.ndarray | jax.Array) -> np.ndarray:
        return in_batches(lambda part: judge(model.render(part)), latents, batch_of(model, BATCH))

    judged = scores(latents)
    others = judged if None not in judge.thresholds else scores(model.sample(key, JUDGED_BESIDE))
    return float((judged > judge.thresholds_among(others))[np.arange(len(labels)), labels].mean())


def write_stretch(
    model: LatentModel,
    record: CurveRecord,
    stretch: tuple[float, float],
    count: int,
    path: str | Path,
    *,
    key: jax.Array,
    about: dict[str, Any],
    noise: float = 0.0,
    overwrite: bool = False,
) -> None:
    """A dataset of images evenly along a stretch of the curve, or around it."""
    positions = positions_along(record.curve, *stretch, count)
    real_key, key = jax.random.split(key)
    real = model.sample(real_key, REAL_LATENTS)
    latents = sample_around(key, record.curve, positions, real, noise=noise)
    about = _about(record, about | {"noise": noise, "stretch": list(stretch)})
    write_dataset(path, model, latents, positions=positions, about=about, overwrite=overwrite)


def write_labelled(
    model: LatentModel, record: CurveRecord, options: argparse.Namespace, key: jax.Array
) -> None:
    """A dataset of images from the lines that a person labelled."""
    curve = record.curve
    labels = load_labels(
        options.labels, curve_sha256=curve_sha256(record), num_lines=curve.num_lines
    )
    lines = agreeing_lines(labels.labels, curve.num_lines)
    noise = options.noise or 0.0
    samples = sample_labelled(key, model, curve, lines, options.count, noise=noise)
    write_dataset(
        options.output, model, samples.latents, positions=samples.positions,
        labels=samples.labels, names=samples.names,
        about=_about(record, {"seed": options.seed, "noise": noise}),
        overwrite=options.overwrite,
    )  # fmt: skip
    told = ", ".join(f"{shown(name)} from {len(of_it)}" for name, of_it in lines.items())
    print(f"{options.output}: {options.count} images; lines whose ends agree: {told}")


def _about(record: CurveRecord, about: dict[str, Any]) -> dict[str, Any]:
    return {
        "space": record.space,
        "model_hash": record.model_hash,
        "curve_sha256": curve_sha256(record),
        **about,
    }


def stretch_of_text(text: str) -> tuple[float, float]:
    try:
        start, stop = (float(part) for part in text.split(":"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: expected start:stop, such as 3.5:7") from error
    return start, stop
