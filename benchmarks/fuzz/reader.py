"""The child that reads damaged files, and watches what that does.

The only errors may be a ValueError or an OSError of one line that names the file. The address space
may grow by `TIMES_SIZE` times the file and by what its kind needs (a limit that the operating
system keeps), and time by `MOST_SECONDS`. Nothing is executed or asked of the network; while
pickles are read nothing is imported, compiled or opened for writing either (audit events). A child
that dies is one more error, and a new one takes over. In one case of nineteen tracemalloc counts
the memory, which takes several times as long.
"""

import contextlib
import logging
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.fuzz.kinds import KINDS, Kind, Subject
from benchmarks.fuzz.mutations import mutate

MOST_SECONDS = 30.0
TIMES_SIZE = 40
MOST_WORDS = 1000  # characters of a sentence
_NO_MEMORY = "llocat"  # how NumPy and others say that they cannot
TRACED = 19  # one case of so many


class Mutant(NamedTuple):
    """A subject with one of its files damaged.

    Attributes:
      subject: the whole one.
      damaged: which of its files.
      data: what that becomes.
      mended: whether checksums are made right again.
    """

    subject: Subject
    damaged: str
    data: bytes
    mended: bool


class Case(NamedTuple):
    """What became of a mutant.

    Attributes:
      number: its place in the run, which with the seed and the subjects makes it again.
      kind: of its subject.
      name: of its subject.
      damaged: the file of the subject that was.
      size: of the damaged file, in bytes.
      refused: the sentence, where it was refused.
      error: what was wrong, where anything was.
      seconds: of processor time that it took.
      peak: most memory while reading, in bytes, where it was counted.
    """

    number: int
    kind: str
    name: str
    damaged: str
    size: int
    refused: str = ""
    error: str = ""
    seconds: float = 0.0
    peak: int = 0


def make_case(subjects: Sequence[Subject], seed: int, index: int) -> Mutant:
    """What is damaged in the case of that number, and how."""
    rng = np.random.default_rng([seed, index])
    kinds = sorted({subject.kind for subject in subjects})
    shares = np.array([KINDS[kind].share for kind in kinds])
    kind = kinds[rng.choice(len(kinds), p=shares / shares.sum())]
    own = [subject for subject in subjects if subject.kind == kind]
    subject, other = (own[i] for i in rng.integers(0, len(own), 2))
    damaged, piece = (of.damaged[rng.integers(len(of.damaged))] for of in (subject, other))
    mended = KINDS[kind].mend is not None and bool(rng.random() < 0.5)
    data = mutate(rng, _read_bytes(subject.base / damaged), _read_bytes(other.base / piece))
    return Mutant(subject, damaged, data, mended)


@lru_cache(maxsize=64)
def _read_bytes(file: Path) -> bytes:
    return file.read_bytes()


def run(subjects: Sequence[Subject], seed: int, indices: Sequence[int]) -> Iterator[Case]:
    """Reads the cases of these numbers, one after the other, in a child process."""
    context = multiprocessing.get_context("spawn")
    indices = list(indices)
    while indices:
        ours, theirs = context.Pipe()
        child = context.Process(target=_read_cases, args=(theirs, subjects, seed, indices))
        child.start()
        theirs.close()
        while indices:
            # the first case waits for imports too
            answered = ours.poll(2 * MOST_SECONDS + 120)
            try:
                case = ours.recv() if answered else None
            except EOFError:
                case = None
            index = indices.pop(0)
            if case is None:
                child.kill()
                child.join()
                what = f"ended with {child.exitcode}" if answered else "took for ever"
                mutant = make_case(subjects, seed, index)
                yield _case(index, mutant, error=f"the reader {what}")
                break
            yield case
        child.join()


def _case(number: int, mutant: Mutant, **found: Any) -> Case:
    kind, name = mutant.subject.kind, mutant.subject.name
    return Case(number, kind, name, mutant.damaged, len(mutant.data), **found)


def _read_cases(
    answers: Connection, subjects: Sequence[Subject], seed: int, indices: list[int]
) -> None:
    # what Orbax' threads say of a case that is over would count as the next one's doing: Python
    # compiles each line of a traceback that it shows
    logging.disable()
    threading.excepthook = sys.unraisablehook = lambda *_: None
    watch = _Watch()
    sys.addaudithook(watch)
    whole: dict[Subject, Any] = {}  # what is made of a subject that is not damaged
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        for index in indices:
            mutant = make_case(subjects, seed, index)
            subject, kind = mutant.subject, KINDS[mutant.subject.kind]
            if subject not in whole:  # and what is imported on first use
                with _copied(subject) as path:
                    try:
                        whole[subject] = kind.use(kind.read(path))
                    except ValueError:  # a folder of upstream's may hold others
                        whole[subject] = None
            answers.send(_read_case(index, mutant, kind, whole[subject], watch))
    answers.close()


