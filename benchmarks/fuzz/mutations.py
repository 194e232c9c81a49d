"""Ways to damage a file: its bytes, its JSON, its arrays and archives, its pickles by opcode."""

import io
import json
import pickletools
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import numpy as np

Mutation = Callable[[np.random.Generator, bytes], bytes]


def mutate(rng: np.random.Generator, data: bytes, other: bytes | None = None) -> bytes:
    """A file made different in one way or a few; `other` is one to take pieces from."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        kinds = [_flip_bytes, _cut, _rearrange, _set_integer, *_kinds(data)]
        data = kinds[rng.integers(len(kinds))](rng, data)
        if other and rng.random() < 0.05:
            data = _splice(rng, data, other)
    return data


def _kinds(data: bytes) -> list[Mutation]:
    """What can be done to data of this form, the more often named the likelier."""
    if data.startswith(b"PK"):
        names = [name for name, _ in unpack(data)]
        if any(name.endswith(".npy") for name in names):
            return [_edit_headers] * 2 + [_edit_entry] * 2 + [_edit_arrays] * 12
        return [_edit_headers] * 3 + [_edit_entry] * 5 + [_edit_opcodes] * 4 + [_flip_opcodes]
    if data.startswith(_NPY):
        return [_edit_array] * 12
    if data.startswith(b"{"):
        return [_edit_json] * 16
    if data.startswith(b"{", 8):
        return [_edit_safetensors] * 12
    return [_edit_opcodes] * 4 + [_flip_opcodes] if data.startswith(b"\x80") else []


# --- JSON and arrays --------------------------------------------------------------------------

_VALUES = [
    None, True, False, -1, 0, 1, 2, 3, 33, 2**31, 2**63, 2**70, 10**400, 0.5, -0.0, 1e-300, 1e300,
    "", "0", "a" * 10_000, "\x1b[31m", "\ud800", "../..", "NaN", [], {}, [[]], [None], {"": 0},
    float("nan"), float("inf"), "@deep@", "@huge@", "@long@",
]  # fmt: skip
_UNSPEAKABLE = {  # what Python would not write
    '"@deep@"': "[" * 100_000 + "]" * 100_000,
    '"@huge@"': "1e999",
    '"@long@"': "9" * 5000,
}


def _edit_safetensors(rng: np.random.Generator, data: bytes) -> bytes:
    """Changes the header, whose length is then right or as it was."""
    size = int.from_bytes(data[:8], "little")
    header, rest = _edit_json(rng, data[8 : 8 + size]), data[8 + size :]
    length = data[:8] if rng.random() < 0.1 else len(header).to_bytes(8, "little")
    return length + header + rest


def _edit_json(rng: np.random.Generator, data: bytes) -> bytes:
    """Changes, drops or copies values, at any depth."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):  # mutated already
        return _flip_bytes(rng, data)
    places = list(_places(content))[:10_000]
    if not places:
        return _flip_bytes(rng, data)
    # names and lists of few as often as the numbers of long lists
    short = [place for place in places if len(place[0]) < 30] or places
    for _ in range(rng.choice([1, 1, 1, 2])):
        chosen = short if rng.random() < 0.8 else places
        holder, key = chosen[rng.integers(len(chosen))]
        other, place = places[rng.integers(len(places))]
        kind = rng.integers(8)
        if key not in (holder if isinstance(holder, dict) else range(len(holder))):
            continue  # dropped
        value = holder[key]
        if kind == 0:
            del holder[key]
        elif kind == 1 and (place in other if isinstance(other, dict) else place < len(other)):
            holder[key] = json.loads(json.dumps(other[place]))
        elif kind == 2 and isinstance(holder, list):
            holder.insert(key, value)
        elif kind == 3 and type(value) is float:
            holder[key] = value * float(rng.choice([0.5, 2, -1, 1 + 1e-6]))
        elif kind == 4 and type(value) is int:
            holder[key] = value + int(rng.choice([-1, 1, 1000]))
        elif kind == 5 and isinstance(value, str):
            holder[key] = value[: rng.integers(len(value) + 1)] + str(rng.choice(["", "a", "é"]))
        else:
            holder[key] = _VALUES[rng.integers(len(_VALUES))]
    text = json.dumps(content)
    for marked, written in _UNSPEAKABLE.items():
        text = text.replace(marked, written)
    return text.encode("utf-8", "surrogatepass")


def _places(node: Any) -> Iterable[tuple[Any, Any]]:
    """Every (holder, key) in parsed JSON."""
    waiting = [node]
    while waiting:
        holder = waiting.pop()
        keys = holder if isinstance(holder, dict) else range(len(holder))
        for key in list(keys):
            yield holder, key
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])


