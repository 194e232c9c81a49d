"""Label 64 pictures: classifiers of real images, trained on what a curve makes of 64 labels.

    python -m benchmarks.labels DATA
    python -m benchmarks.labels DATA --quick  # a trial at 5 bits, two seeds, nothing saved or drawn

For W of the bundled StyleGAN2 and the first linear layer of the bundled BigGAN: a curve of 64
codewords is fitted; each codeword's image is labelled once, by the bundled classifier in place of a
person on the page of `explore`; latents are drawn as `augment --labels` does, on the lines whose
two ends agree, and at two distances around them (`--noise`); and a small classifier is trained on
their images, which is tested on the real test images. Beside it, with as many labels and the same
training: images of 64 random latents; images from straight lines between two of these that have the
same label; and 64 real images. What is special about a curve is its gain over these straight lines.
The BigGAN has seen all labels in its training, the StyleGAN2 none.

Classes are drawn equally often in training, so far as they have images. Intervals are of 95 %, by
Student's t over the seeds of curve, latents, real images and initial parameters.
`docs/labels.png` shows the accuracies.
"""

import argparse
import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import ports
from benchmarks.report import report, use_cores
from benchmarks.training.classifier import accuracy
from benchmarks.training.data import CLASSES, load_fashion_mnist, to_float
from ports.biggan import BigGAN
from ports.classifier import Classifier
from sfvq_jax import Curve, LatentModel, LeastSquares, fit
from sfvq_jax.images import in_batches, render_images
from sfvq_jax.interpret import Interval, sample_labelled
from sfvq_jax.interpret.intervals import interval
from sfvq_jax.io.label_file import Label, agreeing_lines

Array = jax.Array
Row = dict[str, Any]

FIGURE = Path(__file__).parents[1] / "docs" / "labels.png"
BITS = 6
LATENTS = 2**17  # to fit to
IMAGES = 10_000  # to train on
STEPS = 300
BATCH = 64
LEARNING_RATE = 2e-3  # at the start; it falls to 0 along a cosine
DROPOUT = 0.2
DRAWN_AT_ONCE = 2**13
RENDERED_AT_ONCE = 64
SPANNING = 512  # latents that span the space of all
CURVE = {"on the curve": 0.0, "near the curve": 0.5, "around the curve": 1.0}  # -> noise
STRAIGHT = "on straight lines"
REAL = "real images"


@flax.struct.dataclass
class Coordinates:
    """A model in coordinates of the subspace that its latents fill: a `LatentModel`.

    Norms and distances stay what they are, and so the curve that is fitted, in a fraction of the
    time.

    Attributes:
      model: of latents [N, E].
      basis: orthonormal, [E, D].
    """

    model: Any
    basis: Array

    @property
    def latent_dim(self) -> int:
        return self.basis.shape[1]

    @property
    def num_layers(self) -> int:
        return self.model.num_layers

    def sample(
        self,
        key: Array,
        n: int,
        *,
        label: int | Array | None = None,
        truncation: float | None = None,
    ) -> Array:
        latents = self.model.sample(key, n, label=label, truncation=truncation)
        return jnp.matmul(latents, self.basis, precision="highest")

    def render(self, latents: Array) -> Array:
        return self.model.render(jnp.matmul(latents, self.basis.T, precision="highest"))


def in_coordinates(model: LatentModel) -> Coordinates:
    latents = np.asarray(model.sample(jax.random.key(0), SPANNING))
    _, size, directions = np.linalg.svd(latents, full_matrices=False)
    rank = int((size > 1e-4 * size[0]).sum())
    assert rank < SPANNING // 2, "the latents fill more dimensions than can be told"
    return Coordinates(model, jnp.asarray(directions[:rank].T))


def models() -> dict[str, LatentModel]:
    biggan = ports.load(ports.bundled("fashion_mnist_biggan"))
    assert isinstance(biggan, BigGAN)
    return {
        "StyleGAN2, W": ports.load(ports.bundled("fashion_mnist")),  # type: ignore
        "BigGAN, linear layer": in_coordinates(biggan.space("linear")),
    }


