"""What may become a direction: steps between codewords, in ranges of layers.

Letters: D dimensions, K codewords, P steps.
"""

import numpy as np

MAX_PAIRS_CODEWORDS = 1024  # beyond, only lines are candidates: pairs would be millions


def all_pairs(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Codewords that all candidates come from and go to."""
    return np.triu_indices(k, 1) if k <= MAX_PAIRS_CODEWORDS else all_lines(k)


def all_lines(k: int) -> tuple[np.ndarray, np.ndarray]:
    """The same of lines: each codeword and the next."""
    return np.arange(k - 1), np.arange(1, k)


def layer_ranges(num_layers: int) -> list[tuple[int, int]]:
    """All of them, first and last layer, both included."""
    return [(first, last) for first in range(num_layers) for last in range(first, num_layers)]


def layers_price(layers: tuple[int, int], num_layers: int) -> float:
    """A twentieth off for all layers, nothing for one: of ranges alike, the narrowest is taken."""
    first, last = layers
    return 1 - 0.05 * (last - first) / max(num_layers - 1, 1)


def deviation_by_length(
    codewords: np.ndarray, starts: np.ndarray, stops: np.ndarray, covariance: np.ndarray
) -> np.ndarray:
    """Deviation of latents along each step between codewords, ÷ the length of the step."""
    product = codewords @ covariance @ codewords.T
    spread = _squared_step(product, starts, stops)
    squared_length = _squared_step(codewords @ codewords.T, starts, stops)
    return np.sqrt(np.maximum(spread, 0)) / np.maximum(squared_length, 1e-12)


def _squared_step(products: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    own = np.diagonal(products)
    return own[starts] + own[stops] - 2 * products[starts, stops]
