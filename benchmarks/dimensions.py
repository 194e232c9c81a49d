"""Which dimensions control a class: sets that are found beside random ones, over all pairs.

    python -m benchmarks.dimensions z       # z of the bundled StyleGAN2; an hour on a thread
    python -m benchmarks.dimensions w       # its W
    python -m benchmarks.dimensions lines   # lines of a curve of 64 codewords in W
    python -m benchmarks.dimensions biggan  # z of the bundled BigGAN, each class by itself
    python -m benchmarks.dimensions published  # masks of the public code, in z; ten minutes
    python -m benchmarks.dimensions speed   # one call for all dimensions beside loops; five minutes
    python -m benchmarks.dimensions z --quick  # a trial: two seeds, three classes, nothing saved

As `sfvq-jax dimensions` with its defaults, five seeds: 90 pairs of the ten classes, found by one
bundled scorer and judged by the other on latents that had no part in finding. A curve is fitted
anew for each seed; masks are optimised for the dimensions of StyleGAN2 alone. "Concepts" tells how
unequal dimensions are, beside as many orthonormal directions drawn at random.
"""

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ports
from benchmarks.report import report, use_cores
from ports.biggan import BigGAN
from ports.stylegan2 import StyleGAN2
from sfvq_jax import LatentModel, fit
from sfvq_jax.cli.common import progress_bar
from sfvq_jax.cli.dimensions import draw_growth, draw_images, draw_matrices
from sfvq_jax.interpret import (
    Interval,
    Ranking,
    Translation,
    concentration,
    coordinates_along,
    curve_lines,
    flip_matrix,
    gini,
    hoyer,
    intervene,
    intervention_effects,
    joint_scores,
    latent_axes,
    load_scorers,
    mask_ranking,
    overlap,
    published_mask,
    translate,
    translation_summary,
)
from sfvq_jax.interpret.attributes.scorer import probability
from sfvq_jax.interpret.dimensions.goals import latents_of
from sfvq_jax.interpret.directions.bench import Bench
from sfvq_jax.latent_model import method
from sfvq_jax.views import importance_figure

Array = jax.Array
Row = dict[str, Any]

DOCS = Path(__file__).parents[1] / "docs"
SCORERS = load_scorers(ports.BUNDLED / "fashion_mnist_scorers.npz")
NAMES = SCORERS.find.names
SEEDS = 5
BITS = 6  # of the curve whose lines are moved
SPREAD = 4096  # latents, for deviations
PUBLISHED_LATENTS = 7_000
FRESH = 128
PUBLISHED_SOURCE, PUBLISHED_TARGETS = "pullover", ("coat", "dress", "bag")
SPEED_LATENTS = 1_000


def stylegan2() -> StyleGAN2:
    model = ports.load(ports.bundled("fashion_mnist"))
    assert isinstance(model, StyleGAN2)
    return model


def biggan() -> BigGAN:
    model = ports.load(ports.bundled("fashion_mnist_biggan"))
    assert isinstance(model, BigGAN)
    return model


def run_space(space: str, key: Array, quick: bool) -> Translation:
    """One seed."""
    classes = NAMES[:3] if quick else NAMES

    def go(key: Array, model: LatentModel, **settings: Any) -> Translation:
        with progress_bar() as show:
            return translate(
                key, model, SCORERS.find, SCORERS.judge,
                targets=classes, on_progress=show, **settings,
            )  # fmt: skip

    if space == "biggan":
        return together(
            [
                go(jax.random.fold_in(key, i), biggan().space("z", i), sources=[name], mask_steps=0)
                for i, name in enumerate(classes)
            ]
        )
    if space == "lines":
        curve = fit(jax.random.fold_in(key, 1), stylegan2(), bits=BITS).curve
        lines = functools.partial(curve_lines, curve)
        return go(key, stylegan2(), sources=classes, coordinates=lines, mask_steps=0)
    return go(key, stylegan2().space(space), sources=classes)


def together(parts: Sequence[Translation]) -> Translation:
    """One of parts, each of one source."""
    first = parts[0]
    return first._replace(
        effects={name: e for part in parts for name, e in part.effects.items()},
        found=[found for part in parts for found in part.found],
        moves=[move for part in parts for move in part.moves],
        examples={name: e for part in parts for name, e in part.examples.items()},
        random_growth=np.mean([part.random_growth for part in parts], 0),
    )


def concept_rows(runs: Sequence[Translation], random: np.ndarray | None) -> list[Row]:
    """How unequal the importance of coordinates is for each concept, [M, C] of `random` beside."""
    importance = np.mean([run.importance for run in runs], 0)
    rows = []
    for column, name in enumerate(runs[0].concepts):
        sizes = np.sort(importance[:, column])[::-1]
        row = {
            "concept": name,
            "greatest ÷ median": float(sizes[0] / np.median(sizes)),
            "dimensions that have half": int((sizes.cumsum() < sizes.sum() / 2).sum() + 1),
            "Gini": float(gini(sizes)),
            "Hoyer": float(hoyer(sizes)),
        }
        if random is not None:
            row["Gini, random directions"] = float(gini(random[:, column]))
        rows.append(row)
    return rows


