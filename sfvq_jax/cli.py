"""The command line: `sfvq-jax demo | inspect | convert | fit | map | edit | augment`."""

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import ports
from sfvq_jax.curve import decode
from sfvq_jax.curve_file import CurveRecord, check_belongs, load_curve, save_curve
from sfvq_jax.fit import FitResult, Report, fit
from sfvq_jax.interpret import deviation_along, edit_latents, line_direction, positions_along_line
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.output import check_free, new_file, new_folder
from sfvq_jax.progress import JsonLog, Progress
from sfvq_jax.quality import codebook_quality, same_class_share
from sfvq_jax.sharding import in_every_process
from sfvq_jax.solvers import Adam, LeastSquares
from sfvq_jax.sources import HostSource
from sfvq_jax.views import (
    distance_figure,
    edit_figure,
    history_figure,
    map_figure,
    render_images,
)
from sfvq_jax.views.figures import MAP_SIDE

DEMO_MODEL = "fashion_mnist"
DEMO_LINE = 12
DEMO_MARKER, SAMPLES_MARKER = "curve.npz", "samples.npz"  # what these folders always hold
SOLVERS = {"least_squares": LeastSquares, "adam": Adam}
DEVIATION_SAMPLES = 2**14


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status: 0, or 2 with one sentence on standard error."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(_join_negative_values(arguments))
    with _plain_messages(options.command):
        try:
            options.run(options)
        except (ValueError, OSError) as error:
            print(f"sfvq-jax {options.command}: {_sentence(error)}", file=sys.stderr)
            return 2
    return 0


def run_demo(options: argparse.Namespace) -> None:
    """Fits the bundled generator's W and draws every figure."""
    check_free(options.output, overwrite=options.overwrite, marker=DEMO_MARKER)
    model = load_model(options.model, options)
    result, record = fit_model(model, options)
    line = min(DEMO_LINE, record.curve.num_lines - 1)
    with new_folder(options.output, overwrite=options.overwrite, marker=DEMO_MARKER) as folder:
        save_curve(folder / DEMO_MARKER, record)
        draw_map(model, record).savefig(folder / "map.png")
        distance_figure(record.curve).savefig(folder / "distances.png")
        history_figure(result.history).savefig(folder / "history.png")
        strengths, seeds = [-4.0, -2.0, 0.0, 2.0, 4.0], range(6)
        layers = (0, model.num_layers - 1)
        edit = draw_edit(model, record, line, layers, strengths, seeds, 0.5)
        edit.savefig(folder / "edit.png")
        write_samples(model, record, line, 64, folder / "samples")
    print(f"{options.output}: curve.npz, map.png, distances.png, history.png, edit.png, samples/")
    print(_map_report(model, record))


def run_inspect(options: argparse.Namespace) -> None:
    found = ports.inspect(options.checkpoint, options.config)
    rows = {
        "format": found.format,
        "architecture": found.architecture,
        "image size": "x".join(str(side) for side in found.image_shape),
        "classes": str(found.num_classes),
        "parameters": f"{found.num_parameters:,}",
        "latent spaces": ", ".join(f"{name} [{d}]" for name, d in found.latent_spaces.items()),
        "hash": found.model_hash,
    }
    rows |= {name: json.dumps(value) for name, value in found.source.items()}
    rows |= {f"converted with {name}": version for name, version in found.versions.items()}
    rows |= {
        f"layer {i}": f"{resolution}x{resolution}  {name}"
        for i, (name, resolution) in enumerate(found.layers)
    }
    for name, text in rows.items():
        if text:  # a classifier has neither images nor latent spaces
            print(f"{name:<23} {text}")


def run_convert(options: argparse.Namespace) -> None:
    with _terminable():
        differences = ports.convert(
            options.checkpoint,
            options.output,
            config=options.config,
            verify=options.verify,
            overwrite=options.overwrite,
        )
    found = ports.inspect(options.output)
    print(
        f"{options.output}: {found.architecture} from {found.format},"
        f" {'x'.join(map(str, found.image_shape))}, {found.num_classes} classes,"
        f" {found.num_parameters:,} parameters"
    )
    for name, largest, relative in differences:
        print(f"{name}: differs by at most {largest:.2g}, {relative:.2g} of the largest value")


