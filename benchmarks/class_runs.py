"""Is the map ordered? Class runs of a fitted curve beside two other orders.

    python -m benchmarks.class_runs
    python -m benchmarks.class_runs --quick  # a trial: a few penalties at 4 bits, nothing saved

The share of consecutive codewords whose images the bundled classifier gives the same class: for
curves fitted to the bundled generator's W by least squares with several length penalties, by Adam
with the published schedule and with a quarter of its samples; for the codewords of the first in
random order; and for k-means centroids ordered by nearest neighbour and 2-opt.
"""

import argparse
import time

import jax
import numpy as np
from sklearn.cluster import KMeans

import ports
from benchmarks.report import report
from ports.classifier import Classifier
from ports.stylegan2 import StyleGAN2
from sfvq_jax import (
    Adam,
    Curve,
    LeastSquares,
    codebook_quality,
    distortion,
    fit,
    same_class_share,
)
from sfvq_jax.quality import shorter_order
from sfvq_jax.solver import Solver

PENALTIES = (0.1, 0.3, 1.0)  # beside the default
SAMPLES = 2**16
RANDOM_ORDERS = 1000


def solvers(quick: bool) -> dict[str, Solver]:
    """Of the curves, by name; the default comes first."""
    default = LeastSquares()
    penalties = [mu for mu in PENALTIES if mu != default.length_penalty]
    adam = Adam(samples=2**14) if quick else Adam()
    return {
        f"least squares, default (μ {default.length_penalty:g})": default,
        **{f"least squares, μ {mu:g}": LeastSquares(length_penalty=mu) for mu in penalties},
        "Adam, published schedule": adam,
        "Adam, a quarter of it": Adam(samples=adam.samples // 4),
    }


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
    parser.add_argument("--quick", action="store_true", help="a trial at 4 bits, nothing saved")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.bits = 4
    model = ports.load(ports.bundled("fashion_mnist"))
    judge = ports.load(ports.bundled("fashion_mnist_classifier"))
    assert isinstance(model, StyleGAN2)
    assert isinstance(judge, Classifier)
    latents = model.sample(jax.random.key(arguments.seed + 1), SAMPLES)

    key = jax.random.key(arguments.seed)
    curves, seconds = {}, {}
    for name, solver in solvers(arguments.quick).items():
        start = time.perf_counter()
        curves[name] = np.asarray(
            fit(key, model, bits=arguments.bits, solver=solver).curve.codewords
        )
        seconds[name] = time.perf_counter() - start
    kmeans = KMeans(2**arguments.bits, n_init=1, random_state=arguments.seed).fit(latents)
    centres = kmeans.cluster_centers_.astype(np.float32)
    rng = np.random.default_rng(arguments.seed)
    classes = classes_of(next(iter(curves.values())), model, judge)
    shuffled = [same_class_share(rng.permutation(classes)) for _ in range(RANDOM_ORDERS)]
    rows = [
        *(
            measure(name, points, latents, model, judge) | {"seconds": seconds[name]}
            for name, points in curves.items()
        ),
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
        save=not arguments.quick,
        seed=arguments.seed,
        bits=arguments.bits,
        model_hash=model.model_hash,
    )


if __name__ == "__main__":
    main()
