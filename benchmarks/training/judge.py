"""Judges a generator of Fashion-MNIST by the bundled classifier.

    python -m benchmarks.training.judge DATA                               # the bundled StyleGAN2
    python -m benchmarks.training.judge DATA --model fashion_mnist_biggan  # the bundled BigGAN
    python -m benchmarks.training.judge DATA --sheet PNG                   # and 200 samples to see

Mean confidence, and the Fréchet distance of samples to the test images in the classifier's
penultimate features, beside the distance of training images to the test images. Without classes to
ask for, the share of each class; with them, the share of samples that are given the class asked
for, and the distances within each class.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import scipy.linalg

import ports
from benchmarks.report import report
from benchmarks.training.data import CLASSES, load_fashion_mnist, to_float
from ports.biggan import BigGAN
from ports.classifier import Classifier
from ports.stylegan2 import StyleGAN2
from sfvq_jax.views import map_figure, to_uint8

SAMPLES = 10_000
BATCH = 500
SHEET = 200


class Judged(NamedTuple):
    """What the classifier says of N images, and the classes that they should show."""

    classes: np.ndarray  # [N]
    probabilities: np.ndarray  # [N, classes]
    features: np.ndarray  # [N, F]

    def of(self, label: int) -> "Judged":
        """The images of a class alone."""
        return Judged(*(part[self.classes == label] for part in self))

    @property
    def given_their_class(self) -> float:
        return float((self.probabilities.argmax(1) == self.classes).mean())


def judge(
    model: StyleGAN2 | BigGAN, classifier: Classifier, data: Path, seed: int = 0
) -> dict[str, list[dict]]:
    """Tables of what can be said of 10,000 samples of the generator."""
    classes = np.arange(SAMPLES) % len(CLASSES)
    samples = classify(classifier, sample_images(model, classes, seed), classes)
    images, classes = load_fashion_mnist(data, "test")
    test = classify(classifier, to_float(images), classes)
    images, classes = load_fashion_mnist(data, "train")
    chosen = np.random.default_rng(seed).choice(len(images), SAMPLES, replace=False)
    train = classify(classifier, to_float(images[chosen]), classes[chosen])
    conditional = isinstance(model, BigGAN)
    overall = [
        {
            "images": name,
            "Fréchet distance": frechet_distance(judged.features, test.features),
            "mean confidence": float(judged.probabilities.max(1).mean()),
        }
        | ({"given their class": judged.given_their_class} if conditional else {})
        for name, judged in [("samples", samples), ("training images", train)]
    ]
    tables = {"10,000 samples and 10,000 training images beside the test images": overall}
    if conditional:
        rows = [
            class_row(name, samples.of(i), train.of(i), test.of(i))
            for i, name in enumerate(CLASSES)
        ]
        return tables | {"Each class beside its test images": rows}
    share = np.bincount(samples.probabilities.argmax(1), minlength=len(CLASSES)) / SAMPLES
    shares = [{"class": name, "share": float(s)} for name, s in zip(CLASSES, share, strict=True)]
    return tables | {"Share of each class among the samples": shares}


def class_row(name: str, samples: Judged, train: Judged, test: Judged) -> dict:
    """Images of one class."""
    return {
        "class": name,
        "samples given it": samples.given_their_class,
        "training images given it": train.given_their_class,
        "Fréchet distance of samples": frechet_distance(samples.features, test.features),
        "of training images": frechet_distance(train.features, test.features),
    }


def sample_images(model: StyleGAN2 | BigGAN, classes: np.ndarray, seed: int) -> np.ndarray:
    """An image a class, if the model has any, quantised to 256 levels as the real ones are.

    Without truncation, [N, H, W, C] in [-1, 1] for classes [N], N a multiple of BATCH.
    """
    keys = jax.random.split(jax.random.key(seed), len(classes) // BATCH)
    batches = [
        to_uint8(draw(model, key, part))
        for key, part in zip(keys, np.split(classes, len(keys)), strict=True)
    ]
    return to_float(np.concatenate(batches))


def draw(model: StyleGAN2 | BigGAN, key: jax.Array, classes: np.ndarray) -> jax.Array:
    """Images of as many random latents as classes, and of these if the model has any."""
    if isinstance(model, BigGAN):
        return model(model.sample_z(key, len(classes)), classes)
    return model.render(model.sample(key, len(classes)))


def classify(classifier: Classifier, images: np.ndarray, classes: np.ndarray) -> Judged:
    """Of images [N, H, W, C] in [-1, 1] that should show classes [N]."""
    outputs = [classifier(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
    logits, features = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
    return Judged(classes, np.asarray(jax.nn.softmax(logits)), features)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Between Gaussians fitted to features [N, F] (Heusel et al., 2017, eq. 6)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # the trace of sqrt(A·B) is the sum of the square roots of the eigenvalues of A·B
    eigenvalues = scipy.linalg.eigvals(covariance_a @ covariance_b).real.clip(0)
    spread = np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.sqrt(eigenvalues).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + spread)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--model", default="fashion_mnist", help="a folder, or what is bundled")
    parser.add_argument("--sheet", type=Path, help="draw 200 samples here, a class a row")
    arguments = parser.parse_args()
    folder = Path(arguments.model)
    if not folder.is_dir():
        folder = ports.bundled(arguments.model)
    model = ports.load(folder)
    classifier = ports.load(ports.bundled("fashion_mnist_classifier"))
    assert isinstance(model, StyleGAN2 | BigGAN)
    assert isinstance(classifier, Classifier)
    tables = judge(model, classifier, arguments.data)
    name = f"judge_{folder.resolve().name}"
    report(name, tables, packages=("jax", "numpy", "scipy"), model_hash=model.model_hash)
    if arguments.sheet:
        classes = np.arange(SHEET) // (SHEET // len(CLASSES))
        images = to_uint8(draw(model, jax.random.key(1), classes))
        map_figure(images, f"{SHEET} samples", columns=20).savefig(arguments.sheet)


if __name__ == "__main__":
    main()
