"""`scorer`: learns attributes from labelled images."""

import argparse
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from sfvq_jax.cli.common import (
    add_examples,
    add_output,
    add_seed,
    table,
)
from sfvq_jax.interpret import (
    fit_scorers,
    save_scorers,
)
from sfvq_jax.io.image_files import SUFFIXES, entries, read_image, resized, stacked
from sfvq_jax.io.reading import Arrays, reading

FOLDER_SIDE = 64  # pixels to which the images of a folder are scaled; scorers see no more
SMALL_SIDE = 32  # where none is larger, and they differ
IMAGE_INFLATION = 64  # times its own size that a compressed .npz of images may unpack to


def add_scorer(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_scorer)
    add_output(command, "file (.npz) for the scorers", endings=(".npz",))
    add_examples(
        command,
        "scorer photos/ -o scorer.npz",
        "scorer labelled.npz -o scorer.npz",
        "scorer images.npy --labels labels.npy -o scorer.npz",
    )
    command.add_argument(
        "images",
        help="labelled images: an .npz with images, labels and, if you like, names; a folder with a"
        " folder of images for each class; or an .npy of images, with --labels",
    )
    add_labels(command)
    command.add_argument(
        "--epochs",
        type=int,
        help="number of passes over the images (default: 4, or more if there are few images)",
    )
    add_seed(command)


def add_labels(command: argparse.ArgumentParser) -> None:
    command.add_argument("--labels", help="file of labels (.npy) for images in an .npy")


def run_scorer(options: argparse.Namespace) -> None:
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
        (name, *(_share(fit.held_out[name]) for fit in (find, judge))) for name in find.scorer.names
    ]
    rows.append(("overall", _share(find.overall), _share(judge.overall)))
    rows.append(("without looking", _share(find.baseline), _share(judge.baseline)))
    print(table(rows))
    print(options.output)


def _share(value: float) -> str:
    """A measure, or why there is none."""
    return "none held out" if math.isnan(value) else f"{value:.3f}"


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
        return _read_classes(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if labels is not None:
        return _read_array(path), _read_array(Path(labels)), None
    with reading(path, ".npz with images and labels") as file:
        arrays = Arrays(file, inflation=IMAGE_INFLATION)
        images, found = arrays.array("images"), arrays.array("labels")
        names = arrays.array("names", (None,), "U").tolist() if "names" in arrays else None
    return images, found, names


def _read_array(path: Path) -> np.ndarray:
    with reading(path, ".npy of numbers"):
        return np.lib.format.open_memmap(path, mode="r")


def _read_classes(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images of a folder a class, uint8 [N, H, W, C]; those that differ in size are scaled."""
    classes = _class_folders(path)
    files = [(label, file) for label, (_, files) in enumerate(classes) for file in files]
    images, sizes = [], set()
    for _, file in tqdm(files, unit=" images", leave=False, disable=None):
        image = read_image(file)
        sizes.add(image.shape[:2])
        if max(image.shape[:2]) > FOLDER_SIDE:  # at once, so that large ones need no memory
            image = resized(image, FOLDER_SIDE, FOLDER_SIDE)
        images.append(image)
    if len({image.shape[:2] for image in images}) > 1:
        side = SMALL_SIDE if max(map(max, sizes)) <= SMALL_SIDE else FOLDER_SIDE
        images = [resized(image, side, side) for image in images]
    if len({height / width for height, width in sizes}) > 1:
        height, width = images[0].shape[:2]
        warnings.warn(
            f"{path} holds images of {len(sizes)} sizes and different proportions: all are"
            f" stretched to {width}x{height}",
            stacklevel=2,
        )
    labels = np.array([label for label, _ in files])
    return stacked(images), labels, [folder.name for folder, _ in classes]


def _class_folders(path: Path) -> list[tuple[Path, list[Path]]]:
    """Each class's folder and its images; anything else is told."""
    folders, loose = entries(path)
    expected = f"expected a folder of images for each class, such as {path}/cat/0.png"
    if not folders:
        found = f"{len(loose)} files ({loose[0].name}, …) and no folders" if loose else "nothing"
        raise ValueError(f"{path} holds {found}: {expected}")
    astray = [file for file in loose if file.suffix.lower() in SUFFIXES]
    if astray:
        raise ValueError(
            f"{path} holds {len(astray)} images ({astray[0].name}, …) beside its folders:"
            f" {expected}"
        )
    classes = []
    for folder in folders:
        deeper, files = entries(folder)
        if deeper:
            raise ValueError(
                f"{folder} holds folders ({deeper[0].name}, …), and {len(files)} files beside them:"
                f" {expected}; are the classes in {folder}?"
            )
        classes.append((folder, files))
    if not any(files for _, files in classes):
        raise ValueError(f"the {len(folders)} folders in {path} hold no files: {expected}")
    return classes
