"""The constructors that a checkpoint may call by name, and what they make.

`NAMES` and `ENDINGS` are the whole of it, but for two that read on (in `pickles.py`). Any other
name is that of a `Record`, which keeps what it is given. Nothing here has an effect beyond its
result, and nothing hashes what it is given before it is known to be cheap to hash.
"""

import sys
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from ports import tensors
from ports.errors import CheckpointError
from ports.tensors import STORAGE_TYPES


class PersistentObject(NamedTuple):
    """An object of NVIDIA's `torch_utils.persistence`, such as a network or one of its layers.

    Attributes:
      class_name: name of its class, for example 'Generator'.
      state: its attributes; for a torch module `_parameters`, `_buffers` and `_modules` are dicts.
    """

    class_name: str
    state: dict


class Record:
    """An object of any class, of which only the class's name and what it was made from are kept.

    Attributes:
      class_name: such as 'argparse.Namespace'.
      args: what its class was called with.
      state: its attributes by name; of some classes no dict but what else their state is.
      items: what was put in it: the elements of a list, a set or a deque, the pairs of a dict.
    """

    __slots__ = ("args", "items", "state")
    class_name = ""
    args: tuple
    state: Any
    items: tuple | list

    def __new__(cls, *args: Any, **_kwargs: Any) -> "Record":
        record = super().__new__(cls)
        record.args, record.state, record.items = args, {}, ()
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        if isinstance(self.items, tuple):  # most have none
            self.items = []
        self.items.append(item)

    add = append

    def __setitem__(self, key: Any, value: Any) -> None:
        self.append((key, value))


class TensorFlowNetwork(Record):
    """A network of NVIDIA's TensorFlow code; its `state` has `variables`, `static_kwargs`, …"""

    __slots__ = ()
    class_name = "dnnlib.tflib.network.Network"


class _Dict(dict):
    """OrderedDict and EasyDict; attributes that PyTorch hangs on them are dropped."""

    __slots__ = ()

    def __init__(self) -> None:  # their contents follow item by item, never as an argument
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass


def _defaultdict(_factory: Any = None) -> _Dict:
    return _Dict()


def _reconstruct_persistent_obj(meta: dict) -> PersistentObject:
    """`torch_utils.persistence._reconstruct_persistent_obj`, without the source text in `meta`."""
    name, state = meta["class_name"], meta["state"]
    if not isinstance(name, str) or not isinstance(state, dict):
        raise CheckpointError("holds a network without class or state")
    return PersistentObject(name, state)


def _encode(text: str, encoding: str) -> bytes:
    """`_codecs.encode`: how pickles before protocol 3 spell bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise CheckpointError("holds bytes in another encoding than latin1")
    return text.encode("latin1")


def _bytes() -> bytes:
    return b""


def _set(elements: list) -> set:
    if not isinstance(elements, list) or not all(map(_hashes_fast, elements)):
        raise CheckpointError("holds a set that is no list of texts and numbers")
    return set(elements)


def _hashes_fast(element: Any) -> bool:  # what weighs 1 in `_Keys`
    if isinstance(element, int):
        return abs(element) < sys.hash_info.modulus
    return element is None or isinstance(element, str | bytes | float)


def _frozenset(elements: list) -> frozenset:
    return frozenset(_set(elements))


def _posix_path(*parts: str) -> str:
    return str(PurePosixPath(*parts))


def _windows_path(*parts: str) -> str:
    return str(PureWindowsPath(*parts))


def _reconstructor(kind: Any, *_: Any) -> Record:
    """`copyreg._reconstructor`: how pickles before protocol 2 make an object of a class."""
    if not (isinstance(kind, type) and issubclass(kind, Record)):
        raise CheckpointError("holds an object of a class that is none")
    return kind()


def record_type(name: str) -> type[Record]:
    """The class of the objects of a class that is not known here, which does nothing."""
    return type("Record", (Record,), {"__slots__": (), "class_name": name})


def _names(module: str, names: str) -> list[str]:
    return [f"{module}.{name}" for name in names.split()]


_TEXTS = [  # names that are kept as text
    *_names("builtins", "bool dict float int list object str tuple"),
    *_names("torch", "Tensor bool bfloat16 float16 float32 float64 uint8 uint16 uint32 uint64"),
    *_names("torch", "int8 int16 int32 int64 float8_e4m3fn float8_e5m2 complex64 complex128"),
    *_names("torch.nn.parameter", "Buffer Parameter"),
    "numpy.ndarray",
]
NAMES: dict[str, Any] = {
    **{name: name for name in STORAGE_TYPES},
    **{name: name for name in _TEXTS},
    "_codecs.encode": _encode,
    "builtins.bytes": _bytes,
    "builtins.frozenset": _frozenset,
    "builtins.set": _set,
    "collections.OrderedDict": _Dict,
    "collections.defaultdict": _defaultdict,
    "copy_reg._reconstructor": _reconstructor,
    "copyreg._reconstructor": _reconstructor,
    "numpy.dtype": tensors.dtype,
    "torch.Size": tensors.torch_size,
    "torch._utils._rebuild_parameter": tensors.rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": tensors.rebuild_parameter,
    "torch._utils._rebuild_tensor": tensors.rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": tensors.rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": tensors.rebuild_tensor_v3,
    "torch.device": tensors.device,
}
# by how they end, since NVIDIA's code is copied into packages of any name
ENDINGS: dict[str, Any] = {
    "dnnlib.EasyDict": _Dict,
    "dnnlib.tflib.network.Network": TensorFlowNetwork,
    "dnnlib.util.EasyDict": _Dict,
    "torch_utils.persistence._reconstruct_persistent_obj": _reconstruct_persistent_obj,
}
for _numpy in ("numpy.core", "numpy._core"):  # the name before and since NumPy 2
    NAMES[f"{_numpy}.multiarray._reconstruct"] = tensors.reconstruct
    NAMES[f"{_numpy}.multiarray.scalar"] = tensors.scalar
    NAMES[f"{_numpy}.numeric._frombuffer"] = tensors.frombuffer
for _pathlib in ("pathlib", "pathlib._local"):  # before Python 3.13 and after, and in it
    for _pure in ("", "Pure"):
        NAMES[f"{_pathlib}.{_pure}PosixPath"] = _posix_path
        NAMES[f"{_pathlib}.{_pure}WindowsPath"] = _windows_path
for _name in [name for name in NAMES if name.startswith("builtins.")]:  # Python 2's, protocol 2
    NAMES[_name.replace("builtins", "__builtin__")] = NAMES[_name]
