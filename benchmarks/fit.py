"""Distortion against wall time: whole fits from the data to the last stage, ours and others.

    python -m benchmarks.fit                  # Gaussian data only: ten minutes or so
    python -m benchmarks.fit FOLDER           # and points along CIFAR10-10.npy of this folder
    python -m benchmarks.fit [FOLDER] --quick # a trial: shorter schedules, nothing saved

    least squares   `sfvq_jax.fit` with `LeastSquares`: fast, with few samples and rounds and μ so
                    small that its distortion is at most that of the published recipe; and default
    our Adam        `sfvq_jax.fit` with `Adam`, the published recipe
    PyTorch loop    the published recipe in PyTorch, the plain loop of `benchmarks.adam`
    diveq           SFDIVEQ of the package `diveq`, the authors' successor: all codewords from the
                    start, its own start and loss, as many samples of the published schedule as the
                    other recipes have in their last stage, beside its 1000 batches without
                    quantisation; Adam at the published rates
    k-means         scikit-learn's, of as many codewords and without a curve: distortion to the
                    nearest codeword

Distortions in the table are on fresh samples, by exact projection. Ours run twice, and the second
time counts, since all is compiled then; what the first took longer is a column. The others' times
are without the measurements between. The key figure is the PyTorch loop's whole time by ours, of
a fit whose distortion is no higher.
"""

import argparse
import math
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import diveq
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import torch
from sklearn.cluster import KMeans

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.adam import START_SAMPLES, THREADS, gaussian, torch_batches, torch_epochs
from benchmarks.published import FINEST, noisy_points
from benchmarks.report import report, use_cores
from sfvq_jax import (
    Adam,
    Curve,
    LeastSquares,
    Report,
    codebook_quality,
    distortion,
    fit,
    initial_curve,
    load_curve,
    subdivide,
)
from sfvq_jax.solver import Solver, round_steps

FIGURE = Path(__file__).parents[1] / "docs" / "fit.png"
GAUSSIAN_ROWS, GAUSSIAN_DIM, GAUSSIAN_BITS = 2**18, 128, 5
PUBLISHED_ROWS, PUBLISHED_BITS = 2**17, 6
FRESH = 2**15
# few samples and rounds, and a penalty that ends at or below the published recipe's distortion
GAUSSIAN_FAST = LeastSquares(length_penalty=0.01, samples=2**15, rounds=4)
PUBLISHED_FAST = LeastSquares(length_penalty=0.025, samples=2**14, rounds=9)


class Data(NamedTuple):
    """What is fitted: latents [N, D], fresh ones to measure with, bits of the last stage, and the
    least squares that are to be fast on it."""

    name: str
    latents: np.ndarray
    fresh: np.ndarray
    bits: int
    fast: LeastSquares


class Run(NamedTuple):
    """A fit: seconds and distortions on the way, the codewords at the end, seconds to compile."""

    seconds: list[float]
    distortions: list[float]
    codewords: np.ndarray
    compile_seconds: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description="Distortion against wall time.")
    parser.add_argument("folder", type=Path, nargs="?", help="of the published codebooks")
    parser.add_argument("--quick", action="store_true", help="a trial, nothing saved")
    options = parser.parse_args()
    use_cores(THREADS)
    torch.set_num_threads(THREADS)

    adam = Adam(samples=2**13) if options.quick else Adam()
    rows, drawn = [], {}
    for data in data_sets(options.folder, options.quick):
        runs: dict[str, Run] = {
            "fast least squares": our_fit(data, data.fast),
            "default least squares": our_fit(data, LeastSquares()),
            "our Adam": our_fit(data, adam),
            "PyTorch loop": torch_fit(data, adam),
            "diveq": diveq_fit(data, adam),
            "k-means": k_means(data),
        }
        drawn[data.name] = runs
        for name, run in runs.items():
            rows.append({"data": data.name, "fit": name} | measure(run, name, data))
            print(rows[-1], flush=True)
        loop = runs["PyTorch loop"].seconds[-1]
        for row in rows[-len(runs) :]:
            row["PyTorch loop ÷ this"] = loop / row["seconds"]
    report(
        "fit",
        {"Whole fits": rows},
        packages=("jax", "torch", "numpy", "scikit-learn", "diveq"),
        save=not options.quick,
        threads=THREADS,
        fast_least_squares=[vars(GAUSSIAN_FAST), vars(PUBLISHED_FAST)],
        adam=vars(adam),
        curves={
            data: {
                name: {"seconds": run.seconds, "distortion": run.distortions}
                for name, run in runs.items()
            }
            for data, runs in drawn.items()
        },
    )
    if not options.quick:
        draw(drawn, FIGURE)


