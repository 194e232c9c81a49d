"""Checkpoints of a fit (Orbax), so that one that is killed goes on where it was.

A folder holds `fit.json`, which says whose state it keeps, and the last states, each a folder with
a number for its name. Orbax writes a state in the background, to a folder of another name that it
renames at the end, so that a state is whole or absent. `SHA256SUMS` in each names its files, and
`sha256sum -c` checks them too. Several processes write one folder that all of them see.
"""

import contextlib
import hashlib
import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from sfvq_jax.io.output import new_folder
from sfvq_jax.processes import as_first_process, in_all_processes

FORMAT_VERSION = 3
DESCRIPTION, ABOUT, CHECKSUMS = "fit.json", "about.json", "SHA256SUMS"
KEPT = 2  # states
HALF_WRITTEN = ".orbax-checkpoint-tmp"  # in the name of a state that is being written
UNCHECKED = {CHECKSUMS, "_CHECKPOINT_METADATA", "commit_success.txt"}  # Orbax writes them at last
SKETCH = "sketch of some latents"  # in a description: floats, compared with a tolerance
TOLERANCE = 1e-3  # since other devices round otherwise
SOLVER = (
    "solver"  # in a description: its name and numbers, of which those added later may be absent
)
DEFAULTS = "defaults"  # in a description: what they then stand for; says nothing of the fit itself
STAGES = "stages"  # in a description: the plan of each; those that both have are compared
FULL = ("No space left", "File too large", "quota exceeded")


