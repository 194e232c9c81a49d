"""Grids of images: the map of a curve, edits, directions, interventions.

Images are uint8 or floats in [-1, 1], with one channel, three, or four: RGBA, drawn over white. Any
other array is a ValueError, and so are names or strengths that are not as many as the images.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import color_sequences
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sfvq_jax.images import CHANNELS, check_images, to_uint8
from sfvq_jax.interpret.map.rows import as_classes
from sfvq_jax.views.picture import DPI, Picture

COLUMNS = 16
CELL_INCHES = 0.8
EDIT_SIDE = 112  # pixels, width of a column of `edit_figure`
MAP_SIDE = 160  # larger images than this many pixels are scaled down before they are drawn


def map_figure(
    images: np.ndarray | None, title: str = "", columns: int = COLUMNS, *, labels: Any = None
) -> Figure:
    """Draws the images of codewords in order, numbered from 0, in rows of 16.

    Args:
      images: images [K, H, W, C] of the codewords, or of the latents nearest to each
        (`interpret.rows_at`). None draws only the colours of the labels.
      title: title of the figure.
      columns: number of images in a row.
      labels: labels of the codewords, [K] integers or texts. Each label has a colour, and its
        images have frames of that colour. Up to 20 labels, a legend names the colours. With more,
        colours repeat, and each image has its label above it.

    Raises:
      TypeError: images that are no array.
      ValueError: neither images nor labels, images of another shape or range, or a wrong number of
        labels.

    >>> import numpy as np
    >>> from sfvq_jax.views import map_figure
    >>> greys = np.arange(0, 240, 30, dtype=np.uint8).reshape(8, 1, 1, 1)
    >>> images = greys.repeat(4, 1).repeat(4, 2)  # of `render_images(model, curve.codewords)`
    >>> figure = map_figure(images, "8 greys", labels=["dark"] * 4 + ["light"] * 4)
    >>> figure.get_suptitle(), figure.tile_labels[3:5]  # figure.savefig("map.png") writes it
    ('8 greys', ['dark', 'light'])
    """
    alone = images is None
    if images is not None:
        images = _pictures(images, "[K, H, W, C]")
    elif labels is not None:
        images = np.zeros((len(labels), 1, 1, 1), np.uint8)
    else:
        raise ValueError("there are neither images nor labels to draw a map of")
    rows = -(-len(images) // columns)
    figure, cells = _image_grid(rows, columns, _aspect(images), title)
    texts, colours = [str(i) for i in range(len(images))], []
    if labels is not None:
        of_images, names = as_classes(labels, len(images), distinct=True)
        figure.tile_labels = [names[c] for c in of_images]
        palette = color_sequences["tab10" if len(names) <= 10 else "tab20"]
        colours = [to_hex(palette[c % len(palette)]) for c in of_images]
        figure.tile_colours = colours
        if len(names) <= len(palette):
            marks = [Patch(color=palette[c], label=name[:30]) for c, name in enumerate(names)]
            figure.legend(
                handles=marks, loc="outside lower center", ncols=min(len(names), 10), fontsize=8,
                frameon=False, handlelength=1,
            )  # fmt: skip
        else:
            texts = [f"{i} {name[:8]}" for i, name in enumerate(figure.tile_labels)]
    for i, cell in enumerate(cells.flat):
        if i >= len(images):
            cell.axis("off")
            continue
        if alone:
            cell.set(xticks=[], yticks=[], box_aspect=1, facecolor=colours[i])
        else:
            _show_image(cell, images[i])
        cell.set_title(texts[i], fontsize=8, pad=1.5)
        if colours:
            _frame(cell, colours[i])
    figure.tiles = None if alone else images
    return figure


def edit_figure(
    images: np.ndarray,
    strengths: Sequence[float],
    unit: float | None,
    rows: Sequence[str],
    title: str,
    *,
    side: int = EDIT_SIDE,
) -> Figure:
    """Draws edits: a row for each latent, a column for each strength; unedited images are framed.

    Args:
      images: images, [rows, strengths, H, W, C].
      strengths: strength of each column, in standard deviations along the direction.
      unit: unit of the direction, to show lengths too; None for several directions at once.
      rows: names of the rows, such as "seed 3".
      title: title of the figure.
      side: width of a column in pixels.

    >>> import numpy as np
    >>> from sfvq_jax.views import edit_figure
    >>> images = np.full((2, 3, 8, 8, 3), 128, np.uint8)  # of `render_edits`
    >>> figure = edit_figure(images, [-2, 0, 2], 1.5, ["seed 0", "seed 1"], "more smile")
    >>> [cell.get_ylabel() for cell in figure.axes[::3]]
    ['seed 0', 'seed 1']
    """
    axes = "[rows, strengths, H, W, C]"
    images = _pictures(images, axes, rows=len(rows), strengths=len(strengths))
    figure, cells = _image_grid(len(rows), len(strengths), _aspect(images[0]), title, label=side)
    for row, name in enumerate(rows):
        for column, strength in enumerate(strengths):
            cell = cells[row, column]
            _show_image(cell, images[row, column])
            if row == 0:
                number = f"{strength:+g} sd\n"
                if unit is not None:
                    number += f"({strength * unit:+.3g})"
                cell.set_title("unedited\n" if strength == 0 else number, fontsize=8, pad=3)
            if column == 0:
                cell.set_ylabel(name, fontsize=8)
            if strength == 0:
                _frame(cell)
    return figure


def inversion_figure(photos: np.ndarray, rendered: np.ndarray, columns: int = 8) -> Figure:
    """Draws photographs [N, H, W, C] above the images [N, H, W, C] rendered from their latents.

    >>> import numpy as np
    >>> from sfvq_jax.views import inversion_figure
    >>> photos = np.full((3, 8, 8, 3), 128, np.uint8)
    >>> rendered = np.full((3, 8, 8, 3), 120, np.uint8)  # of `render_images`, from `invert`
    >>> len(inversion_figure(photos, rendered).axes)
    6
    """
    photos = _pictures(photos, "[N, H, W, C]")
    rendered = _pictures(rendered, "[N, H, W, C]", N=len(photos))
    columns = min(columns, len(photos))
    rows = 2 * -(-len(photos) // columns)
    figure, cells = _image_grid(rows, columns, _aspect(photos), "photographs, rendered below")
    for cell in cells.flat:
        cell.set_axis_off()
    for i in range(len(photos)):
        row, column = 2 * (i // columns), i % columns
        _show_image(cells[row, column], photos[i])
        _show_image(cells[row + 1, column], rendered[i])
    return figure


def directions_figure(
    images: np.ndarray,
    names: Sequence[str],
    strengths: Sequence[float],
    limits: Sequence[tuple[float | None, float | None]],
) -> Figure:
    """Draws the effects of directions: under each name a row for each latent.

    Args:
      images: images, [directions, latents, strengths, H, W, C].
      names: names of the directions.
      strengths: strength of each column, in units of the directions; 0 is framed.
      limits: for each direction, the strengths below and above 0 beyond which images are outside
        the distribution and are drawn pale; None for no limit.

    >>> import numpy as np
    >>> from sfvq_jax.views import directions_figure
    >>> images = np.full((2, 1, 3, 8, 8, 3), 128, np.uint8)  # two directions, one latent
    >>> limits = [(-1.0, None), (None, None)]
    >>> figure = directions_figure(images, ["more smile", "more age"], [-2, 0, 2], limits)
    >>> [cell.get_title() for cell in figure.axes[:3]]
    ['-2', '0', '+2']
    """
    axes = "[directions, latents, strengths, H, W, C]"
    images = _pictures(images, axes, directions=len(names), strengths=len(strengths))
    m, n, s = images.shape[:3]
    cell = CELL_INCHES
    height = cell * _aspect(images[0, 0])
    size = (max(s * cell, 5) + 0.4, m * (n * height + 0.3) + 0.5)
    figure = Picture(figsize=size, dpi=DPI, layout="constrained")
    figure.set_layout_engine("constrained", w_pad=0.01, h_pad=0.01, hspace=0, wspace=0)
    parts = figure.subfigures(m, 1, squeeze=False)[:, 0]
    for part, name, rows, (low, high) in zip(parts, names, images, limits, strict=True):
        part.suptitle(name, fontsize=9)
        cells = part.subplots(n, s, squeeze=False)
        for (row, column), cell_ in np.ndenumerate(cells):
            strength = strengths[column]
            outside = (low is not None and strength < low) or (high is not None and strength > high)
            _show_image(cell_, rows[row, column], alpha=0.35 if outside else 1.0)
            if row == 0:
                cell_.set_title(f"{strength:+g}" if strength else "0", fontsize=7, pad=1.5)
            if strength == 0:
                _frame(cell_)
    return figure


def interventions_figure(
    images: np.ndarray, names: Sequence[str], extremes: Sequence[float], title: str
) -> Figure:
    """Draws rows of images under growing intervention; the unmoved image is framed.

    Args:
      images: images, [rows, columns, H, W, C].
      names: name of each row.
      extremes: move of the coordinates in each column.
      title: title of the figure.

    >>> import numpy as np
    >>> from sfvq_jax.views import interventions_figure
    >>> images = np.full((2, 3, 8, 8, 3), 128, np.uint8)
    >>> figure = interventions_figure(images, ["red", "blue"], [0, 1.5, 3], "Dimension 7 moved")
    >>> [cell.get_title() for cell in figure.axes[:3]]
    ['unmoved', '1.5 sd', '3 sd']
    """
    axes = "[rows, columns, H, W, C]"
    images = _pictures(images, axes, rows=len(names), columns=len(extremes))
    rows, columns = images.shape[:2]
    figure, cells = _image_grid(rows, columns, _aspect(images[0]), title, label=EDIT_SIDE)
    for (row, column), cell in np.ndenumerate(cells):
        _show_image(cell, images[row, column])
        extreme = extremes[column]
        if row == 0:
            cell.set_title(f"{extreme:g} sd" if extreme else "unmoved", fontsize=8, pad=3)
        if column == 0:
            cell.set_ylabel(names[row], fontsize=8, rotation=0, ha="right", va="center")
        if extreme == 0:
            _frame(cell)
    return figure


def _pictures(images: Any, axes: str, **numbers: int) -> np.ndarray:
    """Images as uint8 with one channel or three, so many along each named axis."""
    images = check_images(images, axes)
    if images.shape[-1] not in CHANNELS:
        raise ValueError(
            f"images have {images.shape[-1]} channels; pictures have 1 (gray), 3 (RGB) or 4 (RGBA)"
        )
    for name, number in numbers.items():
        have = images.shape[axes.strip("[]").split(", ").index(name)]
        if have != number:
            raise ValueError(
                f"images have shape {images.shape}, {axes}, with {have} {name}; {number} are named"
            )
    if images.dtype != np.uint8:
        images = to_uint8(images)
    if images.shape[-1] == 4:
        cover = images[..., 3:] / np.float32(255)
        images = np.round(images[..., :3] * cover + 255 * (1 - cover)).astype(np.uint8)
    return images


def _image_grid(
    rows: int, columns: int, aspect: float, title: str, *, label: int = 0
) -> tuple[Picture, np.ndarray]:
    """Cells of images, `label` pixels wide with room for labels, or else of the usual size."""
    cell = label / DPI or CELL_INCHES
    size = (max(columns * cell, 4) + 0.4, rows * (cell * aspect + 0.15) + (0.8 if label else 0.4))
    figure = Picture(figsize=size, dpi=DPI, layout="constrained")
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, hspace=0, wspace=0)
    figure.suptitle(title, fontsize=10)
    cells = figure.subplots(rows, columns, squeeze=False)
    return figure, cells


def _show_image(cell: Axes, image: np.ndarray, *, alpha: float = 1.0) -> None:
    if image.shape[-1] == 1:
        cell.imshow(image[..., 0], cmap="gray", vmin=0, vmax=255, alpha=alpha)
    else:
        cell.imshow(image, alpha=alpha)
    cell.set(xticks=[], yticks=[])
    for spine in cell.spines.values():
        spine.set_visible(False)


def _frame(cell: Axes, color: Any = "tab:red") -> None:
    """Marks an image: the unedited one, or one of a class."""
    for spine in cell.spines.values():
        spine.set(visible=True, color=color, linewidth=2)


def _aspect(images: np.ndarray) -> float:
    return images.shape[1] / images.shape[2]
