"""How well the classes of latents are told apart by their codewords.

Letters: N samples, D dimensions, K codewords.
"""

from typing import Any

import jax
import numpy as np
from scipy.spatial.distance import jensenshannon

from sfvq_jax.curve import Curve
from sfvq_jax.interpret.geometry import nearest
from sfvq_jax.interpret.map.rows import as_classes, commonest
from sfvq_jax.sources import Source

Array = jax.Array

CLASS_LATENTS = 20  # a class of fewer says nothing about where it lies
SHUFFLES = 8  # of the classes, whose mean is what chance gives


def classes_of(labels: Any, source: Source) -> np.ndarray:
    """Of all rows of the source, [N]."""
    if source.num_latents is None or source.numbers(jax.random.key(0), 1) is None:
        raise ValueError("labels are of rows, and these latents have no numbers: give an array")
    return as_classes(labels, source.num_latents).of_rows


def commonest_of(curve: Curve, x: Array, classes: np.ndarray) -> np.ndarray:
    """Of each codeword the class of most of samples [N, D], or of the nearest, [K]."""
    counts = np.zeros((curve.num_codewords, classes.max() + 1), int)
    np.add.at(counts, (np.asarray(nearest(curve.codewords, x).point), classes), 1)
    of_nearest = classes[np.asarray(nearest(x, curve.codewords).point)]
    return commonest(counts, of_nearest)


def agreement_by_chance(one: np.ndarray, other: np.ndarray) -> float:
    """The share of equal entries that random orders give in the mean."""
    size = max(one.max(), other.max()) + 1
    shares = (np.bincount(classes, minlength=size) / len(classes) for classes in (one, other))
    return float(np.prod(list(shares), axis=0).sum())


def class_distances(
    random: np.random.Generator, classes: np.ndarray, codeword: np.ndarray, k: int
) -> dict[str, float]:
    """Fields of MapQuality, from the class and the nearest codeword of latents, [N] each."""
    sizes = np.bincount(classes)
    kept = np.flatnonzero(sizes >= CLASS_LATENTS)
    if len(kept) < 2:
        return {}

    def distances(classes: np.ndarray) -> np.ndarray:
        use = np.stack([np.bincount(codeword[classes == c], minlength=k) for c in kept])
        one, other = np.triu_indices(len(kept), 1)
        return np.asarray(jensenshannon(use[one].T, use[other].T, base=2))

    found = distances(classes)
    by_chance = [distances(random.permutation(classes)) for _ in range(SHUFFLES)]
    return {
        "class_distance": float(found.mean()),
        "class_distance_by_chance": float(np.mean(by_chance)),
        "least_class_distance": float(found.min()),
        "least_class_distance_by_chance": float(np.min(by_chance, 1).mean()),
    }
