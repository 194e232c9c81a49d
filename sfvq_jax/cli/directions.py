"""`scorer`, `directions` and `edit`: what images show, what changes it, and images changed."""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError

from sfvq_jax.cli.common import (
    AddCommand,
    add_model_and_curve,
    add_scorer,
    curve_sha256,
    integer_list,
    layer_range,
    load_both,
    load_for,
    save_figure,
    scorers_of,
    strength_list,
    table,
)
from sfvq_jax.curve_file import CurveRecord
from sfvq_jax.interpret import (
    Direction,
    DirectionRecord,
    FoundDirection,
    attribute_gradients,
    deviation_along,
    edit_latents,
    find_directions,
    fit_scorers,
    hold_attributes,
    line_direction,
    load_direction,
    measured_of,
    save_direction,
    save_scorers,
)
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.output import check_free, new_folder
from sfvq_jax.views import directions_figure, edit_figure, render_images
from sfvq_jax.views.figures import MAP_SIDE

DEVIATION_SAMPLES = 2**14
GRADIENT_LATENTS = 256  # whose mean gradients are held
DIRECTIONS_MARKER = "directions.json"
DRAWN = 5  # directions in the figure
DRAWN_LATENTS = 3
DRAWN_STRENGTHS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
FOLDER_SIDE = 64  # pixels to which the images of a folder are scaled; scorers see no more


def add_direction_commands(add: AddCommand) -> None:
    scorer = add("scorer", run_scorer, "learns attributes from labelled images", "the .npz")
    scorer.add_argument(
        "images", help="an .npz with images, labels and perhaps names, or a folder with one a class"
    )
    scorer.add_argument("--epochs", type=int, help="times that each image is seen")
    scorer.add_argument("--seed", type=int, default=0)

    directions = add(
        "directions", run_directions, "finds and names directions, layers included", "folder"
    )
    add_model_and_curve(directions)
    add_scorer(directions)
    directions.add_argument(
        "--attributes", type=lambda text: text.split(","), help="a list; all by default"
    )
    directions.add_argument(
        "--each", type=int, default=1, help="directions an attribute (%(default)s)"
    )
    directions.add_argument(
        "--lines", action="store_true", help="only lines, not any pair of codewords"
    )
    directions.add_argument(
        "--latents", type=int, default=256, help="fresh latents to measure on (%(default)s)"
    )
    directions.add_argument("--seed", type=int, default=0)

    edit = add("edit", run_edit, "draws seeds moved along directions", "the figure")
    edit.add_argument("model", help="a converted generator, or a bundled one")
    edit.add_argument("curve", nargs="?", help="a curve.npz, for --line")
    edit.add_argument("--line", type=int, help="line of the curve, from 0")
    edit.add_argument(
        "--layers", type=layer_range, help="of --line: first-last, both included; all by default"
    )
    edit.add_argument(
        "--direction",
        action="append",
        default=[],
        help="a direction's .json; several are added, each in its own layers; FILE:0.5 is half",
    )
    edit.add_argument(
        "--strength",
        type=strength_list,
        help="start:stop:step (stop included) or a list; of --line distances along the unit"
        " direction, of --direction its units (-10:10:5, -2:2:1)",
    )
    edit.add_argument(
        "--hold", type=lambda text: text.split(","), help="attributes to leave as they are"
    )
    edit.add_argument("--save-direction", metavar="JSON", help="write the one direction here")
    add_scorer(edit)
    edit.add_argument("--seeds", type=integer_list, default=range(4), help="first-last or a list")
    edit.add_argument("--truncation", type=float, default=0.5, help="of the seeds' latents")


def run_scorer(options: argparse.Namespace) -> None:
    check_free(options.output, overwrite=options.overwrite)
    images, labels, names = read_labelled(options.images)
    fits = fit_scorers(
        jax.random.key(options.seed), images, labels, names=names, epochs=options.epochs
    )
    about = {
        role: {"measure": fit.measure, "overall": fit.overall, "baseline": fit.baseline}
        for role, fit in fits._asdict().items()
    }
    find, judge = fits.find, fits.judge
    save_scorers(
        options.output,
        find.scorer,
        judge.scorer,
        about=about | {"seed": options.seed, "images": len(images)},
        overwrite=options.overwrite,
    )
    rows = [(f"held-out {find.measure}", "find", "judge")]
    rows += [
        (name, f"{find.held_out[name]:.3f}", f"{judge.held_out[name]:.3f}")
        for name in find.scorer.names
    ]
    rows.append(("overall", f"{find.overall:.3f}", f"{judge.overall:.3f}"))
    rows.append(("without looking", f"{find.baseline:.3f}", f"{judge.baseline:.3f}"))
    print(table(rows))
    print(options.output)


