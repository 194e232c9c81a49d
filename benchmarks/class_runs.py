"""Is the map ordered? Class runs of a fitted curve beside two other orders.

    python -m benchmarks.class_runs

The share of consecutive codewords whose images the bundled classifier gives the same class: for
curves fitted to the bundled generator's W with the schedule of `sfvq-jax demo`, with the published
one, which has four times the samples, and with one of a quarter, after which pairs of codewords
have hardly parted; for the codewords of the first in random order; and for k-means centroids
ordered by nearest neighbour and 2-opt.
"""

import argparse

import jax
import numpy as np
from sklearn.cluster import KMeans

import ports
from benchmarks.report import report
from ports.classifier import Classifier
from ports.stylegan2 import StyleGAN2
from sfvq_jax import Adam, Curve, codebook_quality, distortion, fit, same_class_share
from sfvq_jax.cli import DEMO_SAMPLES
from sfvq_jax.quality import shorter_order

SAMPLES = 2**16
RANDOM_ORDERS = 1000


def measure(
    name: str, points: np.ndarray, latents: jax.Array, model: StyleGAN2, judge: Classifier
) -> dict:
    """One row: the order of points [K, D] as a curve."""
    curve = Curve(jax.numpy.asarray(points))
    quality = codebook_quality(curve)
    return {
        "order": name,
        "class runs": same_class_share(classes_of(points, model, judge)),
        "neighbour share": quality.neighbour_share,
        "step ÷ pair distance": quality.step_ratio,
        "mean step": quality.mean_step,
        "distortion": float(distortion(curve, latents)),
    }


def classes_of(points: np.ndarray, model: StyleGAN2, judge: Classifier) -> np.ndarray:
    return np.asarray(judge(model.render(jax.numpy.asarray(points)))[0].argmax(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bits", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model = ports.load(ports.bundled("fashion_mnist"))
    judge = ports.load(ports.bundled("fashion_mnist_classifier"))
    assert isinstance(model, StyleGAN2)
    assert isinstance(judge, Classifier)
    latents = model.sample(jax.random.key(arguments.seed + 1), SAMPLES)

    key = jax.random.key(arguments.seed)
    schedules = {
        "demo's": DEMO_SAMPLES,
        "published": Adam().samples,
        "a quarter of demo's": DEMO_SAMPLES // 4,
    }
    curves = {
        f"curve, {name} schedule": np.asarray(
            fit(key, model, bits=arguments.bits, solver=Adam(samples=samples)).curve.codewords
        )
        for name, samples in schedules.items()
    }
    kmeans = KMeans(2**arguments.bits, n_init=1, random_state=arguments.seed).fit(latents)
    centres = kmeans.cluster_centers_.astype(np.float32)
    rng = np.random.default_rng(arguments.seed)
    classes = classes_of(next(iter(curves.values())), model, judge)
    shuffled = [same_class_share(rng.permutation(classes)) for _ in range(RANDOM_ORDERS)]
    rows = [
        *(measure(name, points, latents, model, judge) for name, points in curves.items()),
        measure("k-means, 2-opt", centres[shorter_order(centres)], latents, model, judge),
        {
            "order": f"{RANDOM_ORDERS} random orders of the first",
            "class runs": float(np.mean(shuffled)),
        },
    ]
    title = f"Order of {2**arguments.bits} codewords in W of the bundled generator"
    report(
        "class_runs",
        {title: rows},
        packages=("jax", "numpy", "scikit-learn"),
        seed=arguments.seed,
        bits=arguments.bits,
        model_hash=model.model_hash,
    )


if __name__ == "__main__":
    main()
