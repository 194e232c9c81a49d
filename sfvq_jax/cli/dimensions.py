"""`dimensions`: which latent dimensions, or lines of a curve, control a concept."""

import argparse
import functools
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from sfvq_jax.cli.common import (
    DEVIATION_SAMPLES,
    add_examples,
    add_memory,
    add_output,
    add_scorer_option,
    add_seed,
    fitted_scorers,
    kept_parts,
    name_list,
    progress_bar,
    slug,
    table,
)
from sfvq_jax.cli.models import add_model, add_space_options, check_no_space, load_for, load_model
from sfvq_jax.images import render_images
from sfvq_jax.interpret import (
    Direction,
    DirectionRecord,
    Effects,
    Found,
    GrownSet,
    Move,
    Ranking,
    Scorers,
    Translation,
    concentration,
    curve_lines,
    flip_matrix,
    intervene,
    latent_axes,
    save_direction,
    translate,
    translation_summary,
)
from sfvq_jax.interpret.dimensions.coordinates import HOWS
from sfvq_jax.interpret.dimensions.moves import ALL, RANDOM, SEQUENTIAL, WHOLE_MASK
from sfvq_jax.interpret.dimensions.translation import FOUND, NOT_FOUND
from sfvq_jax.io.curve_file import curve_sha256, load_curve
from sfvq_jax.io.output import new_folder
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.views import (
    growth_figure,
    importance_figure,
    interventions_figure,
    translation_figure,
)
from sfvq_jax.views.grids import MAP_SIDE

DIMENSIONS_MARKER = "dimensions.json"
PARTS_OF = (Effects, Found, Ranking, GrownSet, Move)
DRAWN = 8  # goals whose images are drawn
DRAWN_STEPS = 7  # of growing intervention, the unmoved image among them
COLUMNS = {  # title -> field of `WaySummary`
    "size": "size",
    "flipped": "flipped",
    "÷ random": "ratio",
    "astray": "astray",
    "damage": "damage",
    "inside": "inside",
}


def add_dimensions(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_dimensions)
    add_output(command, "output folder", marker=DIMENSIONS_MARKER)
    add_examples(
        command,
        "dimensions ffhq/ --space z --scorer scorer.npz -o sets/",
        "dimensions fashion_mnist --space z --sources sneaker --targets bag,boot -o sets/",
        "dimensions ffhq/ --curve curve.npz --scorer scorer.npz -o sets/",
    )
    add_model(command)
    add_space_options(command)
    add_scorer_option(command)
    command.add_argument(
        "--curve", help="curve (.npz); latents are moved along its lines in place of dimensions"
    )
    command.add_argument(
        "--sources",
        type=name_list,
        help="classes to start from, separated by commas (default: all)",
    )
    command.add_argument(
        "--targets", type=name_list, help="concepts to reach, separated by commas (default: all)"
    )
    command.add_argument(
        "--extreme",
        type=float,
        default=3.0,
        help="largest move of a dimension, in standard deviations (default: %(default)s)",
    )
    command.add_argument(
        "--how",
        choices=HOWS,
        default="shift",
        help="shift dimensions by the move, or set them to it (default: %(default)s)",
    )
    command.add_argument(
        "--share",
        type=float,
        default=0.9,
        help="share of the possible effect at which a set stops growing (default: %(default)s)",
    )
    command.add_argument(
        "--latents",
        type=int,
        default=16,
        help="number of latents of each source to rank dimensions on (default: %(default)s)",
    )
    command.add_argument(
        "--fresh",
        type=int,
        default=32,
        help="number of fresh latents of each source to measure on (default: %(default)s)",
    )
    command.add_argument(
        "--mask-steps",
        type=int,
        default=40,
        help="number of steps that optimise a mask; 0 for no masks (default: %(default)s)",
    )
    add_seed(command)
    add_memory(command)


def run_dimensions(options: argparse.Namespace) -> None:
    record = None if options.curve is None else load_curve(options.curve)
    if record is None:
        model = load_model(options.model, options)
    else:
        check_no_space(f"{options.curve}, and so its model,", options)
        model = load_for(options.model, [record])
    scorers = fitted_scorers(options)
    if scorers is None or scorers.kind == "numbers":
        raise ValueError(
            "concepts are classes or yes/no attributes: learn them by `sfvq-jax scorer`, and give"
            " the file with --scorer"
        )

    coordinates = latent_axes if record is None else functools.partial(curve_lines, record.curve)

    curve = None if record is None else curve_sha256(record)
    settings = [
        "sources", "targets", "extreme", "how", "share", "latents", "fresh", "mask_steps", "seed",
    ]  # fmt: skip
    both = [scorers.find, scorers.judge]
    with kept_parts(options, model, both, PARTS_OF, settings, curve=curve) as done:
        with progress_bar() as show:
            run = translate(
                jax.random.key(options.seed),
                model,
                scorers.find,
                scorers.judge,
                coordinates=coordinates,
                sources=options.sources,
                targets=options.targets,
                exclusive=scorers.kind == "classes",
                extreme=options.extreme,
                how=options.how,
                share=options.share,
                latents=options.latents,
                fresh=options.fresh,
                mask_steps=options.mask_steps,
                done=done,
                on_progress=show,
            )
        _write(options, model, scorers, run, curve)


