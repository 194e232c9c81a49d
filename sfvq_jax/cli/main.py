"""The command line: `sfvq-jax demo | inspect | convert | fit | map | quality | project | …`."""

import argparse
import contextlib
import errno
import gc
import importlib
import io
import logging
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import TextIO

import sfvq_jax
from sfvq_jax.cli.common import check_outputs, sentence, shown

DEBUG = "SFVQ_JAX_DEBUG"

COMMANDS = {  # module of this package with `add_NAME` and `run_NAME` -> what it does
    "demo": "fit a curve to a bundled generator and draw its figures",
    "inspect": "show what a checkpoint holds",
    "convert": "convert a StyleGAN2 or BigGAN checkpoint of another project",
    "fit": "fit a curve to the latents of a generator, or to other vectors",
    "map": "draw the codewords of a curve as images, in order",
    "quality": "report in words whether a curve is a good map",
    "plan": "estimate the time, memory and traffic of a fit",
    "project": "find the position of each latent on a curve",
    "scorer": "train scorers of attributes on labelled images",
    "directions": "find directions, with their layers and names",
    "adopt": "import directions of GANSpace, SeFa, LatentCLR or InterFaceGAN",
    "dimensions": "find the latent dimensions that control a concept",
    "compare": "compare SFVQ with other methods on one model",
    "edit": "move latents along directions and draw the images",
    "invert": "find the latents of photographs",
    "augment": "write a dataset of new images",
    "walk": "write a film of the images along a curve",
    "explore": "open a page to walk a curve, label it and edit; or write the page as one file",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
      The exit status: 0; 2 with one sentence on standard error; 130 where the keyboard interrupted
      the command, 143 where SIGTERM did.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if sorted(arguments) == ["--verbose", "--version"]:
        from sfvq_jax.cli.versions import versions

        print(versions())
        return 0
    name = next((word for word in arguments if not word.startswith("-")), None)
    debug = "--debug" in arguments or os.environ.get(DEBUG, "0") not in ("", "0")
    status, options, refused = 2, argparse.Namespace(), False
    with (
        _lasting_streams() as output,
        _plain_messages(f"sfvq-jax {name}", debug=debug),
        _signals(),
    ):
        try:
            options = _parser(name).parse_args(_join_negative_values(arguments))
            _run(options)
            output.flush()
            if output.lost and not options.outputs:  # else what counts is in files
                raise OSError(f"standard output cannot be written: {output.lost}")
            status = 0
        except (KeyboardInterrupt, _TerminatedError, Exception) as error:
            if debug:
                traceback.print_exception(error)
            said, refused = sentence(error), isinstance(error, ValueError)
            if isinstance(error, KeyboardInterrupt | _TerminatedError):
                status = 130 if isinstance(error, KeyboardInterrupt) else 128 + signal.SIGTERM
                said = f"stopped{_how_to_go_on(options)}"
            print(f"sfvq-jax {name}: {said}", file=sys.stderr)
        if status != 0 and not refused:
            gc.collect()  # of a save that failed, more errors are logged when its tasks are freed
    return status


def start() -> None:
    """The program `sfvq-jax`: runs a command and ends the process with its status.

    After an error at once: threads of JAX and Orbax may still be at work, which an interpreter that
    ends in the usual way waits for, or which crash in it.
    """
    status = main()
    with contextlib.suppress(ValueError):  # in another thread
        for number in (signal.SIGINT, signal.SIGTERM):  # all is done, and has its status
            signal.signal(number, signal.SIG_IGN)
    if status != 0:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(status)
    sys.exit(status)


def _run(options: argparse.Namespace) -> None:
    # with JAX, which help does without
    from sfvq_jax.cli.compilation import check_device, compilation_cache
    from sfvq_jax.memory import limited_memory

    if not getattr(options, "distributed", False):  # several processes do so once they have met
        check_outputs(options)
        check_device()
    limit = limited_memory(getattr(options, "memory", None))
    with limit, compilation_cache(keep=options.compilation_cache):
        options.run(options)


def _parser(name: str | None) -> argparse.ArgumentParser:
    """Of all commands; only the one that is named is imported, with its arguments."""
    parser = argparse.ArgumentParser(
        prog="sfvq-jax",
        description="Map latent spaces with a curve.",
        epilog="sfvq-jax COMMAND --help shows the options of a command, with examples.",
    )
    parser.add_argument("--version", action="version", version=f"sfvq-jax {sfvq_jax.__version__}")
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="with --version: show all packages and devices too",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for each, help in COMMANDS.items():
        command = commands.add_parser(
            each,
            help=help,
            description=help,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if each == name:
            command.set_defaults(outputs=())
            add = getattr(importlib.import_module(f"sfvq_jax.cli.{each}"), f"add_{each}")
            add(command)
            command.add_argument(
                "--no-compilation-cache",
                dest="compilation_cache",
                action="store_false",
                help="do not keep compiled programs in the user's cache folder",
            )
            command.add_argument(
                "--debug", action="store_true", help=f"show the traceback of an error ({DEBUG}=1)"
            )
    return parser


def _join_negative_values(arguments: list[str]) -> list[str]:
    """`--strength -10:10:5` as one word, since argparse takes what begins with - for an option."""
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1] == "--strength" and re.match(r"-[\d.]", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _how_to_go_on(options: argparse.Namespace) -> str:
    command = getattr(options, "command", None)
    if command == "fit" and options.checkpoint is not None:
        return f"; the same command goes on from what {options.checkpoint} keeps"
    if command in ("project", "directions", "compare", "dimensions"):
        return "; the same command goes on from where it was"
    return "; with --checkpoint FOLDER a fit can go on" if command == "fit" else ""


class _TerminatedError(BaseException):
    """SIGTERM came; like KeyboardInterrupt nothing but `main` catches it."""


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM ends a command as Control-C does, which removes what was begun; a terminal that goes
    away (SIGHUP) does not end it."""
    if threading.current_thread() is not threading.main_thread():  # where Python sets none
        yield
        return

    def stop(number, frame) -> None:
        raise _TerminatedError

    show_unraisable = sys.unraisablehook

    def stop_later(unraisable) -> None:
        """Python drops what is raised in some callbacks: then the signal comes once more."""
        if not isinstance(unraisable.exc_value, KeyboardInterrupt | _TerminatedError):
            show_unraisable(unraisable)
            return
        interrupted = isinstance(unraisable.exc_value, KeyboardInterrupt)
        number = signal.SIGINT if interrupted else signal.SIGTERM
        again = threading.Timer(0.02, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()

    wanted = {"SIGTERM": stop, "SIGHUP": signal.SIG_IGN}  # no SIGHUP on Windows
    numbers = {getattr(signal, name, None): handler for name, handler in wanted.items()}
    before = {n: signal.signal(n, handler) for n, handler in numbers.items() if n is not None}
    sys.unraisablehook = stop_later
    try:
        yield
    finally:
        sys.unraisablehook = show_unraisable
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _lasting_streams() -> "Iterator[Lasting]":
    """Standard output and error whose reader may go away, and whose encoding may lack letters."""
    for _ in range(3):  # a file opened later must not get the number of one that was closed
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            break
    output, errors = (Lasting(stream or io.StringIO()) for stream in (sys.stdout, sys.stderr))
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            yield output
        finally:
            output.flush()
            errors.flush()


class Lasting(io.TextIOBase):
    """A text stream that drops what cannot be written, and writes what its encoding lacks as \\x…

    Attributes:
      lost: why text was dropped that somebody may miss, as of a full disk; "" where none was.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.lost = ""

    def write(self, text: str) -> int:
        encoding = self._stream.encoding or "utf-8"
        known = text.encode(encoding, "backslashreplace").decode(encoding)
        self._dropping(lambda: self._stream.write(known))
        return len(text)

    def flush(self) -> None:
        self._dropping(self._stream.flush)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._stream.encoding

    def _dropping(self, write) -> None:
        try:
            write()
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno not in (errno.EPIPE, errno.EIO):
                self.lost = error.strerror or str(error)  # else its reader is gone
            with contextlib.suppress(OSError, ValueError):  # what Python still holds goes nowhere
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())
                os.close(null)


@contextlib.contextmanager
def _plain_messages(speaker: str, *, debug: bool) -> Iterator[None]:
    """Our own warnings as a sentence, and nothing else of errors that end in one of ours.

    Orbax logs an error of a save before it raises it, and TensorStore those of the other files;
    threads tell theirs to those that wait for them.
    """
    show_warning, show_unraisable = warnings.showwarning, sys.unraisablehook
    show_in_thread = threading.excepthook
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]

    def say_warning(message, category, *where, **more) -> None:
        if category is UserWarning:
            print(f"{speaker}: {shown(str(message), 600)}", file=sys.stderr)
        else:
            show_warning(message, category, *where, **more)

    def say_unraisable(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            show_unraisable(unraisable)

    with warnings.catch_warnings(), _plain_figures():
        warnings.showwarning = say_warning
        warnings.filterwarnings("default", category=UserWarning)  # which are ours, and told
        if not debug:
            sys.unraisablehook = say_unraisable
            threading.excepthook = lambda arguments: None
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            sys.unraisablehook, threading.excepthook = show_unraisable, show_in_thread
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def _plain_figures() -> Iterator[None]:
    """Without a notebook's MPLBACKEND, which may name what is not there: figures go to files."""
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
