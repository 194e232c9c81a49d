"""Datasets: the images of latents, and all that is known of them, as PNGs or in one .npz.

Letters: N images of H x W pixels and C channels, D dimensions, L layers, A attributes.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from sfvq_jax.images import batch_of, image_shape, render_images
from sfvq_jax.io.output import check_space, library_version, new_file, new_folder
from sfvq_jax.latent_model import LatentModel

Array = jax.Array | np.ndarray

FORMAT_VERSION = 1
MANIFEST, LATENTS, IMAGES = "manifest.json", "latents.npz", "images"
LARGEST_PNG_GAIN = 20  # times that a picture of anything is smaller as a PNG
SMALLEST_FILE = 512  # bytes on a disk
LONGEST_NAME = 60  # characters, so that a name in any script has less than 255 bytes


def write_dataset(
    path: str | Path,
    model: LatentModel,
    latents: Array,
    *,
    positions: Array | None = None,
    labels: Array | None = None,
    names: Sequence[str] = (),
    scores: Array | None = None,
    score_names: Sequence[str] | None = None,
    about: Mapping[str, Any],
    overwrite: bool = False,
    batch: int | None = None,
) -> None:
    """Renders latents and writes a dataset of their images, whole or not at all.

    A path that ends in .npz becomes one file, which is read without pickle. It has `images`, uint8
    [N, H, W, C], `latents`, those of `positions`, `labels` and `scores` that are given, and
    `manifest`, a JSON string. Any other path becomes a folder::

        manifest.json
        latents.npz            latents, positions, labels, scores
        images/000.png …       or, with labels, images/<class>/000.png, as torchvision's ImageFolder
                               reads them, which numbers classes in the order of the alphabet

    The manifest has the versions of the format and the library, the content of `about`,
    `image_shape` [H, W, C], `count`, `names` and `score_names`. In a folder it also has `files`:
    the name of each file and, if given, its position, label and scores.

    Args:
      path: the file or folder to write.
      model: the generator.
      latents: latents [N, D], or [N, L, D] with one code for each layer.
      positions: positions of the latents on the curve, [N].
      labels: index of each latent's class in the names, [N] integers.
      names: names of the classes.
      scores: scores of the images, [N, A].
      score_names: names of the scores; by default `names`.
      about: origin of the images: model hash, space, seed, settings; JSON values.
      overwrite: replace existing output; a folder only if it is such a dataset.
      batch: largest number of images rendered at once; a folder never has more in memory. By
        default up to 64, fewer if images are large.

    Raises:
      ValueError: no latents; arrays that do not fit each other; or PNGs of images that have neither
        1 nor 3 channels.
      TypeError: a value in `about` is no JSON.
      OSError: see `new_file` and `new_folder`.

    >>> import tempfile
    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from sfvq_jax.interpret import write_dataset
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> latents = model.sample(jax.random.key(0), 5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_dataset(f"{folder}/colours.npz", model, latents, about={"seed": 0})
    ...     np.load(f"{folder}/colours.npz")["images"].shape
    (5, 8, 8, 3)
    """
    arrays = _arrays(latents, positions, labels, scores)
    score_names = list(names if score_names is None else score_names)
    _check_names(arrays, names, score_names)
    manifest = {
        "format_version": FORMAT_VERSION,
        "sfvq_jax": library_version(),
        "about": json.loads(json.dumps(dict(about), allow_nan=False)),  # fails before rendering
        "count": len(latents),
        "names": list(names),
        "score_names": score_names if "scores" in arrays else [],
    }
    batch = batch_of(model, 64) if batch is None else batch
    check_space(path, _least_bytes(model, arrays, alone=Path(path).suffix == ".npz"))
    blocks = (
        render_images(model, jnp.asarray(arrays["latents"][start : start + batch]), batch=batch)
        for start in range(0, len(latents), batch)
    )
    if Path(path).suffix == ".npz":
        with new_file(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
            images = np.concatenate(list(blocks))
            manifest["image_shape"] = images.shape[1:]
            np.savez(
                file, allow_pickle=False, images=images, manifest=json.dumps(manifest), **arrays
            )
        return
    with new_folder(path, marker=MANIFEST, overwrite=overwrite) as folder:
        files = _file_names(len(latents), arrays.get("labels"), names)
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        for image, name in zip((row for block in blocks for row in block), files, strict=True):
            manifest["image_shape"] = image.shape
            _as_png(image).save(folder / name)
        manifest["files"] = _entries(files, arrays)
        np.savez(folder / LATENTS, allow_pickle=False, **arrays)
        text = json.dumps(manifest, indent=1) + "\n"
        (folder / MANIFEST).write_text(text, encoding="utf-8")


def _least_bytes(model: LatentModel, arrays: dict[str, np.ndarray], *, alone: bool) -> int:
    """That a dataset takes on a disk, at least: PNGs may be far smaller than their pixels."""
    pixels, count = math.prod(image_shape(model)), len(arrays["latents"])
    image = pixels if alone else max(pixels // LARGEST_PNG_GAIN, SMALLEST_FILE)
    return count * image + sum(array.nbytes for array in arrays.values())


def _arrays(latents: Array, *others: Array | None) -> dict[str, np.ndarray]:
    """What is given, by name, once it is known that there is a row for each latent."""
    if latents.ndim not in (2, 3) or len(latents) == 0:
        raise ValueError(f"latents has shape {latents.shape}; expected [N, D] or [N, L, D], N >= 1")
    arrays = {"latents": np.asarray(latents)}
    shapes = {"positions": "[{n}]", "labels": "[{n}]", "scores": "[{n}, A]"}
    for (name, shape), array in zip(shapes.items(), others, strict=True):
        if array is None:
            continue
        if array.shape[:1] != (len(latents),) or array.ndim != shape.count(",") + 1:
            expected = shape.format(n=len(latents))
            raise ValueError(
                f"{name} has shape {array.shape}; {len(latents)} latents take {expected}"
            )
        arrays[name] = np.asarray(array)
    return arrays


def _check_names(
    arrays: dict[str, np.ndarray], names: Sequence[str], score_names: Sequence[str]
) -> None:
    labels, scores = arrays.get("labels"), arrays.get("scores")
    if labels is not None and not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are of type {labels.dtype}; expected integers")
    if labels is not None and not (labels.min() >= 0 and labels.max() < len(names)):
        raise ValueError(
            f"labels go from {labels.min()} to {labels.max()}, and there are {len(names)} names:"
            " give each label its name"
        )
    if scores is not None and scores.shape[1] != len(score_names):
        raise ValueError(
            f"scores has shape {scores.shape}, and there are {len(score_names)} names of scores:"
            " give each column its name by score_names"
        )


def _file_names(count: int, labels: np.ndarray | None, names: Sequence[str]) -> list[str]:
    width = len(str(count - 1))
    folders = [IMAGES] * count
    if labels is not None:
        of_class = _folder_names(names)
        folders = [f"{IMAGES}/{of_class[label]}" for label in labels.tolist()]
    return [f"{folder}/{i:0{width}d}.png" for i, folder in enumerate(folders)]


def _folder_names(names: Sequence[str]) -> list[str]:
    """Names that every file system takes, and tells apart where it ignores case."""
    folders: list[str] = []
    for i, name in enumerate(names):
        folder = re.sub(r"[^\w.-]+", "_", name)[:LONGEST_NAME].strip("._") or "class"
        reserved = re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", folder, re.IGNORECASE)
        taken = [other.casefold() for other in folders]
        while reserved or folder.casefold() in taken:
            folder, reserved = f"{i}_{folder}", None
        folders.append(folder)
    return folders


def _as_png(image: np.ndarray) -> Image.Image:
    channels = image.shape[-1]
    if channels not in (1, 3):
        raise ValueError(
            f"the images have {channels} channels, and PNGs are written of 1 or 3: name a path that"
            " ends in .npz, which takes any number"
        )
    return Image.fromarray(image[..., 0] if channels == 1 else image)


def _entries(files: list[str], arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    singular = {"positions": "position", "labels": "label", "scores": "scores"}
    entries: list[dict[str, Any]] = [{"name": name} for name in files]
    for name, key in singular.items():
        if name in arrays:
            for entry, value in zip(entries, arrays[name].tolist(), strict=True):
                entry[key] = value
    return entries