class Checkpoints:
    """The states in a folder; `open` makes one, and without a folder it keeps nothing."""

    def __init__(self, path: Path | None, seconds: float, number: int = -1):
        self._path, self._seconds = path, seconds
        self._number = number  # of the state that was begun last
        self._about: dict[str, Any] = {}
        self._saved_at = time.monotonic()
        if path is not None:
            options = ocp.AsyncOptions(post_finalization_callback=self._seal)
            self._orbax = ocp.StandardCheckpointer(async_options=options)

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, folder: str | Path | None, description: dict[str, Any], seconds: float
    ) -> Iterator["Checkpoints"]:
        """Opens a folder, or makes it; at the end the last save is waited for.

        Args:
          folder: None for no checkpoints.
          description: JSON values that tell this fit from others.
          seconds: between saves.

        Raises:
          ValueError: the folder is of another fit or of another kind.
          OSError: it cannot be made, or the last save failed.
        """
        if folder is None:
            yield cls(None, seconds)
            return
        path = Path(folder).absolute()
        description = {"format_version": FORMAT_VERSION, **description}
        description = json.loads(json.dumps(description, default=_plain))
        checkpoints = cls(path, seconds, as_first_process(lambda: _claim(path, description)))
        try:
            yield checkpoints
        except BaseException:
            with contextlib.suppress(Exception):  # what went wrong first is what counts
                checkpoints._orbax.close()
            raise
        with _write_errors(path):
            checkpoints._orbax.close()
        as_first_process(lambda: _delete_old(path))

    def restore(self, template: Callable[[dict[str, Any]], Any]) -> tuple[Any, dict] | None:
        """The newest state, or None where there is none.

        Args:
          template: from what was given to `save` as `about` to the state's arrays, as
            `jax.ShapeDtypeStruct`s with shardings.

        Returns:
          The state and `about`.

        Raises:
          ValueError: the state is damaged; the message names its folder, which is not touched.
        """
        path = self._path
        newest = None if path is None else as_first_process(lambda: _newest(path))
        if path is None or newest is None:
            return None
        state = path / str(newest)
        try:
            about = json.loads((state / ABOUT).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _damaged(state, _first_line(error)) from error
        shapes = template(about)
        try:
            return self._orbax.restore(state, shapes), about
        except Exception as error:  # Orbax and TensorStore raise errors of many kinds
            raise _damaged(state, _first_line(error)) from error

    def due(self) -> bool:
        """Whether it is time for the next save; the same in all processes."""
        if self._path is None:
            return False
        # the first process's clock counts
        return in_all_processes(time.monotonic() - self._saved_at >= self._seconds)[0]

    def save(self, state: Any, about: dict[str, Any]) -> None:
        """Saves a pytree of arrays and JSON values; returns once the arrays are copied.

        Raises:
          OSError: this save or the one before failed.
        """
        path = self._path
        if path is None:
            return
        # a copy, since the fit goes on in the same buffers while this is written
        state = jax.tree.map(lambda leaf: leaf.copy(), state)
        with _write_errors(path):
            self._orbax.wait_until_finished()
            as_first_process(lambda: _delete_old(path))
            self._number += 1
            self._about = about
            self._orbax.save(path / str(self._number), state)
        self._saved_at = time.monotonic()

    def _seal(self) -> None:
        """In the first process, once all have written their parts, before Orbax renames them."""
        assert self._path is not None
        (folder,) = self._path.glob(f"{self._number}{HALF_WRITTEN}*")
        (folder / ABOUT).write_text(json.dumps(self._about) + "\n", encoding="utf-8")
        lines = [f"{_sha256(folder / name)}  {name}\n" for name in _files(folder)]
        (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def _claim(path: Path, description: dict[str, Any]) -> int:
    """Makes the folder, or checks that it is of this fit; returns the last state's number."""
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
    if not path.exists():
        with new_folder(path, marker=DESCRIPTION) as folder:
            text = json.dumps(description, indent=1) + "\n"
            (folder / DESCRIPTION).write_text(text, encoding="utf-8")
    file = path / DESCRIPTION
    if not file.is_file():
        raise ValueError(
            f"{path} holds no {DESCRIPTION}, so it is no folder of checkpoints: name another"
        )
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        assert isinstance(found, dict)
    except (ValueError, AssertionError, OSError) as error:
        raise ValueError(f"{file} is damaged: name another folder for checkpoints") from error
    for name in description:
        if name != DEFAULTS and (difference := _difference(name, found, description)):
            raise ValueError(
                f"{path} keeps another fit: its {difference}; name another folder for checkpoints"
            )
    half_written = sorted(path.glob(f"*{HALF_WRITTEN}*"))
    for half in half_written:
        warnings.warn(
            f"{half} is half written, by a run that was stopped; it is not used, and may be"
            " deleted",
            stacklevel=2,
        )
    # beyond those that are half written, which Orbax would write over
    numbers = [int(half.name.split(".")[0]) for half in half_written]
    return max(_states(path) + numbers, default=-1)


def _difference(name: str, found: dict[str, Any], here: dict[str, Any]) -> str | None:
    """Why an entry of two descriptions says that they are of two fits; None where it does not."""
    was: Any = found.get(name)
    now = here[name]
    said = f"{name} is {was}, and here it is {now}"
    try:
        if name == SKETCH:
            return None if np.allclose(was, now, rtol=0, atol=TOLERANCE) else said
        if name == STAGES:
            pairs = zip(was, now, strict=False)
            return next((f"stage is {a}, and here it is {b}" for a, b in pairs if a != b), None)
        if name == SOLVER:
            was = here[DEFAULTS] | was
            differing = (
                f"{key} is {was.get(key)}, and here it is {value}"
                for key, value in now.items()
                if was.get(key) != value
            )
            return next(differing, None)
    except (TypeError, ValueError, KeyError):
        return said
    return None if was == now else said


def _plain(value: Any) -> Any:
    """What JSON has no word for: numbers of NumPy and JAX, and the rest as it is written."""
    return value.item() if hasattr(value, "item") and np.ndim(value) == 0 else repr(value)


def _states(path: Path) -> list[int]:
    """The numbers of those in a folder, the newest at last."""
    return sorted(int(entry.name) for entry in path.iterdir() if entry.name.isdigit())


def _newest(path: Path) -> int | None:
    """The number of the newest state, once it is known that it is as it was written."""
    states = _states(path)
    if not states:
        return None
    state = path / str(states[-1])
    try:
        text = (state / CHECKSUMS).read_text(encoding="utf-8")
        expected = {
            name: sha256 for sha256, name in (line.split("  ", 1) for line in text.split("\n")[:-1])
        }
    except (OSError, ValueError) as error:
        raise _damaged(state, f"{CHECKSUMS} cannot be read") from error
    for name in sorted(expected.keys() | set(_files(state))):
        if name not in expected:
            raise _damaged(state, f"{CHECKSUMS} does not name {name}")
        if not (state / name).is_file():
            raise _damaged(state, f"{name} is missing")
        if _sha256(state / name) != expected[name]:
            raise _damaged(state, f"{name} is not as it was written")
    return states[-1]


def _damaged(state: Path, reason: str) -> ValueError:
    return ValueError(
        f"the checkpoint {state} is damaged ({reason}): delete that folder to go on from the one"
        " before, or name another folder for checkpoints"
    )


def _delete_old(path: Path) -> None:
    """A run that is killed in here leaves a part of an old state, which the next one deletes."""
    for number in _states(path)[:-KEPT]:
        shutil.rmtree(path / str(number))


def _files(state: Path) -> list[str]:
    """The names of a state's files, but of those that are not checked."""
    files = (file.relative_to(state).as_posix() for file in state.rglob("*") if file.is_file())
    return sorted(name for name in files if name not in UNCHECKED)


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """What Orbax and TensorStore raise when they cannot write, in a sentence."""
    try:
        yield
    except Exception as error:
        full = any(words in str(error) for words in FULL)
        reason = "the disk is full" if full else _first_line(error)
        raise OSError(
            f"the checkpoint in {path} cannot be written ({reason}); the one before is whole, and"
            " the same fit goes on from it later"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
