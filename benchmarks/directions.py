"""What the curve is for, measured: directions with names, what is held, samples, health of the map.

    python -m benchmarks.training.vae DATA  # once, in ten minutes
    python -m benchmarks.directions DATA  # an hour on a core
    python -m benchmarks.directions DATA --quick  # a trial at 4 bits, nothing saved or drawn

Five seeds, each with a curve of its own, fitted with the default settings, for W of the bundled
StyleGAN2, the first linear layer of the bundled BigGAN and the latents of a VAE, all of
Fashion-MNIST. Directions are found for image statistics and classes by one scorer and judged by
another (the bundled pair, each fitted on another half of the training images), lines alone and all
pairs of codewords; the attribute that a direction disturbs most is held; classes are sampled, and
judged by the bundled classifier; the map is judged. Maps and pictures, which go to docs/, are those
of the first seed. Means over seeds have 95 % intervals: Student's t, of shares Wilson's.
"""

import argparse
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ports
from benchmarks.report import report, use_cores
from benchmarks.training.data import load_fashion_mnist, to_float
from benchmarks.training.judge import classify, frechet_distance
from benchmarks.training.vae import load_vae
from ports.biggan import BigGAN
from ports.classifier import Classifier
from sfvq_jax import Curve, LatentModel, LeastSquares, fit
from sfvq_jax.cli.common import with_statistics
from sfvq_jax.cli.directions import draw_directions
from sfvq_jax.interpret import (
    Bench,
    FoundDirection,
    Scorer,
    attribute_gradients,
    find_directions,
    hold_attributes,
    image_statistics,
    load_scorers,
    map_quality,
    sample_balanced,
    sample_by_attribute,
)
from sfvq_jax.interpret import report as verdicts
from sfvq_jax.interpret.intervals import interval, share_over_seeds
from sfvq_jax.views import map_figure, render_images

Row = dict[str, Any]
Mean = Callable[[list[float]], Any]

DOCS = Path(__file__).parents[1] / "docs"
VAE = Path("runs/vae/vae.npz")
SEEDS = 5
SANDALS = 5_000
BALANCED = 5_000
SHEET = 48  # of the sandals that are drawn


def bundled_models() -> dict[str, LatentModel]:
    biggan = ports.load(ports.bundled("fashion_mnist_biggan"))
    assert isinstance(biggan, BigGAN)
    return {
        "StyleGAN2, W": ports.load(ports.bundled("fashion_mnist")),  # type: ignore
        "BigGAN, linear layer": biggan.space("linear"),
    }


def direction_row(found: FoundDirection) -> Row:
    effect, judged = found.effects[found.attribute], found.judged[found.attribute]
    gain = found.gain
    assert gain is not None
    return {
        "attribute": found.attribute,
        "name": found.name,
        "codewords": "{} to {}".format(*found.codewords),
        "effect": effect.mean,
        "judged": judged.mean,
        "low": judged.low,
        "high": judged.high,
        "agree": judged.agree,
        "gained": gain.gained.mean,
        "gained, low": gain.gained.low,
        "by chance": gain.by_chance.mean,
        "by chance, high": gain.by_chance.high,
        "at": gain.strength,
        "entangled": found.entanglement,
        "limits": " ".join("-" if limit is None else f"{limit:+.1f}" for limit in found.limits),
        "confirmed": found.confirmed,
    }