def run_directions(options: argparse.Namespace) -> None:
    model, record = load_both(options, marker=DIRECTIONS_MARKER)
    if options.each < 1 or options.latents < 2:
        raise ValueError("--each must be 1 or more, --latents 2 or more")
    find, judge = scorers_of(options)
    key, drawn_key = jax.random.split(jax.random.key(options.seed))
    found = find_directions(
        key,
        model,
        record.curve,
        find,
        judge,
        attributes=options.attributes,
        per_attribute=options.each,
        pairs=not options.lines,
        latents=options.latents,
    )
    settings = {"seed": options.seed, "latents": options.latents, "lines": options.lines}
    with new_folder(options.output, overwrite=options.overwrite, marker=DIRECTIONS_MARKER) as path:
        index = []
        for i, direction in enumerate(found):
            name = f"{i:02d}-{_slug(direction.name)}.json"
            save_direction(path / name, _record_of(direction, record, settings))
            index.append({"file": name, "name": direction.name} | measured_of(direction))
        (path / DIRECTIONS_MARKER).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        draw_directions(model, found, drawn_key).savefig(path / "directions.png")
    print(table([DIRECTION_COLUMNS, *map(_direction_row, found)]))
    confirmed = sum(direction.confirmed for direction in found)
    print(f"{options.output}: {len(found)} directions, {confirmed} confirmed; directions.png")


def run_edit(options: argparse.Namespace) -> None:
    if (options.line is None) == (not options.direction):
        raise ValueError("name either --line of a curve or --direction FILE, once or more")
    if (options.line is None) != (options.curve is None):
        raise ValueError("--line goes with a curve, and a curve with --line")
    if options.layers is not None and options.line is None:
        raise ValueError("--layers goes with --line: a direction file has its own layers")
    check_free(options.output, overwrite=options.overwrite)
    if options.save_direction is not None:
        if len(options.direction) > 1:
            raise ValueError("--save-direction writes one direction, and there are several")
        check_free(options.save_direction, overwrite=options.overwrite)
    if options.line is not None:
        model, curve = load_both(options)
        layers = options.layers or (0, model.num_layers - 1)
        direction = Direction(line_direction(curve.curve, options.line), layers)
        name = f"Line {options.line}, layers {layers[0]}-{layers[1]}"
        source = _source(curve, (options.line, options.line + 1))
        records = [DirectionRecord(direction, name, curve.space, curve.model_hash, source)]
        weights = [1.0]
    else:
        files, weights = zip(*map(_file_and_weight, options.direction), strict=True)
        records = [load_direction(file) for file in files]
        model = load_for(options.model, records)
    if options.hold:
        records = hold(model, records, options)
    default = [-10.0, -5.0, 0.0, 5.0, 10.0] if options.line is not None else [-2.0, -1.0, 1.0, 2.0]
    strengths = default if options.strength is None else options.strength
    figure = draw_edit(model, records, weights, strengths, options.seeds, options.truncation)
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


def draw_edit(
    model: LatentModel,
    records: Sequence[DirectionRecord],
    weights: Sequence[float],
    strengths: Sequence[float],
    seeds: Sequence[int],
    truncation: float,
) -> Figure:
    """Edits of the latents that the seeds give; an unedited column is added where none is asked."""
    strengths = sorted({0.0, *strengths})
    samples = [model.sample(jax.random.key(seed), 1, truncation=truncation) for seed in seeds]
    codes = edit_latents(
        jnp.concatenate(samples),
        [record.direction for record in records],
        jnp.asarray(np.outer(strengths, weights), jnp.float32),
        model.num_layers,
    )
    images = render_images(model, codes.reshape(-1, *codes.shape[2:]), max_side=MAP_SIDE)
    images = images.reshape(len(seeds), len(strengths), *images.shape[1:])
    deviation = None
    if len(records) == 1:
        direction = records[0].direction
        spread = model.sample(jax.random.key(0), DEVIATION_SAMPLES)
        deviation = float(deviation_along(spread, direction.vector)) / direction.unit
    names = " +\n".join(record.name or "a direction" for record in records)
    return edit_figure(images, strengths, deviation, seeds, f"{names}, truncation {truncation:g}")


