"""`edit`: latents, of seeds or of a file, moved along directions, of a line or of files."""

import argparse
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from sfvq_jax.cli.common import (
    DEVIATION_SAMPLES,
    FIGURE_ENDINGS,
    add_examples,
    add_memory,
    add_output,
    add_scorer_option,
    direction_source,
    integer_list,
    layer_range,
    name_list,
    save_figure,
    scorers_of,
    shown,
    strength_list,
)
from sfvq_jax.cli.directions import indexed
from sfvq_jax.cli.latents import Latents, add_latents, file_latents, seed_latents
from sfvq_jax.cli.models import add_model, load_both, load_for
from sfvq_jax.interpret import (
    Direction,
    DirectionRecord,
    attribute_gradients,
    hold_attributes,
    line_direction,
    load_direction,
    render_edits,
    save_direction,
)
from sfvq_jax.io.sweeps import KINDS, check_kinds
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.views import write_edits
from sfvq_jax.views.edit_files import (
    LATENTS,
    MANIFEST,
    MOST_DRAWN,
    check_overview,
    overview_figure,
    title_of,
)
from sfvq_jax.views.grids import EDIT_SIDE

GRADIENT_LATENTS = 256  # whose mean gradients are held
STRENGTHS = (-2.0, -1.0, 1.0, 2.0)
UNIT_DIFFERS = 0.1  # share of a standard deviation; samples differ by less


def add_edit(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_edit)
    add_output(
        command,
        "folder for images at full size, their latents and an overview; or a picture (.png, .pdf,"
        " .svg, …) for the overview alone",
        endings=FIGURE_ENDINGS,
        marker=MANIFEST,
    )
    add_examples(
        command,
        "edit ffhq/ curve.npz --line 12 --layers 0-2 --strength -3:3:1 -o edited/",
        "edit ffhq/ --direction directions/ --attribute smile --sweep gif,mp4 -o smile/",
        "edit ffhq/ --direction smile.json --latents mine.npy --rows 3,5 -o smile/",
        "edit ffhq/ --direction directions/03-smile.json --hold brightness -o smile.png",
    )
    add_model(command)
    command.add_argument("curve", nargs="?", help="curve (.npz) of --line")
    command.add_argument("--line", type=int, help="line of the curve to move along, from 0")
    command.add_argument(
        "--layers",
        type=layer_range,
        help="layers that --line changes, first-last, both included (default: all)",
    )
    command.add_argument(
        "--direction",
        action="append",
        default=[],
        help="direction file (.json), or a folder that `directions` wrote, with --attribute; may be"
        " repeated: directions are added, each in its own layers; FILE:0.5 has half the strength",
    )
    command.add_argument(
        "--attribute", help="attribute whose best direction is taken from the folder of --direction"
    )
    command.add_argument(
        "--strength",
        type=strength_list,
        default=STRENGTHS,
        help="strengths: start:stop:step (stop included), or separated by commas; in standard"
        " deviations of latents along the direction (default: -2,-1,1,2); the command prints their"
        " lengths",
    )
    command.add_argument(
        "--hold", type=name_list, help="attributes to keep as they are, separated by commas"
    )
    add_output(
        command, "file (.json) for the direction, if there is only one", "--save-direction",
        endings=(".json",),
    )  # fmt: skip
    add_scorer_option(command)
    command.add_argument(
        "--seeds",
        type=integer_list,
        help="seeds of latents, first-last or separated by commas (default: 0-3)",
    )
    add_latents(command)
    command.add_argument(
        "--space",
        help="space of --latents, if it is not the direction's: z, which is mapped to that space",
    )
    command.add_argument(
        "--label", type=int, help="class that --latents in z are conditioned on, as a number"
    )
    command.add_argument(
        "--truncation",
        type=float,
        help="truncation of latents (default: 0.5 for those of seeds, but none in z of a StyleGAN2;"
        " none for --latents)",
    )
    command.add_argument(
        "--side", type=int, default=EDIT_SIDE,
        help="size of an image in the overview, in pixels (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--sweep", type=name_list, default=[],
        help="animations of each latent: formats, separated by commas, of"
        f" {', '.join(KINDS)}; mp4 needs the package imageio-ffmpeg",
    )  # fmt: skip
    command.add_argument(
        "--frames",
        type=int,
        default=25,
        help="number of images of an animation, one way (default: %(default)s)",
    )
    add_memory(command)


