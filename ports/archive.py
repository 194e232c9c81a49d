"""Reads zip archives as PyTorch writes them and as people pack them again, in memory only.

An archive describes each of its entries twice, before the entry's bytes and in the directory at its
end. Here both must agree, and no byte may belong to two entries, so that every program that reads
the archive sees the same.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from ports.errors import CheckpointError, quoted

_MOST_ENTRIES = 2**16
# Weights are hardly compressible; buffers of zeros are.
_INFLATION = 8
_LARGE = 0xFFFFFFFF  # in a field of 32 bits: see the extra field of 64 bits

_LOCAL = struct.Struct("<4s2xHH4x3I2H")
_DIRECTORY = struct.Struct("<4s4xHH4x3I3HH6xI")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ4x2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _SIZES_FOLLOW = 0x0001, 0x0008


class _Entry(NamedTuple):
    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int


def read_archive(data: bytes) -> dict[str, memoryview]:
    """The contents of the files in an archive, by name.

    Files that are stored as they are come back as views into `data`; compressed ones are inflated,
    all of them together to no more than 8 times the archive.

    Raises:
      CheckpointError: where the archive is damaged, ambiguous, encrypted, compressed by anything
        but deflate, or holds names that point out of it.
      struct.error, zlib.error: where it is damaged.
    """
    start, entries = _read_directory(data)
    allowance = _INFLATION * len(data) + 2**20
    names: set[str] = set()
    contents = {}
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.offset):
        _check_name(entry.name, names)
        begin = _find_content(data, entry)
        if entry.offset < end or begin + entry.packed > start:
            raise CheckpointError(f"is a zip archive whose entries overlap ({quoted(entry.name)})")
        end = begin + entry.packed
        content = memoryview(data)[begin:end]
        if entry.method == _DEFLATED:
            allowance -= entry.size
            if allowance < 0:
                raise CheckpointError(
                    f"is a zip archive that would grow more than {_INFLATION}-fold when unpacked, "
                    "which weights never do; unpack it yourself if you trust it, and save anew"
                )
            content = _inflate(content, entry)
        elif entry.packed != entry.size:
            raise CheckpointError(f"is damaged: {quoted(entry.name)} has two sizes in its archive")
        # PyTorch writes 0 where it was told not to compute them
        if entry.crc and zlib.crc32(content) != entry.crc:
            raise CheckpointError(
                f"is damaged in {quoted(entry.name)} (checksum); download or copy it again"
            )
        if not entry.name.endswith("/"):
            contents[entry.name] = content
    return contents


def _read_directory(data: bytes) -> tuple[int, list[_Entry]]:
    """Where the directory starts, and what it lists."""
    place = data.rfind(b"PK\x05\x06", max(0, len(data) - _END.size - 2**16))
    if place < 0 or place + _END.size > len(data):
        raise CheckpointError("is a zip archive that is cut short; download or copy it again")
    _, disk, first_disk, here, number, size, start, comment = _END.unpack_from(data, place)
    end = place
    if place + _END.size + comment != len(data):
        raise CheckpointError("is a zip archive with something after its end")
    locator = place - _LOCATOR64.size
    if locator >= 0 and data[locator : locator + 4] == b"PK\x06\x07":
        _, disk, end, _ = _LOCATOR64.unpack_from(data, locator)
        magic, length, _, first_disk, here, number, size, start = _END64.unpack_from(data, end)
        if magic != b"PK\x06\x06" or end + 12 + length != locator:
            raise CheckpointError("is damaged: the end of its zip archive contradicts itself")
    if disk or first_disk or here != number:
        raise CheckpointError("is one part of a zip archive in several; join the parts first")
    if number > _MOST_ENTRIES:
        raise CheckpointError(f"is a zip archive of {number} entries, far more than any checkpoint")
    if start + size != end:
        raise CheckpointError("is damaged: the directory of its zip archive is not where it says")
    entries, place = [], start
    for _ in range(number):
        entry, place = _read_entry(data, place, end)
        entries.append(entry)
    if place != end:
        raise CheckpointError("is damaged: its zip archive lists fewer entries than it has")
    return start, entries


def _read_entry(data: bytes, place: int, end: int) -> tuple[_Entry, int]:
    """An entry of the directory, and where the next one is."""
    fields = _DIRECTORY.unpack_from(data, place)
    magic, flags, method, crc, packed, size, name_size, extra_size, comment, disk, offset = fields
    after_name = place + _DIRECTORY.size + name_size
    after = after_name + extra_size + comment
    if magic != b"PK\x01\x02" or after > end or disk:
        raise CheckpointError("is damaged: the directory of its zip archive makes no sense")
    raw_name = data[after_name - name_size : after_name]
    name = raw_name.decode("utf-8" if flags & 0x800 else "latin-1")
    if flags & _ENCRYPTED:
        raise CheckpointError("is an encrypted zip archive; decrypt it first")
    if method not in (_STORED, _DEFLATED):
        raise CheckpointError(
            f"compresses {quoted(name)} by method {method}; expected a zip archive that is stored "
            "or deflated"
        )
    large = _large_numbers(data[after_name : after_name + extra_size])
    size, packed, offset = (
        next(large) if number == _LARGE else number for number in (size, packed, offset)
    )
    return _Entry(name, raw_name, flags, method, crc, packed, size, offset), after


def _large_numbers(extra: bytes) -> Iterator[int]:
    """The numbers of 64 bits in an entry's extra field."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<2H", extra)
        if kind == 1:
            yield from (
                number for (number,) in struct.iter_unpack("<Q", extra[4 : 4 + (size & ~7)])
            )
        extra = extra[4 + size :]
    raise CheckpointError("is damaged: its zip archive lacks the size of an entry")


def _check_name(name: str, names: set[str]) -> None:
    """Refuses names that point elsewhere or twice to the same; adds the others to `names`."""
    absolute = name.startswith("/") or name[1:2] == ":"
    if absolute or ".." in name.split("/") or "\\" in name or "\0" in name:
        raise CheckpointError(
            f"is a zip archive with the name {quoted(name)}, which points out of it"
        )
    if name in names:
        raise CheckpointError(f"is a zip archive with two entries called {quoted(name)}")
    names.add(name)


def _find_content(data: bytes, entry: _Entry) -> int:
    """Where an entry's bytes start, after a header that must say the same as the directory."""
    if entry.offset + _LOCAL.size > len(data):
        raise CheckpointError(f"is damaged: {quoted(entry.name)} is not in its zip archive")
    fields = _LOCAL.unpack_from(data, entry.offset)
    magic, flags, method, crc, packed, size, name_size, extra_size = fields
    begin = entry.offset + _LOCAL.size + name_size
    unstated = (0, _LARGE) if flags & _SIZES_FOLLOW else (_LARGE,)
    numbers = zip((crc, packed, size), (entry.crc, entry.packed, entry.size), strict=True)
    if (
        magic != b"PK\x03\x04"
        or (flags, method) != (entry.flags, entry.method)
        or data[begin - name_size : begin] != entry.raw_name
        or any(here != there and here not in unstated for here, there in numbers)
    ):
        raise CheckpointError(f"is a zip archive that describes {quoted(entry.name)} in two ways")
    return begin + extra_size


def _inflate(packed: memoryview, entry: _Entry) -> memoryview:
    """The content of a compressed entry, no more of it than the directory says."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflater.decompress(packed, entry.size + 1)
    if len(content) != entry.size or not inflater.eof or inflater.unused_data:
        raise CheckpointError(f"is damaged: {quoted(entry.name)} is not as long as it says")
    return memoryview(content)