def _write(
    options: argparse.Namespace,
    model: LatentModel,
    scorers: Scorers,
    run: Translation,
    curve: str | None,
) -> None:
    about = {
        "model": options.model,
        "model_hash": getattr(model, "model_hash", ""),
        "space": getattr(model, "latent_space", ""),
        "curve_sha256": curve,
        "seed": options.seed,
    }
    unit = "dimension" if curve is None else "line"
    figures = {
        "importance.png": importance_figure(run.importance.T, run.concepts, "Importance", unit),
        "growth.png": draw_growth([run], "Sets that grow"),
        "images.png": draw_images(model, run),
    }
    if scorers.kind == "classes":
        figures["translation.png"] = draw_matrices([run])
    kept = [found for found in run.found if run.status(found) == FOUND]
    with new_folder(options.output, overwrite=options.overwrite, marker=DIMENSIONS_MARKER) as path:
        content = json.dumps(about | run.to_json(), indent=1)
        (path / DIMENSIONS_MARKER).write_text(content + "\n", encoding="utf-8")
        for name, figure in figures.items():
            figure.savefig(path / name)
        spread = model.sample(jax.random.key(0), DEVIATION_SAMPLES)
        for found in kept:
            shift = run.shift(found)
            moved = Direction.along(shift, (0, model.num_layers - 1), spread)
            direction = DirectionRecord(
                moved,
                f"{found.source} to {found.target}",
                about["space"],
                about["model_hash"],
                {f"{unit}s": found.dimensions.tolist(), "found with": about | dict(run.settings)},
                # each of the set by `extreme` deviations of its own is more of them along the sum
                {"strength": options.extreme * float(jnp.linalg.norm(shift)) / moved.unit},
            )
            save_direction(path / f"{slug(direction.name)}.json", direction)
    print(dimensions_tables([run], unit))
    if missing := run.settings["too few latents of"]:
        print(f"no source, since too few latents are: {', '.join(missing)}")
    left_out = [f"{f.source} to {f.target}" for f in run.found if run.status(f) == NOT_FOUND]
    if left_out:
        print(
            f"not found, and no direction file: {', '.join(left_out)}; as far as {options.fresh}"
            " images tell, the set flips no more of them than random ones of its size"
        )
    print(f"{options.output}: {len(kept)} directions, {', '.join(figures)}")


def dimensions_tables(runs: Sequence[Translation], unit: str) -> str:
    """What was found and measured, as text."""
    rows = [
        (row.way, *(_text(getattr(row, field)) for field in COLUMNS.values()))
        for row in translation_summary(runs)
    ]
    whole = concentration(runs)
    best = [
        (f.source, f.target, runs[0].status(f), str(f.grown.size),
         f"{f.growth[f.grown.size - 1]:.2f}", " ".join(_signed_numbers(f)[:12]))
        for f in runs[0].found
    ]  # fmt: skip
    return "\n".join(
        [
            table([("from", "to", "status", "size", "change of p", f"{unit}s"), *best]),
            "",
            table([("way", *COLUMNS), *rows]),
            "",
            f"effects of single {unit}s: Gini {whole.gini}, Hoyer {whole.hoyer}; the first of a set"
            f" has {whole.share_of_one} of its effect",
            *(
                [f"overlap of set and mask: {whole.overlap}, by chance {whole.overlap_by_chance}"]
                if whole.overlap is not None
                else []
            ),
        ]
    )


def draw_growth(runs: Sequence[Translation], title: str) -> Figure:
    """The growth of all sets, held at its end, beside random ones."""
    m = runs[0].coordinates.count
    growths = [
        np.pad(f.growth, (0, m - len(f.growth)), mode="edge") for run in runs for f in run.found
    ]
    random = np.concatenate([run.random_growth for run in runs])
    sizes = [f.grown.size for run in runs for f in run.found]
    return growth_figure(np.stack(growths), random, sizes, title)


def draw_matrices(runs: Sequence[Translation]) -> Figure:
    measured = {row.way for row in translation_summary(runs)}
    ways = [way for way in (SEQUENTIAL, WHOLE_MASK, RANDOM, ALL) if way in measured]
    return translation_figure({way: flip_matrix(runs, way) for way in ways}, runs[0].concepts)


def draw_images(model: LatentModel, run: Translation) -> Figure:
    """Goals that most images reach, no source and no target twice before the others had a turn."""
    reached = {(m.source, m.target): m.flipped for m in run.moves if m.way == SEQUENTIAL}
    ranked = sorted(run.found, key=lambda f: -reached[f.source, f.target])
    chosen: list[Found] = []
    for found in ranked:
        if all(found.target != c.target and found.source != c.source for c in chosen):
            chosen.append(found)
    rest = [found for found in ranked if not any(found is c for c in chosen)]
    chosen = [*chosen, *rest][:DRAWN]
    extremes = np.linspace(0, run.settings["extreme"], DRAWN_STEPS)
    rows, names = [], []
    for found in chosen:
        latent = run.examples[found.source]
        repeated = jnp.repeat(latent[None], DRAWN_STEPS, 0)
        signed = jnp.asarray(found.signed)[None] * jnp.asarray(extremes > 0, jnp.float32)[:, None]
        moved = intervene(
            repeated, run.coordinates, signed, jnp.asarray(extremes, jnp.float32)[:, None],
            run.settings["how"],
        )  # fmt: skip
        rows.append(render_images(model, moved, max_side=MAP_SIDE))
        names.append(f"{found.source}\nto {found.target}\n({found.grown.size})")
    return interventions_figure(np.stack(rows), names, extremes.tolist(), "Sets moved together")


def _signed_numbers(found: Found) -> list[str]:
    signs = found.grown.signs[: found.grown.size]
    return [
        f"{'+' if sign > 0 else '-'}{number}"
        for number, sign in zip(found.dimensions, signs, strict=True)
    ]


def _text(value: Any) -> str:
    return "-" if value is None else str(value)
