"""Pictures that belong to the rows of an array: those of a folder, of an .npy, or in an array."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sfvq_jax.images import check_images
from sfvq_jax.io.image_files import SUFFIXES, entries, read_image, resized, stacked
from sfvq_jax.rows.npy import FileRows, npy_rows
from sfvq_jax.rows.parts import natural

WANTED = "images go in an .npy [N, H, W, C], uint8 or floats in [-1, 1]"
CHECKED = 64  # images of an array, by which it is known what they are
GAP = 0.04  # of the height, between images below each other


class RowImages:
    """Images of N rows, which are read when they are asked for.

    Attributes:
      order: of a folder, which image is whose, in words.

    Args:
      path: a folder of N images, which belong to the rows in the order of their names, 2 before 10;
        or an .npy [N, H, W, C], uint8 or floats in [-1, 1], or [N, H, W], gray; or such an array.
      count: N.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: no images, or not N of them.
    """

    def __init__(self, path: str | Path | np.ndarray, count: int):
        if not isinstance(path, np.ndarray) and (path := Path(path)).is_dir():
            files = _files(path)
            found, self._read = len(files), lambda rows: [read_image(files[row]) for row in rows]
            self.order = f"{files[0].name} of row 0 to {files[-1].name} of row {found - 1}"
        else:
            read, found, path = _array(path)
            _check_some(read, found, path)
            self._read, self.order = lambda rows: _in_uint8(read(rows), path), ""
        if found != count:
            raise ValueError(f"{path} has {found} images of {count} latents: give each one image")

    def tiles(self, rows: np.ndarray, max_side: int) -> np.ndarray:
        """Images of rows [K, M], uint8 [K, H, W, C]: those of one codeword below each other.

        All have the first one's size, or `max_side` pixels where that is larger.
        """
        needed, places = np.unique(rows, return_inverse=True)
        images = self._read(needed.tolist())
        images = stacked(_in_size(images, images[0].shape, max_side))
        (k, m), (height, width) = rows.shape, images.shape[1:3]
        images = images[places.reshape(-1)].reshape(k, m, height, width, -1)
        if m == 1:
            return images[:, 0]
        gap = max(1, round(height * GAP))
        images = np.pad(images, [(0, 0), (0, 0), (0, gap), (0, 0), (0, 0)], constant_values=255)
        return images.reshape(k, m * (height + gap), width, -1)[:, :-gap]

    def of_one_size(self, rows: np.ndarray, max_side: int) -> np.ndarray:
        """Images of rows [N], uint8 [N, H, W, C], in the size and the colours of row 0's image.

        That size is the same whichever rows are asked for; gray images of a folder in colour are
        in colour too, and coloured ones of a gray folder are gray.
        """
        needed, places = np.unique(rows, return_inverse=True)
        images = stacked(_in_size(self._read(needed.tolist()), self._first, max_side))
        channels = self._first[-1]
        if images.shape[-1] > channels:
            images = images[..., :channels] if channels > 1 else _gray(images)
        images = np.broadcast_to(images, (*images.shape[:-1], channels))
        return images[places.reshape(-1)]

    @functools.cached_property
    def _first(self) -> tuple[int, ...]:
        """The shape of row 0's image."""
        return self._read([0])[0].shape


def _in_size(images: list[np.ndarray], shape: tuple[int, ...], max_side: int) -> list[np.ndarray]:
    """Images with the height and width of a shape, or smaller where that is above `max_side`."""
    height, width = shape[:2]
    scale = min(1, max_side / max(height, width))
    height, width = (max(1, round(side * scale)) for side in (height, width))
    return [
        image if image.shape[:2] == (height, width) else resized(image, height, width)
        for image in images
    ]


def _gray(images: np.ndarray) -> np.ndarray:
    return images[..., :3].mean(-1, keepdims=True).round().astype(np.uint8)


def _files(folder: Path) -> list[Path]:
    folders, files = entries(folder)
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    if folders or not images:
        found = f"{len(folders)} folders ({folders[0].name}, …)" if folders else "no images"
        raise ValueError(
            f"{folder} holds {found}; expected an image of each latent, named in their order, such"
            " as 0.png"
        )
    return sorted(images, key=lambda file: natural(file.name))


def _array(path: Path | np.ndarray) -> tuple[Callable[[list[int]], np.ndarray], int, Path | str]:
    """What reads rows of an array or an .npy, how many there are, and its name."""
    if isinstance(path, np.ndarray):
        name, shape = "images", path.shape
        read = path.__getitem__
    else:
        if not path.exists():
            raise FileNotFoundError(f"there is no file or folder {path}")
        rows = npy_rows(path, WANTED)
        name, shape = path, rows.shape
        read = functools.partial(_of_rows, rows)
    if len(shape) not in (3, 4):
        raise ValueError(f"{name} has shape {shape}, but {WANTED}")
    return read, shape[0], name


def _check_some(read: Callable[[list[int]], np.ndarray], count: int, name: Path | str) -> None:
    """Raises ValueError unless images are in the usual range, which many of them tell."""
    if count == 0:  # which the latents' number tells
        return
    some = np.unique(np.linspace(0, count - 1, CHECKED).astype(int))
    try:
        check_images(_with_channels(read(some.tolist())))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _of_rows(rows: FileRows, needed: list[int]) -> np.ndarray:
    return rows.read([(row, row + 1) for row in needed])


def _with_channels(images: np.ndarray) -> np.ndarray:
    return images[..., None] if images.ndim == 3 else images


def _in_uint8(images: np.ndarray, name: Path | str) -> list[np.ndarray]:
    """By NumPy alone: a callback of a compiled program may not compute with JAX."""
    images = _with_channels(images)
    if images.dtype != np.uint8:
        if not np.isfinite(images).all():
            raise ValueError(f"{name}: images have values that are NaN or infinite")
        images = np.clip(np.rint(images.astype(np.float32) * 127.5 + 127.5), 0, 255)
    return list(images.astype(np.uint8))
