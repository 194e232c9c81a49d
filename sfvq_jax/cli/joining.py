"""Several processes of one command: they find one another, are told alike, and end together.

Process 0 listens at the coordinator's address, and each other process keeps a connection to it. By
it they compare their options before JAX starts, show each other that they live, and say why one
ends. JAX's own runtime only breaks off, with a stack, when a process is gone.
"""

import argparse
import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import jax

import sfvq_jax
from sfvq_jax.cli.common import sentence, shown
from sfvq_jax.cli.compilation import check_device
from sfvq_jax.processes import in_all_processes

BEAT = 1.0  # seconds between signs of life
SILENCE = 75.0  # seconds without one that end the others
MISSED = 10.0  # seconds without one that are the reason where JAX gives up
LAST = 20.0  # seconds after a signal in which a process ends by itself
LINGER = 2.0  # seconds in which the others hear why this one ends
MOST_LINE = 2**16  # bytes of a message
OWN = {  # options that may differ from process to process; latents are compared in `fit`
    "process_id", "coordinator", "source", "weights", "start", "curve", "log_json", "join_timeout",
    "debug", "compilation_cache", "overwrite",
}  # fmt: skip


def add_distributed_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--distributed",
        action="store_true",
        help="run as one of several processes that work together",
    )
    command.add_argument(
        "--coordinator", help="address of process 0, HOST:PORT, which the others connect to"
    )
    command.add_argument("--processes", type=int, help="number of processes")
    command.add_argument("--process-id", type=int, help="number of this process, from 0")
    command.add_argument(
        "--join-timeout",
        type=_seconds,
        default=60.0,
        help="seconds to wait for the other processes at the start (default: %(default)s)",
    )


def _seconds(text: str) -> float:
    try:
        if 0 < float(text) <= 86400:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text}: expected seconds, above 0 and at most a day")


@contextlib.contextmanager
def together(options: argparse.Namespace) -> Iterator[None]:
    """Joins the processes of a command, if it has several, and ends all when one ends.

    On a cluster that JAX knows they find one another without being told anything.

    Raises:
      ValueError: they cannot be joined, or were not told the same.
    """
    if not options.distributed:
        yield
        return
    with _runtime_kept_out(options):
        company = _join(options)
        with _abort_told(company):
            try:
                check_device()
                yield
            except BaseException as error:
                if isinstance(error, Exception):
                    time.sleep(1)  # another one's end, if that is the reason, is told meanwhile
                text, status = _said(error, company.hint)
                company.end(company.silent() or text if status == 2 else text, status)
            company.leave()


def _said(error: BaseException, hint: str) -> tuple[str, int]:
    """What is said of an error, and the exit status."""
    if isinstance(error, Exception):
        return sentence(error), 2
    return f"stopped{hint}", 130 if isinstance(error, KeyboardInterrupt) else 143


