"""`fit`: a curve through a generator's latents or an array of them, by one process or several."""

import argparse
import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax

from sfvq_jax.adam import Adam
from sfvq_jax.cli.common import (
    add_examples,
    add_output,
    add_seed,
    add_space_options,
    check_no_space,
    load_model,
    sentence,
)
from sfvq_jax.curve import Curve
from sfvq_jax.fit import fit
from sfvq_jax.history import Report
from sfvq_jax.io.curve_file import CurveRecord, check_belongs, load_curve, save_curve
from sfvq_jax.io.output import check_free
from sfvq_jax.io.progress import JsonLog, Progress
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.least_squares import LeastSquares
from sfvq_jax.processes import in_every_process
from sfvq_jax.result import FitResult
from sfvq_jax.sources import as_source

SOLVERS = {"least_squares": LeastSquares, "adam": Adam}


def add_fit(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_fit)
    add_output(command, "the curve's .npz", endings=(".npz",))
    add_examples(
        command,
        "fit ffhq/ --bits 6 -o curve.npz",
        "fit latents.npy --bits 8 --checkpoint state/ -o curve.npz",
        "fit ffhq/ --start curve.npz --bits 8 -o finer.npz",
    )
    command.add_argument(
        "source", help="a converted generator, a bundled one, or an .npy of latents [N, D]"
    )
    add_fit_options(command)
    command.add_argument("--weights", metavar="NPY", help="of the rows of an .npy, [N]")
    command.add_argument(
        "--start", metavar="CURVE", help="a curve to go on from: it is refined, mended and doubled"
    )
    add_distributed_options(command)


def add_distributed_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--distributed",
        action="store_true",
        help="this is one of several processes that work together",
    )
    command.add_argument("--coordinator", help="HOST:PORT of the first process")
    command.add_argument("--processes", type=int, help="how many there are")
    command.add_argument("--process-id", type=int, help="which one this is, from 0")


def add_fit_options(command: argparse.ArgumentParser) -> None:
    add_space_options(command)
    command.add_argument("--bits", type=int, default=6, help="2**bits codewords (%(default)s)")
    add_seed(command)
    command.add_argument(
        "--solver",
        choices=SOLVERS,
        default="least_squares",
        help="(%(default)s); adam is published",
    )
    for name, (kind, help) in _SOLVER_OPTIONS.items():
        defaults = [
            f"{value} for {solver}"
            for solver, made in SOLVERS.items()
            if (value := getattr(made(), name, None)) is not None
        ]
        text = f"{help} ({', '.join(defaults)})" if defaults else help
        command.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
    command.add_argument("--log-json", help="appends a JSON object a round to this file")
    command.add_argument("--checkpoint", help="folder to keep the fit's state in, and go on from")
    command.add_argument(
        "--checkpoint-seconds", type=float, default=600.0, help="between saves (%(default)s)"
    )


def _samples(text: str) -> int | str:
    if text == "all":
        return text
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: expected a number or all") from error


_SOLVER_OPTIONS = {
    "length_penalty": (float, "of least_squares: more gives a shorter, better ordered curve"),
    "rounds": (int, "of least_squares in a stage, at most"),
    "tolerance": (float, "of least_squares: a stage ends when a round gains less than this share"),
    "samples": (_samples, "in a round or epoch; all is a pass over the data, for least_squares"),
    "learning_rate": (float, "of adam, at a stage's start"),
    "batch_size": (int, "of adam: samples in a step"),
    "epochs": (int, "of adam in a stage"),
}


def run_fit(options: argparse.Namespace) -> None:
    if options.distributed:
        start_distributed(options)

    def opened() -> Any:
        if jax.process_index() == 0:  # which writes for all
            check_free(options.output, overwrite=options.overwrite)
        start = None if options.start is None else load_curve(options.start)
        if options.source.endswith(".npy"):
            check_no_space(options.source, options)
            return as_source(options.source, options.weights), None, start
        if options.weights is not None:
            raise ValueError("--weights goes with an .npy of latents")
        model = load_model(options.source, options)
        if start is not None:
            check_belongs(start, model)
        return model, model, start

    source, model, start = in_every_process(opened)
    with ending_together(options.command):
        curve = None if start is None else start.curve
        result, record = _fit(source, options, curve)
        record = record if model is None else of_model(record, model)
    if jax.process_index() > 0:
        return
    save_curve(options.output, record, overwrite=options.overwrite)
    for warning in result.warnings:
        print(f"sfvq-jax {options.command}: {warning}", file=sys.stderr)
    print(
        f"{options.output}: {record.curve.num_codewords} codewords of {record.curve.latent_dim}"
        f" dimensions, distortion {result.history.distortion[-1]:.6g} on {result.measured_on},"
        f" perplexity {result.history.perplexity[-1]:.1f} of {record.curve.num_lines} lines"
    )


def start_distributed(options: argparse.Namespace) -> None:
    """Joins the processes of this fit; on a cluster that JAX knows, without being told anything."""
    given = (options.coordinator, options.processes, options.process_id)
    if any(value is None for value in given) and any(value is not None for value in given):
        raise ValueError(
            "--coordinator, --processes and --process-id go together; on SLURM, Kubernetes, Open"
            " MPI and TPU pods none is needed"
        )
    try:
        jax.distributed.initialize(*given)
        jax.devices()  # waits for all of them
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"the processes could not be joined ({error}): name --coordinator HOST:PORT,"
            " --processes and --process-id"
        ) from error


@contextlib.contextmanager
def ending_together(command: str) -> Iterator[None]:
    """Ends a process that failed at once, since JAX's own way out waits for the others.

    They wait for this one, and end when their connection to it does.
    """
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1:
            raise
        process = jax.process_index()
        print(
            f"sfvq-jax {command}: process {process}: {sentence(error)}", file=sys.stderr, flush=True
        )
        if process == 0:  # the others end with it: if they have the same to say, let them
            time.sleep(2)
        os._exit(2)


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
        result = fit(
            jax.random.key(options.seed),
            source,
            bits=options.bits,
            solver=solver,
            start=start,
            checkpoint=options.checkpoint,
            checkpoint_seconds=options.checkpoint_seconds,
            on_report=on_report,
        )
    finally:
        for reporter in reporters:
            reporter.close()
    settings = {"bits": options.bits, "seed": options.seed, "solver": options.solver}
    settings |= dataclasses.asdict(solver)
    return result, CurveRecord(result.curve, settings=settings, history=result.history)


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
