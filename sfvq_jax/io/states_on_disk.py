"""States of a fit in a folder of a disk (Orbax), which keeps them from halves and from two fits.

Each state is a folder with a number for its name. Orbax writes it in the background, to a folder of
another name that it renames at the end, so that a state is whole or absent. `SHA256SUMS` in each
names its files, and `sha256sum -c` checks them too. While a fit is at work, it keeps `fit.lock`
locked.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from sfvq_jax.io.reading import one_line, parse_json
from sfvq_jax.io.states import (
    ABOUT,
    DESCRIPTION,
    ID,
    KEPT,
    MOST_BYTES,
    check_same_fit,
    check_shapes,
    damaged,
    no_checkpoints,
    short,
)
from sfvq_jax.processes import as_first_process

CHECKSUMS, LOCK = "SHA256SUMS", "fit.lock"
UNFINISHED = DESCRIPTION + ".unfinished"
HALF_WRITTEN = ".orbax-checkpoint-tmp"  # in the name of a state that is being written
UNCHECKED = {CHECKSUMS, "_CHECKPOINT_METADATA", "commit_success.txt"}  # Orbax writes them at last


class StatesOnDisk:
    """As `States`."""

    def __init__(self, folder: Path):
        self._path = folder.absolute()
        self.place = str(self._path)
        self._number, self._about = 0, ""  # of the state that is being written

    @property
    def some(self) -> bool:
        return bool(_states(self._path))

    def claim(self, description: dict[str, Any], held: contextlib.ExitStack) -> list:
        """Keeps the folder locked, too."""
        return [*_claim(self._path, description, held)]

    def join(self, claimed: list) -> None:
        _check_seen(self._path, claimed[1])
        options = ocp.AsyncOptions(
            post_finalization_callback=self._seal,
            # or a folder that cannot be made leaves threads that wait for it, for minutes
            create_directories_asynchronously=False,
        )
        self._orbax = ocp.StandardCheckpointer(async_options=options)

    def newest(self) -> str | None:
        return _newest(self._path)

    def about(self, name: str) -> str:
        return _read_small(self._path / name / ABOUT)

    def read(self, name: str, wanted: Any) -> Any:
        metadata: Any = self._orbax.metadata(self._path / name).item_metadata
        check_shapes(metadata.tree, wanted)
        return self._orbax.restore(self._path / name, wanted)

    def write(self, number: int, arrays: Any, about: str) -> None:
        self._number, self._about = number, about
        self._orbax.save(self._path / str(number), arrays)

    def look(self) -> None:
        """Nothing: what is written is renamed in the background."""

    def wait(self) -> None:
        self._orbax.wait_until_finished()
        as_first_process(lambda: _delete_old(self._path))

    def close(self) -> None:
        self._orbax.close()

    def _seal(self) -> None:
        """In the first process, once all have written their parts, before Orbax renames them."""
        (folder,) = self._path.glob(f"{self._number}{HALF_WRITTEN}*")
        (folder / ABOUT).write_text(self._about, encoding="utf-8")
        lines = [f"{_sha256(folder / name)}  {name}\n" for name in _files(folder)]
        (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def _claim(path: Path, description: dict[str, Any], held: contextlib.ExitStack) -> tuple[int, str]:
    """Makes the folder, or checks that it is of this fit, and keeps it locked.

    Returns:
      The last state's number, and the folder's id.
    """
    file = path / DESCRIPTION
    if path.exists() and not file.is_file() and (not path.is_dir() or _others(path)):
        raise no_checkpoints(str(path))
    path.mkdir(exist_ok=True)
    locked = held.enter_context(_locked(path))
    if not file.exists():
        text = json.dumps(description | {ID: uuid.uuid4().hex}, indent=1) + "\n"
        (path / UNFINISHED).write_text(text, encoding="utf-8")
        os.replace(path / UNFINISHED, file)
    text = None
    with contextlib.suppress(OSError, ValueError):
        text = _read_small(file)
    found = check_same_fit(str(path), text, description)
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


def _states(path: Path) -> list[int]:
    """The numbers of those in a folder, the newest at last."""
    return sorted(
        int(entry.name) for entry in path.iterdir() if re.fullmatch("0|[1-9][0-9]*", entry.name)
    )


def _newest(path: Path) -> str | None:
    """The name of the newest state, once it is known that it is as it was written."""
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
        raise damaged(str(state), f"{CHECKSUMS} cannot be read") from error
    found = set(_files(state))
    for name in sorted(expected.keys() | found):
        if name not in expected:
            raise damaged(str(state), f"{CHECKSUMS} does not name {short(name)}")
        if name not in found:
            raise damaged(str(state), f"{short(name)} is missing")
        if _sha256(state / name) != expected[name]:
            raise damaged(str(state), f"{name} is not as it was written")
    return state.name


def _read_small(file: Path) -> str:
    """The text of a file that is never large."""
    with open(file, "rb") as stream:
        data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes")
    return data.decode("utf-8")


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
