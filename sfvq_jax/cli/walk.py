"""`walk`: a film of the images along a curve."""

import argparse
from pathlib import Path

from tqdm import tqdm

from sfvq_jax.cli.augment import stretch_of_text
from sfvq_jax.cli.common import add_examples, add_memory, add_output
from sfvq_jax.cli.models import add_model_and_curve, load_both
from sfvq_jax.io.sweeps import KINDS
from sfvq_jax.views.walk import WALK_MARKER, write_walk

FRAMES_A_LINE = 4


def add_walk(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_walk)
    add_output(
        command,
        "film to write: a .gif, .webp or .mp4, or a folder of PNGs",
        endings=tuple(f".{kind}" for kind in KINDS),
        marker=WALK_MARKER,
    )
    add_examples(
        command,
        "walk fashion_mnist curve.npz -o walk.gif",
        "walk ffhq/ curve.npz --stretch 12:20 --frames 16 -o walk.mp4",
        "walk ffhq/ curve.npz -o frames/",
    )
    add_model_and_curve(command)
    command.add_argument(
        "--stretch",
        type=stretch_of_text,
        help="positions on the curve, start:stop, such as 3.5:7 (default: the whole curve)",
    )
    command.add_argument(
        "--frames",
        type=int,
        default=FRAMES_A_LINE,
        help="number of images for each line (default: %(default)s)",
    )
    command.add_argument(
        "--side",
        type=int,
        default=512,
        help="largest size of an image, in pixels (default: %(default)s)",
    )
    add_memory(command)


def run_walk(options: argparse.Namespace) -> None:
    model, record = load_both(options)
    start, stop = options.stretch or (0, record.curve.num_lines)
    with tqdm(unit=" images", leave=False, disable=None) as bar:
        count = write_walk(
            options.output, model, record.curve, start, stop, frames=options.frames,
            side=options.side, overwrite=options.overwrite, on_images=bar.update,
        )  # fmt: skip
    what = "PNGs" if not Path(options.output).suffix else "images, there and back"
    print(f"{options.output}: {count} {what}, from position {start:g} to {stop:g}")
