"""Reads checkpoints pickled by PyTorch code, without PyTorch and without running what is in them.

A pickle is a program that can name any Python function and call it. Here a name is only ever looked
up in the table `_NAMES`, whose entries are this module's own functions; every other name is refused
before anything is called. Tensors become NumPy arrays: views into the bytes of the file, checked
against their number first, so that a size that the file states never allocates anything.
"""

import io
import math
import pickle
import pickletools
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple, cast

import numpy as np


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, is damaged, or is not what was expected."""


class PersistentObject(NamedTuple):
    """An object of NVIDIA's `torch_utils.persistence`, such as a network or one of its layers.

    Attributes:
      class_name: name of its class, for example 'Generator'.
      state: its attributes; for a torch module `_parameters`, `_buffers` and `_modules` are dicts.
    """

    class_name: str
    state: dict


class TensorFlowNetwork:
    """A network of NVIDIA's TensorFlow code, `dnnlib.tflib.network.Network`; `state` is a dict."""

    __slots__ = ("state",)

    def __setstate__(self, state: dict) -> None:
        if not isinstance(state, dict):
            raise CheckpointError("holds a network without a state")
        self.state = state


def load_pickle(path: str | Path) -> Any:
    """The object in a `.pkl` file, of dicts, lists, NumPy arrays and `PersistentObject`s.

    Arrays are read-only views into what was read, or small copies; they may be strided, unaligned
    and of any numeric type.

    Args:
      path: a file written by `pickle.dump`, protocol 0 to 5. Tensors in it are read where PyTorch
        pickled them as part of a larger object.

    Raises:
      CheckpointError: where there is no such file, it is damaged or no pickle, or it asks for a
        name that checkpoints have no use for.
    """
    data = _read_file(Path(path))
    try:
        return _Unpickler(io.BytesIO(data), _NAMES).load()
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from error
    except Exception as error:  # whatever a damaged file makes pickle or NumPy raise
        what = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{path} is damaged; download or copy it again ({what})") from error


def _read_file(path: Path) -> bytes:
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; expected a file such as network.pkl")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; check the name of the file") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if not data:
        raise CheckpointError(f"{path} is empty; download or copy it again")
    for start, what in _OTHER_FILES.items():
        if data.startswith(start):
            raise CheckpointError(f"{path} is {what}, where a pickle was expected")
    return data


_OTHER_FILES = {
    b"PK\x03\x04": "a zip archive (PyTorch's own format since version 1.6)",
    b"<": "a web page (the download failed)",
    b"version https://git-lfs": "a Git LFS pointer (fetch the file itself)",
}


# --- the machine that runs the pickle ---------------------------------------------------------


class _Unpickler(pickle.Unpickler):
    """Python's unpickler with a fixed table of names: {"module.name": entry}.

    An entry is a function, which the file may call; a type; or a string that stands for itself.
    """

    def __init__(self, stream: io.BytesIO, names: dict[str, Any]):
        super().__init__(stream)
        self._stream = stream
        self._names = names
        # What calls may take as arguments, in elements. Each is in the file once, but a file can
        # have the same bytes copied thousands of times.
        self._allowance = 4 * len(stream.getbuffer()) + 2**16

    def load(self) -> Any:
        _check_opcodes(self._stream)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        entry = self._names.get(f"{module}.{name}")
        if entry is None:
            raise CheckpointError(
                f"asks for {module[:80]}.{name[:80]}, a name that no checkpoint known here needs; "
                "it was refused, and nothing in the file was run"
            )
        return _Callable(entry, self) if isinstance(entry, FunctionType) else entry

    def persistent_load(self, pid: Any) -> Any:
        raise CheckpointError("refers to data outside itself; expected a pickle that is complete")

    def spend(self, args: tuple) -> None:
        self._allowance -= sum(len(a) for a in args if isinstance(a, _SIZED))
        if self._allowance < 0:
            raise CheckpointError("repeats its contents far beyond its size, so it was refused")


