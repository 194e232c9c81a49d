"""Reads every checkpoint that PyTorch code or a pickle holds, without running what is in it.

A pickle is a program that can name any Python function and call it. Here a name is only ever looked
up in the table `_NAMES`, whose entries are our own constructors; every other name is refused before
anything is called. Tensors become NumPy arrays. What a file may cost is settled before it is built:
the opcodes are counted, and sizes that a file states are compared with the bytes that it has.
"""

import io
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from ports import records, tensors
from ports.archive import read_archive
from ports.errors import CheckpointError, quoted
from ports.limits import check_content, check_opcodes
from ports.records import PersistentObject, Record, TensorFlowNetwork
from ports.tensors import STORAGE_TYPES, Storage

__all__ = ["CheckpointError", "PersistentObject", "Record", "TensorFlowNetwork", "read"]


def read(path: str | Path) -> Any:
    """What a checkpoint holds: dicts, lists, tuples, sets, numbers, text, NumPy arrays, records.

    Tensors and parameters are arrays, bfloat16 as float32; ordered and default dicts and EasyDicts
    are dicts; types, such as torch.float32, and paths are text; a device is a tuple. Objects are a
    `PersistentObject` or a `Record`, of which `TensorFlowNetwork` is one. Arrays are read-only
    views into what was read, or copies; they may be strided, unaligned and of any numeric type.
    Nothing holds itself, and nothing lies deeper than 100 levels.

    >>> read("network.pkl")
    Traceback (most recent call last):
    ports.errors.CheckpointError: network.pkl does not exist; check the name of the file

    Args:
      path: a file of `torch.save`, in its present form (a zip archive) or that from before PyTorch
        1.6; or of `pickle.dump`, protocol 0 to 5.

    Raises:
      CheckpointError: where there is no such file, it is damaged or of another kind, it asks for a
        name that checkpoints have no use for, or for far more memory than it has bytes.
    """
    try:
        data = _read_file(Path(path))
        content = _read_zip(data) if data[:2] == b"PK" else _read_pickles(data, _NAMES)
        check_content(content, len(data))
        return content
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from error
    except MemoryError:
        raise CheckpointError(f"{path} does not fit in this machine's memory") from None
    except Exception as error:  # whatever a damaged file makes pickle, zlib or NumPy raise
        what = f"{type(error).__name__}: {quoted(str(error), 120)}"
        raise CheckpointError(f"{path} is damaged; download or copy it again ({what})") from error


def _read_file(path: Path) -> bytes:
    # Not a memory map: of a file that changes meanwhile, what was checked must be what is used.
    try:
        if path.exists() and not path.is_file():
            what = "folder" if path.is_dir() else "device or a pipe"
            raise CheckpointError(f"is a {what}; expected a file such as network.pkl")
        data = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError("does not exist; check the name of the file") from None
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}") from error
    if not data:
        raise CheckpointError("is empty; download or copy it again")
    for start, place, what in _OTHER_FILES:
        if data.startswith(start, place):
            raise CheckpointError(f"is {what}, where a checkpoint in PyTorch's format was expected")
    if data.startswith(b'{"', 8) and int.from_bytes(data[:8], "little") < len(data):
        raise CheckpointError(
            "is a safetensors file, where a checkpoint in PyTorch's format was expected"
        )
    return data


_OTHER_FILES = (
    (b"<", 0, "a web page (the download failed)"),
    (b"version https://git-lfs", 0, "a Git LFS pointer (fetch the file itself)"),
    (b"ustar", 257, "a tar archive (PyTorch's format before version 0.2; save it anew)"),
    (b"\x1f\x8b", 0, "compressed by gzip (unpack it)"),
    (b"\x89HDF", 0, "an HDF5 file"),
    (b"\x93NUMPY", 0, "one NumPy array"),
)


# --- PyTorch's containers ---------------------------------------------------------------------


def _read_zip(data: bytes) -> Any:
    """The object in an archive of `torch.save`.

    It is FOLDER/data.pkl, whose tensors refer by a key to FOLDER/data/KEY, a storage's bytes.
    """
    contents = read_archive(data)
    folder = _find_folder(contents)
    if bytes(contents.get(f"{folder}/byteorder", b"little")) != b"little":
        raise CheckpointError("was saved on a big-endian machine; save it anew on another")
    storages: dict[str, Storage] = {}

    def load_storage(pid: Any) -> Storage:
        kind, type_name, key, _, size = pid
        if kind != "storage" or not isinstance(key, str):
            raise CheckpointError("holds a tensor of an unknown kind")
        storage = _find_storage(storages, key, type_name, size)
        if f"{folder}/data/{key}" not in contents:
            raise CheckpointError(f"lacks the numbers data/{quoted(key)}; download it again")
        if storage is not storages.get(key):
            storage.fill(contents[f"{folder}/data/{key}"])
            storages[key] = storage
        return storage

    stream = io.BytesIO(bytes(contents[f"{folder}/data.pkl"]))
    return _Unpickler(stream, len(data), _NAMES, load_storage).load()