def random_importance(key: Array, space: str, quick: bool) -> np.ndarray | None:
    """Of random orthonormal directions, on as many latents of all classes, [M, C]."""
    if space not in ("z", "w"):
        return None
    model = stylegan2().space(space)
    keys = jax.random.split(key, 3)
    d = model.latent_dim
    vectors = jnp.linalg.qr(jax.random.normal(keys[0], (d, d)))[0]
    axes = coordinates_along(vectors, model.sample(keys[1], SPREAD))
    latents = model.sample(keys[2], 16 if quick else 160)
    effects = intervention_effects(model, SCORERS.find, latents, axes, values=(-3, 3))
    return effects.importance


def measure_space(space: str, options: argparse.Namespace) -> None:
    runs, seconds = [], []
    random = random_importance(jax.random.key(options.seed), space, options.quick)
    for seed in range(2 if options.quick else SEEDS):
        start = time.perf_counter()
        key = jax.random.fold_in(jax.random.key(options.seed), seed)
        runs.append(run_space(space, key, options.quick))
        seconds.append(time.perf_counter() - start)
        print(f"\nseed {seed}: {seconds[-1]:.0f} s", flush=True)
        if len(runs) > 1:  # and what there is, is kept
            report_space(space, runs, random, seconds, options)
    if not options.quick:
        draw(space, runs)


def report_space(
    space: str,
    runs: Sequence[Translation],
    random: np.ndarray | None,
    seconds: Sequence[float],
    options: argparse.Namespace,
) -> None:
    ways = [_shown(row._asdict()) for row in translation_summary(runs)]
    matrices = {row["way"]: np.round(flip_matrix(runs, row["way"]), 3) for row in ways}
    report(
        f"dimensions_{space}",
        {
            f"Over {len(runs[0].found)} pairs": ways,
            "Concentration": [_shown(concentration(runs)._asdict())],
            "Concepts": concept_rows(runs, random),
        },
        packages=("jax", "numpy", "scipy"),
        save=not options.quick,
        seeds=len(runs),
        seconds=seconds,
        run=dict(runs[0].settings),
        flipped={way: np.where(np.isnan(m), -1, m).tolist() for way, m in matrices.items()},
        sets=[
            [f.source, f.target, f.dimensions.tolist(), f.grown.signs[: f.grown.size].tolist()]
            for f in runs[0].found
        ],
    )


def draw(space: str, runs: Sequence[Translation]) -> None:
    """What docs/results/dimensions.md shows: importance in z and in W, all else in z."""
    figures = {}
    if space in ("z", "w"):
        importance = np.mean([run.importance for run in runs], 0).T
        title = f"What three deviations of each dimension of {space.replace('w', 'W')} change"
        figures[f"importance_{space}"] = importance_figure(importance, runs[0].concepts, title)
    if space == "z":
        figures |= {
            "growth": draw_growth(runs, "90 pairs of classes, five seeds, z of the StyleGAN2"),
            "translation": draw_matrices(runs),
            "images": draw_images(stylegan2().space("z"), runs[0]),
        }
    for name, figure in figures.items():
        figure.savefig(DOCS / f"dimensions_{name}.png")


def _shown(row: Row) -> Row:
    return {name: str(v) if isinstance(v, Interval) else v for name, v in row.items()}


def measure_published(options: argparse.Namespace) -> None:
    """The public code's masks beside ours, in z, at the size of the set that was grown."""
    model = stylegan2().space("z")
    key = jax.random.key(options.seed)
    source = PUBLISHED_SOURCE
    targets = PUBLISHED_TARGETS[:1] if options.quick else PUBLISHED_TARGETS
    count = 100 if options.quick else PUBLISHED_LATENTS
    run = translate(
        key, model, SCORERS.find, SCORERS.judge, sources=[source], targets=targets, fresh=FRESH
    )
    bench = Bench(key, model, SCORERS.find, SCORERS.judge)
    fresh_key = jax.random.fold_in(key, 1)
    z = latents_of(fresh_key, bench, bench.judge, [source], FRESH, True)[source]
    pool = class_latents(jax.random.fold_in(key, 2), model, source, count)
    rows = []
    for found in run.found:
        start = time.perf_counter()
        column = NAMES.index(found.target)
        mask = published_mask(model, SCORERS.find, pool, column)
        seconds = time.perf_counter() - start
        size, ranking = found.grown.size, mask_ranking(mask)
        own = found.ranking.signed(len(mask))
        known = Ranking(ranking.order, own[ranking.order], ranking.sizes)
        moved = {
            "published mask": _shift(run, z, ranking.signed(size)),
            "published, opposite signs": _shift(run, z, -ranking.signed(size)),
            "published, signs of effects": _shift(run, z, known.signed(size)),
            "published, its own move": _published_moves(z, mask),
        }
        row: Row = {"from": source, "to": found.target, "size": size}
        row |= {m.way: m.flipped for m in run.moves if m.target == found.target}
        for name, latents in moved.items():
            (scores,) = bench.look(latents, bench.judge)
            flipped = (scores.argmax(1) == column).reshape(-1, len(z)).any(0)
            row[name] = float(flipped.mean())
        row["|s| above .1"] = int((np.abs(mask) > 0.1).sum())
        row["overlap with the set"] = overlap(ranking.order[:size], found.dimensions)
        row["seconds"] = seconds
        rows.append(row)
        print(row, flush=True)
    mean: Row = {"from": "mean", "to": ""}
    mean |= {name: float(np.mean([row[name] for row in rows])) for name in list(rows[0])[2:]}
    report(
        "dimensions_published",
        {"Share of images flipped": [*rows, mean]},
        packages=("jax", "numpy"),
        save=not options.quick,
        latents=count,
    )


