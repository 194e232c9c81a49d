"""`edit`: seeds moved along directions, of a line or of files."""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import ports
from sfvq_jax.cli.common import (
    FIGURE_ENDINGS,
    add_examples,
    add_output,
    add_scorer_option,
    direction_source,
    integer_list,
    layer_range,
    load_both,
    load_for,
    name_list,
    save_figure,
    scorers_of,
    shown,
    strength_list,
)
from sfvq_jax.cli.directions import DIRECTIONS_MARKER
from sfvq_jax.interpret import (
    Direction,
    DirectionRecord,
    attribute_gradients,
    deviation_along,
    hold_attributes,
    line_direction,
    load_direction,
    render_edits,
    save_direction,
)
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.views import edit_figure
from sfvq_jax.views.grids import MAP_SIDE

DEVIATION_SAMPLES = 2**14
TRUNCATION = 0.5  # of the published edits (arXiv 2410.20573)
GRADIENT_LATENTS = 256  # whose mean gradients are held


def add_edit(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_edit)
    add_output(command, "the figure", endings=FIGURE_ENDINGS)
    add_examples(
        command,
        "edit ffhq/ curve.npz --line 12 --layers 0-2 --strength -10:10:5 -o edit.png",
        "edit ffhq/ --direction directions/ --attribute smile -o smile.png",
        "edit ffhq/ --direction directions/03-smile.json --hold brightness -o smile.png",
    )
    command.add_argument("model", help="a converted generator, or a bundled one")
    command.add_argument("curve", nargs="?", help="a curve.npz, for --line")
    command.add_argument("--line", type=int, help="line of the curve, from 0")
    command.add_argument(
        "--layers", type=layer_range, help="of --line: first-last, both included; all by default"
    )
    command.add_argument(
        "--direction",
        action="append",
        default=[],
        help="a direction's .json, or the folder that `directions` wrote with --attribute; several"
        " are added, each in its own layers; FILE:0.5 is half",
    )
    command.add_argument(
        "--attribute", help="which direction of a folder: the best that was found for this"
    )
    command.add_argument(
        "--strength",
        type=strength_list,
        help="start:stop:step (stop included) or a list; of --line distances along the unit"
        " direction, of --direction its units (-10:10:5, -2:2:1)",
    )
    command.add_argument("--hold", type=name_list, help="attributes to leave as they are")
    add_output(command, "write the one direction here", "--save-direction", endings=(".json",))
    add_scorer_option(command)
    command.add_argument(
        "--seeds", type=integer_list, default=range(4), help="first-last or a list"
    )
    command.add_argument(
        "--truncation",
        type=float,
        help="of the seeds' latents; 0.5 by default, but for z of a StyleGAN2, which has none",
    )


def run_edit(options: argparse.Namespace) -> None:
    if (options.line is None) == (not options.direction):
        raise ValueError("name either --line of a curve or --direction FILE, once or more")
    if (options.line is None) != (options.curve is None):
        raise ValueError("--line goes with a curve, and a curve with --line")
    if options.layers is not None and options.line is None:
        raise ValueError("--layers goes with --line: a direction file has its own layers")
    if options.scorer is not None and not options.hold:
        raise ValueError("--scorer goes with --hold, whose attributes it knows: leave it out")
    if options.attribute is not None and not any(
        Path(_file_and_weight(name)[0]).is_dir() for name in options.direction
    ):
        raise ValueError("--attribute goes with --direction FOLDER, as `directions` writes it")
    if options.save_direction is not None and len(options.direction) > 1:
        raise ValueError("--save-direction writes one direction, and there are several")
    if options.line is not None:
        model, curve = load_both(options)
        layers = options.layers or (0, model.num_layers - 1)
        direction = Direction(line_direction(curve.curve, options.line), layers)
        name = f"Line {options.line}, layers {layers[0]}-{layers[1]}"
        source = direction_source(curve, (options.line, options.line + 1))
        records = [DirectionRecord(direction, name, curve.space, curve.model_hash, source)]
        weights = [1.0]
    else:
        files, weights = zip(*map(_file_and_weight, options.direction), strict=True)
        files = [_file_of(file, options.attribute) for file in files]
        records = [load_direction(file) for file in files]
        model = load_for(options.model, records)
    if options.hold:
        records = hold(model, records, options)
    default = [-10.0, -5.0, 0.0, 5.0, 10.0] if options.line is not None else [-2.0, -1.0, 1.0, 2.0]
    strengths = default if options.strength is None else options.strength
    truncation = usual_truncation(model) if options.truncation is None else options.truncation
    figure = draw_edit(model, records, weights, strengths, options.seeds, truncation)
    save_figure(figure, options.output, options)
    if options.save_direction is not None:
        save_direction(options.save_direction, records[0], overwrite=options.overwrite)
        print(options.save_direction)


