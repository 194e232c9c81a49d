"""Photographs in a latent space: likeness against steps and starts, and edits of what is found.

    python -m benchmarks.inversion fashion_mnist --data DATA         # ten minutes on a core
    python -m benchmarks.inversion fashion_mnist_biggan --data DATA  # likewise
    DISVAE=… python -m benchmarks.inversion disvae                   # five minutes
    python -m benchmarks.inversion NAME --quick                      # a trial, nothing saved

The photographs are the first test images of Fashion-MNIST, which neither bundled generator was
trained on; for the VAEs of examples/disvae.py, for which no photographs are at hand, images that
they render from fresh latents, so that the latents are known. `invert` runs as its command does: a
bundled generator with the features of the scorer that finds. Likeness is the peak signal-to-noise
ratio and SSIM (Wang et al., 2004, with their Gaussian window of 11 pixels); a class is kept where
the bundled classifier, which has no part in the inversion, gives rendering and photograph the same.
Beside it plain Adam: raw latents from their mean, squared difference of pixels, the best of some
learning rates. Intervals are of 95 % over images, by Student's t, Wilson's of shares, and
percentiles of a thousand bootstraps of steps.
"""

import argparse
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dm_pix
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import ports
from benchmarks.comparison import MODELS, load
from benchmarks.report import report, use_cores
from benchmarks.training.data import load_fashion_mnist, to_float
from sfvq_jax import Curve, LatentModel, LeastSquares, fit
from sfvq_jax.cli.common import with_statistics
from sfvq_jax.cli.models import load_generator
from sfvq_jax.images import in_batches, render_images
from sfvq_jax.interpret import (
    Bench,
    FoundDirection,
    edit_latents,
    find_directions,
    invert,
    load_scorers,
)
from sfvq_jax.interpret.directions.finding import entanglement_of
from sfvq_jax.interpret.intervals import interval, share
from sfvq_jax.interpret.inversion import optimising
from sfvq_jax.interpret.inversion.likeness import psnr

Array = jax.Array
Row = dict[str, Any]
Judge = Callable[[np.ndarray], np.ndarray]

DOCS = Path(__file__).parents[1] / "docs"
EXAMPLE = Path(__file__).parents[1] / "examples" / "disvae.py"
VAES = ("VAE_celeba", "btcvae_celeba", "VAE_dsprites", "VAE_chairs")
KEY = jax.random.key(23)
BITS = 6
IMAGES, FEW = 256, 32  # photographs: of the starts; of the options, of plain Adam and of each VAE
SAMPLES = 2**15  # that a curve is fitted to
STEPS = 100
MARKS = (0, 10, 25, 50, 100)
SAVED = (0, 10, 25)  # steps of the start on the curve
RATES = (0.01, 0.03, 0.1, 0.3)
TUNED_ON = 16  # photographs, others than those that are measured
BATCH = 64
BOOTSTRAPS = 1000
ATTRIBUTES = ("width", "brightness")
SAMPLED = 128  # latents, beside photographs
DRAWN = 8
SSIM = jax.jit(jax.vmap(dm_pix.ssim))


def likeness(
    model: LatentModel, latents: Array, photos: np.ndarray, judge: Judge | None
) -> dict[str, np.ndarray]:
    """Of rendered latents and photographs uint8 [N, H, W, C], of each one [N]."""
    images = render_images(model, latents)
    unit = [jnp.asarray(x / np.float32(255)) for x in (images, photos)]
    found = {
        "PSNR": psnr(to_float(images), to_float(photos)),
        "SSIM": np.asarray(SSIM(*unit), np.float64),
    }
    return found if judge is None else found | {"class kept": judge(images) == judge(photos)}


def columns(found: dict[str, np.ndarray]) -> Row:
    """Means with their intervals."""
    return {name: pair(values) for name, values in found.items()}


def pair(values: np.ndarray) -> list[float] | str:
    if values.dtype == bool:
        return str(share(int(values.sum()), len(values)))
    found = interval(values)
    return [found.mean, found.high - found.mean]


