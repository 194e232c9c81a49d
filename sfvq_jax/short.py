"""Short text for values that hold arrays: what each is, not its entries."""

import dataclasses
from typing import Any

MOST = 60  # characters of a field


def short_repr(self: Any) -> str:
    """`__repr__` of a NamedTuple or dataclass: a line or two however much it holds.

    >>> from sfvq_jax import Curve
    >>> import numpy as np
    >>> Curve(np.zeros((64, 512), np.float32))
    Curve(codewords=float32[64, 512], size=None)
    """
    names = getattr(self, "_fields", None) or [field.name for field in dataclasses.fields(self)]
    fields = ", ".join(f"{name}={_short(getattr(self, name))}" for name in names)
    return f"{type(self).__name__}({fields})"


def _short(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict) or type(value) in (list, tuple):
        text = repr(value) if len(value) < MOST and not _holds_arrays(value) else ""
        return text if 0 < len(text) <= MOST else f"{type(value).__name__} of {len(value)}"
    text = repr(value)
    if len(text) <= MOST:
        return text
    if isinstance(value, str):
        return f"{value[: MOST // 2]!r}…"
    return f"{type(value).__name__}(…)"


def _holds_arrays(values: Any) -> bool:
    values = values.values() if isinstance(values, dict) else values
    return any(hasattr(value, "shape") or isinstance(value, dict | list) for value in values)
