"""Checkpoints of a fit (Orbax), so that one that is killed goes on where it was.

A folder holds `fit.json`, which says whose state it keeps, and the last states, each a folder with
a number for its name. Orbax writes a state in the background, to a folder of another name that it
renames at the end, so that a state is whole or absent. `SHA256SUMS` in each names its files, and
`sha256sum -c` checks them too; a hash of `about.json` lies among the arrays, so that it belongs to
these. Several processes write one folder that all of them see. While a fit is at work, it keeps
`fit.lock` locked.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from sfvq_jax.io.reading import one_line, parse_json
from sfvq_jax.processes import as_first_process, in_all_processes, in_every_process

FORMAT_VERSION = 4
DESCRIPTION, ABOUT, CHECKSUMS, LOCK = "fit.json", "about.json", "SHA256SUMS", "fit.lock"
UNFINISHED = DESCRIPTION + ".unfinished"
KEPT = 2  # states
HALF_WRITTEN = ".orbax-checkpoint-tmp"  # in the name of a state that is being written
MOST_BYTES = 2**20  # of a file other than the arrays
ID = "id"  # in a description: of the folder, drawn when it is made
UNCHECKED = {CHECKSUMS, "_CHECKPOINT_METADATA", "commit_success.txt"}  # Orbax writes them at last
SKETCH = "sketch of some latents"  # in a description: floats, compared with a tolerance
TOLERANCE = 1e-3  # since other devices round otherwise
SOLVER = (
    "solver"  # in a description: its name and numbers, of which those added later may be absent
)
DEFAULTS = "defaults"  # in a description: what they then stand for; says nothing of the fit itself
STAGES = "stages"  # in a description: the plan of each; those that both have are compared
FULL = ("No space left", "File too large", "quota exceeded")


class Stopped(Exception):
    """The fit was told to stop, and its state is saved."""


class Checkpoints:
    """The states in a folder; `open` makes one, and without a folder it keeps nothing."""

    def __init__(
        self,
        path: Path | None,
        seconds: float,
        claimed: tuple[int, str] = (-1, ""),
        stop: Callable[[], bool] | None = None,
    ):
        self._path, self._seconds, self._stop = path, seconds, stop
        self._number, self._id = claimed  # of the state that was begun last; of the folder
        self._about: dict[str, Any] = {}
        self._saved_at = time.monotonic()
        self._stopping = False
        if path is not None:
            options = ocp.AsyncOptions(
                post_finalization_callback=self._seal,
                # or a folder that cannot be made leaves threads that wait for it, for minutes
                create_directories_asynchronously=False,
            )
            self._orbax = ocp.StandardCheckpointer(async_options=options)

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
          folder: None for no checkpoints.
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
        path = Path(folder).absolute()
        description = {"format_version": FORMAT_VERSION, **description}
        description = json.loads(json.dumps(description, default=_plain))
        with contextlib.ExitStack() as held:  # by the first process
            claimed = as_first_process(lambda: _claim(path, description, held))
            in_every_process(lambda: _check_seen(path, claimed[1]))
            checkpoints = cls(path, seconds, claimed, stop)
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
            about = parse_json(_read_small(state / ABOUT))
        except (OSError, ValueError, RecursionError) as error:
            raise _damaged(state, f"{ABOUT} cannot be read") from error
        if about.pop("fit", None) != self._id:
            raise _damaged(state, "it is of another fit")
        try:
            shapes = template(about)
        except ValueError as error:
            raise ValueError(f"{state}: {error}") from error
        except Exception as error:  # of an `about` that was changed, anything may be missing
            raise _damaged(state, f"{ABOUT} is not as it was written") from error
        seal = self._sealed(about)
        wanted = {"state": shapes, "seal": seal}
        try:
            metadata: Any = self._orbax.metadata(state).item_metadata
            _check_shapes(metadata.tree, wanted)
            restored = self._orbax.restore(state, wanted)
        except Exception as error:  # Orbax and TensorStore raise errors of many kinds
            raise _damaged(state, one_line(error)) from error
        if not np.array_equal(np.asarray(restored["seal"]), seal):
            raise _damaged(state, f"{ABOUT} is of other arrays")
        return restored["state"], about

    def due(self) -> bool:
        """Whether it is time for the next save; the same in all processes."""
        if self._path is None:
            return False
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
        path = self._path
        if path is None:
            return
        # a copy, since the fit goes on in the same buffers while this is written
        state = jax.tree.map(lambda leaf: leaf.copy(), state)
        with _write_errors(path):
            self._orbax.wait_until_finished()
            as_first_process(lambda: _delete_old(path))
            self._number += 1
            # a copy, since it is written in the background, while the fit goes on in its lists
            self._about = json.loads(json.dumps(about))
            sealed = {"state": state, "seal": self._sealed(self._about)}
            self._orbax.save(path / str(self._number), sealed)
            if self._stopping:
                self._orbax.wait_until_finished()
        if self._stopping:
            in_all_processes(True)  # all have written
            raise Stopped(f"the fit is saved in {path}")
        self._saved_at = time.monotonic()

    def _seal(self) -> None:
        """In the first process, once all have written their parts, before Orbax renames them."""
        assert self._path is not None
        (folder,) = self._path.glob(f"{self._number}{HALF_WRITTEN}*")
        text = json.dumps(self._about | {"fit": self._id})
        (folder / ABOUT).write_text(text + "\n", encoding="utf-8")
        lines = [f"{_sha256(folder / name)}  {name}\n" for name in _files(folder)]
        (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")

    def _sealed(self, about: dict[str, Any]) -> np.ndarray:
        """A hash of `about` and of the folder's id, to be saved among the arrays."""
        text = json.dumps([self._id, about], sort_keys=True)
        return np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)


