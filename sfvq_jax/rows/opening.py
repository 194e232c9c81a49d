"""Rows of a path or a URI: the table of what can be read."""

import os
from collections.abc import Callable
from pathlib import Path

from sfvq_jax.io.store import is_remote
from sfvq_jax.rows.npy import npy_rows
from sfvq_jax.rows.parts import Parts, in_parallel, is_pattern, listed
from sfvq_jax.rows.raw import LAYOUTS, raw_rows
from sfvq_jax.rows.rows import Rows
from sfvq_jax.rows.zarr import METADATA, zarr_rows


def _parquet(path: str, name: str) -> Rows:
    try:
        from sfvq_jax.rows.parquet import parquet_rows
    except ImportError as error:
        raise _missing(path, "parquet", "pyarrow") from error
    return parquet_rows(path, name)


def _hdf5(path: str, name: str) -> Rows:
    try:
        from sfvq_jax.rows.hdf5 import hdf5_rows
    except ImportError as error:
        raise _missing(path, "hdf5", "h5py") from error
    return hdf5_rows(path, name)


def _missing(path: str, extra: str, package: str) -> ValueError:
    return ValueError(
        f"{path} takes the package {package}, which is not installed: pip install"
        f" 'sfvq-jax[{extra}]'"
    )


# of a suffix, what opens a path or URI and the name after #, "" where there is none
KINDS: dict[str, Callable[[str, str], Rows]] = {
    **dict.fromkeys(LAYOUTS, raw_rows),
    ".zarr": zarr_rows,
    ".parquet": _parquet,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
}


def open_rows(uri: str | Path) -> Rows:
    """Rows that lie in a file, an object, or many of them.

    Args:
      uri: a path, or gs://, s3:// or http(s)://, that ends in one of `KINDS`, `#NAME` after it
        for an array of several; a folder of such files, or a pattern such as embs/part_*.npy, whose
        rows come one after another in the order of their names, 2 before 10.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: what cannot be read, or is damaged.
    """
    path, name = split_name(str(uri))
    if is_pattern(path):
        return _parts(str(uri), path, name)
    if _suffix(path) in KINDS:
        return KINDS[_suffix(path)](path, name)
    if not is_remote(path) and not os.path.isdir(path):
        return npy_rows(path)
    if not is_remote(path) and any(os.path.exists(os.path.join(path, file)) for file in METADATA):
        return zarr_rows(path, name)
    return _parts(str(uri), path, name)


def holds_rows(uri: str) -> bool:
    """Whether a name says that it is of rows; that it can be read is not looked at."""
    path, _ = split_name(uri)
    if is_remote(path) or is_pattern(path) or _suffix(path) in KINDS:
        return True
    files = os.listdir(path) if os.path.isdir(path) else []
    if "config.json" in files:  # a model's folder
        return False
    return any(file in METADATA or _suffix(file) in KINDS for file in files)


def _suffix(path: str) -> str:
    return os.path.splitext(path.rstrip("/"))[1].lower()


def split_name(uri: str) -> tuple[str, str]:
    """A path or URI, and the name of an array after #."""
    if not is_remote(uri) and os.path.exists(uri):
        return uri, ""
    path, _, name = uri.partition("#")
    return path, name


def _parts(uri: str, path: str, name: str) -> Rows:
    files = listed(path, list(KINDS))
    if not files:
        raise FileNotFoundError(
            f"there is nothing to read in {uri}; latents lie in files of {', '.join(sorted(KINDS))}"
        )
    named = [f"{file}#{name}" if name else file for file in files]
    return Parts(in_parallel(open_rows, named), named)
