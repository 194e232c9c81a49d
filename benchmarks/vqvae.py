"""Quantisers inside a VQ-VAE at equal bits, on Fashion-MNIST.

    python -m benchmarks.vqvae DATA          # about an hour on a core
    python -m benchmarks.vqvae DATA --quick  # a trial, nothing saved

A small convolutional autoencoder has 16 places a picture, each a vector of 8 numbers that is sent
as one of at most 256: 8 bits. A curve of K codewords sends a line and where on it, in b bits: it
has (K - 1) 2^b points. All methods have the same network, batches and steps, and Adam at the best
of three rates by the error on 2,000 other images in the first seed. After training every method is
a table of points in an order (of FSQ's grid the order of its digits), and a vector is sent as the
nearest of them.

Methods: VQ with codewords that are moving averages (van den Oord et al., 2017, appendix A.1), FSQ
(Mentzer et al., 2024, arXiv 2309.15505), SimVQ (Zhu et al., 2024, arXiv 2411.02038), DiVeQ (Vali
et al., 2025, arXiv 2509.26469) and SFVQ, by `sfvq_jax.layers`.
"""

import argparse
import functools
import itertools
import math
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import ports
from benchmarks.report import report, use_cores
from benchmarks.training.data import load_fashion_mnist, to_float
from benchmarks.training.judge import Judged, classify, frechet_distance
from ports.classifier import Classifier
from sfvq_jax import Curve, codebook_quality
from sfvq_jax.interpret.intervals import interval
from sfvq_jax.interpret.inversion.likeness import psnr
from sfvq_jax.layers import curve_of
from sfvq_jax.layers.linen import SFVQ
from sfvq_jax.projection import nearest_codeword
from sfvq_jax.quality import shorter_order

Array = jax.Array

DOCS = Path(__file__).parents[1] / "docs"
BITS, WIDTH = 8, 8
BATCH, STEPS, SKIP, SEEDS = 128, 1500, 150, 5
RATES = (1e-3, 2e-3, 4e-3)
DECAY, SMALL_COUNT, COMMITMENT = 0.99, 1e-5, 0.25  # of VQ's moving averages
LEVELS = (8, 6, 5)  # of FSQ, recommended for 8 bits
ERRORS = 0.1  # share of the places whose number is one too high or too low
MEASURED, CHOSEN_ON = 10_000, 2_000  # test images, and training images to choose rates on
SCANNED = 16  # numbers in the figure's rows


class Encoder(nn.Module):
    """Images [N, 32, 32, 1] in [-1, 1] -> [N, 4, 4, 8]."""

    @nn.compact
    def __call__(self, images: Array) -> Array:
        x = nn.relu(nn.Conv(32, (3, 3))(_folded(images, 4)))
        return nn.Dense(WIDTH)(nn.relu(nn.Conv(64, (3, 3))(_folded(x, 2))))