_SIZED = (str, bytes, bytearray, list, tuple)


class _Callable:
    """What a file gets for the name of a function: it can call it, and alter nothing."""

    __slots__ = ("_function", "_unpickler")

    def __init__(self, function: FunctionType, unpickler: _Unpickler):
        self._function = function
        self._unpickler = unpickler

    def __call__(self, *args: Any) -> Any:
        self._unpickler.spend(args)
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:  # without it pickle's BUILD sets any attribute
        raise CheckpointError("tries to alter a function, so it was refused")


class _Dict(dict):
    """OrderedDict and EasyDict; attributes that PyTorch hangs on them are dropped."""

    __slots__ = ()

    def __init__(self) -> None:  # their contents follow item by item, never as an argument
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass


def _check_opcodes(stream: io.BytesIO) -> None:
    """Reads over the next pickle, which must be complete, and leaves the stream at its start.

    Python's unpickler trusts some numbers: it allocates as many bytes as a string is said to have,
    and 16 for every slot of its memo up to the highest that is named; and it hashes tuples, nested
    to any depth, on the C stack.
    """
    start, size = stream.tell(), len(stream.getbuffer())
    tuples, position, frame_end = 0, start, start
    try:
        for opcode, operand, place in pickletools.genops(stream):
            argument, position = cast(Any, operand), cast(int, place)
            # Where an opcode runs over the end of a frame, the unpickler reads another opcode than
            # we see here.
            sound = not position < frame_end < stream.tell()
            if opcode.name == "FRAME":
                sound &= position >= frame_end
                frame_end = stream.tell() + argument
            if not sound or frame_end > size:
                raise ValueError("a frame does not fit its contents")
            if opcode.name in _REFUSED_OPCODES:
                raise CheckpointError(f"is not a pickled checkpoint (opcode {opcode.name})")
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > size:
                raise CheckpointError("is damaged: it numbers more objects than it can hold")
            tuples += opcode.name in ("TUPLE1", "TUPLE2", "TUPLE3", "TUPLE", "FROZENSET")
    except CheckpointError:
        raise
    except Exception as error:
        if stream.getbuffer()[start : start + 1] != b"\x80":  # where protocol 2 to 5 start
            raise CheckpointError("is not a pickle, or is damaged") from error
        raise CheckpointError(
            f"is cut short or damaged after byte {position} of {size}; download or copy it again"
        ) from error
    if tuples > _MOST_TUPLES:
        raise CheckpointError(f"holds {tuples} tuples, far more than any known checkpoint")
    stream.seek(start)


# names by number in a table of the running interpreter, and the instances of Python 2
_REFUSED_OPCODES = {"EXT1", "EXT2", "EXT4", "INST", "OBJ"}
# A StyleGAN2 of 1024x1024 has about 5,000. Nested 200,000 deep they overflow an 8 MB stack.
_MOST_TUPLES = 50_000


# --- PyTorch's tensors ------------------------------------------------------------------------


class _Storage(NamedTuple):
    """The numbers behind one or more tensors. Immutable: bounds are checked against it."""

    elements: np.ndarray


class _StorageKey(NamedTuple):
    """A storage's entry in a pickle; its numbers come after the pickle."""

    dtype: str
    key: str
    size: int


class _StorageUnpickler(_Unpickler):
    """The pickles in PyTorch's layout from before version 1.6, as far as storages need them."""

    def __init__(self, stream: io.BytesIO):
        super().__init__(stream, _STORAGE_TYPES)

    def persistent_load(self, pid: Any) -> _StorageKey:
        kind, dtype, key, _, size, *view = pid
        if kind != "storage" or dtype not in _STORAGE_TYPES.values() or any(view):
            raise CheckpointError("holds a tensor of an unknown kind")
        return _StorageKey(dtype, key, size)


