"""Where JAX runs: its devices, and compiled programs that are kept from call to call."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax

from sfvq_jax.io.reading import one_line

CACHE_DIR = "jax_compilation_cache_dir"
LEAST_SECONDS = 0.3  # of compiling a program that is kept


def check_device() -> None:
    """Raises OSError where JAX starts no device: it was told of one that is not there."""
    try:
        jax.local_devices()
    except Exception as error:  # of several kinds, some without a word
        platforms = getattr(jax.config, "jax_platforms", None)
        told = f" with JAX_PLATFORMS={platforms}" if platforms else ""
        raise OSError(
            f"JAX starts no device{told} ({one_line(error)}): set JAX_PLATFORMS=cpu, or install JAX"
            " for the device"
        ) from error


@contextlib.contextmanager
def compilation_cache(*, keep: bool) -> Iterator[None]:
    """JAX's persistent cache in `XDG_CACHE_HOME/sfvq-jax`, unless JAX was told of another one.

    An entry that cannot be read, or a folder that cannot be written, costs only the time to
    compile: nothing is said.
    """
    if not keep or getattr(jax.config, CACHE_DIR) is not None:
        yield
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with contextlib.ExitStack() as stack:
        stack.enter_context(_config(CACHE_DIR, str(home / "sfvq-jax")))
        stack.enter_context(_config("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS))
        stack.enter_context(warnings.catch_warnings())
        for what in ("reading", "writing"):
            warnings.filterwarnings("ignore", f"Error {what} persistent compilation cache entry")
        yield


@contextlib.contextmanager
def _config(name: str, value: object) -> Iterator[None]:
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)
