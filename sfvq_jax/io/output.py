"""Files and folders that are written whole or not at all, and never over others unasked."""

import contextlib
import importlib.metadata
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def new_file(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what is written there becomes `path` at the end.

    Raises:
      FileExistsError: `path` exists and `overwrite` is false.
      FileNotFoundError: its folder does not exist.
    """
    path = Path(path)
    check_free(path, overwrite=overwrite)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        os.replace(temporary, path)


@contextlib.contextmanager
def new_folder(path: str | Path, *, marker: str, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; it becomes `path` at the end.

    With `overwrite` an existing folder is replaced as a whole once the new one is complete, but
    only one of the same kind: `marker` is a file that all such folders hold.

    Raises:
      FileExistsError: `path` exists, and `overwrite` is false or it does not hold `marker`.
      FileNotFoundError: its parent does not exist.
    """
    path = Path(path)
    check_free(path, overwrite=overwrite, marker=marker)
    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / "new"
        temporary.mkdir()
        yield temporary
        old = Path(folder) / "old"
        try:
            if path.exists():
                os.replace(path, old)
            os.replace(temporary, path)
        except BaseException:  # an interrupt between the two must not take the old one along
            if old.exists() and not path.exists():
                os.replace(old, path)
            raise


def check_free(path: str | Path, *, overwrite: bool = False, marker: str | None = None) -> None:
    """Raises what `new_file` and, with a marker, `new_folder` raise, before the work is done."""
    path = Path(path)
    if marker is None and path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file")
    if marker is not None and path.is_file():
        raise NotADirectoryError(f"{path} is a file: name a folder")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already: choose another name or pass overwrite=True")
    if marker is not None and path.exists() and not (path / marker).exists():
        raise FileExistsError(
            f"{path} holds no {marker}, so it is of another kind and is not replaced: choose"
            " another name"
        )
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(
            f"the folder {path.absolute().parent} of {path.name} does not exist"
        )


def check_format(path: str | Path, version: int, newest: int) -> None:
    """Raises ValueError for a file of a format that a later version of this library writes."""
    if version > newest:
        raise ValueError(f"{path} has format {version}; this version reads up to {newest}")


def library_version() -> str:
    """Of this library, for what it writes."""
    try:
        return importlib.metadata.version("sfvq-jax")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "unknown"
