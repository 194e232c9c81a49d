"""`directions`: what lines and pairs of codewords change, found, named and written down."""

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from sfvq_jax.cli.common import (
    ATTRIBUTES_HELP,
    add_examples,
    add_memory,
    add_output,
    add_scorer_option,
    add_seed,
    direction_source,
    kept_parts,
    name_list,
    progress_bar,
    scorers_of,
    slug,
    table,
)
from sfvq_jax.cli.models import add_model_and_curve, load_both
from sfvq_jax.interpret import (
    Direction,
    DirectionRecord,
    Effect,
    FoundDirection,
    Gain,
    Interval,
    find_directions,
    measured_of,
    render_edits,
    save_direction,
)
from sfvq_jax.io.curve_file import CurveRecord, curve_sha256
from sfvq_jax.io.output import new_folder
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.views import directions_figure, effects_figure
from sfvq_jax.views.grids import MAP_SIDE

DIRECTIONS_MARKER = "directions.json"
PARTS_OF = (FoundDirection, Direction, Effect, Gain, Interval)
DRAWN = 5  # directions in the figure
DRAWN_LATENTS = 3
DRAWN_STRENGTHS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


def add_directions(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_directions)
    add_output(command, "output folder", marker=DIRECTIONS_MARKER)
    add_examples(
        command,
        "directions ffhq/ curve.npz --scorer scorer.npz -o directions/",
        "directions ffhq/ curve.npz --attributes brightness,width --each 3 -o directions/",
    )
    add_model_and_curve(command)
    add_scorer_option(command)
    command.add_argument("--attributes", type=name_list, help=ATTRIBUTES_HELP)
    command.add_argument(
        "--each",
        type=int,
        default=1,
        help="number of directions for each attribute (default: %(default)s)",
    )
    command.add_argument(
        "--lines",
        action="store_true",
        help="search only the lines of the curve, not all pairs of codewords",
    )
    command.add_argument(
        "--latents",
        type=int,
        default=256,
        help="number of fresh latents to measure on (default: %(default)s)",
    )
    add_seed(command)
    add_memory(command)


def run_directions(options: argparse.Namespace) -> None:
    model, record = load_both(options)
    find, judge = scorers_of(options, model, options.attributes)
    key, drawn_key = jax.random.split(jax.random.key(options.seed))
    parts = kept_parts(
        options, model, [find, judge], PARTS_OF,
        ["attributes", "each", "lines", "latents", "seed"], curve=curve_sha256(record),
    )  # fmt: skip
    with parts as done:
        with progress_bar() as show:
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
                done=done,
                on_progress=show,
            )
        _write(options, model, record, found, drawn_key)


def _write(
    options: argparse.Namespace,
    model: LatentModel,
    record: CurveRecord,
    found: Sequence[FoundDirection],
    drawn_key: jax.Array,
) -> None:
    settings = {"seed": options.seed, "latents": options.latents, "lines": options.lines}
    with new_folder(options.output, overwrite=options.overwrite, marker=DIRECTIONS_MARKER) as path:
        index = []
        for i, direction in enumerate(found):
            name = f"{i:02d}-{slug(direction.name)}.json"
            save_direction(path / name, _record_of(direction, record, settings))
            index.append({"file": name, "name": direction.name} | measured_of(direction))
        (path / DIRECTIONS_MARKER).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        write_table(path / "directions.csv", [entry["file"] for entry in index], found)
        vectors = [np.asarray(direction.direction.vector) for direction in found]
        np.save(path / "directions.npy", np.reshape(vectors, (-1, model.latent_dim)))
        draw_effects(found).savefig(path / "effects.png")
        draw_directions(model, found, drawn_key).savefig(path / "directions.png")
    rows = [
        (entry["file"], *_direction_row(direction))
        for entry, direction in zip(index, found, strict=True)
    ]
    print(table([("file", *DIRECTION_COLUMNS), *rows]))
    confirmed = sum(direction.confirmed for direction in found)
    told = f"{options.output}: {len(found)} directions, {confirmed} confirmed"
    print(f"{told}; directions.csv, directions.npy, directions.png, effects.png")