class Decoder(nn.Module):
    """[N, 4, 4, 8] -> images [N, 32, 32, 1] in [-1, 1]."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.relu(nn.Conv(64, (3, 3))(nn.Dense(64)(x)))
        x = nn.relu(nn.Conv(32, (3, 3))(_unfolded(nn.Dense(128)(x), 2)))
        return jnp.tanh(_unfolded(nn.Dense(16)(x), 4))


def _folded(x: Array, side: int) -> Array:
    """Squares of pixels as channels, in which convolutions are fast on CPUs."""
    n, h, w, c = x.shape
    x = x.reshape(n, h // side, side, w // side, side, c).swapaxes(2, 3)
    return x.reshape(n, h // side, w // side, side * side * c)


def _unfolded(x: Array, side: int) -> Array:
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, side, side, c // side**2).swapaxes(2, 3)
    return x.reshape(n, h * side, w * side, c // side**2)


class Passed(NamedTuple):
    """What a quantiser of this benchmark gives in training."""

    value: Array
    loss: Array


class MovingAverages(nn.Module):
    """VQ whose codewords are moving averages, started from the vectors of a batch."""

    skip: int

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Passed:
        k = 2**BITS
        start = {"size": jnp.ones(k), "sums": jnp.zeros((k, WIDTH)), "step": jnp.zeros(())}
        kept = {n: self.variable("batch_stats", n, lambda v=v: v) for n, v in start.items()}
        rows = jax.lax.stop_gradient(x.reshape(-1, WIDTH))
        size, sums, step = (variable.value for variable in kept.values())
        beginning = step == self.skip
        size = jnp.where(beginning, 1.0, size)
        sums = jnp.where(beginning, rows[:: max(len(rows) // k, 1)][:k], sums)
        codewords = sums / size[:, None]
        index = nearest_codeword(Curve(codewords), rows)
        if train and not self.is_initializing():
            count = jnp.zeros(k).at[index].add(1)
            total = jnp.zeros((k, WIDTH)).at[index].add(rows)
            size = DECAY * size + (1 - DECAY) * count
            smoothed = (size + SMALL_COUNT) / (size.sum() + k * SMALL_COUNT) * size.sum()
            kept["size"].value = smoothed
            kept["sums"].value = DECAY * sums + (1 - DECAY) * total
            kept["step"].value = step + 1
        point = codewords[index].reshape(x.shape)
        begun = step >= self.skip
        loss = COMMITMENT * jnp.mean((x - point) ** 2)
        value = jnp.where(begun, x + jax.lax.stop_gradient(point - x), x)
        return Passed(value, jnp.where(begun, loss, 0.0))


class Finite(nn.Module):
    """FSQ: three numbers, each rounded to a few levels."""

    def setup(self) -> None:
        self.down, self.up = nn.Dense(len(LEVELS)), nn.Dense(WIDTH)

    def __call__(self, x: Array, *, train: bool) -> Passed:
        bounded = self.bounded(x)
        rounded = bounded + jax.lax.stop_gradient(jnp.round(bounded) - bounded)
        return Passed(self.points(rounded), jnp.zeros(()))

    def bounded(self, x: Array) -> Array:
        levels = jnp.array(LEVELS, jnp.float32)
        half, offset = (levels - 1) * (1 - 1e-3) / 2, jnp.where(levels % 2 == 0, 0.5, 0.0)
        return jnp.tanh(self.down(x) + jnp.arctanh(offset / half)) * half - offset

    def points(self, rounded: Array) -> Array:
        return self.up(rounded / (jnp.array(LEVELS, jnp.float32) // 2))


class Linear(nn.Module):
    """SimVQ: codewords that a trained matrix makes of fixed random ones."""

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Passed:
        k = 2**BITS
        fixed = self.variable(
            "batch_stats", "fixed",
            lambda: jax.random.normal(self.make_rng("params"), (k, WIDTH)) / math.sqrt(WIDTH),
        )  # fmt: skip
        codewords = nn.Dense(WIDTH, name="matrix")(fixed.value)
        index = nearest_codeword(
            Curve(jax.lax.stop_gradient(codewords)),
            jax.lax.stop_gradient(x.reshape(-1, WIDTH)),
        )
        point = codewords[index].reshape(x.shape)
        error = jnp.mean((jax.lax.stop_gradient(x) - point) ** 2)
        loss = error + COMMITMENT * jnp.mean((x - jax.lax.stop_gradient(point)) ** 2)
        return Passed(x + jax.lax.stop_gradient(point - x), loss)


def quantisers(skip: int) -> dict[str, tuple[nn.Module, int]]:
    """By name: a layer, and bits of a line's fraction."""
    return {
        "VQ, moving averages": (MovingAverages(skip), 0),
        "FSQ": (Finite(), 0),
        "SimVQ": (Linear(), 0),
        "DiVeQ": (SFVQ(2**BITS, gradient="diveq", lines=False, skip=skip), 0),
        "SFVQ, 256 codewords": (SFVQ(2**BITS, skip=skip), 0),
        "SFVQ, 64 codewords + 2 bits": (SFVQ(64, skip=skip), 2),
        "SFVQ, 16 codewords + 4 bits": (SFVQ(16, skip=skip), 4),
        "SFVQ, 64 + 2, straight-through": (SFVQ(64, gradient="ste", skip=skip), 2),
        "SFVQ, 64 + 2, doubling": (SFVQ(64, doubling=skip, skip=skip), 2),
    }


class Autoencoder(nn.Module):
    quantiser: nn.Module

    def setup(self) -> None:
        self.encoder, self.decoder = Encoder(), Decoder()

    def __call__(self, images: Array, train: bool) -> tuple[Array, Any]:
        passed = self.quantiser(self.encoder(images), train=train)
        return self.decoder(passed.value), passed

    def encoded(self, images: Array) -> Array:
        return self.encoder(images)

    def decoded(self, values: Array) -> Array:
        return self.decoder(values)

    def grid(self, digits: Array) -> Array:
        return self.quantiser.points(digits)

    def bounded(self, values: Array) -> Array:
        return self.quantiser.bounded(values)


@functools.partial(jax.jit, static_argnums=0)
def _step(model, variables, state, images, key, rate):
    def loss(params):
        (found, passed), new = model.apply(
            {"params": params, "batch_stats": variables["batch_stats"]},
            images, True, mutable=["batch_stats"], rngs={"quantiser": key},
        )  # fmt: skip
        return jnp.mean((found - images) ** 2) + passed.loss, (new["batch_stats"], passed)

    gradient, (stats, passed) = jax.grad(loss, has_aux=True)(variables["params"])
    updates, state = optax.scale_by_adam().update(gradient, state)
    params = jax.tree.map(lambda p, u: p - rate * u, variables["params"], updates)
    return {"params": params, "batch_stats": stats}, state, passed


