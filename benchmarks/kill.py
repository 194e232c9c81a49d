"""Commands that are stopped, or whose disk fails, at random moments.

    python -m benchmarks.kill                          # every command and event, hours
    python -m benchmarks.kill --commands fit,map --events SIGTERM,full --rounds 3

Every command that writes (but `compare`, which takes long and writes as `directions` does) runs
over an older output, and at a random moment of its usual time it is sent a SIGINT, SIGTERM or
SIGKILL, its disk gets full, or can only be read. Then the output must be the older one or the new
one, to the byte, and no traceback was shown. Beside it lies nothing; after a SIGKILL, or on a disk
that can only be read, at most one temporary whose name says so; and the same command, run once
more, ends with 0, writes the new output and removes what was left. Disks that are full or read only
are small ones in memory, which root alone can mount; others leave these two events out.
"""

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from benchmarks.report import report
from ports import checkpoint
from ports.stylegan2.config import StyleGAN2Config
from ports.stylegan2.model import init
from sfvq_jax.io.output import UNFINISHED
from sfvq_jax.io.states import DESCRIPTION

SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGKILL": -9}  # and the status that each gives
DISKS = ("full", "read only")
MOST_SECONDS = 600  # of a command
DISK_BYTES = 2**26


class Command(NamedTuple):
    """A command that writes, small.

    Attributes:
      words: of it, in which {} stands for the folder of inputs.
      output: the name of its output, which is the last word.
      beside: other things that it keeps in the folder of outputs.
    """

    words: str
    output: str
    beside: tuple[str, ...] = ()


COMMANDS = {
    "fit": Command("fit {}/x.npy --bits 4 --rounds 3 --overwrite -o", "c.npz"),
    "fit with checkpoints": Command(
        "fit {}/x.npy --bits 5 --rounds 4 --checkpoint states --checkpoint-seconds 0"
        " --overwrite -o",
        "c.npz",
        ("states",),
    ),
    "project": Command("project {}/x.npy {}/c.npz --overwrite -o", "p.npy"),
    "map": Command("map {}/model {}/w.npz --overwrite -o", "map.png"),
    "edit": Command("edit {}/model {}/w.npz --line 1 --strength 1,2 --overwrite -o", "edit.png"),
    "scorer": Command("scorer {}/images.npz --epochs 1 --overwrite -o", "scorer.npz"),
    "directions": Command(
        "directions {}/model {}/w.npz --attributes brightness --latents 16 --overwrite -o", "found"
    ),
    "adopt": Command("adopt {}/model {}/theirs.npy --overwrite -o", "theirs"),
    "augment": Command("augment {}/model {}/w.npz --line 1 --count 8 --overwrite -o", "samples"),
    "invert": Command("invert {}/model {}/photo.png --steps 5 --overwrite -o", "photos.npz"),
    "walk": Command("walk {}/model {}/w.npz --frames 2 --overwrite -o", "walk.gif"),
    "explore": Command("explore {}/model {}/w.npz --overwrite --export", "map.html"),
    "dimensions": Command(
        "dimensions {}/model --scorer {}/scorer.npz --latents 4 --fresh 4 --mask-steps 2"
        " --overwrite -o",
        "sets",
    ),
    "demo": Command("demo --bits 2 --rounds 1 --overwrite -o", "demo"),
    "convert": Command("convert {}/upstream.pkl --overwrite", "converted"),
}


class Round(NamedTuple):
    """What became of a command; `error` says what was wrong, where anything was."""

    command: str
    event: str
    seconds: float
    status: int | None
    error: str


