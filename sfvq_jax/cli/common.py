"""What several commands share: common arguments and their types, loading, saving, messages."""

import argparse
import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import ports
from sfvq_jax.interpret import (
    DirectionRecord,
    Scorer,
    Scorers,
    image_statistics,
    join,
    judging_statistics,
    load_scorers,
)
from sfvq_jax.io.curve_file import CurveRecord, check_belongs, load_curve
from sfvq_jax.io.output import check_free, new_file
from sfvq_jax.latent_model import LatentModel

AddCommand = Callable[..., argparse.ArgumentParser]  # `add_command` without its first argument


def add_command(
    commands,
    name: str,
    run: Callable[[argparse.Namespace], None],
    help: str,
    output: str = "",
    default: str | None = None,
) -> argparse.ArgumentParser:
    """A command's parser; with --output and --overwrite where `output` says what is written."""
    command = commands.add_parser(name, help=help, description=help)
    command.set_defaults(run=run)
    command.add_argument(
        "--no-compilation-cache",
        dest="compilation_cache",
        action="store_false",
        help="keep no compiled programs in the user's cache folder",
    )
    if output:
        command.add_argument("--overwrite", action="store_true", help="replace the output")
        command.add_argument(
            "-o", "--output", required=default is None, default=default, help=output
        )
    return command


def add_model_and_curve(command: argparse.ArgumentParser, *, arrays: bool = False) -> None:
    help = "a converted generator, or a bundled one"
    command.add_argument("model", help=help + (", or latents in an .npy" if arrays else ""))
    command.add_argument("curve", help="a curve.npz, or codewords in an .npy")


def add_space_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--space",
        help="of a StyleGAN2 w (the default) or z, of a BigGAN linear (the default) or z",
    )
    command.add_argument("--label", type=int, help="of z, the class that it is for")
    command.add_argument("--truncation", type=float, help="of z, or of a BigGAN's latents")


def add_scorer(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--scorer", help="what `scorer` wrote; bundled generators have one of their own"
    )


def strength_list(text: str) -> list[float]:
    if text.count(":") == 2:
        start, stop, step = (float(part) for part in text.split(":"))
        if step <= 0 or stop < start:
            raise argparse.ArgumentTypeError(f"{text}: expected start:stop:step with start <= stop")
        return [start + step * i for i in range(int((stop - start) / step + 1e-9) + 1)]
    return [float(part) for part in text.split(",")]


def integer_list(text: str) -> list[int]:
    if match := re.fullmatch(r"(\d+)-(\d+)", text):
        first, last = int(match[1]), int(match[2])
        if last >= first:
            return list(range(first, last + 1))
    elif re.fullmatch(r"\d+(,\d+)*", text):
        return [int(part) for part in text.split(",")]
    raise argparse.ArgumentTypeError(f"{text}: expected first-last or a list such as 0,3,7")


def name_list(text: str) -> list[str]:
    return text.split(",")


def layer_range(text: str) -> tuple[int, int]:
    layers = integer_list(text)
    if layers != list(range(layers[0], layers[-1] + 1)):
        raise argparse.ArgumentTypeError(f"{text}: expected first-last, such as 0-2")
    return layers[0], layers[-1]


def load_model(name: str, options: argparse.Namespace) -> LatentModel:
    """A converted generator or a bundled one, in the latent space that the options name."""
    model = load_generator(name)
    default = "linear" if isinstance(model, ports.BigGAN) and options.label is None else "z"
    if isinstance(model, ports.StyleGAN2) and (options.label, options.truncation) == (None, None):
        default = "w"
    return model.space(options.space or default, options.label, options.truncation)


def check_no_space(name: str, options: argparse.Namespace) -> None:
    """Raises ValueError where the options choose a space of what has only one."""
    if (options.space, options.label, options.truncation) != (None, None, None):
        raise ValueError(f"{name} has one latent space: leave out --space, --label, --truncation")


def load_generator(name: str) -> ports.StyleGAN2 | ports.BigGAN:
    """A converted generator's folder, or the name of a bundled one."""
    model = ports.load(ports.bundled(name) if _is_bundled(name) else name)
    if isinstance(model, ports.Classifier):
        raise ValueError(f"{name} is a classifier and no generator")
    return model


def load_both(
    options: argparse.Namespace, marker: str | None = None
) -> tuple[LatentModel, CurveRecord]:
    """Model and curve of a command that writes; they belong together, and the output is free."""
    check_free(options.output, overwrite=options.overwrite, marker=marker)
    record = load_curve(options.curve)
    return load_for(options.model, [record]), record


def load_for(name: str, records: Sequence[CurveRecord | DirectionRecord]) -> LatentModel:
    """The model that curves or directions belong to, in their latent space."""
    model = load_generator(name).space_named(records[0].space)
    for record in records:
        check_belongs(record, model)
    return model


def curve_sha256(record: CurveRecord) -> str:
    """Of the codewords, which tells curves apart wherever they lie."""
    codewords = np.ascontiguousarray(record.curve.codewords, np.float32)
    return hashlib.sha256(codewords.tobytes()).hexdigest()


def direction_source(record: CurveRecord, codewords: tuple[int, int]) -> dict:
    """Where a direction between two codewords comes from."""
    return {"curve_sha256": curve_sha256(record), "codewords": list(codewords)}


def fitted_scorers(options: argparse.Namespace) -> Scorers | None:
    """Of --scorer, or those of a bundled model; None where there are none."""
    if options.scorer is not None:
        return load_scorers(options.scorer)
    if _is_bundled(options.model):
        return load_scorers(ports.BUNDLED / "fashion_mnist_scorers.npz")
    return None


def scorers_of(options: argparse.Namespace) -> tuple[Scorer, Scorer]:
    """Those of `with_statistics` that the options name."""
    return with_statistics(fitted_scorers(options))


def with_statistics(fitted: Scorers | None) -> tuple[Scorer, Scorer]:
    """A scorer that finds and one that judges: statistics, and what was learnt where it is."""
    if fitted is None:
        return image_statistics(), judging_statistics()
    return join(image_statistics(), fitted.find), join(judging_statistics(), fitted.judge)


def _is_bundled(name: str) -> bool:
    return not Path(name).exists() and (ports.BUNDLED / name).is_dir()


def save_figure(figure: Figure, path: str, options: argparse.Namespace) -> None:
    with new_file(path, overwrite=options.overwrite) as temporary:
        figure.savefig(temporary)
    print(path)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def slug(name: str) -> str:
    """A name as that of a file."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60]


def sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split()).replace("overwrite=True", "--overwrite")