@contextmanager
def recorded() -> Iterator[list[list[Array]]]:
    """The best latents after each step of what is inverted meanwhile, a list for each batch."""
    batches: list[list[Array]] = []
    step = optimising._step

    def recording(objective: Any, *rest: Any) -> Any:
        if np.isinf(rest[-1]).all():  # nothing was least yet: another batch begins
            batches.append([])
        made = step(objective, *rest)
        batches[-1].append(objective.space.latents(made[2]))
        return made

    with patch.object(optimising, "_step", recording):
        yield batches


def start_rows(
    model: LatentModel,
    photos: np.ndarray,
    starts: dict[str, Any],
    features: Any,
    judge: Judge | None,
    true: Array | None,
) -> tuple[list[Row], dict[str, np.ndarray], dict[str, dict[int, Array]]]:
    """Likeness after some steps from each start; their objectives [N, steps + 1], and latents."""
    rows, objectives, latents = [], {}, {}
    for name, start in starts.items():
        with recorded() as batches:
            made = invert(KEY, model, photos, start=start, features=features, steps=STEPS)
        objectives[name] = made.objective
        latents[name] = {}
        for mark in MARKS:
            parts = [batch[min(mark, len(batch) - 1)] for batch in batches]  # some ended early
            own = latents[name][mark] = jnp.concatenate(parts)[: len(photos)]
            rows.append(
                {"start": name, "steps": mark}
                | columns(likeness(model, own, photos, judge) | of_truth(own, true))
            )
            print(rows[-1], flush=True)
    return rows, objectives, latents


def of_truth(latents: Array, true: Array | None) -> dict[str, np.ndarray]:
    """How far off latents are, a dimension, where they are known."""
    if true is None:
        return {}
    return {"latents off by": np.sqrt(np.asarray((latents - true) ** 2, np.float64).mean(1))}


def saved_rows(objectives: dict[str, np.ndarray], start: str) -> list[Row]:
    """Steps that the mean start needs to come as low as another one is after some."""
    mean, other = objectives["the mean"], objectives[start]
    random = np.random.default_rng(0)
    chosen = [random.integers(len(mean), size=len(mean)) for _ in range(BOOTSTRAPS)]
    rows = []
    for k in SAVED:

        def needed(images: Any, k: int = k) -> int:
            below = mean[images].mean(0) <= other[images, k].mean()
            return int(below.argmax()) if below.any() else STEPS + 1

        low, high = np.percentile([needed(images) for images in chosen], [2.5, 97.5])
        rows.append(
            {
                "start": start,
                "steps": k,
                "objective": float(other[:, k].mean()),
                "from the mean as many as": told(needed(np.arange(len(mean)))),
                "low": told(low),
                "high": told(high),
            }
        )
    return rows


def told(steps: float) -> str:
    return f"more than {STEPS}" if steps > STEPS else str(math.ceil(steps))


def plain_adam(model: LatentModel, photos: np.ndarray, rate: float, steps: int) -> list[Array]:
    """Best latents [N, D] after 0, 1, … steps, by pixels, from the mean."""
    mean = model.sample(KEY, optimising.SPREAD_SAMPLES).mean(0)
    render, adam = optimising.method(model, "render"), optax.adam(rate)
    found = []
    for start in range(0, len(photos), BATCH):
        wanted = jnp.asarray(to_float(photos[start : start + BATCH]))
        x = best = jnp.broadcast_to(mean, (len(wanted), len(mean)))
        state, least, parts = adam.init(x), jnp.full(len(wanted), jnp.inf), []
        for _ in range(steps + 1):
            x, state, best, least = _plain_step(render, rate, wanted, x, state, best, least)
            parts.append(best)
        found.append(parts)
    return [jnp.concatenate(parts) for parts in zip(*found, strict=True)]


@jax.jit
def _plain_step(
    render: Any, rate: float, wanted: Array, x: Array, state: Any, best: Array, least: Array
) -> tuple[Array, Any, Array, Array]:
    def total(x: Array) -> tuple[Array, Array]:
        each = ((render(x) - wanted) ** 2).mean((1, 2, 3))
        return each.sum(), each

    gradient, each = jax.grad(total, has_aux=True)(x)
    best = jnp.where((each < least)[:, None], x, best)
    with jax.numpy_dtype_promotion("standard"):
        updates, state = optax.adam(rate).update(gradient, state)
    return x + updates, state, best, jnp.minimum(each, least)


