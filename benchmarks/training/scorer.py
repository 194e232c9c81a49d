"""Trains the bundled pair of Fashion-MNIST scorers: one finds directions, another judges them.

python -m benchmarks.training.scorer DATA    # into ports/bundled/fashion_mnist_scorers.npz
"""

import argparse
import datetime
import os
import time
from pathlib import Path

import jax

from benchmarks.training.classifier import accuracy
from benchmarks.training.data import CLASSES, load_fashion_mnist
from ports import BUNDLED
from sfvq_jax.interpret import fit_scorers, save_scorers

EPOCHS = 6
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of Fashion-MNIST's IDX files")
    arguments = parser.parse_args()
    start = time.monotonic()
    images, labels = load_fashion_mnist(arguments.data, "train")
    fits = fit_scorers(jax.random.key(SEED), images, labels, names=CLASSES, epochs=EPOCHS)
    about = {
        "trained_by": "benchmarks.training.scorer on Fashion-MNIST",
        "date": datetime.date.today().isoformat(),
        "epochs": EPOCHS,
        "seconds": round(time.monotonic() - start),
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores",
    }
    test = load_fashion_mnist(arguments.data, "test")
    for role, fit in fits._asdict().items():
        about[role] = {
            "held_out_accuracy": fit.overall,
            "test_accuracy": accuracy(fit.scorer, *test),
            f"held_out_{fit.measure}": fit.held_out,
        }
    save_scorers(
        BUNDLED / "fashion_mnist_scorers.npz",
        fits.find.scorer,
        fits.judge.scorer,
        about=about,
        overwrite=True,
    )
    print(about)


if __name__ == "__main__":
    main()
