"""Photographs of any size as a model's images."""

import numpy as np
from PIL import Image, ImageOps

from sfvq_jax.io.image_files import as_picture

FITS = ("crop", "pad", "stretch")
BORDER = 8  # parts of a side that its border is one of


def fitted(image: np.ndarray, shape: tuple[int, ...], fit: str = "crop") -> np.ndarray:
    """An image uint8 [h, w, c] as a model's, uint8 [H, W, C].

    Args:
      image: gray or colour; colour becomes gray where C is 1 (ITU-R 601-2), gray colour where C is
        3.
      shape: (H, W, C).
      fit: what becomes of another shape: "crop" takes its middle, "pad" adds to it the median
        colour of its border, "stretch" changes its proportions.
    """
    height, width, channels = shape
    picture = as_picture(image).convert("L" if channels == 1 else "RGB")
    size = (width, height)
    if fit == "crop":
        picture = ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    elif fit == "pad":
        picture = ImageOps.pad(picture, size, Image.Resampling.LANCZOS, color=_border(picture))
    else:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(picture).reshape(height, width, channels)


def _border(picture: Image.Image) -> int | tuple[int, ...]:
    """The median colour of what lies along the border."""
    pixels = np.asarray(picture)
    h, w = (max(side // BORDER, 1) for side in pixels.shape[:2])
    parts = (pixels[:h], pixels[-h:], pixels[:, :w], pixels[:, -w:])
    median = np.median(np.concatenate([p.reshape(-1, *pixels.shape[2:]) for p in parts]), axis=0)
    return int(median) if median.ndim == 0 else tuple(int(value) for value in median)