def _claim(path: Path, description: dict[str, Any], held: contextlib.ExitStack) -> tuple[int, str]:
    """Makes the folder, or checks that it is of this fit, and keeps it locked.

    Returns:
      The last state's number, and the folder's id.
    """
    file = path / DESCRIPTION
    if path.exists() and not file.is_file() and (not path.is_dir() or _others(path)):
        raise ValueError(
            f"{path} holds no {DESCRIPTION}, so it is no folder of checkpoints: name another"
        )
    path.mkdir(exist_ok=True)
    locked = held.enter_context(_locked(path))
    if not file.exists():
        text = json.dumps(description | {ID: uuid.uuid4().hex}, indent=1) + "\n"
        (path / UNFINISHED).write_text(text, encoding="utf-8")
        os.replace(path / UNFINISHED, file)
    try:
        found = parse_json(_read_small(file))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: name another folder for checkpoints") from error
    for name in description:
        if name != DEFAULTS and (difference := _difference(name, found, description)):
            raise ValueError(
                f"{path} keeps another fit: its {difference}; name another folder for checkpoints"
            )
    half_written = [
        entry
        for entry in path.iterdir()
        if re.match(rf"[0-9]+{re.escape(HALF_WRITTEN)}", entry.name)
    ]
    if locked:  # nobody is at work on them: a run that was killed left them behind
        for half in half_written:
            shutil.rmtree(half)
        half_written = []
    numbers = [int(half.name.split(".")[0]) for half in half_written]
    return max(_states(path) + numbers, default=-1), str(found.get(ID))