def draw_directions(model: LatentModel, found: Sequence[FoundDirection], key: jax.Array) -> Figure:
    """The directions with the greatest effect on their attribute, confirmed ones first."""

    def rank(direction: FoundDirection) -> tuple[bool, float]:
        effect = direction.judged.get(direction.attribute)
        return not direction.confirmed, 0.0 if effect is None else -effect.mean

    drawn = sorted(found, key=rank)[:DRAWN]
    latents = model.sample(key, DRAWN_LATENTS)
    images = []
    for direction in drawn:
        strengths = jnp.array(DRAWN_STRENGTHS)
        codes = edit_latents(latents, direction.direction, strengths, model.num_layers)
        rendered = render_images(model, codes.reshape(-1, *codes.shape[2:]), max_side=MAP_SIDE)
        images.append(rendered.reshape(*codes.shape[:2], *rendered.shape[1:]))
    return directions_figure(
        np.stack(images),
        [direction.name for direction in drawn],
        DRAWN_STRENGTHS,
        [direction.limits for direction in drawn],
    )


def read_labelled(name: str) -> tuple[np.ndarray, np.ndarray, Sequence[str] | None]:
    """Images, labels and names, of an .npz or a folder with a folder of images a class.

    Raises:
      ValueError: neither of them, or what cannot be read.
    """
    path = Path(name)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file or folder {path}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
            names = [str(name) for name in arrays["names"]] if "names" in arrays else None
    except Exception as error:  # damaged bytes make zipfile and NumPy raise errors of many kinds
        raise ValueError(f"{path} is no .npz with images and labels ({error})") from error
    return images, labels, names


def _read_folder(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    classes = sorted(folder for folder in path.iterdir() if folder.is_dir())
    images, labels = [], []
    for label, folder in enumerate(classes):
        for file in sorted(file for file in folder.iterdir() if file.is_file()):
            try:
                with Image.open(file) as image:
                    kind = "L" if image.mode in ("1", "L") else "RGB"
                    side = max(image.size)
                    size = image.size if side <= 32 else (FOLDER_SIDE, FOLDER_SIDE)
                    images.append(np.asarray(image.convert(kind).resize(size)))
            except UnidentifiedImageError as error:
                raise ValueError(f"{file} is no image that can be read") from error
            labels.append(label)
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise ValueError(
            f"{path} holds images of {len(shapes)} different shapes; expected a folder a class, and"
            " in it images that are all colour or all gray"
        )
    stacked = np.stack(images)
    stacked = stacked[..., None] if stacked.ndim == 3 else stacked
    return stacked, np.array(labels), [folder.name for folder in classes]


DIRECTION_COLUMNS = ("attribute", "name", "codewords", "effect, judged", "agree", "entangled",
                     "limits", "")  # fmt: skip


def _direction_row(direction: FoundDirection) -> tuple[str, ...]:
    effect = direction.judged.get(direction.attribute)
    judged = "-" if effect is None else f"{effect.mean:+.2f} [{effect.low:.2f}, {effect.high:.2f}]"
    low, high = direction.limits
    start, stop = direction.codewords
    return (
        direction.attribute,
        direction.name,
        f"{start} to {stop}",
        judged,
        "-" if effect is None else f"{effect.agree:.2f}",
        f"{direction.entanglement:.2f}",
        f"{'-' if low is None else f'{low:.1f}'} {'-' if high is None else f'{high:+.1f}'}",
        "confirmed" if direction.confirmed else "",
    )


def _record_of(direction: FoundDirection, record: CurveRecord, settings: dict) -> DirectionRecord:
    return DirectionRecord(
        direction.direction,
        direction.name,
        record.space,
        record.model_hash,
        _source(record, direction.codewords) | {"found with": settings},
        measured_of(direction),
    )


def _source(record: CurveRecord, codewords: tuple[int, int]) -> dict:
    return {"curve_sha256": curve_sha256(record), "codewords": list(codewords)}


def _file_and_weight(text: str) -> tuple[str, float]:
    match = re.fullmatch(r"(.*):(-?[\d.]+)", text)
    return (match[1], float(match[2])) if match else (text, 1.0)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60]
