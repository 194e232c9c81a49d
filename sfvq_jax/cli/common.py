"""What several commands share: common arguments and their types, loading, saving, messages."""

import argparse
import contextlib
import hashlib
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sfvq_jax.io.output import check_free, new_file

if TYPE_CHECKING:  # what takes long to import is imported where it is used
    from matplotlib.figure import Figure

    from sfvq_jax import CurveRecord, LatentModel
    from sfvq_jax.interpret import Scorer, Scorers
    from sfvq_jax.interpret.work import Progress
    from sfvq_jax.io.parts import Parts

FIGURE_ENDINGS = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".eps")
ATTRIBUTES_HELP = "attributes, separated by commas (default: all)"
BITS_HELP = "bits of the curve, which has 2**bits codewords (default: %(default)s)"
LARGEST_SEED = 2**32 - 1  # JAX uses 32 bits of it
DEVIATION_SAMPLES = 2**14  # latents, of which standard deviations are taken
MOST_STRENGTHS = 1000
MOST_SHOWN = 600  # characters of a message


class Output(NamedTuple):
    """An option that names what a command writes.

    Attributes:
      name: of the option's value.
      endings: that the name of a file may have.
      marker: a file in all folders of the kind; None where a folder is never written.
    """

    name: str
    endings: tuple[str, ...]
    marker: str | None


def add_output(
    command: argparse.ArgumentParser,
    help: str,
    *options: str,
    endings: tuple[str, ...] = (),
    marker: str | None = None,
    default: str | None = None,
) -> None:
    """An option for what a command writes, which is checked before it runs.

    Without `options` it is --output, which is required or has a default, and --overwrite.
    """
    if options:
        action = command.add_argument(*options, help=help)
    else:
        command.add_argument("--overwrite", action="store_true", help="replace existing output")
        action = command.add_argument(
            "-o", "--output", required=default is None, default=default, help=help
        )
    outputs = command.get_default("outputs") or ()
    command.set_defaults(outputs=(*outputs, Output(action.dest, endings, marker)))


def check_outputs(options: argparse.Namespace) -> None:
    """Raises what `check_free` raises of any output; ValueError where two are the same."""
    named: dict[str, str] = {}
    for name, endings, marker in options.outputs:
        path = getattr(options, name)
        if path is None:
            continue
        other = named.setdefault(os.path.realpath(path), name)
        if other != name:
            raise ValueError(f"{path} is named twice, for --{other} and --{name}: name two files")
        if marker is not None and Path(path).suffix.lower() in endings:
            marker = None
        check_free(
            path,
            overwrite=options.overwrite,
            marker=marker,
            endings=() if marker is not None else endings,
        )


def add_examples(command: argparse.ArgumentParser, *examples: str) -> None:
    """Shows them below a command's help."""
    command.epilog = "\n".join(["examples:", *(f"  sfvq-jax {example}" for example in examples)])


def add_seed(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--seed", type=_seed, default=0, help="seed of all random draws (default: %(default)s)"
    )


def _seed(text: str) -> int:
    if re.fullmatch(r"\d{1,10}", text) and int(text) <= LARGEST_SEED:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text}: expected a number from 0 to {LARGEST_SEED}")


def add_scorer_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--scorer",
        help="scorers (.npz) that `scorer` wrote (default: a bundled generator's own, else none)",
    )


def add_memory(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--memory",
        type=_size,
        metavar="SIZE",
        help="memory limit for images and derivatives, such as 8GiB; the model and compilation need"
        " extra memory (default: half of an accelerator's memory, a quarter of a CPU's)",
    )


def _size(text: str) -> int:
    if match := re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?) ?([KMGT])(i?)B", text):
        base = 1024 if match[3] else 1000
        size = int(float(match[1]) * base ** ("KMGT".index(match[2]) + 1))
        if size > 0:
            return size
    raise argparse.ArgumentTypeError(f"{text}: expected a size such as 8GiB or 500MB")


@contextlib.contextmanager
def progress_bar() -> "Iterator[Callable[[Progress], None]]":
    """What shows a long task's `Progress` on a terminal, with the time that is left."""
    from tqdm import tqdm

    # the mean rate of all that was done, as parts differ
    with tqdm(unit=" images", unit_scale=True, smoothing=0, leave=False, disable=None) as bar:

        def show(progress: "Progress") -> None:
            bar.total = progress.total
            bar.set_postfix_str(shown(progress.part), refresh=False)
            bar.update(progress.images - bar.n)

        yield show


