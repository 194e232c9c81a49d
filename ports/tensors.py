"""PyTorch's tensors and NumPy's arrays as pickles spell them, checked before they become arrays.

Everything here is called with arguments that come out of a file. The numbers themselves are views
into the bytes of the file; a size that the file states never allocates anything.
"""

import math
from typing import Any

import numpy as np

from ports.errors import CheckpointError, quoted

# --- PyTorch's tensors ------------------------------------------------------------------------

STORAGE_TYPES = {
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
_DTYPES_OF_BYTES = {"torch.uint16": "<u2", "torch.uint32": "<u4", "torch.uint64": "<u8"}


class Storage:
    """The numbers behind one or more tensors.

    Attributes:
      type_name: one of `STORAGE_TYPES`, without "torch.".
      size: how many numbers.
      nbytes: how many bytes they are in the file.
    """

    __slots__ = ("_elements", "_is_bfloat16", "nbytes", "size", "type_name")

    def __init__(self, type_name: str, size: int):
        code = STORAGE_TYPES[type_name]
        self._is_bfloat16 = code == "bfloat16"
        self._elements = np.empty(0, "<f4" if self._is_bfloat16 else code)
        self.type_name = type_name.removeprefix("torch.")
        self.size = size
        self.nbytes = size * (2 if self._is_bfloat16 else self._elements.itemsize)

    def __setstate__(self, state: Any) -> None:  # without it pickle's BUILD sets any attribute
        raise CheckpointError("tries to alter a tensor's numbers, so it was refused")

    def elements(self) -> np.ndarray:
        """The numbers, `(size,)`, bfloat16 as float32; not yet set before `fill`."""
        if self._elements.size != self.size:
            self._elements = np.empty(self.size, self._elements.dtype)
        return self._elements

    def fill(self, raw: memoryview) -> None:
        """Takes the numbers from their bytes: as a view, where nobody has asked for them before."""
        if len(raw) < self.nbytes:
            raise CheckpointError(
                f"holds a {self.type_name} of {self.size} numbers in {len(raw)} bytes"
            )
        raw = raw[: self.nbytes]
        if self._is_bfloat16:  # the upper half of a float32
            numbers = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        else:
            numbers = np.frombuffer(raw, self._elements.dtype)
        if self._elements.size == 0:
            self._elements = numbers
        else:
            self._elements[:] = numbers
        self._elements.flags.writeable = False

    def part(self, offset: int, size: int) -> "Storage":
        """A storage of some of the numbers, as files from before PyTorch 0.4 have them."""
        offset, size = naturals((offset, size))
        if offset + size > self.size:
            raise CheckpointError(f"holds a part of a {self.type_name} beyond its end")
        part = Storage("torch." + self.type_name, size)
        part._elements = self.elements()[offset : offset + size]
        return part


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> np.ndarray:
    """`torch._utils._rebuild_tensor` and `_v2`: an array of shape `size`, in numbers of `storage`.

    What follows the strides is for training (requires_grad, hooks), but for the last, metadata.
    """
    if not isinstance(storage, Storage):
        raise CheckpointError("holds a tensor without numbers")
    if rest[2:] and rest[2]:
        raise CheckpointError("holds a tensor that is to be negated or conjugated; save it cloned")
    return _strided(storage.elements(), offset, size, stride)


def rebuild_tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> np.ndarray:
    """`torch._utils._rebuild_tensor_v3`: types that have no storage of their own, only bytes."""
    if not isinstance(storage, Storage) or storage.elements().itemsize != 1:
        raise CheckpointError("holds a tensor without bytes")
    code = _DTYPES_OF_BYTES.get(dtype) if isinstance(dtype, str) else None
    if code is None:
        raise CheckpointError(f"holds a tensor of type {quoted(dtype)}; save it as float32")
    size_in_bytes = storage.size - storage.size % np.dtype(code).itemsize
    return _strided(storage.elements()[:size_in_bytes].view(code), offset, size, stride)


def rebuild_parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    return data


def _strided(elements: np.ndarray, offset: Any, size: Any, stride: Any) -> np.ndarray:
    size, stride = naturals(size), naturals(stride)
    (offset,) = naturals((offset,))
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count == 0:
        return np.empty(size, elements.dtype).view(Array)
    # more numbers than are stored, by a stride of 0, would be a small file of any size
    if last >= elements.size or count > elements.size:
        raise CheckpointError(
            f"holds a tensor of shape {size}, but only {elements.size} numbers for it"
        )
    strides = [step * elements.itemsize for step in stride]
    view = np.lib.stride_tricks.as_strided(elements[offset:], size, strides, writeable=False)
    return view.view(Array)


def torch_size(size: tuple = ()) -> tuple:
    return naturals(size)


def device(*device: Any) -> tuple:
    if not all(isinstance(part, str | int) for part in device):
        raise CheckpointError("holds a device that is none")
    return device


def naturals(numbers: Any) -> tuple[int, ...]:
    """`numbers` as a tuple of integers of 0 and more."""
    if not isinstance(numbers, tuple | list) or len(numbers) > 32:
        raise CheckpointError("holds an array without a proper shape")
    if not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
        raise CheckpointError("holds an array with impossible sizes or strides")
    return tuple(numbers)


# --- NumPy's arrays ---------------------------------------------------------------------------


class Array(np.ndarray):
    """An array that a pickle fills once its contents are checked."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        _check_array(dtype, shape, data)
        checked: Any = (1, tuple(shape), np.dtype(dtype.code), bool(fortran), data)
        super().__setstate__(checked)
        self.flags.writeable = False  # large ones are views into `data`


class DType:
    """A NumPy number type, whose byte order a pickle states after its name."""

    __slots__ = ("code",)

    def __init__(self, code: str):
        self.code = code

    def __setstate__(self, state: Any) -> None:
        _, order, *structure = state
        if order not in ("<", "|") or any(part is not None for part in structure[:3]):
            raise CheckpointError("holds an array of big-endian or structured type")


_NUMPY_CODES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


def dtype(code: str, *_: Any) -> DType:
    if not isinstance(code, str) or code not in _NUMPY_CODES:
        raise CheckpointError("holds an array of objects or text, where numbers were expected")
    return DType(code)


def reconstruct(array_type: str, *_: Any) -> Array:
    """`numpy.core.multiarray._reconstruct`: an empty array, whose contents follow."""
    if not isinstance(array_type, str) or array_type != "numpy.ndarray":
        raise CheckpointError("holds an array of a type other than numpy.ndarray")
    return Array((0,), np.uint8)


def scalar(dtype: DType, data: bytes) -> np.generic:
    """`numpy.core.multiarray.scalar`."""
    _check_array(dtype, (), data)
    return np.frombuffer(data, dtype.code)[0]


def frombuffer(data: bytes, dtype: DType, shape: tuple, order: str) -> np.ndarray:
    """`numpy.core.numeric._frombuffer`, arrays of pickle protocol 5."""
    data = bytes(data) if isinstance(data, bytearray) else data
    _check_array(dtype, shape, data)
    if order not in ("C", "F"):
        raise CheckpointError("holds an array in an unknown order")
    array = np.frombuffer(data, dtype.code)
    return array.reshape(shape, order="F" if order == "F" else "C").view(Array)


def _check_array(dtype: Any, shape: Any, data: Any) -> None:
    if not isinstance(dtype, DType) or not isinstance(data, bytes):
        raise CheckpointError("holds an array without type or contents")
    expected = math.prod(naturals(shape)) * np.dtype(dtype.code).itemsize
    if len(data) != expected:
        raise CheckpointError(f"holds {len(data)} bytes for an array of {expected}")
