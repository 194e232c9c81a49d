"""What the command line does with errors, signals, streams and names, whatever the command."""

import errno
import io
import os
import signal
import subprocess
import sys
import threading
import time

import jax
import pytest

from sfvq_jax.cli import main as run
from sfvq_jax.cli.common import sentence, shown
from sfvq_jax.cli.main import COMMANDS, _join_negative_values, _parser


@pytest.fixture
def failing(monkeypatch):
    """`quality` that raises, or does, what is given."""

    def command(action):
        def run_quality(options):
            if isinstance(action, BaseException):
                raise action
            action()

        monkeypatch.setattr("sfvq_jax.cli.quality.run_quality", run_quality)
        return run(["quality", "model", "curve"])

    return command


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no\n  curve"), "no curve"),
        (KeyError("codewords"), "KeyError: 'codewords' (with --debug it is shown where)"),
        (MemoryError("8 GiB"), "there is not enough memory (8 GiB)"),
        (RuntimeError("RESOURCE_EXHAUSTED: 8 GiB"), "there is not enough memory ("),
        (OverflowError("too large"), "OverflowError: too large"),
        (ExceptionGroup("two", [ValueError("the first"), ValueError()]), "the first"),
        (OSError(errno.EIO, os.strerror(errno.EIO), "x.npy"), "x.npy: Input/output error"),
    ],
)
def test_every_exception_is_a_sentence(error, said, failing, capsys):
    assert failing(error) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"sfvq-jax quality: {said}")
    assert message.count("\n") == 1


def test_where_an_error_comes_from_is_shown_if_asked(failing, capsys, monkeypatch):
    monkeypatch.setenv("SFVQ_JAX_DEBUG", "1")
    assert failing(ValueError("no")) == 2
    assert "Traceback" in capsys.readouterr().err


def test_control_c_and_sigterm_end_a_command(failing, capsys):
    before = signal.getsignal(signal.SIGTERM)
    assert failing(KeyboardInterrupt()) == 130
    assert failing(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 143
    assert capsys.readouterr().err == "sfvq-jax quality: stopped\n" * 2
    assert failing(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0  # the terminal is gone
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_python_passes_no_errors_on_is_not_lost(number, status, failing, capsys):
    class Freed:
        def __del__(self):
            os.kill(os.getpid(), number)

    def work():
        Freed()
        time.sleep(5)

    # where this runs in the background of a shell, SIGINT is ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert failing(work) == status
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "sfvq-jax quality: stopped\n"


def test_a_command_runs_in_any_thread(failing):
    status = []
    thread = threading.Thread(target=lambda: status.append(failing(lambda: None)))
    thread.start()
    thread.join()
    assert status == [0]


class Gone(io.StringIO):
    encoding = "ascii"

    def __init__(self, number):
        super().__init__()
        self.number = number

    def write(self, text):
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(
    ("number", "status"), [(errno.EPIPE, 0), (errno.EIO, 0), (errno.ENOSPC, 2)]
)
def test_a_reader_that_goes_away_ends_no_command(number, status, failing, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Gone(number))
    assert failing(lambda: print("±")) == status


def test_closed_streams_end_no_command(failing, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert failing(lambda: print("told", file=sys.stderr)) == 0


def test_letters_that_an_encoding_lacks_are_written_otherwise(failing, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert failing(lambda: print("a ± b")) == 0
    assert stream.buffer.getvalue() == b"a \\xb1 b\n"


def test_values_of_files_are_shown_short_and_without_a_terminals_codes():
    assert shown("a\x1b[31m\nb") == "a\\x1b[31m b"
    assert len(shown("a" * 10**6)) <= 80
    assert len(sentence(ValueError("a" * 10**6))) <= 600


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_examples_that_can_be_typed(name):
    (commands,) = (action for action in _parser(name)._actions if action.choices)
    title, *examples = commands.choices[name].epilog.splitlines()
    assert title == "examples:"
    assert examples
    for example in examples:
        program, *words = example.split()
        assert program == "sfvq-jax"
        assert _parser(name).parse_args(_join_negative_values(words)).command == name


def test_a_report_of_a_fault_can_tell_versions_and_devices(capsys):
    assert run(["--version", "--verbose"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("sfvq-jax ")
    assert f"jax {jax.__version__}" in told
    assert told[-1] == f"{jax.device_count()} × cpu"


def test_help_and_version_import_no_jax():
    code = (
        "import sys\nfrom sfvq_jax.cli import main\n"
        "try: main(['--version'])\nexcept SystemExit: pass\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'jax', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("sfvq-jax 0.")


def test_a_device_that_is_not_there_is_told(failing, monkeypatch, capsys):
    def local_devices():
        raise AssertionError  # as JAX does without NVIDIA's driver

    monkeypatch.setattr("jax.local_devices", local_devices)
    assert failing(lambda: None) == 2
    said = capsys.readouterr().err
    assert said.startswith("sfvq-jax quality: JAX starts no device")
    assert said.endswith("set JAX_PLATFORMS=cpu, or install JAX for the device\n")