def run_edit(options: argparse.Namespace) -> None:
    _check_options(options)
    model, records, weights, spread = _directions_of(options)
    if len(records) == 1:  # FILE:0.5 halves the strengths
        options.strength, weights = [s * weights[0] for s in options.strength], [1.0]
    if options.hold:
        records = hold(model, records, spread, options)
    latents = file_latents(model, spread, options) if options.latents else seed_latents(
        model, options.seeds or range(4), options.truncation
    )  # fmt: skip
    title = title_of(records, weights) + truncated(latents)
    strengths = sorted({0.0, *options.strength})
    if _is_figure(options.output):
        figure = draw_edit(
            model, latents, records, weights, strengths, title=title, side=options.side
        )
        save_figure(figure, options.output, options)
    else:
        images = len(latents.rows) * (len(strengths) + options.frames * bool(options.sweep))
        with tqdm(total=images, unit=" images", leave=False, disable=None) as bar:
            write_edits(
                options.output, model, latents.values, records, strengths, weights=weights,
                rows=latents.rows, title=title, side=options.side, sweep=options.sweep,
                frames=options.frames, about={"model": options.model, **latents.about},
                overwrite=options.overwrite, on_image=bar.update,
            )  # fmt: skip
        print(_told(options, len(latents.rows), len(strengths)))
    if len(latents.rows) > MOST_DRAWN:
        print(f"the overview shows the first {MOST_DRAWN} of {len(latents.rows)}")
    for record, weight in zip(records, weights, strict=True):
        unit, low, high = record.direction.unit, strengths[0], strengths[-1]
        print(
            f"{shown(record.name or 'a direction')}: one standard deviation is {unit:.3g} in latent"
            f" space; strengths {low * weight:+g} to {high * weight:+g} are lengths"
            f" {low * weight * unit:+.3g} to {high * weight * unit:+.3g}"
        )
    if options.save_direction is not None:
        save_direction(options.save_direction, records[0], overwrite=options.overwrite)
        print(options.save_direction)


def _check_options(options: argparse.Namespace) -> None:
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
    if options.latents is not None and options.seeds is not None:
        raise ValueError("--latents stands in place of --seeds: leave one of them out")
    if options.latents is None:
        for name in ("rows", "space", "label"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name} goes with --latents, an .npy of yours: leave it out")
    elif options.space is None and (options.label, options.truncation) != (None, None):
        raise ValueError(
            "--label goes with --latents of --space z, and --truncation with these or with seeds:"
            " latents of the direction's own space are taken as they are"
        )
    ending = Path(options.output).suffix.lower()
    if ending.removeprefix(".") in KINDS and ending not in FIGURE_ENDINGS:
        raise ValueError(
            f"{options.output} is to be written, but sweeps go in a folder: -o"
            f" {Path(options.output).stem} --sweep {ending.removeprefix('.')}"
        )
    if options.sweep and _is_figure(options.output):
        raise ValueError(
            f"--sweep goes with a folder, and {options.output} is the overview alone: name a folder"
        )
    check_kinds(options.sweep)