def _others(path: Path) -> bool:
    """Whether a folder holds what a fit that has just made it does not leave there."""
    return any(entry.name not in (LOCK, UNFINISHED) for entry in path.iterdir())


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Keeps the folder for this fit; false where the disk or the system has no locks.

    The system gives a lock free when its process ends, however it does.
    """
    try:
        import fcntl  # no locks on systems without it
    except ImportError:
        yield False
        return
    with contextlib.ExitStack() as closing:
        mode = "r"  # what is open for writing keeps a disk from being remounted
        while True:
            open(path / LOCK, "a").close()
            file = closing.enter_context(
                open(path / LOCK, mode, encoding="utf-8", errors="replace")
            )
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = one_line(ValueError(file.read(MOST_BYTES).strip() or "a process"))
                raise ValueError(
                    f"another fit is at work in {path} ({holder}): wait for it, or name another"
                    " folder for checkpoints"
                ) from error
            except OSError as error:
                if error.errno == errno.EBADF and mode == "r":  # NFS locks what may be written
                    mode = "r+"
                    continue
                yield False  # a disk without locks
                return
            try:  # unless its holder removed it meanwhile
                if os.path.samestat(os.fstat(file.fileno()), os.stat(path / LOCK)):
                    break
            except FileNotFoundError:
                pass
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        holder = f"process {os.getpid()} on {socket.gethostname()}, since {since}\n"
        (path / LOCK).write_text(holder, encoding="utf-8")
        try:
            yield True
        finally:
            with contextlib.suppress(OSError):
                os.remove(path / LOCK)


def _check_seen(path: Path, found_by_first: str) -> None:
    """Raises ValueError in a process that does not see the folder that the first one made."""
    try:
        seen = parse_json(_read_small(path / DESCRIPTION)).get(ID)
    except (OSError, ValueError, RecursionError):
        seen = None
    if str(seen) != found_by_first:
        raise ValueError(
            f"{path} is not the folder of checkpoints that process 0 sees under that name: all"
            " processes need one folder on a disk that they share"
        )


def _difference(name: str, found: dict[str, Any], here: dict[str, Any]) -> str | None:
    """Why an entry of two descriptions says that they are of two fits; None where it does not."""
    was: Any = found.get(name)
    now = here[name]
    said = f"{name} is {_short(was)}, and here it is {_short(now)}"
    try:
        if name == SKETCH:
            return None if np.allclose(was, now, rtol=0, atol=TOLERANCE) else said
        if name == STAGES:
            pairs = zip(was, now, strict=False)
            differing = (
                f"stage is {_short(a)}, and here it is {_short(b)}" for a, b in pairs if a != b
            )
            return next(differing, None)
        if name == SOLVER:
            was = here[DEFAULTS] | was
            differing = (
                f"{key} is {_short(was.get(key))}, and here it is {_short(value)}"
                for key, value in now.items()
                if was.get(key) != value
            )
            return next(differing, None)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
        return said
    return None if was == now else said


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:200] + "…"


def _plain(value: Any) -> Any:
    """What JSON has no word for: numbers of NumPy and JAX, and the rest as it is written."""
    return value.item() if hasattr(value, "item") and np.ndim(value) == 0 else repr(value)


def _states(path: Path) -> list[int]:
    """The numbers of those in a folder, the newest at last."""
    return sorted(
        int(entry.name) for entry in path.iterdir() if re.fullmatch("0|[1-9][0-9]*", entry.name)
    )


def _newest(path: Path) -> int | None:
    """The number of the newest state, once it is known that it is as it was written."""
    states = _states(path)
    if not states:
        return None
    state = path / str(states[-1])
    try:
        text = _read_small(state / CHECKSUMS)
        expected = {
            name: sha256 for sha256, name in (line.split("  ", 1) for line in text.split("\n")[:-1])
        }
    except (OSError, ValueError) as error:
        raise _damaged(state, f"{CHECKSUMS} cannot be read") from error
    found = set(_files(state))
    for name in sorted(expected.keys() | found):
        if name not in expected:
            raise _damaged(state, f"{CHECKSUMS} does not name {_short(name)}")
        if name not in found:
            raise _damaged(state, f"{_short(name)} is missing")
        if _sha256(state / name) != expected[name]:
            raise _damaged(state, f"{name} is not as it was written")
    return states[-1]


def _check_shapes(found: Any, wanted: Any) -> None:
    """Raises ValueError unless arrays that were saved are as wanted, before memory is taken."""
    found, wanted = _described(found), _described(wanted)
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise ValueError(f"{name} is {found.get(name)}, not {wanted.get(name)}")


def _described(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of each array, by its name."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): (tuple(leaf.shape), str(leaf.dtype))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _read_small(file: Path) -> str:
    """The text of a file that is never large."""
    with open(file, "rb") as stream:
        data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes")
    return data.decode("utf-8")


def _damaged(state: Path, reason: str) -> ValueError:
    return ValueError(
        f"the checkpoint {state} is damaged ({one_line(ValueError(reason))}): delete that folder to"
        " go on from the one before, or name another folder for checkpoints"
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
        reason = "the disk is full" if full else one_line(error)
        before = False
        with contextlib.suppress(OSError):
            before = bool(_states(path))
        rest = (
            "the one before is whole, and the same fit goes on from it later"
            if before
            else "there is none before it"
        )
        raise OSError(f"the checkpoint in {path} cannot be written ({reason}); {rest}") from error