def indexed(folder: Path) -> list[tuple[str, Path]]:
    """Attribute and file of each direction in a folder that `directions` or `adopt` wrote."""
    index = folder / DIRECTIONS_MARKER
    try:
        rows = json.loads(index.read_text(encoding="utf-8"))
        return [(str(row["attribute"]), folder / Path(str(row["file"])).name) for row in rows]
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{folder} holds no {index.name}: name a direction's .json, or a folder that"
            " `directions` wrote"
        ) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{index} is damaged: name a direction's .json in {folder}") from error


def draw_directions(model: LatentModel, found: Sequence[FoundDirection], key: jax.Array) -> Figure:
    """The directions with the greatest effect on their attribute, confirmed ones first."""

    def rank(direction: FoundDirection) -> tuple[bool, float]:
        effect = direction.judged.get(direction.attribute)
        return not direction.confirmed, 0.0 if effect is None else -effect.mean

    drawn = sorted(found, key=rank)[:DRAWN]
    latents = model.sample(key, DRAWN_LATENTS)
    strengths = jnp.array(DRAWN_STRENGTHS)
    images = [
        render_edits(model, latents, direction.direction, strengths, max_side=MAP_SIDE)
        for direction in drawn
    ]
    return directions_figure(
        np.stack(images),
        [direction.name for direction in drawn],
        DRAWN_STRENGTHS,
        [direction.limits for direction in drawn],
    )


def draw_effects(found: Sequence[FoundDirection]) -> Figure:
    """What each direction does to every attribute, by the judge."""
    names = list(dict.fromkeys(name for direction in found for name in direction.judged))
    effects = np.full((len(found), len(names)), np.nan)
    for row, direction in zip(effects, found, strict=True):
        for name, effect in direction.judged.items():
            row[names.index(name)] = effect.mean
    own = [names.index(d.attribute) if d.attribute in names else None for d in found]
    return effects_figure(effects, [direction.name for direction in found], names, own)


DIRECTION_COLUMNS = ("attribute", "name", "codewords", "effect, judged", "gained", "by chance",
                     "entangled", "limits", "")  # fmt: skip


def _direction_row(direction: FoundDirection) -> tuple[str, ...]:
    effect = direction.judged.get(direction.attribute)
    judged = "-" if effect is None else f"{effect.mean:+.2f} [{effect.low:.2f}, {effect.high:.2f}]"
    gain, (low, high) = direction.gain, direction.limits
    start, stop = direction.codewords
    return (
        direction.attribute,
        direction.name,
        f"{start} to {stop}",
        judged,
        "-" if gain is None else f"{gain.gained.mean:.0%} at {gain.strength:+.1f}",
        "-" if gain is None else f"{gain.by_chance.mean:.0%}",
        f"{direction.entanglement:.2f}",
        f"{'-' if low is None else f'{low:.1f}'} {'-' if high is None else f'{high:+.1f}'}",
        "confirmed" if direction.confirmed else "",
    )


def write_table(path: Path, files: Sequence[str], found: Sequence[FoundDirection]) -> None:
    """A .csv of a row a direction: what is known of it, and its effect on every attribute."""
    judged = dict.fromkeys(name for direction in found for name in direction.judged)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow([*TABLE_COLUMNS, *(f"effect on {name}" for name in judged)])
        for name, direction in zip(files, found, strict=True):
            effect, gain = direction.judged.get(direction.attribute), direction.gain
            gained = [None] * 7 if gain is None else [gain.strength, *gain.gained, *gain.by_chance]
            effects = (direction.judged.get(other) for other in judged)
            rows.writerow(
                [
                    name, direction.name, direction.attribute,
                    *direction.codewords, *direction.direction.layers, direction.direction.unit,
                    *direction.limits, *([None] * 3 if effect is None else effect[:3]), *gained,
                    direction.entanglement, direction.confirmed,
                    *(None if effect is None else effect.mean for effect in effects),
                ]
            )  # fmt: skip


TABLE_COLUMNS = (
    "file", "name", "attribute", "from codeword", "to codeword", "first layer", "last layer",
    "unit", "lower limit", "upper limit", "effect", "effect low", "effect high", "gained at",
    "gained", "gained low", "gained high", "by chance", "by chance low", "by chance high",
    "entanglement", "confirmed",
)  # fmt: skip


def _record_of(direction: FoundDirection, record: CurveRecord, settings: dict) -> DirectionRecord:
    return DirectionRecord(
        direction.direction,
        direction.name,
        record.space,
        record.model_hash,
        direction_source(record, direction.codewords) | {"found with": settings},
        measured_of(direction),
    )