def _directions_of(
    options: argparse.Namespace,
) -> tuple[LatentModel, list[DirectionRecord], Sequence[float], jax.Array]:
    """The model, the directions and their weights; and latents of the space, which measure it."""
    if options.line is not None:
        model, curve = load_both(options)
        vector = line_direction(curve.curve, options.line)
        layers = options.layers or (0, model.num_layers - 1)
        spread = model.sample(jax.random.key(0), DEVIATION_SAMPLES)
        direction = Direction.along(vector, layers, spread)
        name = f"Line {options.line}, layers {layers[0]}-{layers[1]}"
        source = direction_source(curve, (options.line, options.line + 1))
        record = DirectionRecord(direction, name, curve.space, curve.model_hash, source)
        return model, [record], [1.0], spread
    files, weights = zip(*map(_file_and_weight, options.direction), strict=True)
    files = [_file_of(file, options.attribute) for file in files]
    records = [load_direction(file) for file in files]
    model = load_for(options.model, records)
    spread = model.sample(jax.random.key(0), DEVIATION_SAMPLES)
    return model, list(map(_in_deviations, files, records, [spread] * len(files))), weights, spread


def _in_deviations(file: Path, record: DirectionRecord, spread: jax.Array) -> DirectionRecord:
    """A direction whose strength is in standard deviations, whatever its file says."""
    direction = record.direction
    measured = Direction.along(direction.vector, direction.layers, spread)
    if abs(direction.unit / measured.unit - 1) <= UNIT_DIFFERS:
        return record
    warnings.warn(
        f"{file} has the unit {direction.unit:.3g}, and one standard deviation of"
        f" {record.space or 'the latents'} along it is {measured.unit:.3g}: strengths are counted"
        " in the latter",
        stacklevel=2,
    )
    return record._replace(direction=measured, measured={})  # at strengths of the former


def hold(
    model: LatentModel,
    records: Sequence[DirectionRecord],
    spread: jax.Array,
    options: argparse.Namespace,
) -> list[DirectionRecord]:
    """The directions without what moves the attributes that are to be held."""
    find, _ = scorers_of(options, model, options.hold)
    latents = model.sample(jax.random.key(0), GRADIENT_LATENTS)
    gradients = attribute_gradients(model, find.select(options.hold), latents).mean(0)
    return [
        record._replace(
            direction=hold_attributes(record.direction, jnp.asarray(gradients), spread),
            name=f"{record.name}; {', '.join(options.hold)} held",
            measured={},
        )
        for record in records
    ]


def truncated(latents: Latents) -> str:
    truncation = latents.about["truncation"]
    return "" if truncation is None else f", truncation {truncation:g}"


def draw_edit(
    model: LatentModel,
    latents: Latents,
    records: Sequence[DirectionRecord],
    weights: Sequence[float],
    strengths: Sequence[float],
    *,
    title: str,
    side: int = EDIT_SIDE,
) -> Figure:
    """The overview alone, whose images are never at full size in memory all at once."""
    rows = latents.rows[:MOST_DRAWN]
    check_overview(model, len(rows), len(strengths), side)
    images = render_edits(
        model,
        latents.values[:MOST_DRAWN],
        [record.direction for record in records],
        jnp.asarray(np.outer(strengths, weights), jnp.float32),
        max_side=side,
    )
    return overview_figure(images, records, strengths, rows, title, side)


def _is_figure(path: str) -> bool:
    return Path(path).suffix.lower() in FIGURE_ENDINGS


def _told(options: argparse.Namespace, rows: int, columns: int) -> str:
    told = f"{options.output}: {rows * columns} images of {rows} latents in images/, {LATENTS}"
    if options.sweep:
        told += f", sweeps/ ({', '.join(options.sweep)})"
    return f"{told}, overview.png"


def _file_of(name: str, attribute: str | None) -> Path:
    """A direction's file: the name itself, or of a folder the first one of an attribute."""
    path = Path(name)
    if not path.is_dir():
        return path
    found = dict(reversed(indexed(path)))
    if attribute not in found:
        raise ValueError(
            f"name with --attribute which direction of {path}: there are"
            f" {', '.join(map(shown, reversed(found)))}"
        )
    return found[attribute]


def _file_and_weight(text: str) -> tuple[str, float]:
    match = re.fullmatch(r"(.*):(-?[\d.]+)", text)
    return (match[1], float(match[2])) if match else (text, 1.0)
