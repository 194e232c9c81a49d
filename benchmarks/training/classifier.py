"""Trains the bundled Fashion-MNIST classifier that judges generators.

    python -m benchmarks.training.classifier DATA    # into ports/bundled/fashion_mnist_classifier

It took 14 minutes on two CPU cores that had other work too.
"""

import argparse
import datetime
import os
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.training.data import CLASSES, load_fashion_mnist, to_float
from ports import BUNDLED, checkpoint
from ports.classifier import Classifier
from sfvq_jax.images import in_batches

BATCH = 128
EPOCHS = 7
LEARNING_RATE = 2e-3
DROPOUT = 0.2
SEED = 0


def train(images: np.ndarray, labels: np.ndarray) -> Classifier:
    """Adam with a cosine schedule."""
    classifier = Classifier({}, CLASSES, channels=(32, 48, 64), num_features=128)
    network = classifier.network
    key = jax.random.key(SEED)
    params = network.init(key, jnp.zeros((1, *images.shape[1:])))["params"]
    steps = EPOCHS * (len(images) // BATCH)
    optimiser = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps))
    state = optimiser.init(params)

    @jax.jit
    def step(params, state, key, x, y):
        def loss(params):
            logits, _ = network.apply({"params": params}, x, dropout=DROPOUT, rngs={"dropout": key})
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    rng = np.random.default_rng(SEED)
    for i in range(steps):
        if i % (len(images) // BATCH) == 0:
            order = rng.permutation(len(images))
        rows = order[i * BATCH % (len(images) // BATCH * BATCH) :][:BATCH]
        x = to_float(images[rows])
        params, state, value = step(params, state, jax.random.fold_in(key, i), x, labels[rows])
        if i % 100 == 0:
            print(f"step {i} of {steps}: loss {value:.3f}", flush=True)
    return classifier.replace(variables={"params": params})


def accuracy(
    scores: Callable[[jax.Array], jax.Array], images: np.ndarray, labels: np.ndarray
) -> float:
    """Share of uint8 images [N, H, W, C] whose highest score is that of their label [N]."""
    guesses = in_batches(lambda part: scores(to_float(part)).argmax(1), images, 1000)
    return float((guesses == labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of Fashion-MNIST's IDX files")
    arguments = parser.parse_args()
    start = time.monotonic()
    classifier = train(*load_fashion_mnist(arguments.data, "train"))
    test = load_fashion_mnist(arguments.data, "test")
    source = {
        "format": "trained by benchmarks.training.classifier on Fashion-MNIST",
        "date": datetime.date.today().isoformat(),
        "epochs": EPOCHS,
        "seconds": round(time.monotonic() - start),
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores",
        "test_accuracy": accuracy(lambda x: classifier(x)[0], *test),
    }
    checkpoint.save(
        BUNDLED / "fashion_mnist_classifier",
        "classifier",
        classifier.config(),
        classifier.variables,
        source=source,
        overwrite=True,
    )
    print(source)


if __name__ == "__main__":
    main()
