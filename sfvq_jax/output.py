"""Files and folders that are written whole or not at all, and never over others unasked."""

import contextlib
import os
import shutil
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
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        os.replace(temporary, path)


@contextlib.contextmanager
def new_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; it becomes `path` at the end.

    With `overwrite` an existing folder is replaced as a whole once the new one is complete.

    Raises:
      FileExistsError: `path` exists and `overwrite` is false.
      FileNotFoundError: its parent does not exist.
    """
    path = Path(path)
    check_free(path, overwrite=overwrite)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is a file: name a folder")
    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / "new"
        temporary.mkdir()
        yield temporary
        if path.exists():
            os.replace(path, Path(folder) / "old")
        shutil.move(temporary, path)


def check_free(path: str | Path, *, overwrite: bool = False) -> None:
    """Raises what `new_file` and `new_folder` raise, before the work is done."""
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already: choose another name or pass --overwrite")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(
            f"the folder {path.absolute().parent} of {path.name} does not exist"
        )
