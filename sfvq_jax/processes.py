"""What the processes of one fit tell each other: values, failures, and who writes."""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

MESSAGE_BYTES = 4096  # that a process tells the others at once


def in_all_processes(value: Any) -> list[Any]:
    """A JSON value of each process, of at most `MESSAGE_BYTES`: all of them, in every process."""
    if jax.process_count() == 1:
        return [value]
    text = json.dumps(value).encode()
    if len(text) > MESSAGE_BYTES:
        raise ValueError(f"processes tell each other at most {MESSAGE_BYTES} bytes: {value!r}")
    padded = np.frombuffer(text.ljust(MESSAGE_BYTES), np.uint8)
    return [json.loads(row.tobytes()) for row in multihost_utils.process_allgather(padded)]


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
