"""Checkpoints of a fit, so that one that is killed goes on where it was.

A folder holds `fit.json`, which says whose state it keeps, and the last states. It lies on a disk
(`states_on_disk`) or at a URI (`states_at_uri`). A hash of a state's `about.json` lies among its
arrays, so that it belongs to these. Several processes write one folder that all of them see.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sfvq_jax.io.objects import FULL
from sfvq_jax.io.reading import one_line, parse_json
from sfvq_jax.io.states import ABOUT, States, damaged, plain_description
from sfvq_jax.io.states_at_uri import StatesAtUri
from sfvq_jax.io.states_on_disk import StatesOnDisk
from sfvq_jax.io.store import is_remote
from sfvq_jax.processes import as_first_process, in_all_processes, in_every_process


class Stopped(Exception):
    """The fit was told to stop, and its state is saved."""


class Checkpoints:
    """The states in a folder; `open` makes one, and without a folder it keeps nothing."""

    def __init__(
        self,
        states: States | None,
        seconds: float,
        claimed: tuple[int, str] = (-1, ""),
        stop: Callable[[], bool] | None = None,
    ):
        self._states, self._seconds, self._stop = states, seconds, stop
        self._number, self._id = claimed  # of the state that was begun last; of the folder
        self._saved_at = time.monotonic()
        self._stopping = False

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        folder: str | Path | None,
        description: dict[str, Any],
        seconds: float,
        stop: Callable[[], bool] | None = None,
    ) -> Iterator["Checkpoints"]:
        """Opens a folder, or makes it; at the end the last save is waited for.

        Args:
          folder: a path or a URI; None for no checkpoints.
          description: JSON values that tell this fit from others.
          seconds: between saves.
          stop: asked by `due`; true in any process makes the next save the last.

        Raises:
          ValueError: the folder is of another fit or of another kind, another fit is at work in it,
            or a process does not see the first one's.
          OSError: it cannot be made, or the last save failed.
        """
        if folder is None:
            yield cls(None, seconds)
            return
        states = StatesAtUri(str(folder)) if is_remote(folder) else StatesOnDisk(Path(folder))
        described = plain_description(description)
        with contextlib.ExitStack() as held:  # by the first process
            claimed = as_first_process(lambda: states.claim(described, held))
            in_every_process(lambda: states.join(claimed))
            checkpoints = cls(states, seconds, (claimed[0], claimed[1]), stop)
            try:
                yield checkpoints
            except BaseException:
                with contextlib.suppress(Exception):  # what went wrong first is what counts
                    states.close()
                raise
            with _write_errors(states):
                states.wait()
            states.close()

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
        states = self._states
        newest = None if states is None else as_first_process(states.newest)
        if states is None or newest is None:
            return None
        state = f"{states.place}/{newest}"
        try:
            about = parse_json(states.about(newest))
        except (OSError, ValueError, RecursionError) as error:
            raise damaged(state, f"{ABOUT} cannot be read") from error
        if about.pop("fit", None) != self._id:
            raise damaged(state, "it is of another fit")
        try:
            shapes = template(about)
        except ValueError as error:
            raise ValueError(f"{state}: {error}") from error
        except Exception as error:  # of an `about` that was changed, anything may be missing
            raise damaged(state, f"{ABOUT} is not as it was written") from error
        seal = self._sealed(about)
        try:
            restored = states.read(newest, {"state": shapes, "seal": seal})
        except Exception as error:  # Orbax and TensorStore raise errors of many kinds
            raise damaged(state, one_line(error)) from error
        if not np.array_equal(np.asarray(restored["seal"]), seal):
            raise damaged(state, f"{ABOUT} is of other arrays")
        return restored["state"], about

    def due(self) -> bool:
        """Whether it is time for the next save; the same in all processes."""
        if self._states is None:
            return False
        with _write_errors(self._states):
            self._states.look()
        elapsed = time.monotonic() - self._saved_at >= self._seconds
        told = in_all_processes([elapsed, self._stop is not None and self._stop()])
        self._stopping = any(stop for _, stop in told)
        return told[0][0] or self._stopping  # the first process's clock counts

    def save(self, state: Any, about: dict[str, Any]) -> None:
        """Saves a pytree of arrays and JSON values; returns once the arrays are copied.

        Raises:
          OSError: this save or the one before failed.
          Stopped: it was the last one, and is written.
        """
        states = self._states
        if states is None:
            return
        # a copy, since the fit goes on in the same buffers while this is written
        state = jax.tree.map(lambda leaf: leaf.copy(), state)
        with _write_errors(states):
            states.wait()
            self._number += 1
            text = json.dumps(about | {"fit": self._id}) + "\n"
            sealed = {"state": state, "seal": self._sealed(json.loads(json.dumps(about)))}
            states.write(self._number, sealed, text)
            if self._stopping:
                states.wait()
        if self._stopping:
            in_all_processes(True)  # all have written
            raise Stopped(f"the fit is saved in {states.place}")
        self._saved_at = time.monotonic()

    def _sealed(self, about: dict[str, Any]) -> np.ndarray:
        """A hash of `about` and of the folder's id, to be saved among the arrays."""
        text = json.dumps([self._id, about], sort_keys=True)
        return np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)


@contextlib.contextmanager
def _write_errors(states: States) -> Iterator[None]:
    """What Orbax and TensorStore raise when they cannot write, in a sentence."""
    try:
        yield
    except Exception as error:
        full = any(words in str(error) for words in FULL)
        reason = "the disk is full" if full else one_line(error)
        before = False
        with contextlib.suppress(OSError):
            before = states.some
        rest = (
            "the one before is whole, and the same fit goes on from it later"
            if before
            else "there is none before it"
        )
        raise OSError(
            f"the checkpoint in {states.place} cannot be written ({reason}); {rest}"
        ) from error