def plain_rows(
    model: LatentModel,
    photos: np.ndarray,
    others: np.ndarray,
    judge: Judge | None,
    true: Array | None,
) -> tuple[list[Row], Array]:
    """Likeness after some steps of plain Adam, and its latents in the end.

    With the rate that is best on other photographs.
    """
    ratios = [
        psnr(to_float(render_images(model, plain_adam(model, others, rate, STEPS)[-1])),
             to_float(others)).mean()
        for rate in RATES
    ]  # fmt: skip
    rate = RATES[int(np.argmax(ratios))]
    found, rows = plain_adam(model, photos, rate, STEPS), []
    for mark in MARKS:
        measured = likeness(model, found[mark], photos, judge) | of_truth(found[mark], true)
        rows.append({"rate": rate, "steps": mark} | columns(measured))
        print(rows[-1], flush=True)
    return rows, found[STEPS]


def option_latents(
    model: LatentModel, photos: np.ndarray, curve: Curve, features: Any, known: Array
) -> dict[str, Array]:
    """What each option gives, from the curve."""
    run = partial(invert, KEY, model, photos, start=curve)
    options = {
        "--pull 0": {"pull": 0.0},
        "--pull 0.1": {"pull": 0.1},
        "--each-layer": {"layers": True},
        "without a scorer": {"features": None},
    }
    found = {"as it is, --pull 0.01": known}
    for name, option in options.items():
        found[name] = run(**({"features": features, "steps": STEPS} | option)).latents
        print(name, flush=True)
    return found


def edit_rows(bench: Bench, found: FoundDirection, kinds: dict[str, Array]) -> list[Row]:
    """What a direction does to latents of several kinds, as the judge sees it."""
    attribute, (low, high) = found.attribute, found.limits
    strength = min(2.0, 2.0 if high is None else high)
    rows = []
    for name, latents in kinds.items():
        judged = bench.effects(found.direction, latents, (low, high))[1]
        effect = judged[attribute]
        before = bench.inside(bench.look(latents, *bench.kinds))
        after = bench.inside(bench.look_at(found.direction, latents, strength, *bench.kinds))
        rows.append(
            {
                "direction": found.name,
                "latents": name,
                "effect": [effect.mean, effect.high - effect.mean],
                "rises in": effect.agree,
                "entangled": entanglement_of(attribute, judged),
                "inside before": pair(before),
                "inside after": pair(after),
                "strength": strength,
            }
        )
    return rows


def draw(model: LatentModel, photos: np.ndarray, rows: dict[str, Array], path: Path) -> None:
    """Photographs, and what each row of latents renders."""
    images = {"photograph": photos}
    images |= {name: render_images(model, latents) for name, latents in rows.items()}
    figure, cells = plt.subplots(
        len(images), len(photos), figsize=(1.0 * len(photos) + 1.3, 1.02 * len(images)),
        layout="constrained",
    )  # fmt: skip
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, hspace=0, wspace=0)
    for (name, pictures), line in zip(images.items(), cells, strict=True):
        for cell, picture in zip(line, pictures, strict=True):
            cell.imshow(picture[..., 0], cmap="gray", vmin=0, vmax=255)
            cell.set(xticks=[], yticks=[])
            cell.spines[:].set_visible(False)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def curve_of(model: LatentModel) -> Curve:
    return fit(KEY, model, bits=BITS, solver=LeastSquares(samples=SAMPLES)).curve