def run_fit(options: argparse.Namespace) -> None:
    if options.distributed:
        start_distributed(options)

    def open_source() -> Any:
        if jax.process_index() == 0:  # which writes for all
            check_free(options.output, overwrite=options.overwrite)
        if options.source.endswith(".npy"):
            check_no_space(options.source, options)
            return HostSource.of_file(options.source)
        return load_model(options.source, options)

    source = in_every_process(open_source)
    with _ending_together():
        if isinstance(source, HostSource):
            result, record = _fit(source, options)
        else:
            result, record = fit_model(source, options)
    if jax.process_index() > 0:
        return
    save_curve(options.output, record, overwrite=options.overwrite)
    print(
        f"{options.output}: {record.curve.num_codewords} codewords of {record.curve.latent_dim}"
        f" dimensions, distortion {result.history.distortion[-1]:.6g}, perplexity"
        f" {result.history.perplexity[-1]:.1f} of {record.curve.num_lines} lines"
    )


def run_map(options: argparse.Namespace) -> None:
    for path in (options.distances, options.history):
        if path is not None:
            check_free(path, overwrite=options.overwrite)
    model, record = load_both(options)
    if options.history is not None and record.history is None:
        raise ValueError(f"{options.curve} keeps no history of its fit: leave out --history")
    save_figure(draw_map(model, record), options.output, options)
    if options.distances is not None:
        save_figure(distance_figure(record.curve), options.distances, options)
    if options.history is not None and record.history is not None:
        save_figure(history_figure(record.history), options.history, options)


def run_edit(options: argparse.Namespace) -> None:
    model, record = load_both(options)
    layers = options.layers or (0, model.num_layers - 1)
    figure = draw_edit(
        model, record, options.line, layers, options.strength, options.seeds, options.truncation
    )
    save_figure(figure, options.output, options)


def run_augment(options: argparse.Namespace) -> None:
    model, record = load_both(options, marker=SAMPLES_MARKER)
    write_samples(
        model, record, options.line, options.count, options.output, overwrite=options.overwrite
    )
    print(f"{options.output}: {options.count} images and samples.npz")


def load_model(name: str, options: argparse.Namespace) -> LatentModel:
    """A converted generator or a bundled one, in the latent space that the options name."""
    model = load_generator(name)
    if isinstance(model, ports.BigGAN):
        space = options.space or ("linear" if options.label is None else "z")
        return model.space(space, options.label, options.truncation)
    check_no_space(name, options)
    return model


def check_no_space(name: str, options: argparse.Namespace) -> None:
    """Raises ValueError where the options choose a space of what has only one."""
    if (options.space, options.label, options.truncation) != (None, None, None):
        raise ValueError(f"{name} has one latent space: leave out --space, --label, --truncation")


def load_generator(name: str) -> ports.StyleGAN2 | ports.BigGAN:
    """A converted generator's folder, or the name of a bundled one."""
    path = Path(name)
    bundled = not path.exists() and (ports.BUNDLED / name).is_dir()
    model = ports.load(ports.bundled(name) if bundled else path)
    if isinstance(model, ports.Classifier):
        raise ValueError(f"{name} is a classifier and no generator")
    return model


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
def _ending_together() -> Iterator[None]:
    """Ends a process that failed at once, since JAX's own way out waits for the others.

    They wait for this one, and end when their connection to it does.
    """
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1:
            raise
        process = jax.process_index()
        print(f"sfvq-jax fit: process {process}: {_sentence(error)}", file=sys.stderr, flush=True)
        if process == 0:  # the others end with it: if they have the same to say, let them
            time.sleep(2)
        os._exit(2)


def load_both(
    options: argparse.Namespace, marker: str | None = None
) -> tuple[LatentModel, CurveRecord]:
    """Model and curve of a command, once it is known that they belong together."""
    check_free(options.output, overwrite=options.overwrite, marker=marker)
    record = load_curve(options.curve)
    model = load_generator(options.model)
    if isinstance(model, ports.BigGAN):
        model = model.space_named(record.space)
    check_belongs(record, model)
    return model, record


def fit_model(model: LatentModel, options: argparse.Namespace) -> tuple[FitResult, CurveRecord]:
    result, record = _fit(model, options)
    space, model_hash = getattr(model, "latent_space", ""), getattr(model, "model_hash", "")
    return result, record._replace(space=space, model_hash=model_hash)


def draw_map(model: LatentModel, record: CurveRecord) -> Figure:
    images = render_images(model, record.curve.codewords, max_side=MAP_SIDE)
    return map_figure(images, f"{len(images)} codewords in order")


