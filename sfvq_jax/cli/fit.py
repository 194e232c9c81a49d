"""`fit`: a curve through a generator's latents or an array of them, by one process or several."""

import argparse
import contextlib
import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax

from sfvq_jax.adam import Adam
from sfvq_jax.cli.common import BITS_HELP, add_examples, add_output, add_seed, check_outputs
from sfvq_jax.cli.joining import add_distributed_options, together
from sfvq_jax.cli.models import (
    LATENTS_HELP,
    MODEL_HELP,
    add_scale,
    add_space_options,
    check_no_space,
    is_of_latents,
    load_model,
)
from sfvq_jax.curve import Curve
from sfvq_jax.fit import fit
from sfvq_jax.history import Report
from sfvq_jax.io.checkpoints import Stopped
from sfvq_jax.io.curve_file import CurveRecord, check_belongs, load_curve, save_curve
from sfvq_jax.io.output import check_space
from sfvq_jax.io.progress import JsonLog, Progress
from sfvq_jax.io.states import KEPT
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.least_squares import LeastSquares
from sfvq_jax.processes import as_first_process, in_every_process
from sfvq_jax.result import FitResult
from sfvq_jax.sources import HostSource

SAVE_SECONDS = 25.0  # in which a fit that is told to stop saves its state
SOLVERS = {"least_squares": LeastSquares, "adam": Adam}


def add_fit(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_fit)
    add_output(command, "file (.npz) for the curve, a path or a URI", endings=(".npz",))
    add_examples(
        command,
        "fit ffhq/ --bits 6 -o curve.npz",
        "fit latents.npy --bits 8 --checkpoint state/ -o curve.npz",
        "fit s3://bucket/embs.zarr --bits 12 -o curve.npz",
        "fit ffhq/ --start curve.npz --bits 8 -o finer.npz",
    )
    command.add_argument("source", help=f"{MODEL_HELP}; or {LATENTS_HELP}")
    add_fit_options(command)
    add_scale(command)
    command.add_argument("--weights", help="weights of the latents [N], in a file such as an .npy")
    command.add_argument(
        "--start",
        metavar="CURVE",
        help="curve (.npz) to continue from: it is refined, repaired and doubled",
    )
    add_distributed_options(command)


def add_fit_options(command: argparse.ArgumentParser) -> None:
    add_space_options(command)
    command.add_argument("--bits", type=int, default=6, help=BITS_HELP)
    add_seed(command)
    command.add_argument(
        "--solver",
        choices=SOLVERS,
        default="least_squares",
        help="method of fitting; adam is the published recipe (default: %(default)s)",
    )
    for name, (kind, help) in _SOLVER_OPTIONS.items():
        command.add_argument(f"--{name.replace('_', '-')}", type=kind, help=help)
    command.add_argument("--log-json", help="file to append to, one JSON object for each round")
    command.add_argument(
        "--checkpoint",
        help="folder, a path or a URI, that keeps the state of the fit; the same command continues"
        " from it",
    )
    command.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=600.0,
        help="seconds from one save of the state to the next (default: %(default)s)",
    )


def _samples(text: str) -> int | str:
    if text == "all":
        return text
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: expected a number or all") from error


_SOLVER_OPTIONS = {
    "length_penalty": (
        float,
        "length penalty of least_squares; more gives a shorter, better ordered curve (default:"
        f" {LeastSquares().length_penalty})",
    ),
    "rounds": (
        int,
        f"largest number of rounds in a stage, of least_squares (default: {LeastSquares().rounds})",
    ),
    "tolerance": (
        float,
        "smallest gain of a round of least_squares, as a share of the objective; after a smaller"
        f" one the stage ends (default: {LeastSquares().tolerance})",
    ),
    "samples": (
        _samples,
        "number of latents in a round of least_squares, or all for a pass over the data (default:"
        " 1024 for each codeword, but at least 65536); number of latents in an epoch of adam"
        f" (default: {Adam().samples})",
    ),
    "learning_rate": (
        float,
        f"learning rate of adam at the start of a stage (default: {Adam().learning_rate})",
    ),
    "batch_size": (int, f"number of latents in a step of adam (default: {Adam().batch_size})"),
    "epochs": (int, f"number of epochs of adam in a stage (default: {Adam().epochs})"),
}


