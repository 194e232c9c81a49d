"""`map`: the codebook of a curve as a picture."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sfvq_jax.cli.common import FIGURE_ENDINGS, add_examples, add_memory, add_output, save_figure
from sfvq_jax.cli.models import add_model_and_curve, is_of_latents, load_for
from sfvq_jax.interpret import rows_at
from sfvq_jax.io.curve_file import CurveRecord, load_curve
from sfvq_jax.io.reading import Arrays, reading
from sfvq_jax.io.row_images import RowImages
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.sources import HostSource
from sfvq_jax.views import distance_figure, history_figure, map_figure, render_images
from sfvq_jax.views.grids import MAP_SIDE

MOST_NEAREST = 16


def add_map(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_map)
    add_examples(
        command,
        "map ffhq/ curve.npz -o map.png",
        "map fashion_mnist curve.npz -o map.png --distances distances.png --history history.png",
        "map latents.npy curve.npz --images photos/ --labels labels.npy -o map.png",
    )
    add_model_and_curve(command, arrays=True)
    add_images(command, "the map shows those nearest to each codeword")
    add_labels(command)
    command.add_argument(
        "--nearest",
        type=_count,
        default=1,
        help="number of images at each codeword (default: %(default)s)",
    )
    add_output(command, "picture to write (.png, .pdf, .svg, …)", endings=FIGURE_ENDINGS)
    for name, what in (("distances", "distances between codewords"), ("history", "fit's history")):
        add_output(command, f"picture of the {what}", f"--{name}", endings=FIGURE_ENDINGS)
    add_memory(command)


def add_images(command: argparse.ArgumentParser, shown: str) -> None:
    command.add_argument(
        "--images",
        help="images of the latents: a folder with one image for each, in the order of their names,"
        f" or an .npy [N, H, W, C]; {shown}",
    )


def add_labels(command: argparse.ArgumentParser) -> None:
    command.add_argument("--labels", help="classes of the latents: an .npy [N] of numbers or texts")


def _count(text: str) -> int:
    if text.isdigit() and 1 <= int(text) <= MOST_NEAREST:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text}: expected a number from 1 to {MOST_NEAREST}")


def run_map(options: argparse.Namespace) -> None:
    record = load_curve(options.curve)
    if options.history is not None and record.history is None:
        raise ValueError(f"{options.curve} keeps no history of its fit: leave out --history")
    if is_of_latents(options.model):
        figure = _map_of_rows(options, record)
    else:
        check_drawn(options)
        figure = draw_map(load_for(options.model, [record]), record)
    save_figure(figure, options.output, options)
    if options.distances is not None:
        save_figure(distance_figure(record.curve), options.distances, options)
    if options.history is not None and record.history is not None:
        save_figure(history_figure(record.history), options.history, options)


def draw_map(model: LatentModel, record: CurveRecord) -> Figure:
    images = render_images(model, record.curve.codewords, max_side=MAP_SIDE)
    return map_figure(images, f"{len(images)} codewords in order")


def _map_of_rows(options: argparse.Namespace, record: CurveRecord) -> Figure:
    """The images of the latents nearest to each codeword, or, where there are none, its colour."""
    if options.images is None and options.labels is None:
        raise ValueError(
            f"{options.model} holds latents, which by themselves are no pictures: name their images"
            " by --images or their classes by --labels, or name the generator"
        )
    source, labels = HostSource(options.model, scale=options.scale), read_labels(options)
    images = None
    if options.images is not None:
        images = read_images(options, source)
    found = rows_at(record.curve, source, labels=labels, count=options.nearest)
    title = f"{len(found.rows)} codewords in order"
    tiles = None
    if images is not None:
        tiles = images.tiles(found.rows, MAP_SIDE)
        what = "the latent" if found.rows.shape[1] == 1 else f"the {found.rows.shape[1]} latents"
        title += f", each as {what} nearest to it"
    return map_figure(tiles, title, labels=found.labels)


def read_images(options: argparse.Namespace, source: HostSource) -> RowImages:
    """Of the latents; a folder's order is told."""
    images = RowImages(options.images, source.num_latents)
    if images.order:
        print(images.order)
    return images


def read_labels(options: argparse.Namespace) -> np.ndarray | None:
    if options.labels is None:
        return None
    with reading(Path(options.labels), ".npy of labels [N], numbers or texts") as file:
        return Arrays(file, alone="labels").array("labels", (None,), "iubU")


def check_drawn(
    options: argparse.Namespace, names: Sequence[str] = ("images", "labels", "scale")
) -> None:
    """Raises ValueError where what belongs to latents in a file is given for a generator."""
    for name in names:
        if getattr(options, name, None) is not None:
            raise ValueError(
                f"--{name} goes with latents, and {options.model} is a generator, whose images are"
                " drawn: leave it out"
            )