def _find_folder(names: Iterable[str]) -> str:
    """The one folder of an archive that `torch.save` wrote."""
    names = list(names)
    ends = {name.partition("/")[2].partition("/")[0] for name in names}
    if "constants.pkl" in ends or "code" in ends:
        raise CheckpointError(
            "is a TorchScript program; load it with torch.jit.load and save its state_dict()"
        )
    if "archive_format" in ends or any(name.endswith("exported_program.json") for name in names):
        raise CheckpointError(
            "is a program of torch.export; load it with torch.export.load and save its state_dict"
        )
    if names and all(name.endswith(".npy") for name in names):
        raise CheckpointError("is an archive of NumPy arrays (.npz); expected a checkpoint")
    folders = [
        folder for folder, *rest in (name.split("/") for name in names) if rest == ["data.pkl"]
    ]
    if len(folders) != 1:
        found = ", ".join(quoted(name, 40) for name in names[:3]) or "nothing"
        raise CheckpointError(
            f"is a zip archive that torch.save did not write: it has {found}; "
            "if a checkpoint is in it, unpack it first"
        )
    return folders[0]


_MAGIC = 0x1950A86A20F9469CFC6C


def _read_pickles(data: bytes, names: dict[str, Any]) -> Any:
    """The object in a pickle, or in a file of `torch.save` from before PyTorch 1.6.

    Such a file is five pickles (a magic number, the layout's version, facts on the machine, the
    object, the list of its storages' keys), and for each key the number of its elements as int64
    and the elements themselves, always little-endian.
    """
    stream = io.BytesIO(data)  # which does not copy
    storages: dict[str, Storage] = {}
    room = len(data)

    def load_storage(pid: Any) -> Any:
        nonlocal room
        kind, *rest = pid
        if kind == "module":  # a class, where its source was, and the source
            return rest[0]
        type_name, key, _, size, *view = rest
        if kind != "storage" or not isinstance(key, str):
            raise CheckpointError("holds a tensor of an unknown kind")
        storage = _find_storage(storages, key, type_name, size)
        # tensors come before their numbers, and take memory before those are seen to exist
        room -= 0 if key in storages else storage.nbytes
        if room < 0:
            raise CheckpointError("is cut short: it lacks numbers of its tensors")
        storages[key] = storage
        return storage.part(*view[0][1:]) if view and view[0] is not None else storage

    def load(load_storage: Callable[[Any], Any] | None = None) -> Any:
        return _Unpickler(stream, len(data), names, load_storage).load()

    first = load()
    if not isinstance(first, int) or first != _MAGIC:
        return first
    if load() != 1001:
        raise CheckpointError("is in a layout of PyTorch that is not known here")
    load()
    content, keys = load(load_storage), load()
    proper = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not proper or sorted(keys) != sorted(storages):
        raise CheckpointError("holds a tensor whose numbers are not where they should be")
    place = stream.tell()
    for key in keys:
        size = int.from_bytes(data[place : place + 8], "little", signed=True)
        if size != storages[key].size:
            raise CheckpointError(
                f"holds {size} numbers for a tensor of {storages[key].size}; download it again"
            )
        storages[key].fill(memoryview(data)[place + 8 :])
        place += 8 + storages[key].nbytes
    return content


def _find_storage(storages: dict[str, Storage], key: str, type_name: Any, size: Any) -> Storage:
    """The storage of that key, or a new one."""
    if not isinstance(type_name, str) or type_name not in STORAGE_TYPES:
        raise CheckpointError(f"holds a tensor of the unknown type {quoted(type_name)}")
    if not isinstance(size, int) or size < 0:
        raise CheckpointError("holds a tensor of impossible size")
    storage = storages[key] if key in storages else Storage(type_name, size)
    if (storage.type_name, storage.size) != (type_name.removeprefix("torch."), size):
        raise CheckpointError("holds tensors that take the same bytes for different numbers")
    return storage