def trained(layer: nn.Module, images: np.ndarray, seed: int, rate: float, steps: int):
    """A model, its variables, and dead codewords at the end of training where they are told."""
    model = Autoencoder(layer)
    random = np.random.default_rng(seed)
    key = jax.random.key(seed)
    first = to_float(images[:BATCH])
    variables = model.init({"params": key, "quantiser": key}, first, True)
    variables = {"batch_stats": {}} | variables
    state, passed = optax.scale_by_adam().init(variables["params"]), None
    for i in range(steps):
        batch = to_float(images[random.choice(len(images), BATCH, replace=False)])
        now = np.float32(rate * (1 + math.cos(math.pi * i / steps)) / 2)
        step_key = jax.random.fold_in(key, i)
        variables, state, passed = _step(model, variables, state, batch, step_key, now)
    return model, variables, getattr(passed, "dead", None)


class Table(NamedTuple):
    """What vectors are sent as: points [M, D] in an order."""

    points: np.ndarray
    curve: Curve | None = None


def table_of(model: Autoencoder, variables: Any, bits: int) -> Table:
    layer, stats = model.quantiser, variables["batch_stats"].get("quantiser", {})
    if isinstance(layer, SFVQ):
        curve = curve_of(variables["params"]["quantiser"], stats)
        codewords = np.asarray(curve.codewords)
        if not layer.lines:
            return Table(codewords)
        if not bits:
            return Table(codewords, curve)
        fractions = ((np.arange(2**bits) + 0.5) / 2**bits)[:, None]
        lines = itertools.pairwise(codewords)
        points = [(1 - fractions) * a + fractions * b for a, b in lines]
        return Table(np.concatenate(points).astype(np.float32), curve)
    if isinstance(layer, Finite):
        axes = [np.arange(level) - level // 2 for level in LEVELS]
        digits = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(LEVELS))
        found = model.apply(variables, jnp.asarray(digits, jnp.float32), method="grid")
        return Table(np.asarray(found))
    if isinstance(layer, MovingAverages):
        return Table(np.asarray(stats["sums"] / stats["size"][:, None]))
    dense = variables["params"]["quantiser"]["matrix"]
    return Table(np.asarray(stats["fixed"] @ dense["kernel"] + dense["bias"]))


