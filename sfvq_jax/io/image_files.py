"""Pictures in files: the one place that opens them, for every command."""

import io
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

# Named one by one, since Pillow runs Ghostscript for an .eps, whatever the file is called.
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM")
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".pbm"
)  # fmt: skip
FOREIGN = {  # what operating systems and programs leave in folders, beside names that begin with .
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "__pycache__",
    "$recycle.bin", "system volume information", "lost+found",
}  # fmt: skip
GRAY = ("1", "L", "LA")
COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr")
BITS, MEANING = 258, 262  # TIFF's tags; where the second one is 0, white is the lowest level


def read_image(path: str | Path) -> np.ndarray:
    """A picture as a viewer shows it, uint8 [H, W, C]: gray with C = 1, or colour with C = 3.

    It is turned as its EXIF says. What is transparent lies over white, 16 bits of gray become 8,
    and CMYK becomes RGB, by the profile in the file where there is one.

    Raises:
      ValueError: the file is empty, damaged, of none of `FORMATS`, of more than one frame, of some
        90 million pixels or more, or of a kind that viewers show differently, such as floats.
      OSError: it cannot be opened.
    """
    path = Path(path)
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty: replace it or take it out")
    with warnings.catch_warnings():  # of metadata, which do not matter here
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            # by a file, since of a path Pillow maps pixels into memory: turned TIFFs come out
            # sheared, and a file that shrinks kills the process
            with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
                frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
                shown = ImageOps.exif_transpose(image)
                levels, tags = _full_level(image), getattr(image, "tag_v2", {})
        except UnidentifiedImageError as error:
            raise ValueError(
                f"{path} is no image that can be read: expected one of {', '.join(FORMATS)}"
            ) from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ValueError(
                f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels: scale it down"
            ) from error
        except Exception as error:  # damaged bytes make Pillow raise errors of many kinds
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(f"{path} is damaged ({error}): replace it or take it out") from error
    if frames > 1:
        raise ValueError(f"{path} has {frames} frames: expected one image in a file")
    if shown.mode == "CMYK":
        return _of_cmyk(path, shown)
    if levels is not None and shown.mode.startswith("I"):
        return _of_levels(shown, levels, inverted=tags.get(MEANING) == 0)
    if shown.mode not in GRAY + COLOUR:
        raise ValueError(
            f"{path} has pixels of Pillow's mode {shown.mode}, which viewers show differently:"
            " store it with 8 or 16 bits, gray or RGB"
        )
    gray = shown.mode in GRAY
    if shown.has_transparency_data:
        shown = shown.convert("RGBA")
        shown = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
    palette = shown.mode == "P"
    pixels = np.asarray(shown.convert("L" if gray else "RGB"))
    if gray:
        return pixels[..., None]
    if palette and (pixels == pixels[..., :1]).all():  # a palette of grays
        return pixels[..., :1]
    return pixels


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image uint8 [H, W, C] in another size, smoothed where it shrinks."""
    return np.asarray(as_picture(image).resize((width, height))).reshape(height, width, -1)


def as_picture(image: np.ndarray) -> Image.Image:
    """An image uint8 [H, W, C], C = 1, 3 or 4, as one of Pillow's; it is saved by its `save`."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def stacked(images: Iterable[np.ndarray]) -> np.ndarray:
    """Images of one height and width as one array; gray ones in colour, if any has colour."""
    images = list(images)
    channels = max(image.shape[-1] for image in images)
    return np.stack([np.broadcast_to(image, (*image.shape[:2], channels)) for image in images])


def entries(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """The folders and the files in a folder, by name, without `FOREIGN` and hidden ones."""
    own = [
        path
        for path in sorted(Path(folder).iterdir())
        if not path.name.startswith(".") and path.name.casefold() not in FOREIGN
    ]
    return [path for path in own if path.is_dir()], [path for path in own if path.is_file()]


def _full_level(image: Image.Image) -> int | None:
    """White in gray images of 9 to 16 bits; None for all others."""
    if image.mode.startswith("I;16"):
        bits = getattr(image, "tag_v2", {}).get(BITS, (16,))[0]
        return (1 << bits) - 1
    if image.mode == "I" and image.format in ("PNG", "PPM"):
        return 0xFFFF
    return None


def _of_levels(image: Image.Image, full: int, *, inverted: bool) -> np.ndarray:
    levels = np.asarray(image).astype(np.float32)
    transparent = image.info.get("transparency")
    pixels = np.round(levels * np.float32(255 / full)).clip(0, 255).astype(np.uint8)
    if inverted:
        pixels = 255 - pixels
    if isinstance(transparent, int):
        pixels[levels == transparent] = 255
    return pixels[..., None]


def _of_cmyk(path: Path, image: Image.Image) -> np.ndarray:
    profile = image.info.get("icc_profile")
    if not profile:
        return np.asarray(image.convert("RGB"))
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        shown = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError) as error:
        raise ValueError(
            f"{path} is CMYK with a colour profile that cannot be read ({error}): store it as RGB"
        ) from error
    return np.asarray(shown)
