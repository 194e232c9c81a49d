"""How many bits? Curves of 4 to 1024 codewords, and what images drawn along them are worth.

    python -m benchmarks.bits DATA
    python -m benchmarks.bits DATA --quick  # a trial at 3 to 5 bits, nothing saved or drawn

For W of the bundled StyleGAN2 and the first linear layer of the bundled BigGAN, by bits: distortion
on fresh latents, a share of their variance; the order of the codewords, in space and in the classes
that the bundled classifier gives their images; and images drawn on the lines whose two ends are of
one class, as in `benchmarks.labels`. Of these, purity is the share that the classifier gives the
line's class, and diversity their Fréchet distance to the test images in its features. Plain samples
of the models stand beside them. Intervals are of 95 %, by Student's t over the seeds.
`docs/bits.png` shows the means, and each seed as a dot.
"""

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

import ports
from benchmarks.labels import (
    Row,
    draw_labelled,
    draw_latents,
    labels_of,
    lines_of,
    models,
)
from benchmarks.report import report, use_cores
from benchmarks.training.data import load_fashion_mnist, to_float
from benchmarks.training.judge import Judged, classify, frechet_distance
from ports.classifier import Classifier
from sfvq_jax import (
    Curve,
    LatentModel,
    LeastSquares,
    codebook_quality,
    distortion,
    fit,
    same_class_share,
)
from sfvq_jax.images import render_images
from sfvq_jax.interpret.intervals import interval
from sfvq_jax.quality import class_runs_by_chance

Array = jax.Array

FIGURE = Path(__file__).parents[1] / "docs" / "bits.png"
BITS = range(2, 11)
LATENTS = 2**17  # to fit to
FRESH = 2**13  # to measure with
IMAGES = 5_000
NOISE = 0.0  # of `augment --labels`: on the lines themselves
SAMPLES = "samples of the model"  # in place of bits
MEASURES = (  # of a curve: those that have intervals
    "distortion ÷ variance",
    "nearest is a neighbour",
    "step ÷ pair distance",
    "trustworthiness",
    "class runs",
    "class runs by chance",
    "classes drawn",
    "purity",
    "Fréchet distance",
)
PANELS = {  # title -> measures, drawn solid and dashed
    "Distortion ÷ variance": ("distortion ÷ variance",),
    "Step ÷ mean distance of codewords": ("step ÷ pair distance",),
    "Class runs (dashed: by chance)": ("class runs", "class runs by chance"),
    "Classes with lines that agree": ("classes drawn",),
    "Purity": ("purity",),
    "Fréchet distance (dotted: plain samples)": ("Fréchet distance",),
}


class Latents(NamedTuple):
    """Of a model: to fit to, and to measure with."""

    fitted: Array
    fresh: Array


def measure(
    key: Array,
    seed: int,
    model: LatentModel,
    latents: Latents,
    bits: int,
    judge: Classifier,
    test: Judged,
    quick: bool,
) -> Row:
    """One row: a curve."""
    start = time.perf_counter()
    solver = LeastSquares(rounds=2) if quick else LeastSquares()
    curve = fit(key, latents.fitted, bits=bits, solver=solver).curve
    seconds = time.perf_counter() - start
    quality, labels = codebook_quality(curve), labels_of(model, judge, curve.codewords)
    return {
        "seed": seed,
        "distortion ÷ variance": float(distortion(curve, latents.fresh))
        / float(latents.fresh.var(0).mean()),
        "nearest is a neighbour": quality.neighbour_share,
        "step ÷ pair distance": quality.step_ratio,
        "trustworthiness": quality.trustworthiness,
        "class runs": same_class_share(labels),
        "class runs by chance": class_runs_by_chance(labels),
        **augmentation(key, model, curve, labels, judge, test, quick),
        "seconds": seconds,
    }


def augmentation(
    key: Array,
    model: LatentModel,
    curve: Curve,
    labels: np.ndarray,
    judge: Classifier,
    test: Judged,
    quick: bool,
) -> Row:
    """What images are worth that are drawn on lines whose ends agree; nothing without any."""
    if not lines_of(labels):
        return {"classes drawn": 0}
    count = IMAGES // 5 if quick else IMAGES
    latents, drawn = draw_labelled(key, model, curve, labels, count, NOISE)
    judged = look(model, latents, drawn, judge)
    return {
        "classes drawn": len(np.unique(drawn)),
        "purity": judged.given_their_class,
        "Fréchet distance": frechet_distance(judged.features, test.features),
    }


def look(model: LatentModel, latents: Array, classes: np.ndarray, judge: Classifier) -> Judged:
    """What the classifier says of the images of latents [N, D]."""
    return classify(judge, to_float(render_images(model, latents, batch=64)), classes)