def draw_edit(
    model: LatentModel,
    record: CurveRecord,
    line: int,
    layers: tuple[int, int],
    strengths: Sequence[float],
    seeds: Sequence[int],
    truncation: float,
) -> Figure:
    """Edits of the latents that the seeds give; an unedited column is added where none is asked."""
    strengths = sorted({0.0, *strengths})
    direction = line_direction(record.curve, line)
    samples = [model.sample(jax.random.key(seed), 1, truncation=truncation) for seed in seeds]
    codes = edit_latents(
        jnp.concatenate(samples), direction, jnp.asarray(strengths), layers, model.num_layers
    )
    images = render_images(model, codes.reshape(-1, *codes.shape[2:]), max_side=MAP_SIDE)
    images = images.reshape(len(seeds), len(strengths), *images.shape[1:])
    deviation = deviation_along(model.sample(jax.random.key(0), DEVIATION_SAMPLES), direction)
    title = f"Line {line}, layers {layers[0]}-{layers[1]}, truncation {truncation:g}"
    return edit_figure(images, strengths, float(deviation), seeds, title)


def write_samples(
    model: LatentModel,
    record: CurveRecord,
    line: int,
    count: int,
    path: str | Path,
    *,
    overwrite: bool = False,
) -> None:
    """A folder of PNGs evenly along a line, and samples.npz with their latents and positions."""
    positions = positions_along_line(record.curve, line, count)
    latents = decode(record.curve, positions)
    with new_folder(path, overwrite=overwrite, marker=SAMPLES_MARKER) as folder:
        for i, image in enumerate(render_images(model, latents)):
            Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(
                folder / f"{i:0{len(str(count - 1))}d}.png"
            )
        np.savez(
            folder / SAMPLES_MARKER,
            latents=np.asarray(latents),
            positions=np.asarray(positions),
            line=line,
            space=record.space,
            model_hash=record.model_hash,
        )


def save_figure(figure: Figure, path: str, options: argparse.Namespace) -> None:
    with new_file(path, overwrite=options.overwrite) as temporary:
        figure.savefig(temporary)
    print(path)


def _fit(source: Any, options: argparse.Namespace) -> tuple[FitResult, CurveRecord]:
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


def _map_report(model: LatentModel, record: CurveRecord) -> str:
    """How ordered the demo's map is: class runs beside the same codewords in a random order."""
    classifier = ports.load(ports.bundled(f"{DEMO_MODEL}_classifier"))
    assert isinstance(classifier, ports.Classifier)
    classes = np.asarray(classifier(model.render(record.curve.codewords))[0].argmax(1))
    counts = np.bincount(classes)
    k = len(classes)
    by_chance = (counts * (counts - 1)).sum() / (k * (k - 1))
    quality = codebook_quality(record.curve)
    return (
        f"neighbours of the same class: {same_class_share(classes):.2f} (random order"
        f" {by_chance:.2f}); nearest codeword is a neighbour: {quality.neighbour_share:.2f}; step ÷"
        f" mean distance: {quality.step_ratio:.2f}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sfvq-jax", description="Maps of latent spaces.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run, help: str, output: str = "", default: str | None = None):
        command = commands.add_parser(name, help=help, description=help)
        command.set_defaults(run=run)
        if output:
            command.add_argument("--overwrite", action="store_true", help="replace the output")
            command.add_argument(
                "-o", "--output", required=default is None, default=default, help=output
            )
        return command

    def add_model(command: argparse.ArgumentParser) -> None:
        command.add_argument("model", help="a converted generator, or a bundled one")
        command.add_argument("curve", help="a curve.npz, or codewords in an .npy")

    demo = add("demo", run_demo, "bundled generator -> a curve and its figures", "folder",
               "sfvq-jax-demo")  # fmt: skip
    demo.add_argument(
        "model", nargs="?", default=DEMO_MODEL, help="fashion_mnist_biggan, or (%(default)s)"
    )
    _add_fit_options(demo)

    inspect = add("inspect", run_inspect, "tells what a checkpoint is")
    inspect.add_argument("checkpoint", help="upstream's file or folder, or a converted folder")

    convert = add("convert", run_convert, "StyleGAN2 or BigGAN of an upstream project -> our form")
    convert.add_argument("checkpoint", help=".pkl, .pt, .pth or .bin, or a folder with one")
    convert.add_argument("output", help="folder to write")
    convert.add_argument("--overwrite", action="store_true", help="replace the output")
    convert.add_argument("--verify", help="an .npz of upstream's outputs to compare with first")
    for command in (inspect, convert):
        command.add_argument("--config", help="a BigGAN's settings (config.json beside it)")

    fit_command = add("fit", run_fit, "fits a curve", "the curve's .npz")
    fit_command.add_argument(
        "source", help="a converted generator, a bundled one, or an .npy of latents [N, D]"
    )
    _add_fit_options(fit_command)
    fit_command.add_argument(
        "--distributed", action="store_true", help="this is one of several processes of one fit"
    )
    fit_command.add_argument("--coordinator", help="HOST:PORT of the first process")
    fit_command.add_argument("--processes", type=int, help="how many there are")
    fit_command.add_argument("--process-id", type=int, help="which one this is, from 0")

    map_command = add("map", run_map, "draws the codebook as images, in order", "the figure")
    add_model(map_command)
    map_command.add_argument("--distances", help="also draw the distances of codewords, here")
    map_command.add_argument("--history", help="also draw the history of the fit, here")

    edit = add("edit", run_edit, "draws seeds moved along a line", "the figure")
    add_model(edit)
    edit.add_argument("--line", type=int, required=True, help="line of the curve, from 0")
    edit.add_argument("--layers", type=_layers, help="first-last, both included; all by default")
    edit.add_argument(
        "--strength",
        type=_strengths,
        default=[-10.0, -5.0, 0.0, 5.0, 10.0],
        help="start:stop:step (stop included) or a list: distances along the unit direction",
    )
    edit.add_argument("--seeds", type=_integers, default=range(4), help="first-last or a list")
    edit.add_argument("--truncation", type=float, default=0.5, help="of the seeds' latents")

    augment = add("augment", run_augment, "draws new samples along a line", "folder to write")
    add_model(augment)
    augment.add_argument("--line", type=int, required=True, help="line of the curve, from 0")
    augment.add_argument("--count", type=int, default=64, help="how many")
    return parser


def _add_fit_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--space", help="of a BigGAN: linear (the default) or z, which is that of one class"
    )
    command.add_argument("--label", type=int, help="of a BigGAN: the class")
    command.add_argument("--truncation", type=float, help="of a BigGAN's latents")
    command.add_argument("--bits", type=int, default=6, help="2**bits codewords (%(default)s)")
    command.add_argument("--seed", type=int, default=0)
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