_NPY = b"\x93NUMPY"
_NUMBERS = [0, -1, 1, 2, 1e-45, 1e30, 1e300, np.nan, np.inf, -np.inf]
_TYPES = ["<f4", ">f4", "<f2", "<f8", "<i4", "<i8", "<u8", "?", "<U3", "S4", "<c8", "<M8[s]"]
_HEADER_WORDS = [
    b"-1", b"0", b"1", b"2", b"9999999999", b"99999999999999999999", b"True", b"None", b"()",
    b"'|O'", b"'<U0'", b"'|V0'", b"'<f4'", b"[('a', '<f4')]", b"(" * 300, b"'", b"1L", b"#",
]  # fmt: skip


def _edit_array(rng: np.random.Generator, data: bytes) -> bytes:
    """Changes an .npy: its header's words, its shape, type, numbers, or the JSON that it is."""
    if rng.random() < 0.3:
        end = min(len(data), 128)
        places = [i for i in range(10, end) if data[i : i + 1] in b"0123456789'(<"]
        place = int(places[rng.integers(len(places))]) if places else 0
        word = _HEADER_WORDS[rng.integers(len(_HEADER_WORDS))]
        header = data[:place] + word + data[place + 1 :]
        # as long as it was, so that the rest is where it is looked for
        return header[:end][: end - 1] + b"\n" + data[end:] if rng.random() < 0.7 else header
    try:
        with warnings.catch_warnings(action="ignore"):
            array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
            changed = _change_array(rng, array)
            stream = io.BytesIO()
            np.lib.format.write_array(stream, changed, allow_pickle=False)
    except Exception:  # mutated already, or what NumPy does not do
        return _flip_bytes(rng, data)
    return stream.getvalue()