_STORAGE_TYPES = {
    "torch.BoolStorage": "?",
    "torch.ByteStorage": "u1",
    "torch.CharStorage": "i1",
    "torch.ShortStorage": "<i2",
    "torch.IntStorage": "<i4",
    "torch.LongStorage": "<i8",
    "torch.HalfStorage": "<f2",
    "torch.FloatStorage": "<f4",
    "torch.DoubleStorage": "<f8",
    "torch.BFloat16Storage": "bfloat16",
    "torch.UntypedStorage": "u1",
    "torch.storage.UntypedStorage": "u1",
}


def _load_from_bytes(data: bytes) -> _Storage:
    """`torch.storage._load_from_bytes`: the storage in a whole file of the layout before 1.6.

    Such a file is five pickles (a magic number, the layout's version, facts on the machine, the
    object, the list of its storages' keys), and for each key the number of its elements as int64
    and the elements themselves, little-endian.
    """
    stream = io.BytesIO(data)
    magic, version, _, storage, keys = (_StorageUnpickler(stream).load() for _ in range(5))
    if magic != 0x1950A86A20F9469CFC6C or version != 1001:
        raise CheckpointError("holds a tensor in an unknown layout")
    if not isinstance(storage, _StorageKey) or keys != [storage.key]:
        raise CheckpointError("holds a tensor whose numbers are not where they should be")
    size = int.from_bytes(stream.read(8), "little", signed=True)
    raw = memoryview(data)[stream.tell() :]
    bfloat16 = storage.dtype == "bfloat16"
    dtype = np.dtype("<u2" if bfloat16 else storage.dtype)
    if size != storage.size or size < 0 or size * dtype.itemsize > len(raw):
        raise CheckpointError(f"holds a tensor of {size} numbers in {len(raw)} bytes")
    elements = np.frombuffer(raw, dtype, size)
    if bfloat16:  # the upper half of a float32
        elements = (elements.astype("<u4") << 16).view("<f4")
    return _Storage(elements)


def _rebuild_tensor(
    storage: _Storage, offset: int, size: tuple, stride: tuple, *_: Any
) -> np.ndarray:
    """`torch._utils._rebuild_tensor` and `_v2`: an array of shape `size`, in elements of `storage`.

    What follows the strides (requires_grad, hooks, metadata) is for training.
    """
    if not isinstance(storage, _Storage):
        raise CheckpointError("holds a tensor without numbers")
    size, stride = _naturals(size), _naturals(stride)
    (offset,) = _naturals((offset,))
    elements = storage.elements
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count == 0:
        return np.empty(size, elements.dtype).view(_Array)
    # more numbers than are stored, by a stride of 0, would be a small file of any size
    if last >= elements.size or count > elements.size:
        raise CheckpointError(
            f"holds a tensor of shape {size}, but only {elements.size} numbers for it"
        )
    strides = [step * elements.itemsize for step in stride]
    view = np.lib.stride_tricks.as_strided(elements[offset:], size, strides, writeable=False)
    return view.view(_Array)


def _rebuild_parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    return data


def _size(size: tuple = ()) -> tuple:
    return _naturals(size)


def _device(*device: Any) -> tuple:
    return device


def _naturals(numbers: Any) -> tuple[int, ...]:
    """`numbers` as a tuple of integers of 0 and more."""
    if not isinstance(numbers, tuple | list) or len(numbers) > 32:
        raise CheckpointError("holds an array without a proper shape")
    if not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
        raise CheckpointError("holds an array with impossible sizes or strides")
    return tuple(numbers)


# --- NumPy's arrays ---------------------------------------------------------------------------