def hold(
    model: LatentModel, records: Sequence[DirectionRecord], options: argparse.Namespace
) -> list[DirectionRecord]:
    """The directions without what moves the attributes that are to be held."""
    find, _ = scorers_of(options)
    latents = model.sample(jax.random.key(0), GRADIENT_LATENTS)
    gradients = attribute_gradients(model, find.select(options.hold), latents).mean(0)
    return [
        record._replace(
            direction=hold_attributes(record.direction, jnp.asarray(gradients)),
            name=f"{record.name}; {', '.join(options.hold)} held",
            measured={},
        )
        for record in records
    ]


def usual_truncation(model: LatentModel) -> float | None:
    """Of latents that are edited; z of a StyleGAN2 is truncated behind its mapping, or not."""
    return None if isinstance(model, ports.StyleGAN2Z) else TRUNCATION


def draw_edit(
    model: LatentModel,
    records: Sequence[DirectionRecord],
    weights: Sequence[float],
    strengths: Sequence[float],
    seeds: Sequence[int],
    truncation: float | None,
) -> Figure:
    """Edits of the latents that the seeds give; an unedited column is added where none is asked."""
    strengths = sorted({0.0, *strengths})
    samples = [model.sample(jax.random.key(seed), 1, truncation=truncation) for seed in seeds]
    images = render_edits(
        model,
        jnp.concatenate(samples),
        [record.direction for record in records],
        jnp.asarray(np.outer(strengths, weights), jnp.float32),
        max_side=MAP_SIDE,
    )
    deviation = None
    if len(records) == 1:
        direction = records[0].direction
        spread = model.sample(jax.random.key(0), DEVIATION_SAMPLES)
        along = float(deviation_along(spread, direction.vector))
        deviation = along / direction.unit or None  # 0 where latents do not differ along it
    names = " +\n".join(record.name or "a direction" for record in records)
    if truncation is not None:
        names += f", truncation {truncation:g}"
    return edit_figure(images, strengths, deviation, seeds, names)


def _file_of(name: str, attribute: str | None) -> Path:
    """A direction's file: the name itself, or of a folder the first one of an attribute."""
    path = Path(name)
    if not path.is_dir():
        return path
    index = path / DIRECTIONS_MARKER
    try:
        rows = json.loads(index.read_text(encoding="utf-8"))
        found = {str(row["attribute"]): Path(str(row["file"])).name for row in reversed(rows)}
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} holds no {index.name}: name a direction's .json, or a folder that"
            " `directions` wrote"
        ) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{index} is damaged: name a direction's .json in {path}") from error
    if attribute not in found:
        raise ValueError(
            f"name with --attribute which direction of {path}: there are"
            f" {', '.join(map(shown, reversed(found)))}"
        )
    return path / found[attribute]


def _file_and_weight(text: str) -> tuple[str, float]:
    match = re.fullmatch(r"(.*):(-?[\d.]+)", text)
    return (match[1], float(match[2])) if match else (text, 1.0)