def _join_negative_values(arguments: list[str]) -> list[str]:
    """`--strength -10:10:5` as one word, since argparse takes what begins with - for an option."""
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1] == "--strength" and re.match(r"-[\d.]", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _strengths(text: str) -> list[float]:
    if text.count(":") == 2:
        start, stop, step = (float(part) for part in text.split(":"))
        if step <= 0 or stop < start:
            raise argparse.ArgumentTypeError(f"{text}: expected start:stop:step with start <= stop")
        return [start + step * i for i in range(int((stop - start) / step + 1e-9) + 1)]
    return [float(part) for part in text.split(",")]


def _integers(text: str) -> list[int]:
    if match := re.fullmatch(r"(\d+)-(\d+)", text):
        first, last = int(match[1]), int(match[2])
        if last >= first:
            return list(range(first, last + 1))
    elif re.fullmatch(r"\d+(,\d+)*", text):
        return [int(part) for part in text.split(",")]
    raise argparse.ArgumentTypeError(f"{text}: expected first-last or a list such as 0,3,7")


def _layers(text: str) -> tuple[int, int]:
    layers = _integers(text)
    if layers != list(range(layers[0], layers[-1] + 1)):
        raise argparse.ArgumentTypeError(f"{text}: expected first-last, such as 0-2")
    return layers[0], layers[-1]


@contextlib.contextmanager
def _plain_messages(command: str) -> Iterator[None]:
    """Our own warnings as a sentence, and nothing else of errors that end in one of ours.

    Orbax logs an error of a save before it raises it, and TensorStore those of the other files.
    """
    show_warning, show_unraisable = warnings.showwarning, sys.unraisablehook
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]

    def say_warning(message, category, *where, **more) -> None:
        if category is UserWarning:
            print(f"sfvq-jax {command}: {message}", file=sys.stderr)
        else:
            show_warning(message, category, *where, **more)

    def say_unraisable(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            show_unraisable(unraisable)

    with warnings.catch_warnings():
        warnings.showwarning, sys.unraisablehook = say_warning, say_unraisable
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            sys.unraisablehook = show_unraisable
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Makes SIGTERM an exception, so that what was begun is removed as after Control-C."""

    def stop(number, frame) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
