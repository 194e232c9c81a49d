"""Distortion against length and order: the least-squares stage beside the published recipe.

    python -m benchmarks.tradeoff FOLDER          # FOLDER holds CIFAR10-10.npy, AFHQ-8.npy; hours
    python -m benchmarks.tradeoff FOLDER --quick  # a trial: one seed, fewer points, nothing saved

Curves of 64 codewords are fitted to five kinds of data: points along two published curves of
StyleGAN2's W with noise (`benchmarks.published.noisy_points`), W of the bundled generator, a noisy
spiral in the plane and an isotropic Gaussian in 128 dimensions. The length penalty μ of
`LeastSquares` gives a front of distortion (on fresh points, by exact projection) against mean step;
`Adam` gives a point for each number of samples an epoch, of which the last is the published recipe.

A second table asks of each of these points, seed by seed: how short is the front where it is no
worse in distortion, how low is its distortion where it is no longer? `docs/tradeoff.png` shows the
fronts of the first seed.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D

import ports
from benchmarks.published import noisy_points
from benchmarks.report import report
from sfvq_jax import Adam, LatentModel, LeastSquares, codebook_quality, distortion, fit, load_curve

FIGURE = Path(__file__).parents[1] / "docs" / "tradeoff.png"
BITS = 6
LATENTS = 2**17  # to fit to
FRESH = 2**14  # to measure with
PENALTIES = (0.03, 0.06, 0.1, 0.2, 0.4, 1.0)
ADAM_SAMPLES = (2**14, 2**16, 2**18)
QUICK_PENALTIES = (0.01, 0.1, 0.3, 1.0)
QUICK_ADAM_SAMPLES = (2**12, 2**14)
ROUNDS = 20
SPIRAL_TURNS, SPIRAL_NOISE = 2.5, 0.05
GAUSSIAN_DIM = 128
BETWEEN = 64  # points between two of a front
FRONTS = ("least squares", "dithered least squares")
STYLES = {  # line, marker and its size, in the order in which they are drawn
    "dithered least squares": (":", "s", 26),
    "least squares": ("-", "o", 60),
    "Adam": ("", "*", 200),
}
ORDER_COLOURS = "viridis"
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

Row = dict[str, Any]
Sampler = Callable[[jax.Array, int], jax.Array]


def main() -> None:
    parser = argparse.ArgumentParser(description="Distortion against length and order.")
    parser.add_argument("folder", type=Path, help="of the published codebooks")
    parser.add_argument("--seeds", type=int, default=3, help="fits of each kind")
    parser.add_argument("--data", action="append", help="one kind of data only, by its name")
    parser.add_argument("--figure", type=Path, help="docs/tradeoff.png by default")
    parser.add_argument("--quick", action="store_true", help="a trial, nothing saved")
    options = parser.parse_args()

    samplers = {
        name: sampler
        for name, sampler in data_sampler_by_name(options.folder).items()
        if options.data is None or name in options.data
    }
    rows = []
    for name, sampler in samplers.items():
        for row in fits(sampler, 1 if options.quick else options.seeds, options.quick):
            rows.append({"data": name} | row)
            print(rows[-1], flush=True)
    points = comparisons(rows)
    save = not options.quick and options.data is None
    report(
        "tradeoff",
        {f"{2**BITS} codewords": rows, "Adam beside the front": points},
        packages=("jax", "numpy"),
        save=save,
        rounds=ROUNDS,
        latents=LATENTS,
    )
    print(f"\n{verdict(points)}")
    if save or options.figure:
        draw(rows, list(samplers), options.figure or FIGURE)


def data_sampler_by_name(folder: Path) -> dict[str, Sampler]:
    """The five kinds of data."""
    model = ports.load(ports.bundled("fashion_mnist"))
    assert isinstance(model, LatentModel)
    along = {
        f"along {book}": noisy_points(load_curve(folder / f"{book}.npy").curve)
        for book in ("CIFAR10-10", "AFHQ-8")
    }
    return along | {
        "W of the bundled generator": model.sample,
        "spiral": spiral,
        f"Gaussian, D={GAUSSIAN_DIM}": lambda key, n: jax.random.normal(key, (n, GAUSSIAN_DIM)),
    }


def spiral(key: jax.Array, n: int) -> jax.Array:
    """A spiral in the plane, evenly filled, with noise."""
    key, noise_key = jax.random.split(key)
    # the length up to an angle grows about as its square
    turns = SPIRAL_TURNS * jnp.sqrt(jax.random.uniform(key, (n, 1)))
    angle = 2 * jnp.pi * turns
    ring = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], 1)
    return turns * ring + SPIRAL_NOISE * jax.random.normal(noise_key, (n, 2))


def fits(sampler: Sampler, seeds: int, quick: bool) -> list[Row]:
    """One row a fit."""
    sample = jax.jit(sampler, static_argnums=1)
    latents = sample(jax.random.key(2**31 - 1), LATENTS // 4 if quick else LATENTS)
    fresh = sample(jax.random.key(2**31 - 2), FRESH)
    penalties, samples = (
        (QUICK_PENALTIES, QUICK_ADAM_SAMPLES) if quick else (PENALTIES, ADAM_SAMPLES)
    )
    least = [
        ({"solver": name, "μ": penalty}, LeastSquares(penalty, ROUNDS, dithered=dithered))
        for name, dithered in (("least squares", False), ("dithered least squares", True))
        for penalty in (penalties[::3] if dithered else penalties)
    ]
    adam = [({"solver": "Adam", "samples": number}, Adam(samples=number)) for number in samples]
    rows = []
    for label, solver in least + adam:
        for seed in range(seeds):
            start = time.perf_counter()
            result = fit(jax.random.key(seed), latents, bits=BITS, solver=solver)
            curve, history = result.curve, result.history
            seconds = time.perf_counter() - start
            quality = codebook_quality(curve)
            rows.append(
                {
                    **label,
                    "seed": seed,
                    "mean step": quality.mean_step,
                    "distortion": float(distortion(curve, fresh)),
                    "neighbours": quality.neighbour_share,
                    "trustworthiness": quality.trustworthiness,
                    "length ÷ 2-opt": quality.length_ratio,
                    "rounds": len(history.codewords),
                    "seconds": seconds,
                }
            )
    return rows


def comparisons(rows: Sequence[Row]) -> list[Row]:
    """One row for each of Adam's points and front: both at the other's distortion or length.

    Ratios below 1 speak for the front. They are absent where it does not reach so far.
    """
    found = []
    for point in rows:
        if point["solver"] != "Adam":
            continue
        for solver in FRONTS:
            same = {"data": point["data"], "seed": point["seed"], "solver": solver}
            front = [row for row in rows if all(row[name] == same[name] for name in same)]
            lower = at_most(front, "mean step", point["mean step"], "distortion")
            shorter = at_most(front, "distortion", point["distortion"], "mean step")
            found.append(
                {
                    **{name: point[name] for name in ("data", "samples", "seed")},
                    "front": solver,
                    "Adam's distortion": point["distortion"],
                    "front's at its length": lower,
                    "distortion ratio": lower and lower / point["distortion"],
                    "Adam's step": point["mean step"],
                    "front's at its distortion": shorter,
                    "step ratio": shorter and shorter / point["mean step"],
                }
            )
    return found


def at_most(front: Sequence[Row], given: str, most: float, wanted: str) -> float | None:
    """The least of what is wanted along a front where what is given is at most so much.

    A front goes straight from one penalty's point to the next one's. None where it never is.
    """
    front = sorted(front, key=lambda row: row["μ"])
    place = np.linspace(0, len(front) - 1, BETWEEN * (len(front) - 1) + 1)
    given_values, wanted_values = (
        np.interp(place, np.arange(len(front)), [row[name] for row in front])
        for name in (given, wanted)
    )
    reached = wanted_values[given_values <= most]
    return float(reached.min()) if reached.size else None


def verdict(points: Sequence[Row]) -> str:
    """Of how many points it holds, and where it does not."""
    lines = []
    for front in FRONTS:
        of_front = [point for point in points if point["front"] == front]
        ratios = [(point["distortion ratio"], point["step ratio"]) for point in of_front]
        reached = [None not in pair for pair in ratios]
        held = [both and max(pair) <= 1 for both, pair in zip(reached, ratios, strict=True)]
        lines.append(
            f"{front}: at Adam's distortion shorter and at Adam's length of lower distortion in"
            f" {sum(held)} of {len(held)}; beyond the front's ends {len(held) - sum(reached)}"
        )
        lines += [
            f"  {'not' if both else 'beyond'}: {point['data']}, {point['samples']} samples, seed"
            f" {point['seed']}: distortion × {_ratio(pair[0])}, step × {_ratio(pair[1])}"
            for point, pair, both, holds in zip(of_front, ratios, reached, held, strict=True)
            if not holds
        ]
    return "\n".join(lines)


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def draw(rows: Sequence[Row], names: Sequence[str], path: Path) -> None:
    """A panel a kind of data, and one for the legend."""
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.6), layout="constrained")
    panels = list(axes.flat)
    for name, panel in zip(names, panels, strict=False):
        draw_panel(panel, [row for row in rows if row["data"] == name and row["seed"] == 0])
        panel.set_title(name[0].upper() + name[1:], loc="left", fontsize=11)
        panel.set_xlabel("mean step")
        panel.set_ylabel("distortion")
    for panel in panels[len(names) :]:
        panel.axis("off")
    legend = panels[-1]
    handles = [
        Line2D([], [], ls=line, marker=marker, ms=size**0.5, color="0.55", mfc="w", mec="k")
        for line, marker, size in STYLES.values()
    ]
    names_of = ("dithered least squares", "least squares, by μ", "Adam, by samples an epoch")
    legend.legend(handles, names_of, loc="upper left", frameon=False, fontsize=11)
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), ORDER_COLOURS),
        cax=legend.inset_axes((0.04, 0.38, 0.8, 0.06)),
        orientation="horizontal",
    )
    bar.set_label("order: share of codewords whose\nnearest codeword is a neighbour", fontsize=10)
    bar.outline.set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_panel(axes: Axes, rows: Sequence[Row]) -> None:
    """The fronts and Adam's points."""
    for solver, (line, marker, size) in STYLES.items():
        own = [row for row in rows if row["solver"] == solver]
        x, y, order = (
            [row[name] for row in own] for name in ("mean step", "distortion", "neighbours")
        )
        if line:
            axes.plot(x, y, line, color="0.55", lw=1.2, zorder=2)
        axes.scatter(
            x,
            y,
            s=size,
            c=order,
            marker=marker,
            cmap=ORDER_COLOURS,
            vmin=0,
            vmax=1,
            edgecolor="black",
            linewidth=0.6,
            zorder=4 if solver == "Adam" else 3,
        )
        if solver == "dithered least squares":
            continue
        for row in own:
            # least squares is labelled below its front, Adam above it
            if solver == "Adam":
                power = str(round(np.log2(row["samples"])))
                text, place, align = f"2{power.translate(SUPERSCRIPTS)}", (6, 5), "left"
            else:
                text, place, align = f"{row['μ']:g}", (-4, -6), "right"
            axes.annotate(
                text,
                (row["mean step"], row["distortion"]),
                xytext=place,
                textcoords="offset points",
                ha=align,
                va="top" if align == "right" else "bottom",
                fontsize=8,
                color="0.25" if align == "right" else "tab:red",
            )
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(0.12)
    axes.tick_params(labelsize=9)


if __name__ == "__main__":
    main()