def main() -> None:
    parser = argparse.ArgumentParser(description="Stops commands that write.")
    parser.add_argument("--commands", type=_names, default=list(COMMANDS))
    parser.add_argument("--events", type=_names, default=[*SIGNALS, *DISKS])
    parser.add_argument("--rounds", type=int, default=10, help="of each command and event")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--upstream", type=Path, help="a StyleGAN2 pickle for `convert`")
    options = parser.parse_args()
    # where a shell runs this in the background it is ignored, and so it would be by the commands
    signal.signal(signal.SIGINT, signal.default_int_handler)
    events = [event for event in options.events if event in SIGNALS or _can_mount()]
    names = [name for name in options.commands if name != "convert" or options.upstream]
    rng, rounds = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs"
        make_inputs(inputs, options.upstream)
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"  # compiled once
        for name in names:
            seconds = usual_seconds(COMMANDS[name], inputs, Path(folder) / name)
            for event in events:
                for _ in range(options.rounds):
                    when = rng.uniform(0.2, 1.02) * seconds
                    work = Path(folder) / "work"
                    with _disk(work, small=event in DISKS):
                        shutil.copytree(Path(folder) / name, work / "out")
                        found = stop(name, inputs, work / "out", event, when)
                    rounds.append(found)
                    if found.error:
                        print(f"{name}, {event} after {when:.2f} s: {found.error}", flush=True)
    rows = [
        _summarise(name, event, [r for r in rounds if (r.command, r.event) == (name, event)])
        for name in names
        for event in events
    ]
    failed = [found._asdict() for found in rounds if found.error]
    report(
        "kill",
        {"stopped commands": rows} | ({"failed": failed} if failed else {}),
        packages=("jax", "orbax-checkpoint"),
        save=names == list(COMMANDS),
        rounds=options.rounds,
        seed=options.seed,
    )


def _names(text: str) -> list[str]:
    return text.split(",")


def _summarise(name: str, event: str, rounds: list[Round]) -> dict[str, Any]:
    return {
        "command": name,
        "event": event,
        "rounds": len(rounds),
        "done before": sum(found.status == 0 for found in rounds),
        "wrong": sum(bool(found.error) for found in rounds),
    }


