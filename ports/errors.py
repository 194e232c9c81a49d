"""The error of everything that reads checkpoints, and how it shows what a file says."""


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
