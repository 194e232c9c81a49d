"""A PyTorch state dict as the converters read it: every tensor once, none left over."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from ports.errors import CheckpointError, quoted


class StateDict:
    """The tensors of a network by name, and which of them have been asked for.

    Args:
      tensors: {name: array}; the prefix `module.`, which DataParallel puts before all names, is
        dropped.

    Raises:
      CheckpointError: where it holds anything but named arrays.
    """

    def __init__(self, tensors: dict[Any, Any]):
        if not is_state_dict(tensors):
            raise CheckpointError("expected a state dict, names with one tensor each")
        if all(name.startswith("module.") for name in tensors):
            tensors = {name.removeprefix("module."): x for name, x in tensors.items()}
        self._tensors = tensors
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def names(self) -> Iterable[str]:
        return self._tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensor(name).shape

    def tensor(self, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """A copy of a tensor in float32, of this shape if one is given.

        Raises:
          CheckpointError: where it is missing, of another shape, no floats, or not finite.
        """
        value = self._tensor(name)
        if value.dtype.kind != "f":
            raise CheckpointError(f"{name} holds {value.dtype.name}, expected floats")
        if shape is not None and value.shape != shape:
            raise CheckpointError(f"{name} has shape {value.shape}, expected {shape}")
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
            value = np.array(value, np.float32, order="C", subok=False)
        if not np.isfinite(value).all():
            raise CheckpointError(f"{name} has values that are not finite")
        return value

    def ignore(self, name: str) -> None:
        """Counts a tensor as read, if it is there."""
        self._read.add(name)

    def expect_all_read(self) -> None:
        """Raises CheckpointError for the first tensor that nothing asked for."""
        for name in sorted(self._tensors.keys() - self._read):
            raise CheckpointError(
                f"{quoted(name)} is there, which the network that its config describes has not"
            )

    def _tensor(self, name: str) -> np.ndarray:
        if name not in self._tensors:
            raise CheckpointError(
                f"{name} is missing, which the network that its config describes needs"
            )
        self._read.add(name)
        return self._tensors[name]


def is_state_dict(content: Any) -> bool:
    """Whether this is a dict of named arrays, and not an empty one."""
    return (
        isinstance(content, dict)
        and len(content) > 0
        and all(isinstance(k, str) and isinstance(v, np.ndarray) for k, v in content.items())
    )


def divided_by_norm(name: str, weight: np.ndarray, norm: float) -> np.ndarray:
    """A weight divided by its spectral norm, which must not be 0 or nearly so."""
    with np.errstate(all="ignore"):
        divided = (weight / np.float64(norm)).astype(np.float32)
    if not np.isfinite(divided).all():
        raise CheckpointError(f"{name} has the spectral norm {norm:g}, which nothing is divided by")
    return divided


def check_statistics(name: str, mean: np.ndarray, var: np.ndarray, eps: float) -> None:
    """Raises CheckpointError for batch statistics that make images of NaN."""
    if not (np.isfinite(mean).all() and np.isfinite(var).all() and (var + eps > 0).all()):
        raise CheckpointError(f"{name} has a mean that is infinite or a variance that is negative")
