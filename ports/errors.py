"""The error of everything that reads checkpoints, and how it quotes what a file says."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, is damaged, or is not what was expected."""


def quoted(text: object, length: int = 80) -> str:
    """`text` as an error message may show it: short, on one line, without terminal codes."""
    if not isinstance(text, str):
        return type(text).__name__
    shown = "".join(c if c.isprintable() else "?" for c in text[:length])
    return shown + "…" * (len(text) > length)