def of_generator(name: str, data: Path, images: int, few: int) -> tuple[dict[str, list[Row]], Any]:
    """All tables of a bundled generator, and what draws its figure."""
    model, scorers = load(name), load_scorers(ports.BUNDLED / "fashion_mnist_scorers.npz")
    classifier = ports.load(ports.bundled("fashion_mnist_classifier"))
    pixels, labels = load_fashion_mnist(data, "test")
    photos, others = pixels[:images], pixels[-TUNED_ON:]

    def judge(images: np.ndarray) -> np.ndarray:
        scores = in_batches(lambda part: classifier(to_float(part))[0], images, BATCH)  # type: ignore
        return scores.argmax(1)

    features = scorers.find.features
    curve = curve_of(model)
    starts = {"the mean": "mean", "the curve": curve}
    rows, objectives, latents = start_rows(model, photos, starts, features, judge, None)
    plain, plain_latents = plain_rows(model, photos[:few], others, judge, None)
    found = latents["the curve"]
    options = option_latents(model, photos[:few], curve, features, found[STEPS][:few])
    both = with_statistics(scorers, model, ATTRIBUTES)
    statistics = [scorer.select(ATTRIBUTES) for scorer in both]
    directions = find_directions(
        KEY, model, curve, *statistics, latents=SAMPLED, features=scorers.judge.features
    )
    print([(each.name, each.confirmed, each.limits) for each in directions], flush=True)
    bench = Bench(KEY, model, *statistics, features=scorers.judge.features)
    kinds = {"sampled": model.sample(jax.random.fold_in(KEY, 1), SAMPLED)}
    kinds |= {f"photographs, {option}": each for option, each in options.items()}
    kinds["photographs, plain Adam"] = plain_latents
    tables = {
        "Starts": rows,
        "Steps that a start saves": saved_rows(objectives, "the curve"),
        "Plain Adam": plain,
        "Options": [
            {"option": option} | columns(likeness(model, each, photos[:few], judge))
            for option, each in options.items()
        ],
        "Edits": [
            {"confirmed": each.confirmed} | row
            for each in directions
            for row in edit_rows(bench, each, kinds)
        ],
    }
    drawn = np.unique(labels[:few], return_index=True)[1][:DRAWN]  # of other classes
    chosen = options["as it is, --pull 0.01"][drawn]
    steps = jnp.array([-1.0, 1.0])
    edited = edit_latents(chosen, directions[0].direction, steps, model.num_layers)
    pictures = {"start on the curve": found[0][drawn], "found": chosen}
    pictures |= {"--each-layer": options["--each-layer"][drawn]}
    pictures |= {f"found, {ATTRIBUTES[0]} {sign}1": edited[:, i] for i, sign in enumerate("−+")}
    return tables, partial(draw, model, photos[drawn], pictures)


def of_vaes(few: int) -> dict[str, list[Row]]:
    """All tables of the VAEs."""
    tables: dict[str, list[Row]] = {
        "Starts": [], "Steps that a start saves": [], "Plain Adam": []
    }  # fmt: skip
    for name in VAES:
        model = load_generator(f"{EXAMPLE}:{name}")
        true = model.sample(jax.random.fold_in(KEY, 2), few)
        photos = render_images(model, true)
        others = render_images(model, model.sample(jax.random.fold_in(KEY, 3), TUNED_ON))
        starts = {"the mean": "mean", "the curve": curve_of(model)}
        starts["the encoder"] = "encoder"
        rows, objectives, _ = start_rows(model, photos, starts, None, None, true)
        saved = [row for start in [*starts][1:] for row in saved_rows(objectives, start)]
        plain, _ = plain_rows(model, photos, others, None, true)
        for title, own in zip(tables, (rows, saved, plain), strict=True):
            tables[title] += [{"model": name} | row for row in own]
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(description="Photographs in a latent space.")
    parser.add_argument("model", choices=(*MODELS, "disvae"))
    parser.add_argument("--data", type=Path, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--quick", action="store_true", help="a trial, nothing saved")
    options = parser.parse_args()
    if options.model in MODELS and options.data is None:
        parser.error("name the folder of Fashion-MNIST's IDX files by --data")
    use_cores(1)
    images, few = (24, 24) if options.quick else (IMAGES, FEW)
    if options.model == "disvae":
        tables, drawing = of_vaes(few), None
    else:
        tables, drawing = of_generator(options.model, options.data, images, few)
    if drawing is not None:
        folder = Path(tempfile.gettempdir()) if options.quick else DOCS
        drawing(folder / f"photographs_{options.model}.png")
    report(
        f"inversion_{options.model}",
        tables,
        packages=("jax", "numpy", "optax", "dm-pix"),
        save=not options.quick,
        bits=BITS,
        images=few if options.model == "disvae" else images,
        steps=STEPS,
    )


if __name__ == "__main__":
    main()
