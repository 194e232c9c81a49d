"""Files and folders that are written whole or not at all, and never over others unasked.

A file may also be an object at a URI (gs://bucket/curve.npz), whose put is one step.
"""

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import sfvq_jax
from sfvq_jax.lazy import objects_at

UNFINISHED = ".unfinished"  # ends the names of folders in which outputs are made
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def new_file(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what is written there becomes `path` at the end.

    A link is followed: the file that it names is made or replaced. That of a URI is put at the end.

    Raises:
      OSError: what `check_free` raises, or the disk is full.
    """
    if (objects := objects_at(path)) is not None:
        if not overwrite and objects.is_object(str(path)):
            raise _exists(path)
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / str(path).rpartition("/")[2]
            yield temporary
            objects.put_object(str(path), temporary.read_bytes(), overwrite=overwrite)
        return
    _check_name(path, overwrite=overwrite)
    target = followed(path)
    with told_by_name(path), _unfinished(target) as folder:
        temporary = folder / target.name
        yield temporary
        if overwrite:
            os.replace(temporary, target)
        else:
            _move_to_free(temporary, path, target)


@contextlib.contextmanager
def new_folder(path: str | Path, *, marker: str, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; it becomes `path` at the end.

    With `overwrite` an existing folder is replaced as a whole once the new one is complete, but
    only one of the same kind: `marker` is a file that all such folders hold.

    Raises:
      OSError: what `check_free` raises, or the disk is full.
    """
    _check_name(path, overwrite=overwrite, marker=marker)
    target = followed(path)
    with told_by_name(path), _unfinished(target) as folder:
        temporary, old = folder / "new", folder / "old"
        temporary.mkdir()
        yield temporary
        try:
            if overwrite and target.exists():
                os.replace(target, old)
            os.replace(temporary, target)
        except BaseException:  # an interrupt between the two must not take the old one along
            if old.exists() and not target.exists():
                os.replace(old, target)
            raise


def check_free(
    path: str | Path,
    *,
    overwrite: bool = False,
    marker: str | None = None,
    endings: Sequence[str] = (),
    size: int = 0,
) -> None:
    """Raises before the work is done what would keep its output from being written after it.

    A little is written beside `path` and removed again.

    Args:
      path: of a file or, with a marker, of a folder.
      overwrite: what is there may be replaced.
      marker: a file that all folders of this kind hold.
      endings: of the file's name, if only these are known.
      size: bytes that will be written, as far as that is known.

    Raises:
      ValueError: the name has another ending.
      FileExistsError: `path` exists, and `overwrite` is false or it does not hold `marker`.
      FileNotFoundError: its folder does not exist.
      OSError: it is neither file nor folder, its folder cannot be written, or the disk is full.
    """
    if endings and Path(path).suffix.lower() not in endings:
        known = ", ".join(endings[:-1]) + " or " * (len(endings) > 1) + endings[-1]
        raise ValueError(f"{path} is to be written, but its name does not end in {known}")
    if objects_at(path) is not None:
        _check_free_object(str(path), overwrite=overwrite, marker=marker)
        return
    _check_name(path, overwrite=overwrite, marker=marker)
    target = followed(path)
    check_space(path, size)
    with told_by_name(path):
        try:
            with _unfinished(target) as folder:
                (folder / target.name).write_bytes(bytes(4096))
        except OSError as error:
            if error.errno in _FULL:
                raise
            raise type(error)(
                f"{path} cannot be written in {target.parent}"
                f" ({(error.strerror or str(error)).lower()}): name another place"
            ) from error


def _check_free_object(uri: str, *, overwrite: bool, marker: str | None) -> None:
    """The same of a URI; of folders only arrays of zarr, since the others need a rename."""
    objects = objects_at(uri)
    if marker not in (None, objects.ZARR):
        raise ValueError(f"{uri} is to be a folder of files, which only a disk holds: name a path")
    if not overwrite and objects.is_object(uri if marker is None else f"{uri}/{marker}"):
        raise _exists(uri)
    objects.put_object(uri + UNFINISHED, b"", overwrite=True)
    objects.delete_object(uri + UNFINISHED)


def _exists(path: str | Path) -> FileExistsError:
    return FileExistsError(f"{path} exists already: choose another name or pass overwrite=True")


def check_space(path: str | Path, size: int) -> None:
    """Raises OSError unless the disk on which `path` will lie has so many bytes left."""
    if objects_at(path) is not None:
        return
    folder = followed(path).parent
    while not folder.exists():  # which a later check names, where it is to be there
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(f"{path} takes {size:,} bytes, and its disk has {free:,} left: free some")


def followed(path: str | Path) -> Path:
    """Where a path leads, links followed: what is there is written, and no link replaced."""
    return Path(os.path.realpath(path))


def _check_name(path: str | Path, *, overwrite: bool, marker: str | None = None) -> None:
    """Raises what `check_free` raises, but for what only writing tells."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    except NotADirectoryError as error:
        raise NotADirectoryError(f"{path} would lie in a file: name another place") from error
    except OSError as error:  # too long a name, a link to itself, a folder that is not ours to see
        raise type(error)(f"{path} cannot be written: {error.strerror}") from error
    if marker is None and (os.fspath(path).endswith(os.sep) or (mode and stat.S_ISDIR(mode))):
        raise IsADirectoryError(f"{path} is a folder: name a file")
    if mode and not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise FileExistsError(f"{path} is a device or a pipe: name a file")
    if marker is not None and mode and stat.S_ISREG(mode):
        raise NotADirectoryError(f"{path} is a file: name a folder")
    if mode and not overwrite:
        raise _exists(path)
    if mode and marker is not None and not (Path(path) / marker).exists():
        raise FileExistsError(
            f"{path} holds no {marker}, so it is of another kind and is not replaced: choose"
            " another name"
        )
    folder = followed(path).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} of {Path(path).name} does not exist")


@contextlib.contextmanager
def told_by_name(path: str | Path) -> Iterator[None]:
    """That the disk is full, by the name of what cannot be written: errors of a write have none."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise OSError(f"{path} cannot be written: the disk is full") from error
        raise


def _move_to_free(temporary: Path, path: str | Path, target: Path) -> None:
    """Not over what another process wrote since the name was free."""
    try:
        os.link(temporary, target)
    except FileExistsError as error:
        raise FileExistsError(f"{path} was written meanwhile by another process") from error
    except OSError:  # a disk without hard links
        os.replace(temporary, target)


@contextlib.contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """A folder beside the target for what is not finished, removed at the end.

    This process keeps it locked. One that nobody holds is what a killed process left behind: the
    next that writes the same target removes it.
    """
    prefix = f".{target.name[:40]}."
    with contextlib.suppress(OSError):  # a folder that may be written, but not listed
        for name in os.listdir(target.parent):
            if name.startswith(prefix) and name.endswith(UNFINISHED):
                _remove_unheld(target.parent / name)
    while True:
        with tempfile.TemporaryDirectory(
            dir=target.parent, prefix=prefix, suffix=UNFINISHED, ignore_cleanup_errors=True
        ) as name:
            folder = Path(name)
            with locked(folder) as held:
                if held is False:  # taken for one left behind, before it was locked
                    continue
                yield folder
                return


def _remove_unheld(folder: Path) -> None:
    with locked(folder) as held:
        if held:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[bool | None]:
    """Locks a folder: whether it is there and was free, or None where that cannot be known."""
    try:
        import fcntl  # no lock on systems without it

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, PermissionError):
        yield None
        return
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.path.samestat(os.fstat(descriptor), os.stat(folder))
        except (BlockingIOError, FileNotFoundError):
            held = False
        except OSError:  # a disk without locks
            held = None
        yield held
    finally:
        os.close(descriptor)


def library_version() -> str:
    """Of this library, for what it writes."""
    return sfvq_jax.__version__