def make_inputs(folder: Path, upstream: Path | None) -> None:
    """Latents, curves, a small generator, directions, images, and upstream's pickle."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.normal(size=(20_000, 16)).astype(np.float32))
    np.save(folder / "theirs.npy", rng.normal(size=(3, 8)).astype(np.float32))
    for name, width in (("c", 16), ("w", 8)):
        np.savez(folder / f"{name}.npz", codewords=rng.normal(size=(8, width)).astype(np.float32))
    model = init(jax.random.key(0), StyleGAN2Config(8, 0, 8, 8, 1, 2, 0, 8, (8, 8)))
    checkpoint.save(
        folder / "model", "stylegan2", model.config.to_json(), model.variables, source={}
    )
    pixels = rng.integers(0, 255, (80, 8, 8, 1)).astype(np.uint8)
    pixels[::2] //= 3
    Image.fromarray(pixels[1, ..., 0]).save(folder / "photo.png")
    np.savez(folder / "images.npz", images=pixels, labels=np.arange(80) % 2)
    scorer = Command("scorer {}/images.npz --epochs 1 -o", "scorer.npz")
    status, _, errors = _run(scorer, folder, folder)
    if status != 0:
        raise SystemExit(errors)
    if upstream is not None:
        shutil.copy(upstream, folder / "upstream.pkl")


def usual_seconds(command: Command, inputs: Path, folder: Path) -> float:
    """How long a command takes once its programs are compiled; `folder` has its output then."""
    seconds, contents = 0.0, []
    for _ in range(2):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        status, seconds, errors = _run(command, inputs, folder)
        if status != 0:
            raise SystemExit(f"{command.words} ended with {status}: {errors}")
        contents.append(_contents(folder / command.output))
    if contents[0] != contents[1]:
        raise SystemExit(f"{command.words} does not write the same twice")
    return seconds


def stop(name: str, inputs: Path, folder: Path, event: str, after: float) -> Round:
    """Runs a command over its output in `folder`, and lets the event happen after some seconds."""
    command = COMMANDS[name]
    for beside in command.beside:  # of the fit that is done
        shutil.rmtree(folder / beside)
    output = folder / command.output
    new = _contents(output)
    (output / "old" if output.is_dir() else output).write_text("old")
    old = _contents(output)

    def happen(process: subprocess.Popen) -> None:
        if event in SIGNALS:
            process.send_signal(getattr(signal, event))
        elif event == "full":
            _fill(folder.parent / "fill")
        else:
            with contextlib.suppress(OSError):  # it is busy until the command ends
                _mount("remount,ro", folder.parent)

    status, seconds, errors = _run(command, inputs, folder, happen, after)
    if event == "full":
        (folder.parent / "fill").unlink(missing_ok=True)
    elif event == "read only":
        _mount("remount,rw", folder.parent)
    left = _left(command, folder)
    found = _judge(event, status, errors, left)
    if not found and _contents(output) not in (old, new):
        found = f"the output is neither the older one nor the new: {sorted(_contents(output))}"
    if not found:
        again, _, errors = _run(command, inputs, folder)
        left = _left(command, folder, done=True)
        if again != 0 or left or _contents(output) != new:
            found = f"run once more, it ended with {again}, and left {left}: {errors[-500:]}"
    return Round(name, event, seconds, status, found)


def _judge(event: str, status: int | None, errors: str, left: list[str]) -> str:
    """What is wrong after the event, or nothing."""
    if status is None:
        return "it hangs"
    if status not in (0, SIGNALS.get(event, 2)):
        return f"status {status}, expected 0 or {SIGNALS.get(event, 2)}: {errors[-500:]}"
    if "Traceback" in errors:
        return f"a traceback: {errors[-500:]}"
    if event in ("SIGKILL", "read only"):  # from a disk that can only be read nothing is removed
        temporaries = [name for name in left if name.endswith(UNFINISHED)]
        left = [name for name in left if name not in temporaries[:1]]
    return f"left behind: {left}" if left else ""


def _left(command: Command, folder: Path, *, done: bool = False) -> list[str]:
    """What lies among the outputs that should not, and in the states of a fit that is done."""
    expected = {command.output, *command.beside}
    if not done:  # parts of it, where the same command goes on
        expected.add(f"{command.output}.part")
    left = [entry.name for entry in folder.iterdir() if entry.name not in expected]
    for beside in command.beside if done else ():
        for entry in (folder / beside).iterdir():
            if not (entry.name.isdigit() or entry.name == DESCRIPTION):
                left.append(f"{beside}/{entry.name}")
    return sorted(left)


def _contents(path: Path) -> dict[str, str]:
    """The hashes of an output's files by name, and of a converted model its parameters'."""
    if path.is_file():
        return {path.name: _sha256(path)}
    hashes = {}
    if checkpoint.is_converted(path):  # in files whose names are drawn
        with contextlib.suppress(checkpoint.CheckpointError):
            hashes["model"] = checkpoint.read(path).config_json["parameters_sha256"]
    for file in path.rglob("*"):
        name = file.relative_to(path).as_posix()
        if file.is_file() and not name.startswith(("parameters/", "config.json")):
            hashes[name] = _sha256(file)
    return hashes


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _run(
    command: Command,
    inputs: Path,
    folder: Path,
    happen: Callable[[subprocess.Popen], None] | None = None,
    after: float = 0.0,
) -> tuple[int | None, float, str]:
    """Status, seconds and standard error of a command; None for the status of one that hangs."""
    words = command.words.replace("{}", str(inputs)).split()
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "sfvq_jax.cli", *words, command.output],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if happen is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(after)
            if process.poll() is None:
                happen(process)
        errors = process.communicate(timeout=MOST_SECONDS)[1]
        return process.returncode, time.monotonic() - start, errors
    except subprocess.TimeoutExpired:
        process.kill()
        return None, time.monotonic() - start, process.communicate()[1]


# --- disks ------------------------------------------------------------------------------------


def _can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            with _disk(Path(folder) / "disk", small=True):
                return True
        except OSError:
            return False


@contextlib.contextmanager
def _disk(folder: Path, *, small: bool) -> Iterator[None]:
    """A new folder, which is a small disk of its own where that is asked."""
    folder.mkdir()
    try:
        if small:
            _mount(f"size={DISK_BYTES}", folder, "tmpfs")
        yield
    finally:
        if small and os.path.ismount(folder):
            subprocess.run(["umount", folder], check=True)
        shutil.rmtree(folder)


def _mount(options: str, folder: Path, kind: str = "") -> None:
    command = ["mount", *(["-t", kind, kind] if kind else []), "-o", options, str(folder)]
    deadline = time.monotonic() + 2
    while True:  # a disk that is being written to is busy, and cannot be made read only
        found = subprocess.run(command, capture_output=True, check=False)
        if found.returncode == 0:
            return
        if time.monotonic() > deadline:
            raise OSError(found.stderr.decode(errors="replace"))
        time.sleep(0.02)


def _fill(file: Path) -> None:
    """Leaves nothing free on the disk of a file."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as stream:
        while stream.write(bytes(2**16)):
            pass


if __name__ == "__main__":
    main()