def draw_latents(key: Array, model: LatentModel, count: int) -> Array:
    """Latents [N, D] of a model, of which few are in memory in its own width."""
    sample = jax.jit(model.sample, static_argnums=1)
    keys = jax.random.split(key, -(-count // DRAWN_AT_ONCE))
    return jnp.concatenate([sample(key, DRAWN_AT_ONCE) for key in keys])[:count]


def labels_of(model: LatentModel, judge: Classifier, latents: Array) -> np.ndarray:
    """The class that the judge gives the picture of each latent, [N]."""
    images = _render(model, latents)
    return in_batches(lambda part: judge(to_float(part))[0].argmax(1), images, RENDERED_AT_ONCE)


def _render(model: LatentModel, latents: Array) -> np.ndarray:
    return render_images(model, latents, batch=RENDERED_AT_ONCE)


def lines_of(labels: np.ndarray) -> dict[str, list[int]]:
    """Lines that `augment --labels` draws from, by class, once codewords have labels [K]."""
    by_hand = [Label(k, k, CLASSES[c]) for k, c in enumerate(labels)]  # as the page keeps them
    return agreeing_lines(by_hand, len(labels) - 1)


def draw_labelled(
    key: Array, model: LatentModel, curve: Curve, labels: np.ndarray, count: int, noise: float
) -> tuple[Array, np.ndarray]:
    """What `augment --labels` draws: latents [N, D], and the class of each, [N]."""
    samples = sample_labelled(key, model, curve, lines_of(labels), count, noise=noise)
    classes = np.array([CLASSES.index(name) for name in samples.names])
    return jnp.asarray(samples.latents), classes[samples.labels]


def draw_between(
    random: np.random.Generator, latents: Array, labels: np.ndarray, count: int
) -> tuple[Array, np.ndarray]:
    """Likewise, on straight lines between any two latents [K, D] of the same label, in any order.

    Args:
      random: of the draw.
      latents: of the labels [K].
      count: N; of each class that two have, equally many.
    """
    pairs = np.stack(np.triu_indices(len(labels), 1), 1)
    pairs = pairs[labels[pairs[:, 0]] == labels[pairs[:, 1]]]
    of_pairs = labels[pairs[:, 0]]
    classes = np.unique(of_pairs)
    if not len(classes):
        raise ValueError("no two latents have the same label")
    wanted = classes[np.arange(count) % len(classes)]
    ends = np.empty((count, 2), np.int64)
    for c in classes:
        ends[wanted == c] = random.choice(pairs[of_pairs == c], (wanted == c).sum())
    start, stop = (latents[ends[:, i]] for i in (0, 1))
    fractions = jnp.asarray(random.uniform(size=(count, 1)), jnp.float32)
    return start + fractions * (stop - start), wanted


def train(
    random: np.random.Generator, images: np.ndarray, labels: np.ndarray, steps: int
) -> Classifier:
    """A small classifier of uint8 images, in steps of Adam with classes equally often in each."""
    classifier = Classifier({}, CLASSES, channels=(16, 32, 64), num_features=64)
    key = jax.random.key(int(random.integers(2**31)))
    params = classifier.network.init(key, jnp.zeros((1, *images.shape[1:])))["params"]
    state = optax.scale_by_adam().init(params)
    rarity = 1 / np.bincount(labels)[labels]
    for i in range(steps):
        rows = random.choice(len(images), BATCH, p=rarity / rarity.sum())
        rate = LEARNING_RATE * (1 + math.cos(math.pi * i / steps)) / 2
        x, y = to_float(images[rows]), labels[rows].astype(np.int32)
        params, state = _step(classifier, params, state, jax.random.fold_in(key, i), x, y, rate)
    return dataclasses.replace(classifier, variables={"params": params})


@jax.jit
def _step(
    classifier: Classifier, params: Any, state: Any, key: Array, x: Array, y: Array, rate: float
) -> tuple[Any, Any]:
    def loss(params):
        apply: Any = classifier.network.apply
        logits, _ = apply({"params": params}, x, dropout=DROPOUT, rngs={"dropout": key})
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    updates, state = optax.scale_by_adam().update(jax.grad(loss)(params), state)
    return jax.tree.map(lambda p, u: p - rate * u, params, updates), state


class _Training(NamedTuple):
    """Images to train on, the labels that they are drawn with, and how many were labelled."""

    method: str
    images: np.ndarray
    labels: np.ndarray
    labelled_classes: int


def trainings(
    seed: int, number: int, model: LatentModel, judge: Classifier, quick: bool
) -> Iterator[_Training]:
    """Of a curve and of random latents."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), number), 4)
    random = np.random.default_rng([seed, number])
    count, bits = (1000, 5) if quick else (IMAGES, BITS)
    latents = draw_latents(keys[0], model, LATENTS // 8 if quick else LATENTS)
    solver = LeastSquares(rounds=2) if quick else LeastSquares()
    curve = fit(keys[1], latents, bits=bits, solver=solver).curve
    labels = labels_of(model, judge, curve.codewords)
    for method, noise in CURVE.items():
        new, drawn = draw_labelled(keys[2], model, curve, labels, count, noise)
        yield _Training(method, _render(model, new), drawn, len(np.unique(labels)))

    chosen = model.sample(keys[3], 2**bits)
    labels = labels_of(model, judge, chosen)
    classes = len(np.unique(labels))
    yield _Training("random latents", _render(model, chosen), labels, classes)
    new, drawn = draw_between(random, chosen, labels, count)
    yield _Training(STRAIGHT, _render(model, new), drawn, classes)


def measure(
    seed: int,
    judge: Classifier,
    training: _Training,
    test: tuple[np.ndarray, np.ndarray],
    steps: int,
) -> Row:
    """One row: a classifier trained and tested."""
    trained = train(np.random.default_rng(seed), training.images, training.labels, steps)
    return {
        "method": training.method,
        "seed": seed,
        "accuracy": accuracy(lambda x: trained(x)[0], *test),
        "images": len(training.images),
        "classes labelled": training.labelled_classes,
        "classes trained on": len(np.unique(training.labels)),
        "purity": accuracy(lambda x: judge(x)[0], training.images, training.labels),
    }


def summaries(rows: Sequence[Row]) -> list[Row]:
    """A row a model and method: means over seeds."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["model"], row["method"]), []).append(row)
    return [
        {
            "model": model,
            "method": method,
            **_columns("accuracy", interval(np.array([row["accuracy"] for row in group]))),
            **{
                name: float(np.mean([row[name] for row in group]))
                for name in ("classes labelled", "classes trained on", "purity")
            },
        }
        for (model, method), group in groups.items()
    ]


def differences(rows: Sequence[Row]) -> list[Row]:
    """A row a model and way to draw from the curve: its gain over straight lines, seed by seed."""
    found = []
    for model in dict.fromkeys(row["model"] for row in rows if row["method"] == STRAIGHT):
        of_method = {
            method: np.array(
                [
                    row["accuracy"]
                    for row in rows
                    if (row["model"], row["method"]) == (model, method)
                ]
            )
            for method in (*CURVE, STRAIGHT)
        }
        for method in CURVE:
            gain = interval(of_method[method] - of_method[STRAIGHT])
            row = {"model": model, "method": f"{method} − {STRAIGHT}"}
            found.append(row | _columns("gain", gain))
    return found


def _columns(name: str, value: Interval) -> Row:
    return {name: value.mean, "low": value.low, "high": value.high}


def draw(rows: Sequence[Row], ceiling: float, path: Path) -> None:
    """Accuracies with their intervals, a panel a model; real images and the ceiling in both."""
    names = [name for name in dict.fromkeys(row["model"] for row in rows) if name != REAL]
    figure, axes = plt.subplots(
        1, len(names), figsize=(10, 2.9), sharex=True, sharey=True, layout="constrained"
    )
    for panel, name in zip(axes, names, strict=True):
        own = [row for row in rows if row["model"] in (name, REAL)]
        for place, row in enumerate(own):
            colour = "tab:blue" if row["method"] in CURVE else "0.4"
            panel.plot([row["low"], row["high"]], [place, place], color=colour, lw=2)
            panel.plot(row["accuracy"], place, "o", color=colour)
        panel.axvline(ceiling, color="0.6", ls=":", lw=1.2)
        panel.set_yticks(range(len(own)), [row["method"] for row in own])
        panel.set_title(name, loc="left", fontsize=11)
        panel.set_xlabel("accuracy on the real test images")
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    axes[0].annotate(
        "all 60,000 labels",
        (ceiling, 0.04),
        xycoords=("data", "axes fraction"),
        xytext=(-4, 0),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color="0.4",
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="Classifiers of real images from 64 labels.")
    parser.add_argument("data", type=Path, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a trial, nothing saved")
    options = parser.parse_args()
    use_cores(1)
    seeds, steps = (2, 60) if options.quick else (options.seeds, STEPS)
    judge = ports.load(ports.bundled("fashion_mnist_classifier"))
    assert isinstance(judge, Classifier)
    images, labels = load_fashion_mnist(options.data, "train")
    test = load_fashion_mnist(options.data, "test")
    generators, rows = models(), []
    for seed in range(seeds):
        for number, (name, model) in enumerate(generators.items()):
            for training in trainings(seed, number, model, judge, options.quick):
                rows.append({"model": name} | measure(seed, judge, training, test, steps))
                print(rows[-1], flush=True)
        chosen = np.random.default_rng(seed).choice(len(images), 2**BITS, replace=False)
        classes = len(np.unique(labels[chosen]))
        training = _Training(f"{2**BITS} real images", images[chosen], labels[chosen], classes)
        rows.append({"model": REAL} | measure(seed, judge, training, test, steps))
    rows.sort(key=lambda row: [*generators, REAL].index(row["model"]))
    summary = summaries(rows)
    ceiling = accuracy(lambda x: judge(x)[0], *test)
    summary.append({"model": REAL, "method": "all 60,000, the judge", "accuracy": ceiling})
    report(
        "labels",
        {
            "Accuracy on the real test images": summary,
            "Gain of the curve": differences(rows),
            "Seed by seed": rows,
        },
        packages=("jax", "numpy", "scipy"),
        save=not options.quick,
        steps=steps,
        bits=BITS,
    )
    if not options.quick:
        draw(summary[:-1], ceiling, FIGURE)


if __name__ == "__main__":
    main()
