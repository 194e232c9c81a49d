"""The named arrays of a generator as the converters take them: each once, and none left over."""

from typing import Any

import numpy as np

from ports.errors import CheckpointError, quoted


class Tensors(dict[str, Any]):
    """Named arrays. Taking one removes it: what is left was not expected."""

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """The shape of an array of `ndim` axes, none of them empty."""
        value = self._expect(name)
        if not isinstance(value, np.ndarray):
            raise CheckpointError(f"{name} is {type(value).__name__}, expected a tensor")
        if value.ndim != ndim or value.size == 0:
            raise CheckpointError(f"{name} has shape {value.shape}, expected {ndim} full axes")
        return value.shape

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Removes an array of this shape, and returns it in float32."""
        value = float32(name, self._expect(name), shape)
        del self[name]
        return value

    def expect_empty(self) -> None:
        for name in sorted(self):
            raise CheckpointError(f"{quoted(name)} is there, which the architecture has not")

    def _expect(self, name: str) -> Any:
        if name not in self:
            raise CheckpointError(f"{name} is missing, which the architecture needs")
        return self[name]


def tensors_of(state_dict: dict) -> Tensors:
    """A PyTorch state dict without the prefix `module.`, which DataParallel puts before names."""
    named = {name: value for name, value in state_dict.items() if isinstance(name, str)}
    return Tensors({name.removeprefix("module."): value for name, value in named.items()})


def is_state_dict(content: Any) -> bool:
    """Whether this is a dict of named arrays, and not an empty one."""
    return (
        isinstance(content, dict)
        and len(content) > 0
        and all(isinstance(k, str) and isinstance(v, np.ndarray) for k, v in content.items())
    )


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
