"""How few coordinates hold most of something, and what two sets have in common; M coordinates."""

from collections.abc import Sequence

import numpy as np


def gini(sizes: np.ndarray) -> np.ndarray:
    """Gini's index of sizes [..., M] >= 0, from 0 (all equal) to 1 - 1/M (one alone).

    As a measure of sparsity: Hurley and Rickard, 2009 (arXiv 0811.4706), eq. for GI.

    >>> gini(np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]])).tolist()
    [0.0, 0.75]
    """
    sizes = np.sort(np.asarray(sizes, np.float64), -1)
    m = sizes.shape[-1]
    weights = (m - np.arange(m) - 0.5) / m
    total = np.maximum(sizes.sum(-1), 1e-300)
    return 1 - 2 * (sizes * weights).sum(-1) / total


def hoyer(sizes: np.ndarray) -> np.ndarray:
    """Hoyer's sparsity of sizes [..., M], from 0 (all equal) to 1 (one alone); M >= 2.

    (√M - ‖x‖₁/‖x‖₂) / (√M - 1): Hoyer, JMLR 2004, §3.1.

    >>> hoyer(np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]])).tolist()
    [0.0, 1.0]
    """
    sizes = np.asarray(sizes, np.float64)
    root = np.sqrt(sizes.shape[-1])
    length = np.maximum(np.sqrt((sizes**2).sum(-1)), 1e-300)
    return (root - np.abs(sizes).sum(-1) / length) / (root - 1)


def overlap(first: Sequence[int] | np.ndarray, second: Sequence[int] | np.ndarray) -> float:
    """Jaccard's index of two sets of coordinates: size of intersection ÷ size of union.

    >>> overlap([1, 2, 3], [2, 3, 4])
    0.5
    """
    one, other = set(map(int, first)), set(map(int, second))
    return len(one & other) / max(len(one | other), 1)
