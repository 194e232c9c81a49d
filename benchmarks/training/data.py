"""Fashion-MNIST from its IDX files."""

import gzip
from pathlib import Path

import numpy as np

CLASSES = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "boot",
)


def load_fashion_mnist(folder: str | Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 32, 32, 1] uint8, padded with black from 28x28, and labels [N] int32.

    Args:
      folder: holds `train-images-idx3-ubyte.gz` and its three companions.
      split: 'train' (60,000) or 'test' (10,000).
    """
    stem = {"train": "train", "test": "t10k"}[split]
    images = _read_idx(Path(folder) / f"{stem}-images-idx3-ubyte.gz")
    labels = _read_idx(Path(folder) / f"{stem}-labels-idx1-ubyte.gz")
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None]
    return images, labels.astype(np.int32)


def to_float(images):
    """uint8 images to float32 in [-1, 1]."""
    return images.astype(np.float32) / 127.5 - 1


def _read_idx(path: Path) -> np.ndarray:
    with gzip.open(path) as f:
        data = f.read()
    rank = data[3]
    shape = np.frombuffer(data, ">i4", rank, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)
