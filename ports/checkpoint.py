"""The converted form of a model on disk: a folder with `config.json` and its parameters.

folder/
  config.json   what it is, where it comes from, and the hashes of this and of all that follows
  parameters/   an Orbax checkpoint of NumPy arrays, which loads on any number of devices
"""

import concurrent.futures
import hashlib
import importlib.metadata
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import flax
import jax
import numpy as np
import orbax.checkpoint as ocp

from ports.architectures import ARCHITECTURES
from ports.errors import CheckpointError, quoted, shown
from sfvq_jax.io.output import new_folder
from sfvq_jax.io.reading import INFLATION, SLACK, one_line, parse_json
from sfvq_jax.short import short_repr

FORMAT_VERSION = 2  # since 2 config.json has a hash of itself


class Converted(NamedTuple):
    """A generator out of an upstream checkpoint, as the converters hand it on.

    Attributes:
      architecture: one of `ARCHITECTURES`.
      config: its dataclass, which has `to_json`.
      variables: the trees of its `network.py`, nested dicts of float32 arrays.
      source: where it comes from, ready for JSON: `format`, and what only this format can say.
    """

    architecture: str
    config: Any
    variables: dict
    source: dict

    __repr__ = short_repr


class Checkpoint(NamedTuple):
    """What a folder holds.

    Attributes:
      config_json: the parsed `config.json`: `architecture`, `config`, `source`, `versions`,
        `parameters_sha256`, `sha256` of the whole file but this, and more.
      variables: nested dicts of NumPy arrays.
    """

    config_json: dict
    variables: dict

    __repr__ = short_repr


def save(
    path: str | Path,
    architecture: str,
    config: dict,
    variables: dict,
    *,
    source: dict,
    overwrite: bool = False,
) -> None:
    """Writes a model to the folder `path`, which is whole afterwards or as it was before.

    Args:
      path: a folder that does not exist yet, in one that does.
      architecture: one of `ARCHITECTURES`.
      config: fields of the architecture's config, ready for JSON.
      variables: nested dicts of arrays.
      source: where the parameters come from, ready for JSON.
      overwrite: replace a converted model at `path`, once the new one is whole.

    Raises:
      CheckpointError: where `path` exists and may not be replaced, or its parent does not exist.
    """
    if architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"architecture is {architecture!r}; known are {', '.join(ARCHITECTURES)}"
        )
    check_free(path, overwrite=overwrite)
    try:
        with new_folder(path, marker="config.json", overwrite=overwrite) as temporary:
            _write(temporary, architecture, config, variables, source)
    except Exception as error:  # Orbax has no error type of its own, and says a page
        full = any(words in str(error) for words in ("No space left", "quota exceeded", "is full"))
        reason = "the disk is full" if full else str(error).strip().split("\n")[0][:200]
        raise CheckpointError(f"{path} cannot be written: {reason}") from error


def check_free(path: str | Path, *, overwrite: bool = False) -> None:
    """Raises CheckpointError where `save` could not write to `path`."""
    path = Path(path).absolute()
    if path.exists() and not overwrite:
        raise CheckpointError(
            f"{path} exists already; choose another name or pass --overwrite (overwrite=True)"
        )
    if path.exists() and not (path / "config.json").is_file():
        raise CheckpointError(f"{path} is no converted model, so it is not overwritten")
    if not path.parent.is_dir():
        raise CheckpointError(f"{path.parent} does not exist, so nothing can be saved in it")


def is_converted(path: str | Path) -> bool:
    """Whether `path` is a folder that `save` wrote, be it damaged."""
    path = Path(path)
    return path.is_dir() and (path / "config.json").is_file() and (path / "parameters").is_dir()


def read(path: str | Path, check: Callable[[dict, dict], object] | None = None) -> Checkpoint:
    """The model in the folder `path`, with every byte checked against its hashes.

    Args:
      path: the folder.
      check: raises CheckpointError where the first argument, the parsed `config.json`, does not
        belong to the second, the parameters' shapes: nested dicts of what has `shape` and `dtype`.
        It is called before the parameters are read.

    Raises:
      CheckpointError: where the folder is missing, is no converted model, is damaged, or was
        written by a newer version.
    """
    path = Path(path).absolute()
    config_json = _read_config(path)
    size = _check_files(path / "parameters", config_json["files"])
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            metadata = checkpointer.metadata(path / "parameters").item_metadata
            if metadata is None:
                raise ValueError("Orbax finds no description of them")
            shapes = metadata.tree
            _check_size(shapes, size)
            if check is not None:
                check(config_json, shapes)
            _check_seal(config_json)
            variables = checkpointer.restore(path / "parameters")
        digest = parameters_sha256(variables)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # Orbax has no error type of its own
        raise CheckpointError(
            f"the parameters in {path} cannot be read: {one_line(error)}"
        ) from error
    if digest != config_json["parameters_sha256"]:
        raise CheckpointError(f"the parameters in {path} are not those that config.json describes")
    return Checkpoint(config_json, variables)


