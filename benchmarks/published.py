"""Our fits beside the codebooks that the authors of SFVQ published for StyleGAN2's W.

    python -m benchmarks.published FOLDER          # FOLDER holds CIFAR10-6.npy and the others
    python -m benchmarks.published FOLDER --quick  # a trial: 1/32 of the samples, nothing saved

Latents are drawn along the published 10-bit curve of CIFAR10, each from a line and a fraction of
it at random, with Gaussian noise of half a mean step's length in all dimensions together. Curves
fitted to them by least squares and by Adam with the published schedule are compared with the
published one of as many bits, by distortion on fresh latents and by the order of the codewords. The
second table measures the published codebooks by themselves; the third looks for the published
directions of AFHQ among the lines of its codebooks.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.report import report
from sfvq_jax import (
    Adam,
    Curve,
    LeastSquares,
    codebook_quality,
    decode,
    distortion,
    fit,
    line_lengths,
    load_curve,
)
from sfvq_jax.interpret import line_direction
from sfvq_jax.solver import Solver

FINEST = "CIFAR10-10"
FITTED_BITS = (4, 6)
PENALTY = 0.1  # with it distortion is below that of the published codebook of 6 bits, too
LATENTS = 2**17  # to fit to
DIRECTIONS = ("age", "rotation", "eye_color", "body_color", "bicolor")
DIRECTION_BITS = (2, 4, 5, 6, 7, 8)
MEASURED = ("AFHQ-4", "AFHQ-6", "AFHQ-8", "CIFAR10-4", "CIFAR10-6", "CIFAR10-8")
FRESH_SAMPLES = 2**15


def main() -> None:
    parser = argparse.ArgumentParser(description="Our fits beside the published codebooks.")
    parser.add_argument("folder", type=Path, help="of the published codebooks")
    parser.add_argument("--seeds", type=int, default=3, help="fits of each number of bits")
    parser.add_argument("--quick", action="store_true", help="1/32 of the samples, nothing saved")
    options = parser.parse_args()

    def published(name: str) -> Curve:
        return load_curve(options.folder / f"{name}.npy").curve

    solvers = {
        "least squares": LeastSquares(),
        f"least squares, μ {PENALTY:g}": LeastSquares(length_penalty=PENALTY),
        "Adam": Adam(samples=2**13) if options.quick else Adam(),
    }
    sample = jax.jit(noisy_points(published(FINEST)), static_argnums=1)
    latents = sample(jax.random.key(2**31 - 2), LATENTS // 8 if options.quick else LATENTS)
    fresh = sample(jax.random.key(2**31 - 1), FRESH_SAMPLES)
    fits = [
        {"bits": bits, "solver": name, "seed": seed}
        | compare(published(f"CIFAR10-{bits}"), latents, fresh, bits, solver, seed)
        for bits in FITTED_BITS
        for name, solver in solvers.items()
        for seed in range(options.seeds)
    ]
    measures = [{"book": name, **codebook_quality(published(name))._asdict()} for name in MEASURED]
    books = {bits: published(f"AFHQ-{bits}") for bits in DIRECTION_BITS}
    report(
        "published",
        {
            f"Fits to points along {FINEST}": fits,
            "Published": measures,
            "Published directions of AFHQ": [
                {"direction": name} | nearest_line(np.load(path).ravel(), books)
                for name in DIRECTIONS
                if (path := options.folder / f"dir-AFHQ-{name}.npy").is_file()
            ],
        },
        packages=("jax", "numpy"),
        save=not options.quick,
        **{name: dataclasses.asdict(solver) for name, solver in solvers.items()},
    )


def noisy_points(curve: Curve) -> Callable[[jax.Array, int], jax.Array]:
    """A sampler of points on a curve with noise of half a mean step's length."""
    deviation = 0.5 * line_lengths(curve).mean() / curve.latent_dim**0.5

    def sample(key: jax.Array, n: int) -> jax.Array:
        position_key, noise_key = jax.random.split(key)
        position = jax.random.uniform(position_key, (n,), maxval=float(curve.num_lines))
        noise = jax.random.normal(noise_key, (n, curve.latent_dim))
        return decode(curve, position) + deviation * noise

    return sample


def compare(
    published: Curve, latents: jax.Array, fresh: jax.Array, bits: int, solver: Solver, seed: int
) -> dict[str, Any]:
    """Distortion and order of our curve and of the published one, of so many bits both."""
    start = time.perf_counter()
    ours = fit(jax.random.key(seed), latents, bits=bits, solver=solver).curve
    row: dict[str, Any] = {"seconds": time.perf_counter() - start}
    for prefix, curve in (("", ours), ("published ", published)):
        quality = codebook_quality(curve)
        row |= {
            f"{prefix}distortion": float(distortion(curve, fresh)),
            f"{prefix}mean step": quality.mean_step,
            f"{prefix}step ratio": quality.step_ratio,
            f"{prefix}neighbours": quality.neighbour_share,
        }
    return row | {"distortion ratio": row["distortion"] / row["published distortion"]}


def nearest_line(vector: np.ndarray, books: dict[int, Curve]) -> dict[str, Any]:
    """Of all lines of the codebooks, by bits, the one most nearly along a vector [D]."""

    def cosine(bits: int, line: int) -> float:
        return float(vector @ np.asarray(line_direction(books[bits], line)))

    lines = [(bits, line) for bits, book in books.items() for line in range(book.num_lines)]
    bits, line = max(lines, key=lambda at: abs(cosine(*at)))
    along = cosine(bits, line) / float(np.linalg.norm(vector))
    return {"bits": bits, "line": line, "cosine": along}


if __name__ == "__main__":
    main()