def data_sets(folder: Path | None, quick: bool) -> Iterator[Data]:
    rows = GAUSSIAN_ROWS // 4 if quick else GAUSSIAN_ROWS
    yield Data(
        f"Gaussian, D={GAUSSIAN_DIM}, {2**GAUSSIAN_BITS} codewords",
        gaussian(0, rows, GAUSSIAN_DIM),
        gaussian(1, FRESH, GAUSSIAN_DIM),
        GAUSSIAN_BITS,
        GAUSSIAN_FAST,
    )
    if folder is None or not (folder / f"{FINEST}.npy").exists():
        print(f"no folder with {FINEST}.npy: points along that curve are left out")
        return
    sample = jax.jit(noisy_points(load_curve(folder / f"{FINEST}.npy").curve), static_argnums=1)
    rows = PUBLISHED_ROWS // 4 if quick else PUBLISHED_ROWS
    yield Data(
        f"Along {FINEST}, D=512, {2**PUBLISHED_BITS} codewords",
        np.array(sample(jax.random.key(0), rows)),
        np.array(sample(jax.random.key(1), FRESH)),
        PUBLISHED_BITS,
        PUBLISHED_FAST,
    )


def our_fit(data: Data, solver: Solver) -> Run:
    """Once to compile, once to measure."""
    latents = jax.block_until_ready(jnp.asarray(data.latents))
    seconds, reports = [], []

    def keep(report: Report) -> None:
        if np.isfinite(report.distortion):
            reports.append(report)

    for _ in range(2):
        reports.clear()
        start = time.perf_counter()
        result = fit(jax.random.key(0), latents, bits=data.bits, solver=solver, on_report=keep)
        seconds.append(time.perf_counter() - start)
    # what comes before a fit's own clock starts: reading of samples to start from and measure with
    before = seconds[1] - reports[-1].seconds
    return Run(
        [before + report.seconds for report in reports],
        [report.distortion for report in reports],
        np.asarray(result.curve.codewords),
        seconds[0] - seconds[1],
    )


def torch_fit(data: Data, solver: Adam) -> Run:
    clock = Clock(lambda codewords: measured(codewords, data))
    curve = initial_curve(jnp.asarray(data.latents[:START_SAMPLES]))
    for bits in range(2, data.bits + 1):
        curve = curve if bits == 2 else subdivide(curve)
        for curve in torch_epochs(curve, data.latents, solver):  # noqa: B020
            clock.measure(np.asarray(curve.codewords))
    return Run(clock.seconds, clock.values, np.asarray(curve.codewords))