def parameters_sha256(variables: dict) -> str:
    """The model hash: SHA-256 over the sorted paths, dtypes, shapes and contents of all arrays.

    It ties curves and directions to the model that they were made with.
    """
    digest = hashlib.sha256()
    for name, leaf in sorted(_leaves(variables), key=lambda leaf: leaf[0]):
        array = np.asarray(leaf)
        digest.update(f"{name}\0{array.dtype.name}\0{array.shape}\0".encode())
        little_endian = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        digest.update(little_endian.tobytes())
    return digest.hexdigest()


def _leaves(tree: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, branch in tree.items():
        if isinstance(branch, dict):
            yield from _leaves(branch, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", branch


def _write(folder: Path, architecture: str, config: dict, variables: dict, source: dict) -> None:
    parameters = folder / "parameters"
    arrays = jax.tree.map(np.asarray, variables)
    # Orbax writes in threads of its own, which an interrupt would not stop: in a thread of ours,
    # the interrupt waits until they are done.
    with (
        ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer,
        concurrent.futures.ThreadPoolExecutor(1) as executor,
    ):
        tree = ocp.args.PyTreeSave(arrays)
        executor.submit(checkpointer.save, parameters, args=tree).result()
    # says only where the folder was when it was written
    (parameters / "commit_success.txt").unlink(missing_ok=True)
    config_json = {
        "format_version": FORMAT_VERSION,
        "architecture": architecture,
        "config": config,
        "source": source,
        "versions": _versions(),
        "parameters_sha256": parameters_sha256(arrays),
        "files": _file_hashes(parameters),
    }
    config_json["sha256"] = _seal(config_json)
    text = json.dumps(config_json, indent=2, allow_nan=False) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")


def _versions() -> dict[str, str]:
    try:
        own = importlib.metadata.version("sfvq-jax")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        own = "unknown"
    return {
        "sfvq_jax": own,
        "jax": jax.__version__,
        "flax": flax.__version__,
        "orbax": ocp.__version__,
    }


def _file_hashes(folder: Path) -> dict[str, str]:
    """{path in the folder: SHA-256} of all files in it."""
    hashes = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            hashes[file.relative_to(folder).as_posix()] = digest
    return hashes


def _read_config(path: Path) -> dict:
    if path.is_file():
        raise CheckpointError(f"{path} is a file; expected the folder of a converted model")
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    file = path / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{path} has no config.json, so it is no converted model")
    try:
        config_json = parse_json(file.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {one_line(error)}") from error
    version = config_json.get("format_version")
    if type(version) is not int or version < 1:
        raise CheckpointError(f"{file} has no format_version, so it is no converted model")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format_version {version}, and this sfvq-jax reads up to {FORMAT_VERSION}; "
            "update sfvq-jax"
        )
    for name, kind in _FIELDS.items():
        if not isinstance(config_json.get(name), kind):
            raise CheckpointError(f"{file} is damaged, its {name} is missing or wrong")
    if config_json["architecture"] not in ARCHITECTURES:
        raise CheckpointError(
            f"{path} is a {shown(config_json['architecture'])}; this sfvq-jax"
            f" knows {', '.join(ARCHITECTURES)}"
        )
    return config_json


_FIELDS = {
    "architecture": str,
    "config": dict,
    "source": dict,
    "versions": dict,
    "parameters_sha256": str,
    "files": dict,
}


def _check_files(folder: Path, expected: dict[str, str]) -> int:
    """That the files are as they were saved: Orbax's own errors would not say which is not.

    Returns:
      Their size in bytes.
    """
    found = _file_hashes(folder)
    for name, digest in expected.items():
        file = folder / quoted(name)
        if name not in found:
            raise CheckpointError(f"{file} is missing; copy or convert the model again")
        if found[name] != digest:
            raise CheckpointError(f"{file} is damaged; copy or convert the model again")
    return sum((folder / name).stat().st_size for name in expected)


def _check_size(shapes: dict, size: int) -> None:
    """That arrays and the pieces they are kept in are not far larger than files of that size."""
    total = 0
    for name, array in _leaves(shapes):
        pieces = array.storage.chunk_shape if array.storage is not None else array.shape
        largest = max(math.prod(array.shape), math.prod(pieces))
        total += largest * np.dtype(array.dtype).itemsize
        if total > INFLATION * size + SLACK:
            raise CheckpointError(
                f"{quoted(name)} would take {largest:,} numbers, far more than its files hold"
            )


def _seal(config_json: dict) -> str:
    """The SHA-256 of all else that `config.json` says."""
    others = {name: value for name, value in config_json.items() if name != "sha256"}
    text = json.dumps(others, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _check_seal(config_json: dict) -> None:
    unsealed = config_json["format_version"] == 1 and "sha256" not in config_json
    if not unsealed and config_json.get("sha256") != _seal(config_json):
        raise CheckpointError("config.json is damaged, it is not as it was written")