class Company:
    """The connections of this process to the others: from process 0 to each, from each to it.

    Args:
      links: by the number of the process.
      listener: of process 0, for those that come too late.
      hint: how to go on, for the end of a sentence.
    """

    def __init__(
        self,
        command: str,
        process: int,
        links: dict[int, socket.socket],
        listener: socket.socket | None,
        hint: str,
    ):
        self.hint = hint
        self._command, self._process = command, process
        self._links, self._listener = links, listener
        self._lock, self._ending, self._leaving = threading.Lock(), False, False
        self._left: set[int] = set()
        self._heard = dict.fromkeys(links, time.monotonic())
        self._stopped = threading.Event()
        self._wake, wake = os.pipe()
        os.set_blocking(wake, False)
        self._wakeup_before = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def end(self, text: str, status: int, heard_from: int | None = None) -> None:
        """Says why, tells the others, and ends this process: JAX's way out waits for all.

        All end with 130 or 143 where a signal ended one, else with 2.
        """
        with self._lock:
            first, self._ending = not self._ending, True
        if not first:
            time.sleep(60)  # another thread is at it
        print(f"sfvq-jax {self._command}: {text}", file=sys.stderr, flush=True)
        told = text if text.startswith("process ") else f"process {self._process}: {text}"
        for number, link in self._links.items():
            with contextlib.suppress(OSError):
                if number != heard_from:
                    _send(link, {"end": told, "status": status})
                link.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + LINGER
        for link in self._links.values():  # or what they have sent would undo what was told
            with contextlib.suppress(OSError):
                link.settimeout(max(0.1, deadline - time.monotonic()))
                while link.recv(MOST_LINE) and time.monotonic() < deadline:
                    pass
        sys.stdout.flush()
        os._exit(status)

    def leave(self) -> None:
        """Once the work is done in all processes."""
        self._leaving = True
        for link in self._links.values():
            with contextlib.suppress(OSError):
                _send(link, {"bye": self._process})
        deadline = time.monotonic() + SILENCE
        while self._links.keys() - self._left and time.monotonic() < deadline:
            time.sleep(0.02)
        with contextlib.suppress(RuntimeError):
            jax.distributed.shutdown()
        self._stopped.set()
        self._watcher.join()
        signal.set_wakeup_fd(self._wakeup_before)
        for link in [*self._links.values(), *([self._listener] if self._listener else [])]:
            link.close()

    def broke_off(self) -> None:
        """JAX's runtime is about to end the process."""
        if self._leaving:
            sys.stdout.flush()
            os._exit(0)  # all is done
        time.sleep(3)  # another one's end, if that is the reason, is told meanwhile
        broke = f"JAX's runtime broke off (--debug shows what it says){self.hint}"
        self.end(self.silent() or broke, 2)

    def silent(self) -> str:
        """Who has not been heard for long, as a sentence; "" where all have."""
        for number, at in self._heard.items():
            seconds = time.monotonic() - at
            if seconds > MISSED and number not in self._left:
                return f"process {number} has not answered for {seconds:.0f} s{self.hint}"
        return ""

    def _watch(self) -> None:
        selector = selectors.DefaultSelector()
        parts = dict.fromkeys(self._links, b"")
        for number, link in self._links.items():
            link.setblocking(True)
            link.settimeout(SILENCE)
            selector.register(link, selectors.EVENT_READ, number)
        selector.register(self._wake, selectors.EVENT_READ, "signal")
        if self._listener is not None:
            self._listener.setblocking(False)
            selector.register(self._listener, selectors.EVENT_READ, "late")
        signalled, beaten, looked = None, 0.0, time.monotonic()
        while not self._stopped.is_set():
            for key, _ in selector.select(BEAT / 2):
                if key.data == "signal":
                    for number in os.read(self._wake, 64):
                        if number in (signal.SIGINT, signal.SIGTERM) and signalled is None:
                            signalled = number, time.monotonic()
                elif key.data == "late":
                    self._refuse_late()
                else:
                    parts[key.data] += _received(key.fileobj)
                    *lines, parts[key.data] = parts[key.data].split(b"\n")
                    self._heard[key.data] = time.monotonic()
                    if not lines and not self._alive(key.fileobj):
                        selector.unregister(key.fileobj)
                        self._lost(key.data)
                    for line in lines:
                        self._take(key.data, line)
            now = time.monotonic()
            if now - looked > SILENCE / 2:  # this process was stopped itself: nobody was heard
                self._heard = dict.fromkeys(self._heard, now)
            looked = now
            if now - beaten >= BEAT:
                beaten = now
                for link in self._links.values():
                    with contextlib.suppress(OSError):
                        _send(link, {"beat": 1})
            if any(
                now - at > SILENCE and number not in self._left
                for number, at in self._heard.items()
            ):
                self.end(self.silent(), 2)
            if signalled is not None and now - signalled[1] > LAST:
                self.end(f"stopped{self.hint}", 128 + signalled[0])

    def _alive(self, link: Any) -> bool:
        try:
            return bool(link.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _take(self, number: int, line: bytes) -> None:
        message = _parsed(line)
        if "end" in message:
            status: Any = message.get("status")
            status = status if status in (130, 143) else 2
            self.end(shown(str(message["end"]), 600), status, heard_from=number)
        if "bye" in message:
            self._left.add(number)

    def _lost(self, number: int) -> None:
        if not self._leaving and number not in self._left:
            self.end(
                f"process {number} ended without a word: it was killed, or its machine went down"
                f"{self.hint}",
                2,
            )
        self._left.add(number)

    def _refuse_late(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):
            link, _ = self._listener.accept()
            with link:
                link.settimeout(1)
                process = _parsed(_line(link)).get("process")
                text = f"process {process} is there already, and all are at work"
                _send(link, {"end": f"{text}: give each process another --process-id"})


# How they find one another.


def _join(options: argparse.Namespace) -> Company:
    given = (options.coordinator, options.processes, options.process_id)
    missing = [value is None for value in given]
    if any(missing) and not all(missing):
        raise ValueError(
            "--coordinator, --processes and --process-id go together; on SLURM, Kubernetes, Open"
            " MPI and TPU pods none is needed"
        )
    checkpoint = getattr(options, "checkpoint", None)
    hint = "" if checkpoint is None else f"; the same commands go on from what {checkpoint} keeps"
    jax.config.update("jax_enable_preemption_service", False)  # which takes SIGTERM for itself
    facts = _facts(options)
    if all(missing):
        with _abort_told(None):
            _start_jax(options)
        processes, process = jax.process_count(), jax.process_index()
        addresses, word, listener = [], "", None
        if process == 0:
            listener = _listen(0)
            word = uuid.uuid4().hex
            addresses = [[name, listener.getsockname()[1]] for name in _own_names()]
        addresses, word = in_all_processes([addresses, word])[0]
        links, _ = _meet(options, addresses, word, processes, process, listener, facts)
        return Company(options.command, process, links, listener, hint)
    host, port = _address(options.coordinator)
    processes, process = options.processes, options.process_id
    if not 0 <= process < processes:
        raise ValueError(
            f"--process-id is {process}, and --processes {processes}: the first is 0, the last"
            f" {processes - 1}"
        )
    listener = _listen(port) if process == 0 else None
    links, port = _meet(options, [[host, port]], "", processes, process, listener, facts)
    company = Company(options.command, process, links, listener, hint)
    with _abort_told(company):
        try:
            _start_jax(
                options,
                f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
                processes,
                process,
            )
        except BaseException as error:
            company.end(*_said(error, hint))
    return company


def _start_jax(options: argparse.Namespace, *given: Any) -> None:
    try:
        jax.distributed.initialize(
            *given,
            initialization_timeout=max(1, round(options.join_timeout)),
            shutdown_timeout_seconds=30,
        )
        jax.devices()  # waits for all of them
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"the processes could not be joined ({shown(str(error), 200)}): name --coordinator"
            " HOST:PORT, --processes and --process-id"
        ) from error


