"""Mutated checkpoints: each must be read or refused, quickly, in little memory, and touch nothing.

    python -m benchmarks.fuzz FOLDER                               # 10,000 cases, ten minutes
    python -m benchmarks.fuzz FOLDER --case 1234 --keep case.pkl   # writes that case out, no more

Every checkpoint under FOLDER is mutated in turn: its bytes, its pickles opcode by opcode, its zip
archive's headers. A child process gives each mutant to `ports.upstream.read`, the whole way of a
user's file, and watches: the only error may be a `CheckpointError` of one line; the address space
may grow by `MOST_MEMORY` (a limit that the operating system keeps) and time by `MOST_SECONDS`; and
no file is opened for writing, no module imported, nothing compiled, executed or asked of the
operating system (audit events). A child that dies is one more error, and a new one takes over. In
one case of nineteen tracemalloc counts the memory, which takes several times as long.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import pickletools
import resource
import shutil
import struct
import sys
import tempfile
import time
import tracemalloc
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.report import report
from ports import upstream
from ports.errors import CheckpointError

CHECKPOINTS = (".pkl", ".pt", ".pth", ".bin")
MOST_SECONDS = 30.0
MOST_MEMORY = (40, 2**26)  # times the mutant's size, plus bytes
TRACED = 19  # one case of so many


def main() -> None:
    parser = argparse.ArgumentParser(description="Reads mutated checkpoints.")
    parser.add_argument("folder", type=Path, help="of checkpoints, searched through")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="one case only, by its number")
    parser.add_argument("--keep", type=Path, help="where to write that case instead of reading it")
    options = parser.parse_args()
    files = find_checkpoints(options.folder)
    if options.keep is not None:
        options.keep.write_bytes(make_case(files, options.seed, options.case)[1])
        return
    one = options.case is not None
    cases = list(run(files, options.seed, [options.case] if one else range(options.cases)))
    by_file = {file: [case for case in cases if case.file == file] for file in files}
    rows = [_summarise(file, its) for file, its in by_file.items() if its]
    failed = [
        {"case": case.number, "checkpoint": case.file.name, "error": case.error}
        for case in cases
        if case.error
    ]
    report(
        "fuzz",
        {"mutated checkpoints": rows} | ({"failed": failed} if failed else {}),
        packages=("numpy",),
        save=not one,
        cases=len(cases),
        seed=options.seed,
        most_seconds=MOST_SECONDS,
        most_memory=MOST_MEMORY,
    )


def find_checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in CHECKPOINTS)


class Case(NamedTuple):
    """What became of a mutant.

    Attributes:
      number: its place in the run, which with the seed and the files makes it again.
      file: what was mutated.
      size: of the mutant, in bytes.
      refused: the sentence, where it was refused.
      error: what was wrong, where anything was.
      seconds: of processor time that reading took.
      peak: most memory while reading, in bytes.
    """

    number: int
    file: Path
    size: int
    refused: str = ""
    error: str = ""
    seconds: float = 0.0
    peak: int = 0


def _summarise(file: Path, cases: Sequence[Case]) -> dict[str, Any]:
    refused = sum(bool(case.refused) for case in cases)
    wrong = sum(bool(case.error) for case in cases)
    return {
        "checkpoint": f"{file.parent.name}/{file.name}",
        "MB": file.stat().st_size / 1e6,
        "cases": len(cases),
        "read": len(cases) - refused - wrong,
        "refused": refused,
        "other errors": wrong,
        "longest, CPU ms": 1e3 * max((case.seconds for case in cases), default=0.0),
        "peak ÷ size": max((case.peak / max(case.size, 2**16) for case in cases), default=0.0),
    }


# --- the child that reads ---------------------------------------------------------------------


def run(files: Sequence[Path], seed: int, indices: Sequence[int]) -> Iterator[Case]:
    """Reads the cases of these numbers, one after the other, in a child process."""
    context = multiprocessing.get_context("spawn")
    indices = list(indices)
    while indices:
        ours, theirs = context.Pipe()
        child = context.Process(target=_read_cases, args=(theirs, files, seed, indices))
        child.start()
        theirs.close()
        while indices:
            # the first case waits for imports too
            answered = ours.poll(2 * MOST_SECONDS + 60)
            try:
                case = ours.recv() if answered else None
            except EOFError:
                case = None
            index = indices.pop(0)
            if case is None:
                child.kill()
                child.join()
                what = f"ended with {child.exitcode}" if answered else "took for ever"
                file, data = make_case(files, seed, index)
                yield Case(index, file, len(data), error=f"the reader {what}")
                break
            yield case
        child.join()


def make_case(files: Sequence[Path], seed: int, index: int) -> tuple[Path, bytes]:
    """A checkpoint, and what it is mutated to in the case of that number."""
    file, other = files[index % len(files)], files[(index // len(files)) % len(files)]
    rng = np.random.default_rng([seed, index])
    return file, mutate(rng, _read_bytes(file), _read_bytes(other))


@lru_cache(maxsize=16)
def _read_bytes(file: Path) -> bytes:
    return file.read_bytes()


def _read_cases(answers: Connection, files: Sequence[Path], seed: int, indices: list[int]) -> None:
    seen: list[str] = []
    watching = False

    def watch(event: str, arguments: tuple) -> None:
        if watching and _is_effect(event, arguments):
            seen.append(f"{event} {arguments}"[:200])

    sys.addaudithook(watch)
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        for file in files:  # what is imported on first use
            with contextlib.suppress(CheckpointError):
                upstream.read(file)
        for index in indices:
            file, data = make_case(files, seed, index)
            folder = Path(tempfile.mkdtemp())
            path = folder / file.name
            path.write_bytes(data)
            if (file.parent / "config.json").exists():
                shutil.copy(file.parent / "config.json", folder)
            before = sorted(folder.iterdir())
            refused = error = ""
            seen.clear()
            if index % TRACED == 0:
                tracemalloc.start()
            most = MOST_MEMORY[0] * len(data) + MOST_MEMORY[1]
            with _limited_memory(most):
                start, watching = time.process_time(), True
                try:
                    upstream.read(path)
                except CheckpointError as problem:
                    refused = str(problem)
                except BaseException as problem:
                    error = f"{type(problem).__name__}: {problem}"[:300]
                watching, seconds = False, time.process_time() - start
            peak = tracemalloc.get_traced_memory()[1] if tracemalloc.is_tracing() else 0
            tracemalloc.stop()
            if seen:
                error = "did " + "; ".join(seen)
            elif os.listdir(work) or sorted(folder.iterdir()) != before:
                error = "made a file"
            elif seconds > MOST_SECONDS:
                error = f"took {seconds:.0f} s"
            elif peak > most:
                error = f"took {peak / 2**20:.0f} MB for {len(data)} bytes"
            elif len(refused) > 1000 or "\n" in refused or "memory" in refused:
                error = f"refused in no sentence: {refused[:200]!r}"
            shutil.rmtree(folder)
            refused = "" if error else refused
            answers.send(Case(index, file, len(data), refused, error, seconds, peak))
    answers.close()


@contextlib.contextmanager
def _limited_memory(most: int) -> Iterator[None]:
    """Lets the process take so many bytes more than it has; beyond, Python raises MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


_EFFECTS = (
    "code.",
    "compile",
    "ctypes.",
    "exec",
    "function.",
    "import",
    "marshal.",
    "os.",
    "pickle.find_class",
    "shutil.",
    "socket.",
    "subprocess.",
    "tempfile.",
    "webbrowser.",
)


def _is_effect(event: str, arguments: tuple) -> bool:
    if event == "open":
        _, mode, flags = arguments
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        return bool(flags & writes) or bool(set(mode or "") & set("wax+"))
    return event.startswith(_EFFECTS)


# --- mutations --------------------------------------------------------------------------------


def mutate(rng: np.random.Generator, data: bytes, other: bytes | None = None) -> bytes:
    """A checkpoint made different in one way or a few; `other` is one to take pieces from."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        kinds = [_flip_bytes, _cut, _rearrange, _set_integer, *[_edit_opcodes] * 4, _flip_opcodes]
        if data[:2] == b"PK":
            kinds += [_edit_headers] * 3 + [_edit_entry] * 5
        data = kinds[rng.integers(len(kinds))](rng, data)
        if other and rng.random() < 0.05:
            data = _splice(rng, data, other)
    return data


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
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
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


if __name__ == "__main__":
    main()
