"""Labels that a scorer can learn: of which kind they are, and whether there are enough.

Letters: N images, A attributes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEAST_IMAGES = 20


class Task(NamedTuple):
    """Checked labels: `targets` are classes [N] int32, yes/no [N, A] float32 or numbers float64."""

    kind: str
    names: tuple[str, ...]
    targets: np.ndarray


def check_labels(labels: np.ndarray, names: Sequence[str] | None, *, scorers: int) -> Task:
    """The task that labels set, enough of them for so many scorers; else ValueError."""
    labels = np.asarray(labels)
    kind = _kind(labels)
    n = len(labels)
    if n < LEAST_IMAGES * scorers:
        raise ValueError(f"there are {n} labels; expected {LEAST_IMAGES * scorers} or more")
    if kind == "classes" and not 0 <= labels.min() <= labels.max() < n:
        raise ValueError(
            f"labels reach from {labels.min()} to {labels.max()}; expected classes that are counted"
            " from 0: np.unique(labels, return_inverse=True)[1] counts them so"
        )
    bad = np.flatnonzero(~np.isfinite(labels.reshape(n, -1)).all(1))
    if len(bad):
        raise ValueError(
            f"{len(bad)} images have labels that are NaN or infinite, the first in row {bad[0]}:"
            " leave these images out"
        )
    count = int(labels.max()) + 1 if kind == "classes" else labels.shape[1]
    if names is None:
        names = [f"{'class' if kind == 'classes' else 'attribute'} {i}" for i in range(count)]
    if len(names) < count or (len(names) > count and kind != "classes"):
        raise ValueError(f"there are {len(names)} names, but the labels need {count}")
    if len(set(names)) < len(names):
        raise ValueError(f"names are {names}; expected different ones")
    if kind == "classes":
        if len(names) < 2:
            raise ValueError("all labels are of one class; expected two classes or more")
        _check_counts(names, np.bincount(labels, minlength=len(names)), 2 * scorers)
        return Task(kind, tuple(names), labels.astype(np.int32))
    if kind == "yes/no":
        _check_counts([f"{name}: yes" for name in names], labels.sum(0), 2 * scorers)
        _check_counts([f"{name}: no" for name in names], n - labels.sum(0), 2 * scorers)
    for name, column in zip(names, labels.T, strict=True):
        if column.min() == column.max():
            raise ValueError(f"{name!r} is {column[0]:g} for all images: nothing to learn")
    return Task(kind, tuple(names), labels.astype(np.float64 if kind == "numbers" else np.float32))


def _kind(labels: np.ndarray) -> str:
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
        return "classes"
    if labels.ndim == 2 and labels.shape[1] and labels.dtype == bool:
        return "yes/no"
    if labels.ndim == 2 and labels.shape[1] and np.issubdtype(labels.dtype, np.floating):
        return "numbers"
    raise ValueError(
        f"labels have shape {labels.shape} and type {labels.dtype}; expected integers [N] for"
        " classes, booleans [N, A] for yes/no attributes (labels > 0, say), or floats [N, A] for"
        " numbers"
    )


def _check_counts(names: Sequence[str], counts: np.ndarray, least: int) -> None:
    for name, count in zip(names, counts, strict=True):
        if count < least:
            raise ValueError(f"{name!r} has {count} images; expected {least} or more")