def _shift(run: Translation, latents: Array, signed: np.ndarray) -> Array:
    every = jnp.broadcast_to(jnp.asarray(signed)[None], latents.shape)
    return intervene(latents, run.coordinates, every, run.settings["extreme"], "shift")


def _published_moves(latents: Array, mask: np.ndarray) -> Array:
    """What the public code makes of latents [N, D]: z₋ of all, and z₊ of all, [2 N, D]."""
    move = 10 * latents.mean(1, keepdims=True) * mask[None]
    return jnp.concatenate([latents * (1 - move), latents * (1 + move)])


def class_latents(key: Array, model: LatentModel, name: str, count: int) -> Array:
    """So many latents of a class, by the scorer that finds."""
    find, kept, total = SCORERS.find, [], 0
    look = jax.jit(lambda x: find(model.render(x)).argmax(1))
    while total < count:
        key, draw_key = jax.random.split(key)
        drawn = model.sample(draw_key, 32)
        rows = np.asarray(look(drawn)) == NAMES.index(name)
        kept.append(np.asarray(drawn)[rows])
        total += rows.sum()
    return jnp.asarray(np.concatenate(kept)[:count])


def measure_speed(options: argparse.Namespace) -> None:
    """The effect of +3 deviations on every dimension of W, over 1,000 latents."""
    model, find = stylegan2(), SCORERS.find
    n = 64 if options.quick else SPEED_LATENTS
    latents = model.sample(jax.random.key(options.seed), n)
    axes = latent_axes(latents)
    m, eye = axes.count, np.eye(axes.count, dtype=np.float32)

    def one_call() -> np.ndarray:
        scores = joint_scores(model, find, latents, axes, eye, 3.0)
        return np.asarray(probability(jnp.asarray(scores)))

    look = jax.jit(lambda render, find, x: probability(find(render(x))))
    render = method(model, "render")

    def loop(batch: int) -> np.ndarray:
        seen = []
        for dimension in range(m):
            moved = np.array(latents)
            moved[:, dimension] += 3 * float(axes.deviation[dimension])
            parts = [compiled(jnp.asarray(moved[i : i + batch])) for i in range(0, n, batch)]
            seen.append(np.concatenate([np.asarray(part) for part in parts]))
        return np.stack(seen, 1)

    def compiled(x: Array) -> Array:
        return look(render, find, x)

    ways: dict[str, Callable[[], np.ndarray]] = {
        "one compiled call": one_call,
        "loop over dimensions, all latents at once": lambda: loop(n),
        "loop over dimensions, 50 latents at once": lambda: loop(50),
    }
    jax.block_until_ready([compiled(latents), compiled(latents[:50])])
    start = time.perf_counter()
    expected = one_call()
    first = time.perf_counter() - start
    rows, seconds = [], {}
    for name, way in ways.items():
        start = time.perf_counter()
        seen = way()
        seconds[name] = time.perf_counter() - start
        difference = float(np.abs(seen - expected).max())
        row = {"way": name, "seconds": seconds[name], "largest difference": difference}
        rows.append(row | {"÷ one call": seconds[name] / seconds["one compiled call"]})
        print(rows[-1], flush=True)
    report(
        "dimensions_speed",
        {f"{m} dimensions of W, {n} latents": rows},
        packages=("jax", "numpy"),
        save=not options.quick,
        first_call_with_compilation=first,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Which dimensions control a class.")
    spaces = ("z", "w", "lines", "biggan")
    parser.add_argument("what", choices=(*spaces, "published", "speed"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a trial, nothing saved or drawn")
    options = parser.parse_args()
    use_cores(1)
    if options.what in spaces:
        measure_space(options.what, options)
    elif options.what == "published":
        measure_published(options)
    else:
        measure_speed(options)


if __name__ == "__main__":
    main()
