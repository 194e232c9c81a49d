"""`scorer`: learns attributes from labelled images."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image, UnidentifiedImageError

from sfvq_jax.cli.common import (
    AddCommand,
    table,
)
from sfvq_jax.interpret import (
    fit_scorers,
    save_scorers,
)
from sfvq_jax.io.output import check_free

FOLDER_SIDE = 64  # pixels to which the images of a folder are scaled; scorers see no more


def add_scorer_command(add: AddCommand) -> None:
    scorer = add("scorer", run_scorer, "learns attributes from labelled images", "the .npz")
    scorer.add_argument(
        "images",
        help="an .npz with images, labels and perhaps names, a folder with one a class, or an .npy"
        " of images with --labels",
    )
    add_labels(scorer)
    scorer.add_argument("--epochs", type=int, help="times that each image is seen")
    scorer.add_argument("--seed", type=int, default=0)


def add_labels(command: argparse.ArgumentParser) -> None:
    command.add_argument("--labels", help="an .npy of labels, where the images are one too")


def run_scorer(options: argparse.Namespace) -> None:
    check_free(options.output, overwrite=options.overwrite)
    images, labels, names = read_labelled(options.images, options.labels)
    fits = fit_scorers(
        jax.random.key(options.seed), images, labels, names=names, epochs=options.epochs
    )
    about = {
        role: {"measure": fit.measure, "overall": fit.overall, "baseline": fit.baseline}
        for role, fit in fits._asdict().items()
    }
    find, judge = fits.find, fits.judge
    save_scorers(
        options.output,
        find.scorer,
        judge.scorer,
        about=about | {"seed": options.seed, "images": len(images)},
        overwrite=options.overwrite,
    )
    rows = [(f"held-out {find.measure}", "find", "judge")]
    rows += [
        (name, f"{find.held_out[name]:.3f}", f"{judge.held_out[name]:.3f}")
        for name in find.scorer.names
    ]
    rows.append(("overall", f"{find.overall:.3f}", f"{judge.overall:.3f}"))
    rows.append(("without looking", f"{find.baseline:.3f}", f"{judge.baseline:.3f}"))
    print(table(rows))
    print(options.output)


def read_labelled(
    name: str, labels: str | None = None
) -> tuple[np.ndarray, np.ndarray, Sequence[str] | None]:
    """Images, labels and names, of an .npz, a folder with a folder of images a class, or two .npy.

    Raises:
      ValueError: none of them, or what cannot be read.
    """
    path = Path(name)
    if (path.suffix == ".npy") != (labels is not None):
        raise ValueError("images in an .npy take --labels, an .npy too; other images take none")
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if labels is not None:
        return _read_array(path), _read_array(Path(labels)), None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, found = arrays["images"], arrays["labels"]
            names = [str(name) for name in arrays["names"]] if "names" in arrays else None
    except Exception as error:  # damaged bytes make zipfile and NumPy raise errors of many kinds
        raise ValueError(f"{path} is no .npz with images and labels ({error})") from error
    return images, found, names


def _read_array(path: Path) -> np.ndarray:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        raise ValueError(f"{path} is no .npy of numbers ({error})") from error


def _read_folder(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    classes = sorted(folder for folder in path.iterdir() if folder.is_dir())
    images, labels = [], []
    for label, folder in enumerate(classes):
        for file in sorted(file for file in folder.iterdir() if file.is_file()):
            try:
                with Image.open(file) as image:
                    kind = "L" if image.mode in ("1", "L") else "RGB"
                    side = max(image.size)
                    size = image.size if side <= 32 else (FOLDER_SIDE, FOLDER_SIDE)
                    images.append(np.asarray(image.convert(kind).resize(size)))
            except UnidentifiedImageError as error:
                raise ValueError(f"{file} is no image that can be read") from error
            labels.append(label)
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise ValueError(
            f"{path} holds images of {len(shapes)} different shapes; expected a folder a class, and"
            " in it images that are all colour or all gray"
        )
    stacked = np.stack(images)
    stacked = stacked[..., None] if stacked.ndim == 3 else stacked
    return stacked, np.array(labels), [folder.name for folder in classes]
