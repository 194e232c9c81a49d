"""Edits as files: every image at its own size, the edited latents, sweeps and an overview.

Letters: N latents, S strengths, M directions, L layers, D dimensions.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from sfvq_jax.images import CHANNELS, batch_of, image_shape, render_images
from sfvq_jax.interpret import Direction, DirectionRecord, edit_latents
from sfvq_jax.io import sweeps
from sfvq_jax.io.image_files import as_picture, resized
from sfvq_jax.io.output import check_space, library_version, new_folder
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.views.grids import EDIT_SIDE, edit_figure

Array = jax.Array | np.ndarray

FORMAT_VERSION = 1
MANIFEST, LATENTS, OVERVIEW = "edits.json", "latents.npy", "overview.png"
MOST_DRAWN = 32  # rows of the overview
LARGEST_FIGURE = 2**15  # pixels of its sides
LARGEST_PNG_GAIN = 20  # times that a picture of anything is smaller as a PNG


def write_edits(
    path: str | Path,
    model: LatentModel,
    latents: Array,
    records: DirectionRecord | Sequence[DirectionRecord],
    strengths: Sequence[float],
    *,
    weights: Sequence[float] | None = None,
    rows: Sequence[str] | None = None,
    title: str | None = None,
    side: int = EDIT_SIDE,
    sweep: Sequence[str] = (),
    frames: int = 25,
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    on_image: Callable[[], object] | None = None,
) -> None:
    """Moves latents along directions and writes images, latents and an overview into a folder.

    The folder is written whole or not at all.

    The folder has::

        edits.json                      directions, strengths and lengths, and each file's
        images/seed-3/0_-2sd.png …      every latent at every strength, at the model's own size
        latents.npy                     of these images, in their order, float32 [N · S, L, D]
        overview.png                    `edit_figure` of the first 32 latents
        sweeps/seed-3.gif …             from the lowest strength to the highest and back

    Args:
      path: the folder to write.
      model: the generator.
      latents: latents [N, D], or [N, L, D] with one code for each layer.
      records: one direction, or M directions applied at once.
      strengths: strengths in standard deviations along the directions, [S].
      weights: factor on the strengths for each direction, [M]; 1 by default.
      rows: names of the latents, all different; by default "row 0" and so on.
      title: title of the overview; by default the directions' names.
      side: size of an image in the overview, in pixels.
      sweep: formats of animations: "gif", "webp" and "mp4", which needs the extra `[video]`.
      frames: number of images of an animation one way, at least 2; all are in memory at once.
      about: more entries of the manifest; JSON values.
      overwrite: replace an existing folder of this kind.
      on_image: called after each image and each frame.

    Raises:
      ValueError: arguments that do not fit each other, or an animation that cannot be written here.
      TypeError: a value in `about` is no JSON.
      OSError: see `new_folder`.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import Direction, DirectionRecord
    >>> from sfvq_jax.views import write_edits
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> red = DirectionRecord(Direction(jnp.array([1.0, 0.0, 0.0]), (0, 0), unit=1.0), "more red")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_edits(f"{folder}/red", model, jnp.zeros((1, 3)), red, [-2, 0, 2])
    ...     sorted(file.name for file in Path(folder).glob("red/images/*/*"))
    ['0_-2sd.png', '1_unedited.png', '2_+2sd.png']
    """
    records = [records] if isinstance(records, DirectionRecord) else list(records)
    weights = [1.0] * len(records) if weights is None else [float(w) for w in weights]
    rows = [f"row {i}" for i in range(len(latents))] if rows is None else list(rows)
    strengths = [float(strength) for strength in strengths]
    if len(weights) == len(records) == 1:  # whose strengths are then those of the one direction
        strengths, weights = [strength * weights[0] for strength in strengths], [1.0]
    folders = [re.sub(r"[^\w.+-]+", "-", name) for name in rows]
    edits = _Edits(model, latents, [record.direction for record in records], weights)
    edits.check(strengths)
    _check_names(rows, folders, len(latents))
    check_overview(model, min(len(rows), MOST_DRAWN), len(strengths), side)
    sweeps.check_kinds(sweep)
    if sweep and not (frames >= 2 and max(strengths) > min(strengths)):
        raise ValueError(
            f"a sweep of {frames} frames from {min(strengths):g} to {max(strengths):g} does not"
            " move: take two frames or more, and two strengths"
        )
    shape = (len(rows) * len(strengths), model.num_layers, model.latent_dim)
    pixels = shape[0] * math.prod(image_shape(model)) // LARGEST_PNG_GAIN
    check_space(path, 4 * math.prod(shape) + pixels)
    manifest = {
        "format_version": FORMAT_VERSION,
        "sfvq_jax": library_version(),
        "about": json.loads(json.dumps(dict(about or {}), allow_nan=False)),  # fails before it all
        "directions": [
            {
                "name": record.name,
                "layers": list(record.direction.layers),
                "unit": record.direction.unit,
                "weight": weight,
                "space": record.space,
                "model_hash": record.model_hash,
                "source": dict(record.source),
            }
            for record, weight in zip(records, weights, strict=True)
        ],
        "rows": rows,
        "files": [],
        "sweeps": [],
    }
    width = len(str(len(strengths) - 1))
    between = np.linspace(min(strengths), max(strengths), frames).tolist() if sweep else []
    drawn = []
    with new_folder(path, marker=MANIFEST, overwrite=overwrite) as folder:
        with (folder / LATENTS).open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for row, name in enumerate(folders):
                (folder / "images" / name).mkdir(parents=True)
                codes = edits.codes(row, strengths)
                file.write(codes.astype("<f4").tobytes())
                for column, image in enumerate(edits.images(codes, on_image)):
                    strength = strengths[column]
                    called = f"{strength:+g}sd" if strength else "unedited"
                    picture = f"images/{name}/{column:0{width}d}_{called}.png"
                    as_picture(image).save(folder / picture)
                    manifest["image_shape"] = image.shape
                    manifest["files"].append(
                        {
                            "name": picture,
                            "row": row,
                            "strength": strength,
                            "lengths": edits.lengths(strength),
                        }
                    )
                    if row < MOST_DRAWN:
                        drawn.append(_fitted(image, side))
        for row, name in enumerate(folders if sweep else []):
            images = np.stack(list(edits.images(edits.codes(row, between), on_image)))
            (folder / "sweeps").mkdir(exist_ok=True)
            for kind in sweep:
                file = f"sweeps/{name}.{kind}"
                sweeps.save_sweep(folder / file, images)
                manifest["sweeps"].append({"name": file, "row": row, "strengths": between})
        grid = np.stack(drawn).reshape(-1, len(strengths), *drawn[0].shape)
        figure = overview_figure(
            grid, records, strengths, rows[:MOST_DRAWN], title or title_of(records, weights), side
        )
        figure.savefig(folder / OVERVIEW)
        text = json.dumps(manifest, indent=1) + "\n"
        (folder / MANIFEST).write_text(text, encoding="utf-8")


def overview_figure(
    images: np.ndarray,
    records: Sequence[DirectionRecord],
    strengths: Sequence[float],
    rows: Sequence[str],
    title: str,
    side: int = EDIT_SIDE,
) -> Figure:
    """`edit_figure` of images [N, S, H, W, C] that were moved along these directions."""
    unit = records[0].direction.unit if len(records) == 1 else None
    return edit_figure(images, strengths, unit, rows, title, side=side)


def title_of(records: Sequence[DirectionRecord], weights: Sequence[float]) -> str:
    """The directions' names, with what their strengths are multiplied by."""
    return " +\n".join(
        f"{weight:g} × " * (weight != 1) + (record.name or "a direction")
        for record, weight in zip(records, weights, strict=True)
    )


