"""What the processes of one fit tell each other: values, failures, and who writes."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

MESSAGE_BYTES = 4096  # that a process tells the others at once
MOST_SHOWN = 160  # characters of a fact that are told as they are
TOLERANCE = 1e-3  # of a float, since other devices round otherwise


def in_all_processes(value: Any) -> list[Any]:
    """A JSON value of each process, of at most `MESSAGE_BYTES`: all of them, in every process."""
    if jax.process_count() == 1:
        return [value]
    text = json.dumps(value).encode()
    if len(text) > MESSAGE_BYTES:
        raise ValueError(f"processes tell each other at most {MESSAGE_BYTES} bytes: {value!r}")
    padded = np.frombuffer(text.ljust(MESSAGE_BYTES), np.uint8)
    return [json.loads(row.tobytes()) for row in multihost_utils.process_allgather(padded)]


def of_all_processes(value: Any, most: int) -> list[Any] | None:
    """A JSON value of each process, in every process, whatever their sizes.

    Returns:
      None where one is None, or where all together have more than `most` bytes as ASCII.
    """
    text, step = "" if value is None else json.dumps(value), MESSAGE_BYTES // 4
    sizes = in_all_processes(len(text))
    if not all(sizes) or sum(sizes) > most:
        return None
    parts = [in_all_processes(text[at : at + step]) for at in range(0, max(sizes), step)]
    return [json.loads("".join(texts)) for texts in zip(*parts, strict=True)]


def check_alike(facts: dict[str, Any]) -> None:
    """Checks that all processes were told the same, before any waits for another's part of it.

    Args:
      facts: JSON values by name; a list of floats may differ by rounding.

    Raises:
      ValueError: in every process, which of them differs from the first one, and in what.
    """
    told = in_all_processes({name: _shortened(value) for name, value in facts.items()})
    for process, other in enumerate(told):
        for name, value in told[0].items():
            if not _alike(value, other.get(name)):
                raise ValueError(
                    f"process {process} differs from process 0 in its {name} ({other.get(name)}"
                    f" there, {value} here): give all processes the same"
                )


def _shortened(value: Any) -> Any:
    text = json.dumps(value, default=_plain)
    if len(text) <= MOST_SHOWN:
        return json.loads(text)
    return f"of hash {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _plain(value: Any) -> Any:
    """Numbers of NumPy and JAX; of what is another in each process, only its kind."""
    return value.item() if np.ndim(value) == 0 and hasattr(value, "item") else type(value).__name__


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return all(
            abs(a - b) <= TOLERANCE if isinstance(a, float) and isinstance(b, float) else a == b
            for a, b in zip(one, other, strict=True)
        )
    return one == other


def as_first_process(function: Callable[[], Any]) -> Any:
    """The JSON value that a function gives in the first process, where alone it is called.

    Raises:
      ValueError, OSError: in every process, what the function raised in the first one.
    """
    value = in_every_process(lambda: function() if jax.process_index() == 0 else None)
    return in_all_processes(value)[0]


def in_every_process(function: Callable[[], Any]) -> Any:
    """What a function gives, once it is known that it gave something in every process.

    Raises:
      ValueError, OSError: in every process, what the function raised in the first that it failed
        in; its own in those where it failed.
    """
    if jax.process_count() == 1:
        return function()
    value, error = None, None
    try:
        value = function()
    except (ValueError, OSError) as raised:
        error = raised
    text = None if error is None else str(error)[: MESSAGE_BYTES // 8]
    failures = in_all_processes([isinstance(error, OSError), text])
    if error is not None:
        raise error
    for process, (of_system, text) in enumerate(failures):
        if text is not None:
            raise (OSError if of_system else ValueError)(f"process {process}: {text}")
    return value