def _facts(options: argparse.Namespace) -> dict[str, str]:
    """What all processes must have been told alike."""
    told = {
        f"--{name.replace('_', '-')}": shown(str(value))
        for name, value in vars(options).items()
        if name not in OWN and isinstance(value, str | int | float | bool | None)
    }
    return told | {"sfvq-jax": sfvq_jax.__version__, "jax": jax.__version__}


def _meet(
    options: argparse.Namespace,
    addresses: list[list[Any]],
    word: str,
    processes: int,
    process: int,
    listener: socket.socket | None,
    facts: dict[str, str],
) -> tuple[dict[int, socket.socket], int]:
    """The connections to the others, and a port for JAX on the first one's machine."""
    limit, where = options.join_timeout, ":".join(map(str, addresses[0]))
    if listener is not None:
        return _gather(listener, where, word, processes, facts, limit)
    hello = {"sfvq-jax": word, "process": process, "facts": facts}
    deadline, last = time.monotonic() + limit, ""
    while time.monotonic() < deadline:
        for host, port in addresses:
            try:
                link = socket.create_connection((host, port), timeout=5)
                _send(link, hello)
                link.settimeout(limit + 5)
                answer = _line(link)
            except (OSError, UnicodeError) as error:
                last = f" ({getattr(error, 'strerror', None) or error})"
                continue
            message = _parsed(answer)
            if isinstance(message.get("port"), int):
                return {0: link}, message["port"]
            link.close()
            if "end" in message:
                raise ValueError(shown(str(message["end"]), 600))
            if answer:
                raise ValueError(f"what answers at {where} is no process of this command")
        time.sleep(0.2)
    raise ValueError(
        f"process 0 was not found at {where} within {limit:g} s{last}: start it, or name its"
        " --coordinator HOST:PORT"
    )