# --- the machine that runs the pickle ---------------------------------------------------------


class _Unpickler(pickle.Unpickler):
    """Python's unpickler with a fixed table of names: {"module.name": entry}.

    An entry is a function, which the file may call; a type; or a string that stands for itself.
    """

    def __init__(
        self,
        stream: io.BytesIO,
        file_size: int,
        names: dict[str, Any],
        load_storage: Callable[[Any], Any] | None = None,
    ):
        super().__init__(stream)
        self._stream = stream
        self._file_size = file_size
        self._names = names
        self._load_storage = load_storage
        # What calls may take as arguments, in elements. Each is in the file once, but a file can
        # have the same bytes copied thousands of times.
        self._allowance = 4 * file_size + 2**16

    def load(self) -> Any:
        check_opcodes(self._stream, self._file_size)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        entry = self._names.get(f"{module}.{name}")
        if entry is None:
            raise CheckpointError(self._refusal(f"{quoted(module)}.{quoted(name)}"))
        return _Callable(entry, self) if isinstance(entry, FunctionType) else entry

    def _refusal(self, name: str) -> str:
        for start, what in _KNOWN_NAMES.items():
            if name.startswith(start):
                return what.format(name)
        refused = (
            f"asks for {name}, a name that no checkpoint known here needs; it was refused, and "
            "nothing in the file was run"
        )
        saved_by_torch = self._load_storage is not None
        return f"{refused} (if it is a model's class, {_SAVE_NUMBERS})" * saved_by_torch or refused

    def persistent_load(self, pid: Any) -> Any:
        if self._load_storage is None:
            raise CheckpointError("refers to data outside itself; expected a complete pickle")
        return self._load_storage(pid)

    def spend(self, args: tuple) -> None:
        self._allowance -= sum(len(a) for a in args if isinstance(a, _SIZED))
        if self._allowance < 0:
            raise CheckpointError("repeats its contents far beyond its size, so it was refused")


_SIZED = (str, bytes, bytearray, list, tuple)
_SAVE_NUMBERS = "load it where it was made and save model.state_dict() instead"
_KNOWN_NAMES = {  # by how they start; {} is the whole name
    "torch.Complex": "holds complex numbers ({}); expected real ones",
    "torch.Q": "holds a quantised tensor ({}); save it as float32",
    "torch._utils._rebuild_qtensor": "holds a quantised tensor; save it as float32",
    "torch._utils._rebuild_sparse": "holds a sparse tensor; save it after to_dense()",
    "torch._utils._rebuild_": "holds a tensor of a special kind ({}); save it after cpu().clone()",
    "torch.nn.": f"holds a whole torch module ({{}}); {_SAVE_NUMBERS}",
    "__main__.": f"holds an object of a program's own class ({{}}); {_SAVE_NUMBERS}",
}


class _Callable:
    """What a file gets for the name of a function: it can call it, and alter nothing."""

    __slots__ = ("_unpickler", "function")

    def __init__(self, function: FunctionType, unpickler: _Unpickler):
        self.function = function
        self._unpickler = unpickler

    def __call__(self, *args: Any) -> Any:
        self._unpickler.spend(args)
        return self.function(*args)

    def __setstate__(self, state: Any) -> None:  # without it pickle's BUILD sets any attribute
        raise CheckpointError("tries to alter a function, so it was refused")


# --- names that read on -----------------------------------------------------------------------


def _load_from_bytes(data: bytes) -> Storage:
    """`torch.storage._load_from_bytes`: the storage in a whole file of the layout before 1.6."""
    storage = _read_pickles(data, _STORAGE_NAMES) if isinstance(data, bytes) else None
    if not isinstance(storage, Storage):
        raise CheckpointError("holds a tensor in an unknown layout")
    return storage


def _rebuild_from_type(function: Any, kind: Any, args: tuple, _state: Any) -> np.ndarray:
    """`torch._tensor._rebuild_from_type_v2`: a tensor with attributes, as `torch.nn.Buffer` is."""
    known = (tensors.rebuild_tensor, tensors.rebuild_tensor_v3, tensors.rebuild_parameter)
    if not isinstance(function, _Callable) or function.function not in known:
        raise CheckpointError(f"holds a tensor of the unknown kind {quoted(kind)}")
    return function(*args)


_STORAGE_NAMES = {name: name for name in STORAGE_TYPES}
_NAMES = {
    **records.NAMES,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.storage._load_from_bytes": _load_from_bytes,
}