def _read_case(index: int, mutant: Mutant, kind: Kind, expected: Any, watch: "_Watch") -> Case:
    refused = error = ""
    peak, most = 0, TIMES_SIZE * len(mutant.data) + kind.memory
    with _copied(mutant.subject, mutant) as path:
        before = sorted(path.parent.rglob("*"))
        if index % TRACED == 0:
            tracemalloc.start()
        start = time.process_time()
        try:
            with _limited_memory(most), watch.of(kind):
                found = kind.read(path)
        except (ValueError, OSError) as problem:
            refused = str(problem) or "nothing is said"
            if not any(name in refused for name in (path.name, Path(mutant.damaged).name)):
                error = f"it is not said which file: {refused[:300]}"
        except BaseException as problem:
            error = f"{type(problem).__name__}: {problem}"[:300]
        else:
            try:
                result = kind.use(found)
            except (ValueError, OSError) as problem:
                refused = str(problem) or "nothing is said"
            except BaseException as problem:
                error = f"used, {type(problem).__name__}: {problem}"[:300]
            else:
                if not mutant.mended and expected is not None:
                    error = "" if np.array_equal(result, expected) else "another result, in silence"
        seconds = time.process_time() - start
        if tracemalloc.is_tracing():
            peak = watch.peak
            tracemalloc.stop()
        if watch.seen:
            error = "did " + "; ".join(watch.seen)
        elif mutant.subject.kind != "fit" and sorted(path.parent.rglob("*")) != before:
            error = "made a file"
        elif seconds > MOST_SECONDS:
            error = f"took {seconds:.0f} s"
        elif peak > most:
            error = f"took {peak / 2**20:.0f} MB for {len(mutant.data)} bytes"
        elif len(refused) > MOST_WORDS or not refused.isprintable() or _NO_MEMORY in refused:
            error = f"refused in no sentence: {refused[:200]!r}"
    refused = "" if error else refused
    return _case(index, mutant, refused=refused, error=error, seconds=seconds, peak=peak)


@contextlib.contextmanager
def _copied(subject: Subject, mutant: Mutant | None = None) -> Iterator[Path]:
    """A copy of the subject's files, or of a mutant; yields what is read."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "subject"
        for name in subject.files:
            (base / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(subject.base / name, base / name)
        target = base if subject.target == "." else base / subject.target
        if mutant is not None:
            damaged, mend = base / mutant.damaged, KINDS[subject.kind].mend
            damaged.write_bytes(mutant.data)
            if mutant.mended and mend is not None:
                with contextlib.suppress(Exception):  # nothing is left to mend
                    mend(damaged, target)
        yield target


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


class _Watch:
    """An audit hook: `seen` are the effects of what was read last, `peak` the memory it took."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.peak = 0
        self._kind: Kind | None = None

    def __call__(self, event: str, arguments: tuple) -> None:
        if self._kind is not None and is_effect(event, arguments, strict=self._kind.strict):
            self.seen.append(f"{event} {arguments}"[:200])

    @contextlib.contextmanager
    def of(self, kind: Kind) -> Iterator[None]:
        self.seen.clear()
        self._kind = kind
        try:
            yield
        finally:
            self._kind = None
            self.peak = tracemalloc.get_traced_memory()[1]


_NEVER = (
    "os.exec", "os.fork", "os.posix_spawn", "os.system", "pickle.find_class",
    "socket.connect", "subprocess.", "webbrowser.",
)  # fmt: skip
_NEVER_STRICTLY = (
    "code.", "compile", "ctypes.", "exec", "function.", "import", "marshal.", "os.", "shutil.",
    "socket.", "tempfile.",
)  # fmt: skip


def is_effect(event: str, arguments: tuple, *, strict: bool) -> bool:
    """Whether an audit event is of something that reading a file has no need to do."""
    if event == "open":
        _, mode, flags = arguments
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        return strict and (bool(flags & writes) or bool(set(mode or "") & set("wax+")))
    return event.startswith(_NEVER) or (strict and event.startswith(_NEVER_STRICTLY))