def _change_array(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "U" and not array.ndim:
        text = str(array)
        if text.startswith("{"):
            return np.array(_edit_json(rng, text.encode()).decode("utf-8", "surrogatepass"))
        return np.array(str(_VALUES[rng.integers(len(_VALUES))])[:20_000])
    kind = rng.integers(8)
    if kind == 0:
        return array.astype(_TYPES[rng.integers(len(_TYPES))])
    if kind == 1:
        return [array.reshape(-1), array[None], array[..., None], array.T][rng.integers(4)]
    if kind == 2:
        return array[: rng.integers(len(array) + 1)]
    if kind == 3:
        return np.concatenate([array, array[: rng.integers(1, 3)]])
    if kind == 4:
        return np.zeros(int(rng.choice([0, 1, 2**22])), array.dtype)
    if kind == 5:
        return np.full(array.shape, _NUMBERS[rng.integers(len(_NUMBERS))]).astype(array.dtype)
    changed = array.copy()
    flat = changed.reshape(-1)
    flat[rng.integers(len(flat))] = _NUMBERS[rng.integers(len(_NUMBERS))]
    return changed


def _edit_arrays(rng: np.random.Generator, data: bytes) -> bytes:
    """Changes, drops, renames or doubles an array of an .npz, or packs it in another way."""
    entries = list(unpack(data))
    if not entries:
        return _flip_bytes(rng, data)
    place, second = (int(i) for i in rng.integers(0, len(entries), 2))
    name, content = entries[place]
    compression = zipfile.ZIP_STORED
    kind = rng.integers(12)
    if kind == 0:
        del entries[place]
    elif kind == 1:
        entries.append((entries[second][0], content))
    elif kind == 2:
        entries[place] = (str(rng.choice(["a.npy", "../a.npy", "a", ".npy", name[:-4]])), content)
    elif kind == 3:
        methods = [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
        compression = methods[rng.integers(3)]
    elif kind == 4 and rng.random() < 0.3:  # far larger than it looks, and slow to make
        stream = io.BytesIO()
        np.save(stream, np.zeros((2**11, 2**12), np.float32))
        entries[place] = (name, stream.getvalue())
        compression = [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2][rng.integers(2)]
    else:
        entries[place] = (name, _edit_array(rng, content))
    return pack(entries, compression)


def mend_png(data: bytes) -> bytes:
    """The same with the checksums that its chunks ought to have."""
    mended, place = data[:8], 8
    while place + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        chunk = data[place + 4 : place + 8 + size]
        mended += data[place : place + 4] + chunk + struct.pack(">I", zlib.crc32(chunk))
        place += 12 + size
    return mended + data[place:]


# --- bytes, pickles, archives -----------------------------------------------------------------


def _flip_bytes(rng: np.random.Generator, data: bytes) -> bytes:
    changed = bytearray(data)
    for place in rng.integers(0, len(data), rng.integers(1, 9)) if data else ():
        changed[place] = rng.integers(256)
    return bytes(changed)


def _edit_entry(rng: np.random.Generator, data: bytes) -> bytes:
    """Changes one file in an archive, which is written anew, its checksums right."""
    entries = list(unpack(data))
    if not entries:
        return _flip_bytes(rng, data)
    kind = [_flip_bytes, _cut, _rearrange, _set_integer][rng.integers(4)]
    chosen = int(rng.integers(len(entries)))
    name, content = entries[chosen]
    entries[chosen] = (name, kind(rng, content))
    return pack(entries)


def _cut(rng: np.random.Generator, data: bytes) -> bytes:
    return data[: rng.integers(len(data) + 1)]


def _rearrange(rng: np.random.Generator, data: bytes) -> bytes:
    """Doubles, drops or swaps slices."""
    a, b, c = sorted(rng.integers(0, len(data) + 1, 3))
    kind = rng.integers(4)
    if kind == 0:
        return data[:b] + data[a:]
    if kind == 1:
        return data[:a] + data[b:]
    if kind == 2:
        return data[:a] + data[b:c] + data[a:b] + data[c:]
    return data[:a] + data[a : a + 16] * int(rng.integers(1, 1000)) + data[a:]


_EXTREMES = [
    0,
    1,
    127,
    128,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
]


def _set_integer(rng: np.random.Generator, data: bytes) -> bytes:
    size = int(rng.choice([1, 2, 4, 8]))
    place = int(rng.integers(len(data) + 1))
    return data[:place] + _extreme(rng, size) + data[place + size :]


def _extreme(rng: np.random.Generator, size: int) -> bytes:
    value = _EXTREMES[rng.integers(len(_EXTREMES))]
    return (value % 256**size).to_bytes(size, "little")


def _splice(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    return data[: rng.integers(len(data) + 1)] + other[rng.integers(len(other) + 1) :]


def _flip_opcodes(rng: np.random.Generator, data: bytes) -> bytes:
    """Flips bits between the texts and numbers of the pickles."""
    pickles, rest = _split(data)
    if not pickles:
        return _flip_bytes(rng, data)
    for _ in range(rng.integers(1, 5)):
        chosen = rng.integers(len(pickles))
        opcode = bytearray(pickles[chosen])
        place = rng.integers(min(len(opcode), 12))
        opcode[place] ^= 1 << int(rng.integers(8))
        pickles[chosen] = bytes(opcode)
    return _join(data, pickles, rest)


_MODULES = ["posix", "builtins", "torch._utils", "torch", "collections", "numpy", "argparse"]
_ATTRIBUTES = ["system", "eval", "getattr", "_rebuild_tensor_v2", "FloatStorage", "OrderedDict"]
_NAMES = [f"{module}\n{name}\n" for module in _MODULES for name in _ATTRIBUTES] + [
    "torch.storage\n_load_from_bytes\n",
    "torch_utils.persistence\n_reconstruct_persistent_obj\n",
    "dnnlib.tflib.network\nNetwork\n",
    "numpy.core.multiarray\n_reconstruct\n",
    "numpy.core.multiarray\nscalar\n",
    "numpy\ndtype\n",
    "argparse\nNamespace\n",
    "datetime\ndatetime\n",
    "collections\ndeque\n",
    "a.package.torch_utils.persistence\n_reconstruct_persistent_obj\n",
    "a.package.dnnlib.util\nEasyDict\n",
    "copy_reg\n_reconstructor\n",
    "builtins\nset\n",
    "builtins\nfrozenset\n",
    "_codecs\nencode\n",
    "torch._tensor\n_rebuild_from_type_v2\n",
    "torch.nn.modules.activation\nReLU\n",
]
_SNIPPETS = [
    b"cposix\nsystem\n(X\x0c\x00\x00\x00touch canarytR0",
    b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x930",
    *(bytes([opcode]) for opcode in b"0123()]}abdelstuNR.Q"),
    *(bytes([opcode]) for opcode in b"\x81\x85\x86\x87\x8f\x90\x91\x92\x93\x94"),
    b"h\x00", b"h\x05", b"r\xff\xff\xff\x7f", b"\x82\x01", b"\x97", b"\x98", b"]\x94h\x00a",
    b"B\xff\xff\xff\x7f", b"\x95" + struct.pack("<Q", 2**40), b"\x8a\xff", b"I99999999999\n",
]  # fmt: skip


def _edit_opcodes(rng: np.random.Generator, data: bytes) -> bytes:
    """Inserts, drops, repeats, swaps opcodes; changes names, memo slots and numbers; nests."""
    pickles, rest = _split(data)
    if not pickles:
        return _rearrange(rng, data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        place, second = (int(i) for i in rng.integers(0, len(pickles), 2))
        opcode = pickles[place]
        kind = rng.integers(9)
        if kind == 0:
            pickles.insert(place, _SNIPPETS[rng.integers(len(_SNIPPETS))])
        elif kind == 1:
            pickles[place] = b""
        elif kind == 2:
            pickles[place] = opcode * int(rng.choice([2, 3, 1000]) if len(opcode) < 64 else 2)
        elif kind == 3:
            pickles[place], pickles[second] = pickles[second], opcode
        elif kind == 4:  # one of another kind where that was
            pickles[place] = pickles[second]
        elif kind == 5:
            pickles.insert(place, rng.choice([b"c", b"(c"]) + rng.choice(_NAMES).encode())
        elif kind == 6:
            depth = int(rng.choice([1, 50, 5000]))
            pickles.insert(place + 1, rng.choice([b"\x85", b"]\x94(h\x00e", b"](e"]) * depth)
        else:
            place = _find(rng, pickles, b"hjqrKMJcX\x8c" if kind == 7 else b"cX\x8chj", place)
            pickles[place] = _change_operand(rng, pickles[place])
    return _join(data, pickles, rest)


def _find(rng: np.random.Generator, pickles: list[bytes], opcodes: bytes, otherwise: int) -> int:
    """The place of one of these opcodes."""
    for place in rng.integers(0, len(pickles), 50):
        if pickles[place][:1] and pickles[place][:1] in opcodes:
            return int(place)
    return otherwise


def _change_operand(rng: np.random.Generator, opcode: bytes) -> bytes:
    kind = opcode[:1]
    if kind == b"c":
        return b"c" + rng.choice(_NAMES).encode()
    if kind in (b"X", b"\x8c"):
        text = rng.choice(
            _MODULES + _ATTRIBUTES + ["storage", "cpu", "0", "1", "../0", ""]
        ).encode()
        return b"X" + struct.pack("<I", len(text)) + text
    return kind + (
        _extreme(rng, len(opcode) - 1) if rng.random() < 0.5 else rng.bytes(len(opcode) - 1)
    )


@lru_cache(maxsize=8)
def _opcodes(pickles: bytes) -> tuple[tuple[bytes, ...], int]:
    """The opcodes of all pickles at the start of the bytes, without frames, and where they end."""
    stream, found, end = io.BytesIO(pickles), [], 0
    try:
        while end < len(pickles):
            places = [(int(place or 0), op.name) for op, _, place in pickletools.genops(stream)]
            ends = [place for place, _ in places[1:]] + [stream.tell()]
            found += [
                pickles[place:after]
                for (place, name), after in zip(places, ends, strict=True)
                if name != "FRAME"
            ]
            end = stream.tell()
    except Exception:  # the rest is no pickle
        pass
    return tuple(found), end


def _split(data: bytes) -> tuple[list[bytes], bytes]:
    """The opcodes of a checkpoint's pickles, and what comes after them."""
    if data[:2] == b"PK":
        contents = (content for name, content in unpack(data) if name.endswith("/data.pkl"))
        data = next(contents, b"")
    opcodes, end = _opcodes(data)
    return list(opcodes), data[end:]


def _join(data: bytes, opcodes: list[bytes], rest: bytes) -> bytes:
    """The data with these opcodes; an archive is written anew, its checksums right."""
    pickles = b"".join(opcodes) + rest
    if data[:2] != b"PK":
        return pickles
    return pack(
        (name, pickles if name.endswith("/data.pkl") else content) for name, content in unpack(data)
    )


@lru_cache(maxsize=8)
def unpack(data: bytes) -> tuple[tuple[str, bytes], ...]:
    """The (name, content) of a zip archive, none where it is damaged."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return tuple((name, archive.read(name)) for name in archive.namelist())
    except Exception:  # mutated already
        return ()


def pack(entries: Iterable[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive of (name, content)."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in entries:
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))  # the same whenever it is made
            archive.writestr(entry, content, compression)
    return stream.getvalue()


def _edit_headers(rng: np.random.Generator, data: bytes) -> bytes:
    """Changes sizes, places, names, flags and methods in an archive's headers."""
    changed = bytearray(data)
    signature = [b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06"][rng.integers(4)]
    places = []
    place = data.find(signature)
    while place >= 0:
        places.append(place)
        place = data.find(signature, place + 4)
    for _ in range(rng.choice([1, 1, 2])) if places else ():
        place = places[rng.integers(len(places))] + int(rng.integers(4, 60))
        size = int(rng.choice([1, 2, 4, 8]))
        changed[place : place + size] = (
            _extreme(rng, size) if rng.random() < 0.7 else rng.bytes(size)
        )
    return bytes(changed)
