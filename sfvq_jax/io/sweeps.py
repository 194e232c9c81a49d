"""Sweeps: images one after another, there and back, as an animated GIF, WebP or MP4."""

import contextlib
import importlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from sfvq_jax.io.image_files import as_picture

KINDS = ("gif", "webp", "mp4")
FRAMES_A_SECOND = 12
LEAST_SIDE = 256  # pixels, to which smaller images are enlarged by a whole factor
WEBP_QUALITY, MP4_QUALITY = 90, 8  # of Pillow, to 100, and of imageio-ffmpeg, to 10


def check_kinds(kinds: Sequence[str]) -> None:
    """Raises ValueError unless these can be written here."""
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is no kind of a sweep: there are {', '.join(KINDS)}")
    if "webp" in kinds and not features.check("webp"):
        raise ValueError("this Pillow writes no WebP: choose gif or mp4, or install another Pillow")
    if "mp4" in kinds:
        _ffmpeg()


def save_sweep(path: Path, images: np.ndarray) -> None:
    """Writes images as one file, of the kind that its ending tells.

    Args:
      path: ends in one of `KINDS`.
      images: uint8 [F, H, W, C], shown in order and back. Those of less than 256 pixels are
        enlarged by a whole factor, and what is transparent lies over white.
    """
    shown = [_frame(image) for image in images]
    shown += shown[-2:0:-1]
    if path.suffix == ".mp4":
        _save_mp4(path, shown)
        return
    options = {"quality": WEBP_QUALITY} if path.suffix == ".webp" else {}
    shown[0].save(
        path, None, save_all=True, append_images=shown[1:],
        duration=round(1000 / FRAMES_A_SECOND), loop=0, **options,
    )  # fmt: skip


def _ffmpeg() -> Any:
    try:
        return importlib.import_module("imageio_ffmpeg")
    except ImportError as error:
        raise ValueError(
            "mp4 takes the package imageio-ffmpeg, which is not installed: pip install"
            " 'sfvq-jax[video]', or choose gif or webp"
        ) from error


def _frame(image: np.ndarray) -> Image.Image:
    factor = -(-LEAST_SIDE // max(image.shape[:2]))
    picture = as_picture(image.repeat(factor, 0).repeat(factor, 1))
    if picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        picture = picture.convert("RGB")
    return picture


def _save_mp4(path: Path, frames: Sequence[Image.Image]) -> None:
    width, height = frames[0].size
    even = width + width % 2, height + height % 2  # as its colours need
    padding = [(0, even[1] - height), (0, even[0] - width), (0, 0)]
    options = {"fps": FRAMES_A_SECOND, "quality": MP4_QUALITY, "macro_block_size": 2}
    with contextlib.closing(_ffmpeg().write_frames(str(path), even, **options)) as writer:
        with warnings.catch_warnings():  # of JAX, that a fork may hang: here it becomes ffmpeg
            warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
            writer.send(None)
        for frame in frames:
            writer.send(np.pad(np.asarray(frame.convert("RGB")), padding, mode="edge"))