def sent(model: Autoencoder, variables: Any, table: Table, images: np.ndarray) -> np.ndarray:
    """The numbers of the nearest points, [N, 4, 4]."""
    numbers = []
    for start in range(0, len(images), 500):
        values = _encoded(model, variables, to_float(images[start : start + 500]))
        if isinstance(model.quantiser, Finite):  # rounds each number, which is its nearest
            digits = np.round(model.apply(variables, values, method="bounded"))
            digits = (digits + np.array(LEVELS) // 2).astype(int)
            numbers.append(np.ravel_multi_index(tuple(np.moveaxis(digits, -1, 0)), LEVELS))
        else:
            index = nearest_codeword(Curve(jnp.asarray(table.points)), values.reshape(-1, WIDTH))
            numbers.append(np.asarray(index).reshape(values.shape[:-1]))
    return np.concatenate(numbers)


_encoded = jax.jit(lambda m, v, x: m.apply(v, x, method="encoded"), static_argnums=0)
_decoded = jax.jit(lambda m, v, x: m.apply(v, x, method="decoded"), static_argnums=0)


def received(model: Autoencoder, variables: Any, points: np.ndarray, numbers: np.ndarray):
    """Images of numbers, [N, 32, 32, 1] in [-1, 1]."""
    parts = [points[numbers[i : i + 500]] for i in range(0, len(numbers), 500)]
    return np.concatenate([np.asarray(_decoded(model, variables, part)) for part in parts])


def measured(
    model: Autoencoder,
    variables: Any,
    table: Table,
    images: np.ndarray,
    labels: np.ndarray,
    classifier: Classifier,
    test: Judged,
    seed: int,
) -> dict[str, float]:
    numbers = sent(model, variables, table, images)
    points, m = table.points, len(table.points)
    found = received(model, variables, points, numbers)
    judged = classify(classifier, found, labels)
    counts = np.bincount(numbers.ravel(), minlength=m)
    shares = counts[counts > 0] / counts.sum()
    row = {
        "PSNR": _psnr(found, images),
        "used": float((counts > 0).mean()),
        "perplexity": float(np.exp(-(shares * np.log(shares)).sum())),
        "Fréchet distance": frechet_distance(judged.features, test.features),
        "class kept": float((judged.probabilities.argmax(1) == labels).mean()),
    }
    random = np.random.default_rng(seed)
    orders = {"as it is": np.arange(m)}
    if table.curve is None and not isinstance(model.quantiser, Finite):
        orders["sorted"] = shorter_order(points)
    for name, order in orders.items():
        place = np.argsort(order)  # of each number in the order
        wrong = random.random(numbers.shape) < ERRORS
        moved = place[numbers] + np.where(wrong, random.choice([-1, 1], numbers.shape), 0)
        near = order[np.clip(moved, 0, m - 1)]
        far = np.where(wrong, random.integers(0, m, numbers.shape), numbers)
        after, replaced = (received(model, variables, points, n) for n in (near, far))
        changes = [float(((a - found) ** 2).mean()) for a in (after, replaced)]
        row |= {f"PSNR after errors, {name}": _psnr(after, images)}
        row |= {f"change by an error, {name}": changes[0] / changes[1]}
        quality = codebook_quality(Curve(jnp.asarray(points[order])))
        row |= {f"trustworthiness, {name}": quality.trustworthiness}
    return row


def _psnr(found: np.ndarray, images: np.ndarray) -> float:
    """Mean over images of values in [-1, 1], in dB."""
    return float(psnr(found, to_float(images)).mean())


def draw(scans: dict[str, np.ndarray], path: Path) -> None:
    """Images whose 16 places all have one number, along each table; [S, 32, 32, 1] by name."""
    figure, axes = plt.subplots(len(scans), 1, figsize=(8, 0.8 * len(scans)), layout="constrained")
    for axis, (name, images) in zip(axes, scans.items(), strict=True):
        axis.imshow(np.concatenate(list(images[..., 0]), 1), cmap="gray", vmin=-1, vmax=1)
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--quick", action="store_true", help="a trial, nothing saved")
    options = parser.parse_args()
    use_cores(1)
    seeds, steps, skip = (2, 60, 10) if options.quick else (SEEDS, STEPS, SKIP)
    train, _ = load_fashion_mnist(options.data, "train")
    train, other = train[CHOSEN_ON:], train[:CHOSEN_ON]
    images, labels = load_fashion_mnist(options.data, "test")
    images, labels = (part[: 500 if options.quick else MEASURED] for part in (images, labels))
    classifier = ports.load(ports.bundled("fashion_mnist_classifier"))
    assert isinstance(classifier, Classifier)
    test = classify(classifier, to_float(images), labels)
    rows, scans = [], {}
    for name, (layer, bits) in quantisers(skip).items():
        rate, models = 0.0, {}
        for candidate in RATES[1:2] if options.quick else RATES:
            models[candidate] = trained(layer, train, 0, candidate, steps)

        def error(candidate: float, models=models, bits=bits) -> float:
            model, variables, _ = models[candidate]
            table = table_of(model, variables, bits)
            numbers = sent(model, variables, table, other)
            return -_psnr(received(model, variables, table.points, numbers), other)

        rate = min(models, key=error)
        own = []
        for seed in range(seeds):
            made = models[rate] if seed == 0 else trained(layer, train, seed, rate, steps)
            model, variables, dead = made
            table = table_of(model, variables, bits)
            own.append(
                measured(model, variables, table, images, labels, classifier, test, seed)
                | ({} if dead is None else {"dead": float(dead)})
            )
            if seed == 0:
                points = table.points
                if name == "VQ, moving averages":
                    points = points[shorter_order(points)]
                    name_of_scan = f"{name}, sorted"
                else:
                    name_of_scan = name
                chosen = np.linspace(0, len(points) - 1, SCANNED).round().astype(int)
                everywhere = np.broadcast_to(chosen[:, None, None], (SCANNED, 4, 4))
                scans[name_of_scan] = received(model, variables, points, everywhere)
        row = {"method": name, "points": len(table.points), "rate": rate}
        for measure in dict.fromkeys(key for seed in own for key in seed):
            values = np.array([seed[measure] for seed in own if measure in seed])
            row[measure] = str(interval(values))
        rows.append(row)
        print(row, flush=True)
    report(
        "vqvae",
        {"Quantisers": rows},
        packages=("jax", "flax", "numpy", "optax"),
        save=not options.quick,
        seeds=seeds,
        steps=steps,
        batch=BATCH,
        places=16,
        errors=ERRORS,
    )
    if not options.quick:
        chosen = {n: scans[n] for n in scans if n.split(",")[0] in ("VQ", "FSQ", "SFVQ")}
        draw(dict(list(chosen.items())[:5]), DOCS / "vqvae_scan.png")


if __name__ == "__main__":
    main()
