"""Reads what a pickle or PyTorch's containers of pickles hold, without running what is in it.

A pickle is a program that can name any Python function and call it. Here a name is only ever looked
up in a table whose entries are our own constructors. A name that would reach the system is refused,
and any other becomes a `Record`, which keeps what it was to be made from and does nothing. Tensors
become NumPy arrays. What a file may cost is settled before it is built: the opcodes are counted,
and sizes that a file states are compared with the bytes that it has.
"""

import io
import pickle
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, BinaryIO

import numpy as np

from ports import records, tensors
from ports.archive import read_archive
from ports.errors import CheckpointError, quoted
from ports.limits import check_opcodes
from ports.pieces import Pieces, Skimmed
from ports.tensors import STORAGE_TYPES, Storage

# --- PyTorch's containers ---------------------------------------------------------------------


def read_zip(data: bytes) -> Any:
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
    check_opcodes(stream, len(data))
    return _Unpickler(stream, len(data), load_storage).load()


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
LEGACY = (_MAGIC.to_bytes(10, "little"), b"%d" % _MAGIC)  # one is near the start of such a file


def read_pickle(pieces: Pieces) -> Any:
    """The object in a pickle, which takes the place of its bytes in memory."""
    skimmed = Skimmed(pieces)
    check_opcodes(skimmed, pieces.size)
    stream = io.BufferedReader(pieces)
    stream.seek(0)
    pieces.spending = True
    return _Unpickler(stream, pieces.size).load()


def read_pickles(data: bytes, names: dict[str, Any] | None = None) -> Any:
    """The object in a file of `torch.save` from before PyTorch 1.6, or the first in another.

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
        check_opcodes(stream, len(data))
        return _Unpickler(stream, len(data), load_storage, names).load()

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


def _words(*lines: str) -> set[str]:
    return {word for line in lines for word in line.split()}


class _Unpickler(pickle.Unpickler):
    """Python's unpickler with a fixed table of names: {"module.name": entry}.

    An entry is a function, which the file may call; a type; or a string that stands for itself.
    With `names` those alone are known, and others are refused.
    """

    def __init__(
        self,
        stream: BinaryIO,
        file_size: int,
        load_storage: Callable[[Any], Any] | None = None,
        names: dict[str, Any] | None = None,
    ):
        super().__init__(stream)
        self._names = dict(_NAMES if names is None else names)
        self._takes_others = names is None
        self._load_storage = load_storage
        self._allowance = _Allowance(4 * file_size + 2**16)

    def find_class(self, module: str, name: str) -> Any:
        whole = f"{module}.{name}"
        if whole not in self._names:
            self._names[whole] = self._other(whole, {module.split(".")[0], *name.split(".")})
        entry = self._names[whole]
        return _Callable(entry, self._allowance) if isinstance(entry, FunctionType) else entry

    def _other(self, name: str, parts: set[str]) -> Any:
        """What stands for a name that is not in the table."""
        for start, what in _UNREADABLE.items():
            if name.startswith(start):
                raise CheckpointError(what.format(quoted(name)))
        harmful = name not in _HARMLESS and parts & (_SYSTEM | _CALLS)
        if harmful or not self._takes_others:
            raise CheckpointError(
                f"asks for {quoted(name)}, a name that no checkpoint needs and that could do harm;"
                " it was refused, and nothing in the file was run"
            )
        if len(self._names) > len(_NAMES) + _MOST_NAMES:
            raise CheckpointError(f"asks for more than {_MOST_NAMES} names; no checkpoint does")
        ours = (entry for end, entry in records.ENDINGS.items() if f".{name}".endswith(f".{end}"))
        return next(ours, None) or records.record_type(quoted(name))

    def persistent_load(self, pid: Any) -> Any:
        if self._load_storage is None:
            raise CheckpointError("refers to data outside itself; expected a complete pickle")
        return self._load_storage(pid)


_SIZED = (str, bytes, bytearray, list, tuple)
_MOST_NAMES = 1000  # of which each makes a class
_UNREADABLE = {  # by how they start; {} is the whole name
    "torch.Complex": "holds complex numbers ({}); expected real ones",
    "torch.Q": "holds a quantised tensor ({}); save it as float32",
    "torch._utils._rebuild_qtensor": "holds a quantised tensor; save it as float32",
    "torch._utils._rebuild_sparse": "holds a sparse tensor; save it after to_dense()",
    "torch._utils._rebuild_": "holds a tensor of a special kind ({}); save it after cpu().clone()",
}
# Modules and functions that exploits name. They would be as inert as others, but a file with one is
# no checkpoint, and its user should know.
_SYSTEM = _words(
    "os posix nt posixpath ntpath subprocess _posixsubprocess sys importlib imp runpy pty shutil",
    "socket ctypes cffi code codeop commands popen2 webbrowser pickle cPickle _pickle pickletools",
    "dill cloudpickle marshal shelve types inspect gc pdb bdb timeit trace doctest cProfile",
    "multiprocessing signal threading _thread asyncio urllib urllib2 http requests httpx aiohttp",
    "ftplib smtplib ssl tempfile io _io pip setuptools builtins __builtin__",
)
_CALLS = _words(
    "eval exec execfile compile system popen spawn open getattr setattr delattr globals locals",
    "vars __import__ import_module run_module run_path",
)
_HARMLESS = _words(
    "builtins.slice builtins.range builtins.complex builtins.bytearray __builtin__.slice",
    "__builtin__.xrange __builtin__.complex types.SimpleNamespace io.BytesIO _io.BytesIO",
)


class _Allowance:
    """What calls may take as arguments, in elements.

    Each is in the file once, but a file can have the same bytes copied thousands of times. It is
    apart from the unpickler, which would otherwise be held by what it holds, with all that it read.
    """

    __slots__ = ("_left",)

    def __init__(self, elements: int):
        self._left = elements

    def spend(self, args: tuple) -> None:
        self._left -= sum(len(a) for a in args if isinstance(a, _SIZED))
        if self._left < 0:
            raise CheckpointError("repeats its contents far beyond its size, so it was refused")


class _Callable:
    """What a file gets for the name of a function: it can call it, and alter nothing."""

    __slots__ = ("_allowance", "function")

    def __init__(self, function: FunctionType, allowance: _Allowance):
        self.function = function
        self._allowance = allowance

    def __call__(self, *args: Any) -> Any:
        self._allowance.spend(args)
        return self.function(*args)

    def __setstate__(self, state: Any) -> None:  # without it pickle's BUILD sets any attribute
        raise CheckpointError("tries to alter a function, so it was refused")


# --- names that read on -----------------------------------------------------------------------


def _load_from_bytes(data: bytes) -> Storage:
    """`torch.storage._load_from_bytes`: the storage in a whole file of the layout before 1.6."""
    storage = read_pickles(data, _STORAGE_NAMES) if isinstance(data, bytes) else None
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