def run_fit(options: argparse.Namespace) -> None:
    def opened() -> Any:
        if jax.process_index() == 0 and options.distributed:  # it writes for all
            check_outputs(options)
        start = None if options.start is None else load_curve(options.start)
        if is_of_latents(options.source):
            check_no_space(options.source, options)
            source = HostSource(options.source, options.weights, scale=options.scale)
            return source, None, start
        for name in ("weights", "scale"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name} goes with latents, and {options.source} is a generator")
        model = load_model(options.source, options)
        if start is not None:
            check_belongs(start, model)
        return model, model, start

    with together(options):
        source, model, start = in_every_process(opened)
        as_first_process(lambda: _check_space(options, source.latent_dim))
        result, record = _fit(source, options, None if start is None else start.curve)
        record = record if model is None else of_model(record, model)
        as_first_process(lambda: save_curve(options.output, record, overwrite=options.overwrite))
        if jax.process_index() > 0:
            return
        for warning in result.warnings:
            print(f"sfvq-jax {options.command}: warning: {warning}", file=sys.stderr)
        print(
            f"{options.output}: {record.curve.num_codewords} codewords of"
            f" {record.curve.latent_dim} dimensions, distortion"
            f" {result.history.distortion[-1]:.6g} on {result.measured_on}, perplexity"
            f" {result.history.perplexity[-1]:.1f} of {record.curve.num_lines} lines"
        )


def _check_space(options: argparse.Namespace, latent_dim: int) -> None:
    """Raises OSError where the disk has no room for the curve and the states of its fit."""
    size = 4 * latent_dim << min(max(options.bits, 0), 40)  # bits beyond are refused by name
    check_space(options.output, size)
    if options.checkpoint is not None:
        check_space(options.checkpoint, (KEPT + 1) * size)


def fit_model(model: LatentModel, options: argparse.Namespace) -> tuple[FitResult, CurveRecord]:
    result, record = _fit(model, options)
    return result, of_model(record, model)


def of_model(record: CurveRecord, model: LatentModel) -> CurveRecord:
    """With the names of the model whose latents were fitted."""
    space, model_hash = getattr(model, "latent_space", ""), getattr(model, "model_hash", "")
    return record._replace(space=space, model_hash=model_hash)


def _fit(
    source: Any, options: argparse.Namespace, start: Curve | None = None
) -> tuple[FitResult, CurveRecord]:
    solver = solver_of(options)
    reporters: list[Any] = []
    if jax.process_index() == 0:
        reporters.append(Progress())
        if options.log_json is not None:
            reporters.append(JsonLog(options.log_json))

    def on_report(report: Report) -> None:
        for reporter in reporters:
            reporter(report)

    try:
        with _stoppable(options) as stop:
            result = fit(
                jax.random.key(options.seed),
                source,
                bits=options.bits,
                solver=solver,
                start=start,
                checkpoint=options.checkpoint,
                checkpoint_seconds=options.checkpoint_seconds,
                stop=stop,
                on_report=on_report,
            )
    finally:
        for reporter in reporters:
            reporter.close()
    settings = {"bits": options.bits, "seed": options.seed, "solver": options.solver}
    settings |= dataclasses.asdict(solver)
    return result, CurveRecord(result.curve, settings=settings, history=result.history)


@contextlib.contextmanager
def _stoppable(options: argparse.Namespace) -> Iterator[Callable[[], bool] | None]:
    """What tells a fit with a checkpoint that SIGTERM came, so that it saves its state first."""
    before = signal.getsignal(signal.SIGTERM)
    main = threading.current_thread() is threading.main_thread()
    if options.checkpoint is None or not callable(before) or not main:
        yield None
        return
    told, asked = threading.Event(), threading.Event()

    def stop(number: int, frame: Any) -> None:
        if not asked.is_set():  # there is nothing to save yet
            before(number, frame)
        if not told.is_set():
            limit = threading.Timer(SAVE_SECONDS, _end_unsaved, [options])
            limit.daemon = True
            limit.start()
        told.set()

    def is_told() -> bool:
        asked.set()
        return told.is_set()

    signal.signal(signal.SIGTERM, stop)
    try:
        yield is_told
    except Stopped:
        before(signal.SIGTERM, None)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _end_unsaved(options: argparse.Namespace) -> None:
    print(
        f"sfvq-jax {options.command}: stopped; no state could be saved in {SAVE_SECONDS:.0f} s: the"
        f" same command goes on from the one before, if {options.checkpoint} keeps one",
        file=sys.stderr,
        flush=True,
    )
    os._exit(128 + signal.SIGTERM)


def solver_of(options: argparse.Namespace) -> Adam | LeastSquares:
    """The solver with the options that were given."""
    kind = SOLVERS[options.solver]
    names = {field.name for field in dataclasses.fields(kind)}
    given = {
        name: value for name in _SOLVER_OPTIONS if (value := getattr(options, name)) is not None
    }
    for name in given:
        if name not in names:
            raise ValueError(
                f"--{name.replace('_', '-')} is no option of --solver {options.solver}, which has"
                f" {', '.join('--' + n.replace('_', '-') for n in _SOLVER_OPTIONS if n in names)}"
            )
    return kind(**given)
