"""The command line: `sfvq-jax demo | inspect | convert | fit | map | quality | project | …`."""

import argparse
import contextlib
import functools
import gc
import logging
import re
import sys
import warnings
from collections.abc import Iterator, Sequence

from sfvq_jax.cli.augmentation import add_augment
from sfvq_jax.cli.checkpoints import add_checkpoint_commands
from sfvq_jax.cli.common import add_command, sentence
from sfvq_jax.cli.comparing import add_compare
from sfvq_jax.cli.compilation import compilation_cache
from sfvq_jax.cli.demo import add_demo
from sfvq_jax.cli.dimensions import add_dimensions
from sfvq_jax.cli.directions import add_directions
from sfvq_jax.cli.editing import add_edit
from sfvq_jax.cli.fitting import add_fit
from sfvq_jax.cli.maps import add_map_commands
from sfvq_jax.cli.projecting import add_project
from sfvq_jax.cli.scorers import add_scorer_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status: 0, or 2 with one sentence on standard error."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(_join_negative_values(arguments))
    keep = options.compilation_cache
    with _plain_messages(options.command), compilation_cache(keep=keep):
        try:
            options.run(options)
            return 0
        except (ValueError, OSError) as error:
            print(f"sfvq-jax {options.command}: {sentence(error)}", file=sys.stderr)
        gc.collect()  # of a save that failed, more errors are logged when its tasks are freed
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sfvq-jax", description="Maps of latent spaces.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add = functools.partial(add_command, commands)
    add_demo(add)
    add_checkpoint_commands(add)
    add_fit(add)
    add_map_commands(add)
    add_project(add)
    add_scorer_command(add)
    add_directions(add)
    add_dimensions(add)
    add_compare(add)
    add_edit(add)
    add_augment(add)
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