def _gather(
    listener: socket.socket,
    where: str,
    word: str,
    processes: int,
    facts: dict[str, str],
    limit: float,
) -> tuple[dict[int, socket.socket], int]:
    """Waits for the others, in process 0."""
    links: dict[int, socket.socket] = {}

    def fail(text: str) -> None:
        for link in links.values():
            with contextlib.suppress(OSError):
                _send(link, {"end": text})
                link.close()
        listener.close()
        raise ValueError(text)

    deadline = time.monotonic() + limit
    while len(links) < processes - 1:
        listener.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            link, _ = listener.accept()
            link.settimeout(5)
            message = _parsed(_line(link))
        except TimeoutError:
            if time.monotonic() >= deadline:
                absent = [str(i) for i in range(1, processes) if i not in links]
                which = (
                    f"process {absent[0]}"
                    if len(absent) == 1
                    else f"processes {shown(', '.join(absent))}"
                )
                fail(f"{which} did not come to {where} within {limit:g} s: start all of them")
            continue
        except OSError:
            continue
        number, told = message.get("process"), message.get("facts")
        if message.get("sfvq-jax") != word or not isinstance(told, dict):
            link.close()  # somebody else
            continue
        if type(number) is not int or number == 0 or number in links:
            with contextlib.suppress(OSError):
                text = f"process {shown(str(number))} is there already"
                _send(link, {"end": f"{text}: give each process another --process-id"})
                link.close()
            continue
        links[number] = link
        for name in sorted(facts.keys() | told.keys()):
            if facts.get(name) != told.get(name):
                has = shown(f"{name} {told.get(name)}"), shown(f"{name} {facts.get(name)}")
                fail(
                    f"process {number} has {has[0]}, and process 0 {has[1]}: tell all processes"
                    " the same"
                )
    with _listen(0) as free:
        port = free.getsockname()[1]
    for link in links.values():
        with contextlib.suppress(OSError):
            _send(link, {"port": port})
    return links, port


def _address(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port[:6]) < 2**16:
        raise ValueError(
            f"--coordinator {shown(coordinator)}: expected HOST:PORT, such as localhost:5000, with"
            " a port from 1 to 65535"
        )
    return host, int(port)


def _listen(port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128
            )
        return socket.create_server(("", port), backlog=128)
    except OSError as error:
        raise ValueError(
            f"port {port} cannot be opened by process 0 ({error.strerror}): name another in"
            " --coordinator HOST:PORT"
        ) from error


def _own_names() -> list[str]:
    """Under which others may find this machine."""
    names = [socket.gethostname()]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; the address is one of documentation
        names.append(probe.getsockname()[0])
    return [*names, "localhost"]


def _send(link: socket.socket, message: dict[str, Any]) -> None:
    link.sendall(json.dumps(message).encode() + b"\n")


def _line(link: socket.socket) -> bytes:
    """The first line of what comes; b"" where nothing does."""
    data = b""
    while b"\n" not in data and len(data) < MOST_LINE:
        part = link.recv(MOST_LINE)
        if not part:
            break
        data += part
    return data.split(b"\n")[0]


def _received(link: Any) -> bytes:
    try:
        return link.recv(MOST_LINE)
    except OSError:
        return b""


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


# What JAX's runtime writes and does.


@contextlib.contextmanager
def _runtime_kept_out(options: argparse.Namespace) -> Iterator[None]:
    """Keeps what the runtime writes past Python out of the terminal, unless it is asked for."""
    from sfvq_jax.cli.main import DEBUG, Lasting

    if options.debug or os.environ.get(DEBUG, "0") not in ("", "0"):
        yield
        return
    with contextlib.ExitStack() as stack:
        words = stack.enter_context(tempfile.TemporaryFile())
        for number, redirect in (
            (1, contextlib.redirect_stdout),
            (2, contextlib.redirect_stderr),
        ):
            (sys.stdout if number == 1 else sys.stderr).flush()
            kept = os.dup(number)
            stream = stack.enter_context(
                open(kept, "w", buffering=1, errors="backslashreplace", closefd=True)
            )
            stack.callback(os.dup2, kept, number)
            os.dup2(words.fileno(), number)
            stack.enter_context(redirect(Lasting(stream)))
        yield


@contextlib.contextmanager
def _abort_told(company: Company | None) -> Iterator[None]:
    """Ends with a sentence where the runtime calls abort(), which is no exception of Python's."""
    if os.name != "posix":
        yield
        return

    def told(number: int) -> None:
        if company is not None:
            company.broke_off()
        print("sfvq-jax: the processes could not be joined: JAX's runtime broke off"
              " (--debug shows what it says)", file=sys.stderr, flush=True)  # fmt: skip
        os._exit(2)

    library = ctypes.CDLL(None)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int)
    library.signal.restype, library.signal.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_int, ctypes.c_void_p],
    )
    handler = kind(told)
    before = library.signal(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        library.signal(signal.SIGABRT, before)
