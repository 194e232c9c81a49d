"""Checkpoints of a fit (Orbax), so that one that is killed goes on where it was.

A folder holds `fit.json`, which says whose state it keeps, and the last two states, each whole or
absent. Several processes write one folder that all of them see.
"""

import contextlib
import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from sfvq_jax.output import new_folder

FORMAT_VERSION = 1
DESCRIPTION = "fit.json"
KEPT = 2  # states, so that one is whole while the next is written


class Checkpoints:
    """The states in a folder; `open` makes one, and without a folder it keeps nothing."""

    def __init__(self, manager: ocp.CheckpointManager | None, seconds: float):
        self._manager, self._seconds = manager, seconds
        self._saved_at = time.monotonic()

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, folder: str | Path | None, description: dict[str, Any], seconds: float
    ) -> Iterator["Checkpoints"]:
        """Opens a folder, or makes it.

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
        _claim(path, json.loads(json.dumps(description)))
        options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, enable_async_checkpointing=True)
        with _write_errors(path), ocp.CheckpointManager(path, options=options) as manager:
            yield cls(manager, seconds)
            manager.wait_until_finished()

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
        step = None if self._manager is None else self._manager.latest_step()
        if self._manager is None or step is None:
            return None
        path = Path(self._manager.directory) / str(step)
        try:
            items = ocp.args.Composite(about=ocp.args.JsonRestore())
            about = self._manager.restore(step, args=items)["about"]
            arrays = ocp.args.StandardRestore(template(about))
            state = self._manager.restore(step, args=ocp.args.Composite(state=arrays))["state"]
            whole = _digest(state) == about["sha256"]
        except Exception as error:  # Orbax and TensorStore raise errors of many kinds
            text = str(error).strip().split("\n")[0]
            raise ValueError(f"the checkpoint {path} is damaged ({text}): {_REMEDY}") from error
        if not whole:
            raise ValueError(f"the checkpoint {path} is damaged (wrong SHA-256): {_REMEDY}")
        return state, about

    def due(self) -> bool:
        """Whether it is time for the next save; the same in all processes."""
        if self._manager is None:
            return False
        due = time.monotonic() - self._saved_at >= self._seconds
        if jax.process_count() > 1:  # the first one's clock counts
            due = bool(multihost_utils.broadcast_one_to_all(np.array(due)))
        return due

    def save(self, state: Any, about: dict[str, Any]) -> None:
        """Saves a pytree of arrays and JSON values; returns once the arrays are copied."""
        if self._manager is None:
            return
        # a copy, since the fit goes on in the same buffers while this is written
        state = jax.tree.map(jnp.copy, state)
        step = self._manager.latest_step()
        self._manager.save(
            0 if step is None else step + 1,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                about=ocp.args.JsonSave({**about, "sha256": _digest(state)}),
            ),
        )
        self._saved_at = time.monotonic()


_REMEDY = "delete that folder to go on from the one before, or name another --checkpoint"


def _claim(path: Path, description: dict[str, Any]) -> None:
    """Makes the folder, or checks that it is of this fit."""
    file = path / DESCRIPTION
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
    if not path.exists() and jax.process_index() == 0:
        with new_folder(path, marker=DESCRIPTION) as folder:
            (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("the folder of checkpoints is there")
    if not file.is_file():
        raise ValueError(
            f"{path} holds no {DESCRIPTION}, so it is no folder of checkpoints: name another"
        )
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        assert isinstance(found, dict)
    except (ValueError, AssertionError, OSError) as error:
        raise ValueError(f"{file} is damaged: name another folder for checkpoints") from error
    for name, value in description.items():
        if found.get(name) != value:
            raise ValueError(
                f"{path} keeps another fit: its {name} is {found.get(name)}, and here it is"
                f" {value}; name another folder for checkpoints"
            )
    for half in sorted(path.glob("*.orbax-checkpoint-tmp*")):
        warnings.warn(f"{half} is half written, by a run that was killed; it is not used",
                      stacklevel=2)  # fmt: skip


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """A full disk shows as an error of Orbax's or TensorStore's own."""
    try:
        yield
    except Exception as error:
        text = str(error)
        if any(word in text for word in ("RESOURCE_EXHAUSTED", "No space left", "File too large")):
            raise OSError(
                f"the checkpoint in {path} cannot be written, the disk is full; the one before is"
                " whole, and the fit goes on from it once there is room"
            ) from error
        raise


def _digest(state: Any) -> str:
    """SHA-256 of the arrays that this process sees whole."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
            digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
