"""Reads a checkpoint's file: the first bytes say which container it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors import deserialize as read_entries

from ports.errors import CheckpointError, quoted
from ports.limits import check_content
from ports.pickles import LEGACY, read_pickle, read_pickles, read_zip
from ports.pieces import Pieces


def read(path: str | Path, digest: Any = None) -> Any:
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
        1.6; of `pickle.dump`, protocol 0 to 5; or of safetensors.
      digest: of `hashlib`; it is updated with the file's bytes, which are read once.

    Raises:
      CheckpointError: where there is no such file, it is damaged or of another kind, it asks for a
        name that could do harm, or for far more memory than it has bytes.
    """
    try:
        read, data = _read_file(Path(path))
        pieces = [data] if isinstance(data, bytes) else data.pieces
        size = sum(map(len, pieces))
        if digest is not None:
            for piece in pieces:
                digest.update(piece)
        content = read(data)
        check_content(content, size)
        return content
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from error
    except MemoryError:
        raise CheckpointError(f"{path} does not fit in this machine's memory") from None
    except Exception as error:  # whatever a damaged file makes pickle, zlib or NumPy raise
        what = f"{type(error).__name__}: {quoted(str(error), 120)}"
        raise CheckpointError(f"{path} is damaged; download or copy it again ({what})") from error


def _read_file(path: Path) -> tuple[Callable[[Any], Any], bytes | Pieces]:
    """The reader of a file and its bytes, in pieces where nothing but a pickle is in it."""
    # Not a memory map: of a file that changes meanwhile, what was checked must be what is used.
    try:
        if path.exists() and not path.is_file():
            what = "folder" if path.is_dir() else "device or a pipe"
            raise CheckpointError(f"is a {what}; expected a file such as network.pkl")
        with path.open("rb") as file:
            start = file.read(512)
            file.seek(0)
            reader = next(c.read for c in _CONTAINERS if c.fits(start))
            data = Pieces(file) if reader is read_pickle else path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError("does not exist; check the name of the file") from None
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}") from error
    if not start:
        raise CheckpointError("is empty; download or copy it again")
    return reader, data


class _Container(NamedTuple):
    fits: Callable[[bytes], bool]  # the first 512 bytes
    read: Callable[[Any], Any]


def _starts(magic: bytes, place: int = 0) -> Callable[[bytes], bool]:
    return lambda data: data.startswith(magic, place)


def _refuse(what: str) -> Callable[[bytes], Any]:
    def read(_: bytes) -> Any:
        raise CheckpointError(f"is {what}")

    return read


def _is_safetensors(data: bytes) -> bool:
    # the length of a JSON header, of 100 MB at most, and the header
    return data.startswith(b"{", 8) and int.from_bytes(data[:8], "little") < 2**27


# the names of safetensors -> NumPy's
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16", "BOOL": "?",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip


def _read_safetensors(data: bytes) -> dict[str, np.ndarray]:
    """The arrays by name, which the library checks to lie one after the other in the file."""
    try:
        entries = read_entries(data)
    except SafetensorError as error:
        raise CheckpointError(
            f"is a damaged safetensors file; download or copy it again ({quoted(str(error), 120)})"
        ) from error
    # sorted, since the library's order is another each time
    return {name: _array(name, **entry) for name, entry in sorted(entries, key=lambda e: e[0])}


def _array(name: str, dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    if dtype not in _DTYPES:
        raise CheckpointError(f"holds {quoted(name)} as {quoted(dtype)}; save it as float32")
    if dtype == "BF16":  # the upper half of a float32
        numbers = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    else:
        numbers = np.frombuffer(data, _DTYPES[dtype])
    numbers.flags.writeable = False
    return numbers.reshape(shape)


_CONTAINERS = (
    _Container(_is_safetensors, _read_safetensors),
    _Container(_starts(b"PK"), read_zip),
    _Container(_starts(b"<"), _refuse("a web page (the download failed)")),
    _Container(_starts(b"version https://git-lfs"), _refuse("a Git LFS pointer; fetch the file")),
    _Container(_starts(b"ustar", 257), _refuse("a tar archive; unpack it")),
    _Container(_starts(b"\x1f\x8b"), _refuse("compressed by gzip; unpack it")),
    _Container(_starts(b"BZh"), _refuse("compressed by bzip2; unpack it")),
    _Container(_starts(b"\xfd7zXZ"), _refuse("compressed by xz; unpack it")),
    _Container(_starts(b"\x28\xb5\x2f\xfd"), _refuse("compressed by zstd; unpack it")),
    _Container(_starts(b"7z\xbc\xaf"), _refuse("a 7z archive; unpack it")),
    _Container(_starts(b"Rar!"), _refuse("a RAR archive; unpack it")),
    _Container(_starts(b"\x89HDF"), _refuse("an HDF5 file; expected PyTorch's or a pickle")),
    _Container(_starts(b"\x93NUMPY"), _refuse("one NumPy array; expected a checkpoint")),
    _Container(lambda start: any(magic in start[:64] for magic in LEGACY), read_pickles),
    _Container(lambda _: True, read_pickle),
)