@contextlib.contextmanager
def kept_parts(
    options: argparse.Namespace,
    model: "LatentModel",
    scorers: "Sequence[Scorer]",
    types: Sequence[type],
    settings: Sequence[str],
    **about: Any,
) -> "Iterator[Parts]":
    """What is done of a command, beside its output, where the same one goes on from.

    Args:
      options: of the command.
      model: its generator.
      scorers: that find and judge.
      types: of `Parts`.
      settings: options that decide on what the parts are.
      about: more of that, JSON values.
    """
    from sfvq_jax.io.parts import Parts

    told = {
        "command": options.command,
        "model": getattr(model, "model_hash", "") or _sha256(model, type(model).__qualname__),
        "space": getattr(model, "latent_space", ""),
        "scorers": [_sha256(s, (s.names, s.thresholds)) for s in scorers],
        **{name: getattr(options, name) for name in settings},
        **about,
    }
    with Parts.open(options.output, told, types) as parts:
        if len(parts):
            text = f"goes on from what {parts.folder} keeps"
            print(f"sfvq-jax {options.command}: {text}", file=sys.stderr)
        yield parts


def _sha256(tree: Any, about: Any) -> str:
    """Of the numbers in a pytree, and of the repr of what else is told of it."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    found = hashlib.sha256(repr(about).encode())
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if isinstance(leaf, jax.Array | np.ndarray | np.generic | float | int):
            found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()


def strength_list(text: str) -> list[float]:
    parts = [float(part) for part in text.split(":" if text.count(":") == 2 else ",")]
    if not all(map(math.isfinite, parts)):
        raise argparse.ArgumentTypeError(f"{text}: expected finite numbers")
    if text.count(":") != 2:
        return parts
    start, stop, step = parts
    if step <= 0 or stop < start:
        raise argparse.ArgumentTypeError(f"{text}: expected start:stop:step with start <= stop")
    if (stop - start) / step >= MOST_STRENGTHS:
        raise argparse.ArgumentTypeError(f"{text}: expected at most {MOST_STRENGTHS} of them")
    # rounded, so that 0 is among those of -0.3:0.3:0.1
    return [round(start + step * i, 12) for i in range(int((stop - start) / step + 1e-9) + 1)]


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


def direction_source(record: "CurveRecord", codewords: tuple[int, int]) -> dict:
    """Where a direction between two codewords comes from."""
    from sfvq_jax.io.curve_file import curve_sha256

    return {"curve_sha256": curve_sha256(record), "codewords": list(codewords)}


def fitted_scorers(options: argparse.Namespace) -> "Scorers | None":
    """Of --scorer, or those of a bundled model; None where there are none."""
    import ports
    from sfvq_jax.interpret import load_scorers

    if options.scorer is not None:
        return load_scorers(options.scorer)
    from sfvq_jax.cli.models import is_bundled

    if is_bundled(options.model):
        return load_scorers(ports.BUNDLED / "fashion_mnist_scorers.npz")
    return None


def scorers_of(
    options: argparse.Namespace, model: "LatentModel", attributes: Sequence[str] | None = None
) -> "tuple[Scorer, Scorer]":
    """Those of `with_statistics` that the options name."""
    return with_statistics(fitted_scorers(options), model, attributes)


def with_statistics(
    fitted: "Scorers | None", model: "LatentModel", attributes: Sequence[str] | None = None
) -> "tuple[Scorer, Scorer]":
    """A scorer that finds and one that judges: statistics, and what was learnt where it is.

    Statistics that mean nothing of the model's images are left out, or refused where they are
    among the attributes that are asked for; None stands for all.
    """
    import jax

    from sfvq_jax.interpret import OF_BACKGROUND, join, statistics_of
    from sfvq_jax.interpret.attributes import no_background

    find, judge, background = statistics_of(jax.random.key(0), model)
    if fitted is not None:
        find, judge = join(find, fitted.find), join(judge, fitted.judge)
    missing = [name for name in OF_BACKGROUND if name not in find.names]
    if missing and attributes is None:
        warnings.warn(f"{no_background(missing, background)}: left out", stacklevel=2)
    elif refused := set(missing) & set(attributes or ()):
        raise ValueError(f"{no_background(sorted(refused), background)}: ask for others")
    return find, judge


def save_figure(figure: "Figure", path: str, options: argparse.Namespace) -> None:
    with new_file(path, overwrite=options.overwrite) as temporary:
        figure.savefig(temporary)
    print(path)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as aligned columns."""
    rows = [[shown(cell, 200) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def slug(name: str) -> str:
    """A name as that of a file."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60]


def shown(text: str, most: int = 80) -> str:
    """What may come from a file, on one line, without a terminal's codes, and short."""
    text = re.sub(r"[\r\n\t]+", " ", text)
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= most else f"{text[: most // 2]} … {text[3 - most // 2 :]}"


def sentence(error: BaseException) -> str:
    """What is said of an error: its own words, where they are ours or the system's."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = shown(" ".join(str(error).split()), MOST_SHOWN).replace("overwrite=True", "--overwrite")
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
        if error.filename is not None:
            text = f"{shown(str(error.filename), MOST_SHOWN)}: {text}"
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return f"there is not enough memory{f' ({text})' * bool(text)}"
    if isinstance(error, ValueError | OSError) and text:
        return text
    kind = type(error).__name__
    return f"{kind}{f': {text}' * bool(text)} (with --debug it is shown where)"