def grouped(rows: list[Row], *columns: str) -> dict[tuple, list[Row]]:
    """Rows by what they have in some columns."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in columns), []).append(row)
    return groups


def of_seeds(rows: list[Row], column: str, mean: Mean = np.nanmean) -> np.ndarray:
    """The mean or median of a column, of each seed, [S]."""
    return np.array([mean([row[column] for row in own]) for own in grouped(rows, "seed").values()])


def over_seeds(rows: list[Row], column: str, mean: Mean = np.nanmean) -> str:
    return str(interval(of_seeds(rows, column, mean)))


def share_confirmed(rows: list[Row], statistics: Sequence[bool]) -> str:
    names = image_statistics().names
    wanted = [row for row in rows if (row["attribute"] in names) in statistics]
    return str(share_over_seeds(of_seeds(wanted, "confirmed"), len(wanted)))


def summary_rows(rows: list[Row]) -> list[Row]:
    """Of the best direction of every attribute."""
    return [
        {
            "model": model,
            "candidates": candidates,
            "confirmed": share_confirmed(own, (True, False)),
            "of statistics": share_confirmed(own, (True,)),
            "of classes": share_confirmed(own, (False,)),
            "effect": over_seeds(own, "judged"),
            "gained": over_seeds(own, "gained"),
            "by chance": over_seeds(own, "by chance"),
            "entangled, median": over_seeds(own, "entangled", np.median),
        }
        for (model, candidates), own in grouped(rows, "model", "candidates").items()
    ]


def held_rows(
    key: jax.Array,
    model: LatentModel,
    found: list[FoundDirection],
    find: Scorer,
    judge: Scorer,
) -> list[Row]:
    """Confirmed directions before and after the attribute that they disturb most is held."""
    bench_key, gradient_key, key = jax.random.split(key, 3)
    bench = Bench(bench_key, model, find, judge)
    gradients = attribute_gradients(model, find, model.sample(gradient_key, 256)).mean(0)
    spread_key, key = jax.random.split(key)
    spread, latents, rows = model.sample(spread_key, 4096), model.sample(key, 256), []
    for direction in found:
        if not direction.confirmed:
            continue
        own = direction.attribute
        other = max(
            (e for e in direction.effects if e != own), key=lambda e: abs(direction.effects[e].mean)
        )
        gradient = jnp.asarray(gradients[find.index(other)][None])
        held = hold_attributes(direction.direction, gradient, spread)
        before = bench.effects(direction.direction, latents, direction.limits)[1]
        after = bench.effects(held, latents, direction.limits)[1]
        rows.append(
            {
                "attribute": own,
                "effect": before[own].mean,
                "effect, held": after[own].mean,
                "held": other,
                "its effect": before[other].mean,
                "its effect, held": after[other].mean,
                "effect left": abs(after[own].mean / before[own].mean),
                "disturbance left": abs(after[other].mean / before[other].mean),
            }
        )
    return rows


def held_summaries(rows: list[Row], seeds: int) -> list[Row]:
    """Medians over the directions of a model, their means over seeds."""
    return [
        {
            "model": model,
            "directions a seed": len(own) / seeds,
            "share of the effect left": over_seeds(own, "effect left", np.median),
            "share of the disturbance left": over_seeds(own, "disturbance left", np.median),
        }
        for (model,), own in grouped(rows, "model").items()
    ]


def sample_rows(
    key: jax.Array,
    model: LatentModel,
    curve: Curve,
    find: Scorer,
    classifier: Classifier,
    test: tuple[np.ndarray, np.ndarray],
    draw: Callable[[np.ndarray], None] | None,
) -> list[Row]:
    """Sandals, and all classes alike, as the classifier judges them."""
    names = classifier.class_names
    real = classify(classifier, to_float(test[0]), test[1])
    sandals_key, balanced_key = jax.random.split(key)
    rows = []
    sandals = sample_by_attribute(sandals_key, model, curve, find, "sandal", SANDALS)
    balanced = sample_balanced(balanced_key, model, curve, find, BALANCED, names=names)
    assert balanced.labels is not None
    kinds = {
        "sandals": (sandals, np.full(SANDALS, names.index("sandal"))),
        "all classes": (balanced, balanced.labels),
    }
    for kind, (samples, labels) in kinds.items():
        images = render_images(model, jnp.asarray(samples.latents), batch=64)
        if kind == "sandals" and draw is not None:
            draw(images[:SHEET])
        judged = classify(classifier, to_float(images), labels)
        same = real.features if kind == "all classes" else real.of(labels[0]).features
        rows.append(
            {
                "samples": kind,
                "count": len(labels),
                "kept": samples.accepted,
                "right": judged.given_their_class,
                "distance": frechet_distance(judged.features, same),
            }
        )
    return rows


def sample_summaries(rows: list[Row]) -> list[Row]:
    def share(rows: list[Row], column: str) -> str:
        return str(share_over_seeds(of_seeds(rows, column), sum(row["count"] for row in rows)))

    return [
        {
            "model": model,
            "samples": kind,
            "count": own[0]["count"],
            "kept of those drawn": share(own, "kept"),
            "given their class by the judge": share(own, "right"),
            "Fréchet distance to test images": over_seeds(own, "distance"),
        }
        for (model, kind), own in grouped(rows, "model", "samples").items()
    ]


def quality_rows(key: jax.Array, model: LatentModel, curve: Curve, scorer: Scorer) -> list[Row]:
    """The report on a curve."""
    found = verdicts(map_quality(key, curve, model, model=model, scorer=scorer))
    return [{"measure": one.measure, "value": one.value, "verdict": one.verdict} for one in found]


def main() -> None:
    parser = argparse.ArgumentParser(description="Directions, samples and maps, measured.")
    parser.add_argument("data", type=Path, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--vae", type=Path, default=VAE, help="what benchmarks.training.vae wrote")
    parser.add_argument("--quick", action="store_true", help="two seeds at 4 bits, nothing saved")
    options = parser.parse_args()
    use_cores(1)
    scorers = load_scorers(ports.BUNDLED / "fashion_mnist_scorers.npz")
    classifier = ports.load(ports.bundled("fashion_mnist_classifier"))
    assert isinstance(classifier, Classifier)
    test = load_fashion_mnist(options.data, "test")
    solver = LeastSquares(samples=2**13, rounds=2) if options.quick else LeastSquares()
    models = bundled_models() | {"VAE": load_vae(options.vae)}
    seeds = 2 if options.quick else SEEDS
    directions: list[Row] = []
    held: list[Row] = []
    samples: list[Row] = []
    maps: list[Row] = []
    for seed, (number, (name, model)) in itertools.product(range(seeds), enumerate(models.items())):
        own = {"model": name, "seed": seed}
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), number), 6)
        find, judge = with_statistics(scorers, model)
        curve = fit(keys[0], model, bits=4 if options.quick else 6, solver=solver).curve
        lines, pairs = (
            find_directions(keys[1], model, curve, find, judge, pairs=pairs)
            for pairs in (False, True)
        )
        for candidates, found in (("lines", lines), ("pairs", pairs)):
            kind = own | {"candidates": candidates}
            directions += [kind | direction_row(direction) for direction in found]
        held += [own | row for row in held_rows(keys[2], model, pairs, find, judge)]
        draw = None
        if seed == number == 0 and not options.quick:
            draw_directions(model, pairs, keys[3]).savefig(DOCS / "directions.png")

            def draw(images: np.ndarray) -> None:
                map_figure(images, f"{SHEET} of {SANDALS:,} sandals").savefig(DOCS / "sandals.png")

        drawn = sample_rows(keys[4], model, curve, scorers.find, classifier, test, draw)
        samples += [own | row for row in drawn]
        if seed == 0:
            rows = quality_rows(keys[5], model, curve, scorers.judge)
            maps += [{"model": name} | row for row in rows]
        print(f"{name}, seed {seed}: done", flush=True)
    report(
        "directions",
        {
            "Summary": summary_rows(directions),
            "Held, in the median": held_summaries(held, seeds),
            "Samples": sample_summaries(samples),
            "Maps": maps,
            "Directions": directions,
            "Held": held,
            "Samples, seed by seed": samples,
        },
        packages=("jax", "numpy", "scipy"),
        save=not options.quick,
        seeds=seeds,
    )


if __name__ == "__main__":
    main()
