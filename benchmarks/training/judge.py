"""Judges a generator of Fashion-MNIST by the bundled classifier.

    python -m benchmarks.training.judge DATA                  # the bundled generator
    python -m benchmarks.training.judge DATA --sheet PNG      # and 200 samples to look at

Share of each class, mean confidence, and the Fréchet distance of samples to the test images in the
classifier's penultimate features, beside the distance of training images to the test images.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
import scipy.linalg

import ports
from benchmarks.report import report
from benchmarks.training.data import CLASSES, load_fashion_mnist, to_float
from ports.classifier import Classifier
from ports.stylegan2 import StyleGAN2
from sfvq_jax.views import map_figure, to_uint8

SAMPLES = 10_000
BATCH = 500


def judge(
    model: StyleGAN2, classifier: Classifier, data: Path, seed: int = 0
) -> dict[str, list[dict]]:
    """Tables of what can be said of 10,000 samples of the generator."""
    samples = sample_images(model, SAMPLES, seed)
    probabilities, features = classify(classifier, samples)
    test, _ = load_fashion_mnist(data, "test")
    train, _ = load_fashion_mnist(data, "train")
    chosen = np.random.default_rng(seed).choice(len(train), SAMPLES, replace=False)
    test_features = classify(classifier, to_float(test))[1]
    train_probabilities, train_features = classify(classifier, to_float(train[chosen]))
    share = np.bincount(probabilities.argmax(1), minlength=len(CLASSES)) / SAMPLES
    frechet = [
        {
            "images": "samples",
            "Fréchet distance": frechet_distance(features, test_features),
            "mean confidence": float(probabilities.max(1).mean()),
        },
        {
            "images": "training images",
            "Fréchet distance": frechet_distance(train_features, test_features),
            "mean confidence": float(train_probabilities.max(1).mean()),
        },
    ]
    shares = [{"class": name, "share": float(s)} for name, s in zip(CLASSES, share, strict=True)]
    return {
        "10,000 samples and 10,000 training images beside the test images": frechet,
        "Share of each class among the samples": shares,
    }


def sample_images(model: StyleGAN2, n: int, seed: int) -> np.ndarray:
    """n images without truncation, quantised to 256 levels as the real ones are."""
    keys = jax.random.split(jax.random.key(seed), n // BATCH)
    batches = [to_uint8(model.render(model.sample(key, BATCH))) for key in keys]
    return to_float(np.concatenate(batches))


def classify(classifier: Classifier, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [N, classes] and features [N, F] of images [N, H, W, C] in [-1, 1]."""
    outputs = [classifier(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
    logits, features = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
    return np.asarray(jax.nn.softmax(logits)), features


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
    parser.add_argument("--model", default=ports.bundled("fashion_mnist"), type=Path)
    parser.add_argument("--sheet", type=Path, help="draw 200 samples here")
    arguments = parser.parse_args()
    model = ports.load(arguments.model)
    classifier = ports.load(ports.bundled("fashion_mnist_classifier"))
    assert isinstance(model, StyleGAN2)
    assert isinstance(classifier, Classifier)
    tables = judge(model, classifier, arguments.data)
    report("judge", tables, packages=("jax", "numpy", "scipy"), model_hash=model.model_hash)
    if arguments.sheet:
        images = model.render(model.sample(jax.random.key(1), 200))
        map_figure(to_uint8(images), "200 samples", columns=20).savefig(arguments.sheet)


if __name__ == "__main__":
    main()