class _Array(np.ndarray):
    """An array that a pickle fills once its contents are checked."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        _check_array(dtype, shape, data)
        checked: Any = (1, tuple(shape), np.dtype(dtype.code), bool(fortran), data)
        super().__setstate__(checked)


class _DType:
    """A NumPy number type, whose byte order a pickle states after its name."""

    __slots__ = ("code",)

    def __init__(self, code: str):
        self.code = code

    def __setstate__(self, state: Any) -> None:
        _, order, *structure = state
        if order not in ("<", "|") or any(part is not None for part in structure[:3]):
            raise CheckpointError("holds an array of big-endian or structured type")


_NUMPY_CODES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


def _dtype(code: str, *_: Any) -> _DType:
    if code not in _NUMPY_CODES:
        raise CheckpointError("holds an array of objects or text, where numbers were expected")
    return _DType(code)


def _reconstruct(array_type: str, *_: Any) -> _Array:
    """`numpy.core.multiarray._reconstruct`: an empty array, whose contents follow."""
    if array_type != "numpy.ndarray":
        raise CheckpointError("holds an array of a type other than numpy.ndarray")
    return _Array((0,), np.uint8)


def _scalar(dtype: _DType, data: bytes) -> np.generic:
    """`numpy.core.multiarray.scalar`."""
    _check_array(dtype, (), data)
    return np.frombuffer(data, dtype.code)[0]


def _frombuffer(data: bytes, dtype: _DType, shape: tuple, order: str) -> np.ndarray:
    """`numpy.core.numeric._frombuffer`, arrays of pickle protocol 5."""
    data = bytes(data)
    _check_array(dtype, shape, data)
    if order not in ("C", "F"):
        raise CheckpointError("holds an array in an unknown order")
    array = np.frombuffer(data, dtype.code)
    return array.reshape(shape, order="F" if order == "F" else "C").view(_Array)


def _check_array(dtype: Any, shape: Any, data: Any) -> None:
    if not isinstance(dtype, _DType) or not isinstance(data, bytes):
        raise CheckpointError("holds an array without type or contents")
    expected = math.prod(_naturals(shape)) * np.dtype(dtype.code).itemsize
    if len(data) != expected:
        raise CheckpointError(f"holds {len(data)} bytes for an array of {expected}")


# --- everything else --------------------------------------------------------------------------


def _reconstruct_persistent_obj(meta: dict) -> PersistentObject:
    """`torch_utils.persistence._reconstruct_persistent_obj`, without the source text in `meta`."""
    name, state = meta["class_name"], meta["state"]
    if not isinstance(name, str) or not isinstance(state, dict):
        raise CheckpointError("holds a network without class or state")
    return PersistentObject(name, state)


def _encode(text: str, encoding: str) -> bytes:
    """`_codecs.encode`: how pickles before protocol 3 spell bytes."""
    if encoding != "latin1":
        raise CheckpointError("holds bytes in another encoding than latin1")
    return text.encode("latin1")


def _bytes() -> bytes:
    return b""


def _set(elements: list) -> set:
    if not isinstance(elements, list):
        raise CheckpointError("holds a set that is not made from a list")
    return set(elements)


_NAMES: dict[str, Any] = {
    "__builtin__.bytes": _bytes,
    "__builtin__.set": _set,
    "_codecs.encode": _encode,
    "builtins.bytes": _bytes,
    "builtins.set": _set,
    "collections.OrderedDict": _Dict,
    "dnnlib.EasyDict": _Dict,
    "dnnlib.tflib.network.Network": TensorFlowNetwork,
    "dnnlib.util.EasyDict": _Dict,
    "numpy.dtype": _dtype,
    "numpy.ndarray": "numpy.ndarray",
    "torch.Size": _size,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch.bfloat16": "torch.bfloat16",
    "torch.device": _device,
    "torch.float16": "torch.float16",
    "torch.float32": "torch.float32",
    "torch.float64": "torch.float64",
    "torch.storage._load_from_bytes": _load_from_bytes,
    "torch_utils.persistence._reconstruct_persistent_obj": _reconstruct_persistent_obj,
}
for _numpy in ("numpy.core", "numpy._core"):  # the name before and since NumPy 2
    _NAMES[f"{_numpy}.multiarray._reconstruct"] = _reconstruct
    _NAMES[f"{_numpy}.multiarray.scalar"] = _scalar
    _NAMES[f"{_numpy}.numeric._frombuffer"] = _frombuffer
