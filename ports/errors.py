"""The error of everything that reads checkpoints, how it shows and checks what a file says."""

import math
from typing import Any


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, is damaged, or is not what was expected."""


def quoted(text: object, length: int = 80) -> str:
    """`text` as an error message may show it: short, on one line, without terminal codes."""
    if not isinstance(text, str):
        return type(text).__name__
    printable = "".join(c if c.isprintable() else "?" for c in text[:length])
    return printable + "…" * (len(text) > length)


def shown(value: object) -> str:
    """A value, of whatever type, as a message may show it."""
    try:
        return f"{value!r:.40}"
    except (ValueError, RecursionError):  # a number of too many digits, lists in lists in lists
        return f"a {type(value).__name__}"


def check_numbers(config: Any, **ranges: tuple[float, float]) -> None:
    """Raises ValueError where a field of a config is no number in its range, both ends included.

    Ranges of ints are of whole numbers.
    """
    for name, (least, most) in ranges.items():
        value = getattr(config, name)
        whole = isinstance(least, int)
        kinds = (int,) if whole else (int, float)
        # NaN is in no range
        if type(value) not in kinds or not (math.isfinite(value) and least <= value <= most):
            kind = "a whole number" if whole else "a number"
            raise ValueError(f"{name} is {shown(value)}; expected {kind}, {least:g} to {most:g}")


def check_kinds(config: Any, **kinds: type) -> None:
    """Raises ValueError where a field of a config is of another type."""
    for name, kind in kinds.items():
        value = getattr(config, name)
        if type(value) is not kind:
            raise ValueError(f"{name} is {shown(value)}; expected {_WORDS[kind]}")


_WORDS = {bool: "true or false", str: "a text", tuple: "a list"}
