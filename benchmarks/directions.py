"""What the curve is for, measured: directions with names, what is held, samples, health of the map.

    python -m benchmarks.training.vae DATA  # once, in ten minutes
    python -m benchmarks.directions DATA
    python -m benchmarks.directions DATA --quick  # a trial at 4 bits, nothing saved or drawn

For W of the bundled StyleGAN2, the first linear layer of the bundled BigGAN and the latents of a
VAE, all of Fashion-MNIST: a curve is fitted with the default settings; directions are found for
image statistics and classes by one scorer and judged by another (the bundled pair, each fitted on
another half of the training images), lines alone and all pairs of codewords; the attribute that a
direction disturbs most is held; classes are sampled, and judged by the bundled classifier; the map
is judged. Pictures go to docs/.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ports
from benchmarks.report import report
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
from sfvq_jax.views import map_figure, render_images

DOCS = Path(__file__).parents[1] / "docs"
VAE = Path("runs/vae/vae.npz")
SANDALS = 10_000
BALANCED = 5_000
SHEET = 48  # of the sandals that are drawn


def bundled_models() -> dict[str, LatentModel]:
    biggan = ports.load(ports.bundled("fashion_mnist_biggan"))
    assert isinstance(biggan, BigGAN)
    return {
        "StyleGAN2, W": ports.load(ports.bundled("fashion_mnist")),  # type: ignore
        "BigGAN, linear layer": biggan.space("linear"),
    }


def direction_row(name: str, found: FoundDirection) -> dict[str, Any]:
    effect, judged = found.effects[found.attribute], found.judged[found.attribute]
    gain = found.gain
    assert gain is not None
    return {
        "model": name,
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


def summary_row(name: str, which: str, found: list[FoundDirection]) -> dict[str, Any]:
    """Of the best direction of every attribute."""
    judged = [direction.judged[direction.attribute] for direction in found]
    gained = [direction.gain.gained.mean for direction in found if direction.gain is not None]
    statistics = len(image_statistics().names)
    return {
        "model": name,
        "candidates": which,
        "attributes": len(found),
        "confirmed": sum(direction.confirmed for direction in found),
        "of statistics": sum(direction.confirmed for direction in found[:statistics]),
        "of classes": sum(direction.confirmed for direction in found[statistics:]),
        "mean effect": float(np.mean([effect.mean for effect in judged])),
        "mean agreement": float(np.mean([effect.agree for effect in judged])),
        "mean gain": float(np.nanmean(gained)),
        "median entanglement": float(np.median([d.entanglement for d in found])),
    }


def held_rows(
    key: jax.Array,
    name: str,
    model: LatentModel,
    found: list[FoundDirection],
    find: Scorer,
    judge: Scorer,
) -> list[dict[str, Any]]:
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
                "model": name,
                "attribute": own,
                "effect": before[own].mean,
                "effect, held": after[own].mean,
                "held": other,
                "its effect": before[other].mean,
                "its effect, held": after[other].mean,
            }
        )
    return rows


def held_summary(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the directions of a model."""

    def left(which: str) -> float:
        return float(np.median([abs(row[f"{which}, held"] / row[which]) for row in rows]))

    return {
        "model": name,
        "directions": len(rows),
        "share of the effect left": left("effect"),
        "share of the disturbance left": left("its effect"),
    }


def sample_rows(
    key: jax.Array,
    name: str,
    model: LatentModel,
    curve: Curve,
    find: Scorer,
    classifier: Classifier,
    test: tuple[np.ndarray, np.ndarray],
    draw: Callable[[np.ndarray], None] | None,
) -> list[dict[str, Any]]:
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
                "model": name,
                "samples": kind,
                "count": len(labels),
                "kept of those drawn": samples.accepted,
                "given their class by the judge": judged.given_their_class,
                "Fréchet distance to test images": frechet_distance(judged.features, same),
            }
        )
    return rows


def quality_rows(
    key: jax.Array, name: str, model: LatentModel, curve: Curve, scorer: Scorer
) -> list[dict[str, Any]]:
    """The report on a curve."""
    found = verdicts(map_quality(key, curve, model, model=model, scorer=scorer))
    return [
        {"model": name, "measure": one.measure, "value": one.value, "verdict": one.verdict}
        for one in found
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Directions, samples and maps, measured.")
    parser.add_argument("data", type=Path, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--vae", type=Path, default=VAE, help="what benchmarks.training.vae wrote")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a trial at 4 bits, nothing saved")
    options = parser.parse_args()
    scorers = load_scorers(ports.BUNDLED / "fashion_mnist_scorers.npz")
    classifier = ports.load(ports.bundled("fashion_mnist_classifier"))
    assert isinstance(classifier, Classifier)
    test = load_fashion_mnist(options.data, "test")
    solver = LeastSquares(samples=2**13, rounds=2) if options.quick else LeastSquares()
    models = bundled_models() | {"VAE": load_vae(options.vae)}
    tables: dict[str, list] = {
        title: []
        for title in ("Directions", "Summary", "Held", "Held, in the median", "Samples", "Maps")
    }
    for number, (name, model) in enumerate(models.items()):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(options.seed), number), 7)
        find, judge = with_statistics(scorers, model)
        curve = fit(keys[0], model, bits=4 if options.quick else 6, solver=solver).curve
        lines = find_directions(keys[1], model, curve, find, judge, pairs=False)
        found = find_directions(keys[1], model, curve, find, judge)
        tables["Directions"] += [direction_row(name, direction) for direction in found]
        tables["Summary"] += [summary_row(name, "lines", lines), summary_row(name, "pairs", found)]
        held = held_rows(keys[2], name, model, found, find, judge)
        tables["Held"] += held
        tables["Held, in the median"].append(held_summary(name, held))
        draw = None
        if number == 0 and not options.quick:
            draw_directions(model, found, keys[3]).savefig(DOCS / "directions.png")

            def draw(images: np.ndarray) -> None:
                map_figure(images, f"{SHEET} of {SANDALS:,} sandals").savefig(DOCS / "sandals.png")

        tables["Samples"] += sample_rows(
            keys[4], name, model, curve, scorers.find, classifier, test, draw
        )
        tables["Maps"] += quality_rows(keys[5], name, model, curve, scorers.judge)
        print(f"{name}: done", flush=True)
    report(
        "directions",
        tables,
        packages=("jax", "numpy", "scipy"),
        save=not options.quick,
        seed=options.seed,
    )


if __name__ == "__main__":
    main()
