"""`invert`: photographs into a latent space."""

import argparse
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from sfvq_jax import check_belongs, load_curve
from sfvq_jax.cli.common import (
    FIGURE_ENDINGS,
    add_examples,
    add_memory,
    add_output,
    add_scorer_option,
    add_seed,
    fitted_scorers,
    save_figure,
    table,
)
from sfvq_jax.cli.models import add_model, add_space_options, load_model
from sfvq_jax.images import image_shape, render_images
from sfvq_jax.interpret.inversion import invert
from sfvq_jax.io.image_files import SUFFIXES, entries, read_image
from sfvq_jax.io.latents_file import LatentsRecord, save_latents
from sfvq_jax.io.photos import FITS, fitted
from sfvq_jax.views import inversion_figure

MOST_DRAWN = 16  # photographs, in the overview


def add_invert(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_invert)
    add_output(
        command, "file (.npz) for the latents, which `edit --latents` reads", endings=(".npz",)
    )
    add_examples(
        command,
        "invert ffhq/ me.jpg you.png --curve curve.npz -o us.npz",
        "invert ffhq/ photos/ --curve curve.npz --each-layer --overview photos.png -o photos.npz",
    )
    add_model(command)
    command.add_argument("photos", nargs="+", help="image files, or folders of them")
    command.add_argument("--curve", help="curve (.npz); each search starts at its best position")
    command.add_argument(
        "--start",
        choices=("mean", "encoder"),
        help="start of the search: the mean latent (the default without --curve), or what the"
        " model's own encoder gives",
    )
    command.add_argument(
        "--each-layer",
        action="store_true",
        help="find a code for each layer: images are more like the photographs, but harder to edit",
    )
    command.add_argument(
        "--fit", choices=FITS, default=FITS[0],
        help="treatment of photographs of another shape: crop to the middle, pad with the border's"
        " colour, or stretch (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--pull", type=float, default=0.01,
        help="pull toward the model's distribution: more gives latents that are easier to edit,"
        " less gives images that are more like the photographs (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--steps", type=int, default=200, help="largest number of steps (default: %(default)s)"
    )
    add_output(
        command, "picture of the photographs above their rendered images", "--overview",
        endings=FIGURE_ENDINGS,
    )  # fmt: skip
    add_scorer_option(command)
    add_space_options(command)
    add_seed(command)
    add_memory(command)


def run_invert(options: argparse.Namespace) -> None:
    if options.curve is not None and options.start is not None:
        raise ValueError("--curve is where to start, and so is --start: leave one of them out")
    model = load_model(options.model, options)
    start = options.start or "mean"
    if options.curve is not None:
        record = load_curve(options.curve)
        check_belongs(record, model)
        start = record.curve
    shape = image_shape(model)
    if not shape:
        raise ValueError(f"{options.model} renders images of a size that it does not say")
    files = _files(options.photos)
    photos = np.stack([fitted(read_image(file), shape, options.fit) for file in files])
    scorers = fitted_scorers(options)
    features = None if scorers is None else scorers.find.features
    with tqdm(unit=" steps", leave=False, disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = invert(
            jax.random.key(options.seed), model, photos, start=start, layers=options.each_layer,
            features=features, pull=options.pull, steps=options.steps, on_step=show,
        )  # fmt: skip
    names = _names(files)
    space, model_hash = getattr(model, "latent_space", ""), getattr(model, "model_hash", "")
    record = LatentsRecord(np.asarray(found.latents), names, space, model_hash)
    save_latents(options.output, record, overwrite=options.overwrite)
    cells = [[name, f"{psnr:.1f} dB"] for name, psnr in zip(names, found.psnr, strict=True)]
    print(table([["photograph", "likeness (PSNR)"], *cells]))
    print(f"{options.output}: {len(files)} latents {list(found.latents.shape[1:])}")
    if options.overview is not None:
        rendered = render_images(model, found.latents[:MOST_DRAWN])
        save_figure(inversion_figure(photos[:MOST_DRAWN], rendered), options.overview, options)


def _files(named: list[str]) -> list[Path]:
    """Images that are named, and those in folders that are, by name."""
    files: list[Path] = []
    for path in map(Path, named):
        if path.is_dir():
            own = [file for file in entries(path)[1] if file.suffix.lower() in SUFFIXES]
            if not own:
                raise ValueError(f"{path} has no images")
            files += own
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"{path}: there is no such file")
    return files


def _names(files: list[Path]) -> tuple[str, ...]:
    """Those of the files without their endings; of several with one name the others are counted."""
    names: list[str] = []
    for file in files:
        count = 1
        while (name := file.stem[:80] + f"-{count}" * (count > 1)) in names:
            count += 1
        names.append(name)
    return tuple(names)