def check_overview(model: LatentModel, rows: int, columns: int, side: int) -> None:
    """Raises ValueError for an overview of no size, or one that is too large to be drawn."""
    if not side >= 8:
        raise ValueError(f"side is {side}; an image of the overview has at least 8 pixels")
    height, width = image_shape(model)[:2] or (1, 1)
    if max(rows * height / width, columns) * side > LARGEST_FIGURE:
        raise ValueError(
            f"an overview of {rows} rows and {columns} strengths, {side} pixels an image, has more"
            f" than {LARGEST_FIGURE:,} pixels a side: choose a smaller side or fewer strengths"
        )


class _Edits(NamedTuple):
    """Latents, [N, D] or [N, L, D], and what they are moved along."""

    model: LatentModel
    latents: Array
    directions: Sequence[Direction]
    weights: Sequence[float]

    def check(self, strengths: Sequence[float]) -> None:
        """Raises ValueError for what does not go together."""
        if not self.directions or len(self.weights) != len(self.directions):
            raise ValueError(
                f"there are {len(self.directions)} directions and {len(self.weights)} weights:"
                " give each direction, one at least, its weight"
            )
        if not len(strengths) or not np.isfinite(strengths).all():
            raise ValueError(f"strengths are {list(strengths)}; expected one finite number or more")
        if not len(self.latents):
            raise ValueError("there are no latents to be moved")
        self.codes(0, strengths[:1])  # which checks shapes and layers

    def codes(self, row: int, strengths: Sequence[float]) -> np.ndarray:
        """Of one latent at all strengths, [S, L, D]."""
        steps = jnp.asarray(np.outer(strengths, self.weights), jnp.float32)
        latent = jnp.asarray(self.latents[row])[None]
        return np.asarray(edit_latents(latent, self.directions, steps, self.model.num_layers)[0])

    def images(
        self, codes: np.ndarray, on_image: Callable[[], object] | None
    ) -> Iterator[np.ndarray]:
        """Of codes [S, L, D], one by one: no more than a batch is in memory."""
        batch = batch_of(self.model, 16)
        for start in range(0, len(codes), batch):
            part = jnp.asarray(codes[start : start + batch])
            for image in render_images(self.model, part, batch=batch):
                if image.shape[-1] not in CHANNELS:
                    raise ValueError(
                        f"the images have {image.shape[-1]} channels; pictures have 1 (gray),"
                        " 3 (RGB) or 4 (RGBA)"
                    )
                yield image
                if on_image is not None:
                    on_image()

    def lengths(self, strength: float) -> list[float]:
        """How far a strength moves along each direction, in latent space."""
        return [
            strength * weight * direction.unit
            for direction, weight in zip(self.directions, self.weights, strict=True)
        ]


def _check_names(rows: Sequence[str], folders: Sequence[str], count: int) -> None:
    if len(rows) != count:
        raise ValueError(f"there are {len(rows)} names of {count} latents: give each one")
    for i, folder in enumerate(folders):
        if folder in folders[:i] or not folder.strip("."):
            raise ValueError(f"{rows[i]!r} is there twice, or no name for a folder: name it anew")


def _fitted(image: np.ndarray, side: int) -> np.ndarray:
    """An image of at most this height and width, in its own proportions."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    return resized(image, max(1, round(height * scale)), max(1, round(width * scale)))