def samples_row(
    key: Array, model: LatentModel, latents: Array, judge: Classifier, test: Judged, quick: bool
) -> Row:
    """Plain samples, of whatever class."""
    order = jax.random.permutation(key, len(latents))[: IMAGES // 5 if quick else IMAGES]
    judged = look(model, latents[order], np.zeros(len(order), int), judge)
    return {
        "bits": SAMPLES,
        "classes drawn": len(np.unique(judged.probabilities.argmax(1))),
        "Fréchet distance": frechet_distance(judged.features, test.features),
    }


def summaries(rows: Sequence[Row]) -> list[Row]:
    """A row a model and number of bits: means over seeds, with half of their intervals."""
    found = []
    for model, bits in dict.fromkeys((row["model"], row["bits"]) for row in rows):
        group = [row for row in rows if (row["model"], row["bits"]) == (model, bits)]
        summary: Row = {"model": model, "bits": bits}
        for name in MEASURES:
            values = np.array([row[name] for row in group if name in row])
            if len(values) > 1:
                mean, low, high = interval(values)
                summary |= {name: mean, f"{name}, ±": (high - low) / 2}
        found.append(summary)
    return found


def shown(row: Row) -> Row:
    """A row of means with their half intervals in the same cells, for a table that fits a page."""
    texts = {}
    for name, value in row.items():
        half = row.get(f"{name}, ±", math.nan)
        if not name.endswith(", ±"):
            texts[name] = value if math.isnan(half) else f"{value:.3g} ± {half:.2g}"
    return texts


def draw(rows: Sequence[Row], path: Path) -> None:
    """A panel a measure against bits: a line a model through the means, a dot a seed."""
    figure, axes = plt.subplots(2, 3, figsize=(11, 5.6), sharex=True, layout="constrained")
    names = list(dict.fromkeys(row["model"] for row in rows))
    for panel, (title, measures) in zip(axes.flat, PANELS.items(), strict=True):
        for number, name in enumerate(names):
            own = [row for row in rows if row["model"] == name]
            draw_model(panel, own, measures, f"C{number}", name)
        panel.set_title(title, loc="left", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
        if measures == ("Fréchet distance",):  # of few codewords by far the greatest
            panel.set_yscale("log")
        else:
            panel.set_ylim(bottom=0)
    for panel in axes[1]:
        panel.set_xlabel("bits")
        panel.set_xticks(BITS)
    axes[0, 0].legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_model(
    axes: Axes, rows: Sequence[Row], measures: Sequence[str], colour: str, name: str
) -> None:
    """Of measures the first one solid, the second one dashed, and samples of the model dotted."""
    curves = [row for row in rows if row["bits"] != SAMPLES]
    for measure_name, line in zip(measures, ("-", "--"), strict=False):
        found = [(row["bits"], row[measure_name]) for row in curves if measure_name in row]
        bits, values = (np.array(column) for column in zip(*found, strict=True))
        means = [values[bits == b].mean() for b in np.unique(bits)]
        label = name if line == "-" else None
        axes.plot(np.unique(bits), means, line, color=colour, lw=1.4, label=label)
        if line == "-":
            axes.plot(bits, values, ".", color=colour, ms=5, alpha=0.6)
    if measures == ("Fréchet distance",):
        samples = [row[measures[0]] for row in rows if row["bits"] == SAMPLES]
        axes.axhline(float(np.mean(samples)), color=colour, ls=":", lw=1.2)


def main() -> None:
    parser = argparse.ArgumentParser(description="Curves of 4 to 1024 codewords, measured.")
    parser.add_argument("data", type=Path, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a trial, nothing saved")
    options = parser.parse_args()
    use_cores(1)
    quick = options.quick
    judge = ports.load(ports.bundled("fashion_mnist_classifier"))
    assert isinstance(judge, Classifier)
    images, classes = load_fashion_mnist(options.data, "test")
    test = classify(judge, to_float(images), classes)
    rows = []
    for number, (name, model) in enumerate(models().items()):
        for seed in range(2 if quick else options.seeds):
            keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), number), 4)
            latents = Latents(
                draw_latents(keys[0], model, LATENTS // 8 if quick else LATENTS),
                draw_latents(keys[1], model, FRESH),
            )
            for bits in range(3, 6) if quick else BITS:
                row = measure(keys[2], seed, model, latents, bits, judge, test, quick)
                rows.append({"model": name, "bits": bits} | row)
                print(rows[-1], flush=True)
            row = samples_row(keys[3], model, latents.fresh, judge, test, quick)
            rows.append({"model": name, "seed": seed} | row)
    summary = summaries(rows)
    report(
        "bits",
        {"Means over seeds": [shown(row) for row in summary], "Seed by seed": rows},
        packages=("jax", "numpy", "scipy"),
        save=not quick,
        latents=LATENTS,
        images=IMAGES,
        noise=NOISE,
    )
    if not quick:
        draw(rows, FIGURE)


if __name__ == "__main__":
    main()