def diveq_fit(data: Data, solver: Adam) -> Run:
    with warnings.catch_warnings():  # it warns of some values that are its own defaults
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        quantiser = diveq.SFDIVEQ(2**data.bits, data.latents.shape[1])
    optimiser = torch.optim.Adam(quantiser.parameters(), lr=solver.learning_rate)
    milestones = [round(share * solver.epochs) for share in solver.decay_at]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, solver.decay)
    batches = torch_batches(torch.from_numpy(data.latents), 1, solver.batch_size)
    clock = Clock(lambda codewords: measured(codewords, data))
    # after this many the codebook is made of the last batches
    for _ in range(quantiser.skip_iters - 1):
        quantiser(next(batches)[0])
    for _ in range(solver.epochs):
        for _ in range(math.prod(round_steps(solver))):
            x = next(batches)[0]
            optimiser.zero_grad()
            torch.nn.functional.mse_loss(quantiser(x)[0], x).backward()
            optimiser.step()
        schedule.step()
        clock.measure(quantiser.codebook.detach().numpy())
    return Run(clock.seconds, clock.values, quantiser.codebook.detach().numpy())


def k_means(data: Data) -> Run:
    start = time.perf_counter()
    found = KMeans(2**data.bits, n_init=1, random_state=0).fit(data.latents)
    seconds = time.perf_counter() - start
    value = -found.score(data.fresh) / data.fresh.size
    return Run([seconds], [float(value)], found.cluster_centers_.astype(np.float32))


class Clock:
    """Seconds since the start but for those spent on measuring, and what was measured."""

    def __init__(self, value: Callable[[np.ndarray], float]):
        self._value, self._start = value, time.perf_counter()
        self.seconds: list[float] = []
        self.values: list[float] = []

    def measure(self, codewords: np.ndarray) -> None:
        stopped = time.perf_counter()
        self.seconds.append(stopped - self._start)
        self.values.append(self._value(codewords))
        self._start += time.perf_counter() - stopped


def measured(codewords: np.ndarray, data: Data) -> float:
    return float(distortion(Curve(jnp.asarray(codewords)), jnp.asarray(data.fresh)))


def measure(run: Run, name: str, data: Data) -> dict[str, Any]:
    """One row of the table."""
    row: dict[str, Any] = {"seconds": run.seconds[-1], "compile s": run.compile_seconds}
    if name == "k-means":
        return row | {"distortion": run.distortions[-1]}
    quality = codebook_quality(Curve(jnp.asarray(run.codewords)))
    return row | {
        "distortion": measured(run.codewords, data),
        "mean step": quality.mean_step,
        "neighbours": quality.neighbour_share,
    }


def draw(runs: dict[str, dict[str, Run]], path: Path) -> None:
    """A panel a data set."""
    figure, axes = plt.subplots(
        1, len(runs), figsize=(6.2 * len(runs), 4.4), layout="constrained", squeeze=False
    )
    colours = dict(
        zip(
            next(iter(runs.values())),
            ("tab:red", "tab:orange", "tab:blue", "black", "tab:green", "0.5"),
            strict=True,
        )
    )
    for panel, (name, own) in zip(axes.flat, runs.items(), strict=True):
        for fit_name, colour in colours.items():
            run = own[fit_name]
            if fit_name == "k-means":
                panel.axhline(run.distortions[-1], color=colour, lw=0.8, ls=":", zorder=1)
            panel.plot(run.seconds, run.distortions, color=colour, lw=1.2)
            panel.plot(
                run.seconds[-1], run.distortions[-1], "o", color=colour, label=fit_name, ms=6
            )
        loop, ours = own["PyTorch loop"], own["fast least squares"]
        level = loop.distortions[-1]
        if ours.distortions[-1] <= level:
            panel.annotate(
                "",
                (ours.seconds[-1], level),
                (loop.seconds[-1], level),
                arrowprops={"arrowstyle": "->", "color": "0.4", "lw": 0.9},
            )
            panel.annotate(
                f"× {loop.seconds[-1] / ours.seconds[-1]:.0f}",
                ((loop.seconds[-1] * ours.seconds[-1]) ** 0.5, level),
                xytext=(0, 5),
                textcoords="offset points",
                ha="center",
                color="0.3",
            )
        panel.set_xscale("log")
        panel.set_title(name, loc="left", fontsize=11)
        panel.set_xlabel("seconds, compiled")
        panel.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("distortion")
    axes[0, 0].legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
