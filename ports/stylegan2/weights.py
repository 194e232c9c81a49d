"""Arrays of a StyleGAN2 checkpoint, brought into the layout of `network.py`."""

import math

import numpy as np

from ports.stylegan2.config import Filter


def transposed(x: np.ndarray, *axes: int) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(axes))


def scaled_by_fan_in(kernel: np.ndarray) -> np.ndarray:
    """The kernel [k, k, I, O] over √(k·k·I), for code that demodulates it so.

    NVIDIA's PyTorch code, and so `network.py`, demodulates the stored kernel. The two differ in
    what the 1e-8 under the root weighs.
    """
    return kernel * np.float32(1 / math.sqrt(math.prod(kernel.shape[:3])))


def as_filter(taps: np.ndarray) -> Filter:
    """A low-pass filter, as one line of taps where it is the outer product of that with itself."""
    if taps.ndim == 2 and taps.shape[0] == taps.shape[1]:
        with np.errstate(over="ignore"):
            line = taps.sum(1)
            taps = line if np.array_equal(np.outer(line, line), taps) else taps
    return tuple(taps.tolist()) if taps.ndim == 1 else tuple(map(tuple, taps.tolist()))


def without_empty(tree: dict) -> dict:
    """The tree without branches that hold nothing."""
    branches = {k: without_empty(v) if isinstance(v, dict) else v for k, v in tree.items()}
    return {k: v for k, v in branches.items() if not isinstance(v, dict) or v}
