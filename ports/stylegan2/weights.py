"""Arrays of a StyleGAN2 checkpoint, checked and brought into the layout of `network.py`."""

import math
from typing import Any

import numpy as np

from ports.errors import CheckpointError, quoted
from ports.stylegan2.config import Filter


class Tensors(dict[str, Any]):
    """The named arrays of a generator. Taking one removes it: what is left was not expected."""

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """The shape of an array of `ndim` axes, none of them empty."""
        value = self.get(name)
        if not isinstance(value, np.ndarray):
            raise CheckpointError(f"the generator has no tensor {name}, which StyleGAN2 needs")
        if value.ndim != ndim or value.size == 0:
            raise CheckpointError(f"{name} has shape {value.shape}, expected {ndim} full axes")
        return value.shape

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Removes an array of this shape, and returns it in float32."""
        if name not in self:
            raise CheckpointError(f"the generator has no tensor {name}, which StyleGAN2 needs")
        return float32(name, self.pop(name), shape)

    def expect_empty(self) -> None:
        for name in sorted(self):
            raise CheckpointError(f"the generator has {quoted(name)}, which StyleGAN2 has not")


def float32(name: str, value: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A copy in float32, of this shape if one is given.

    Raises:
      CheckpointError: where it is no array of floating-point numbers, or one is not finite.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise CheckpointError(f"{name} is {kind}, expected a tensor of floating-point numbers")
    if shape is not None and value.shape != shape:
        raise CheckpointError(f"{name} has shape {value.shape}, expected {shape}")
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
        value = np.array(value, np.float32, order="C", subok=False)
    if not np.isfinite(value).all():
        raise CheckpointError(f"{name} has values that are not finite")
    return value


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
        line = taps.sum(1)
        taps = line if np.array_equal(np.outer(line, line), taps) else taps
    return tuple(taps.tolist()) if taps.ndim == 1 else tuple(map(tuple, taps.tolist()))


def without_empty(tree: dict) -> dict:
    """The tree without branches that hold nothing."""
    branches = {k: without_empty(v) if isinstance(v, dict) else v for k, v in tree.items()}
    return {k: v for k, v in branches.items() if not isinstance(v, dict) or v}
