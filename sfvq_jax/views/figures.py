"""The figures of a curve: its map, its distances, the history of its fit, its edits.

Images are uint8 or floats in [-1, 1], with one channel, three, or four: RGBA, drawn over white. Any
other array is a ValueError, and so are names or strengths that are not as many as the images.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import color_sequences
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from sfvq_jax.curve import Curve
from sfvq_jax.history import History
from sfvq_jax.images import CHANNELS, check_images, to_uint8
from sfvq_jax.interpret.comparison import MethodSummary
from sfvq_jax.interpret.rows_at import as_classes
from sfvq_jax.quality import pairwise_distances
from sfvq_jax.views.notebook import map_html

COLUMNS = 16
CELL_INCHES = 0.8
DPI = 100
COMPARED = {  # field of `MethodSummary` -> title
    "reached": "attributes reached\n(more is better)",
    "recognition": "directions recognised\n(more is better)",
    "dependency_gap": "attribute dependency, gap\n(less is better)",
    "content_gap": "content preserved, gap\n(more is better)",
    "correlation_gap": "path correlation, gap\n(more is better)",
}
MAP_SIDE = 160  # larger images than this many pixels are scaled down before they are drawn


class Picture(Figure):
    """A figure that a notebook shows by itself, without `%matplotlib inline`.

    Attributes:
      tiles: the images of a map, which in HTML are shown one by one, with their numbers.
      tile_labels: of the images, where they have some.
    """

    tiles: np.ndarray | None = None
    tile_labels: list[str] | None = None

    def draw(self, renderer: Any) -> None:
        for text in self.findobj(Text):  # names may have a $, which means itself
            text.set_parse_math(False)  # pyright: ignore[reportAttributeAccessIssue]
        super().draw(renderer)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()

    def _repr_html_(self) -> str | None:
        if self.tiles is None:
            return None
        return map_html(self.tiles, self.get_suptitle(), self.tile_labels)


def map_figure(
    images: np.ndarray | None, title: str = "", columns: int = COLUMNS, *, labels: Any = None
) -> Figure:
    """The codebook in order: images [K, H, W, C] in rows of 16, numbered from 0.

    Args:
      images: of the codewords, or of the latents nearest to each (`interpret.rows_at`). None draws
        the colours of the labels alone.
      title: of the figure.
      columns: images in a row.
      labels: of the codewords, [K] whole numbers or texts: each has a colour, in which its images
        are framed. Of at most 20 labels a legend names the colours; of more, colours come again,
        and each image has its label above it.
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
        colours = [palette[c % len(palette)] for c in of_images]
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


def distance_figure(curve: Curve) -> Figure:
    """Heat map of the distances between all codewords; a good order is dark near the diagonal."""
    _check_kind(curve, Curve, "curve")
    figure = Picture(figsize=(6.4, 5.4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    distances = pairwise_distances(np.asarray(curve.codewords, np.float64))
    image = axes.imshow(distances, cmap="viridis")
    axes.set(
        title=f"Distances between {curve.num_codewords} codewords",
        xlabel="codeword",
        ylabel="codeword",
    )
    figure.colorbar(image, ax=axes, label="Euclidean distance in latent space")
    return figure


def history_figure(history: History) -> Figure:
    """How the fit went: distortion, share of lines in use, and the final use of each line."""
    _check_kind(history, History, "history")
    figure = Picture(figsize=(12, 3.6), dpi=DPI, layout="constrained")
    error, spread, use = figure.subplots(1, 3)
    rounds = np.arange(1, len(history.codewords) + 1)
    error.plot(rounds, history.distortion, marker="o", markersize=3, label="exact projection")
    error.plot(rounds, history.loss, linestyle="--", label="what the solver minimises")
    error.set(
        title="Distortion", xlabel="round, by codewords", ylabel="mean squared error a dimension"
    )
    error.margins(y=0.12)  # room for the labels of the stages
    error.legend()
    lines = history.codewords - 1
    spread.plot(rounds, history.perplexity / lines, marker="o", markersize=3)
    spread.set(
        title="Lines in effective use", xlabel="round", ylabel="perplexity ÷ lines", ylim=(0, 1.02)
    )
    for axes in (error, spread):
        for start in np.flatnonzero(np.diff(history.codewords)) + 1:
            axes.axvline(start + 0.5, color="0.85", zorder=0)
        for codewords in np.unique(history.codewords):
            middle = rounds[history.codewords == codewords].mean()
            axes.text(
                middle, 0.02, str(codewords), transform=axes.get_xaxis_transform(),
                ha="center", fontsize=8, color="0.4",
            )  # fmt: skip
    final = history.use[-1]
    use.bar(np.arange(len(final)), final * len(final), width=1.0)
    use.axhline(1, color="0.4", linewidth=0.8)
    use.set(title="Final use of each line", xlabel="line", ylabel="samples ÷ equal share")
    return figure


def edit_figure(
    images: np.ndarray,
    strengths: Sequence[float],
    deviation: float | None,
    seeds: Sequence[int],
    title: str,
) -> Figure:
    """Rows of seeds by columns of strengths; the unedited column is framed.

    Args:
      images: [seeds, strengths, H, W, C].
      strengths: distances moved along the unit direction, one a column.
      deviation: standard deviation of latents along the direction, in which labels are given too;
        None of several directions at once.
      seeds: one a row.
      title: of the figure.
    """
    axes = "[seeds, strengths, H, W, C]"
    images = _pictures(images, axes, seeds=len(seeds), strengths=len(strengths))
    figure, cells = _image_grid(len(seeds), len(strengths), _aspect(images[0]), title, label=True)
    for row, seed in enumerate(seeds):
        for column, strength in enumerate(strengths):
            cell = cells[row, column]
            _show_image(cell, images[row, column])
            if row == 0:
                number = f"{strength:+g}\n"
                if deviation is not None:
                    number += f"({strength / deviation:+.1f} sd)"
                cell.set_title("unedited\n" if strength == 0 else number, fontsize=8, pad=3)
            if column == 0:
                cell.set_ylabel(f"seed {seed}", fontsize=8)
            if strength == 0:
                _frame(cell)
    return figure


def directions_figure(
    images: np.ndarray,
    names: Sequence[str],
    strengths: Sequence[float],
    limits: Sequence[tuple[float | None, float | None]],
) -> Figure:
    """What directions do: some rows of one latent each under the name of every direction.

    Args:
      images: [directions, latents, strengths, H, W, C].
      names: of the directions.
      strengths: in units of the directions, one a column; 0 is framed.
      limits: strengths below and above 0, of each direction, beyond which images are outside the
        distribution, and drawn pale; None for none.
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


def comparison_figure(rows: Sequence[MethodSummary]) -> Figure:
    """A panel a measure, a point with its 95 % interval a method; gaps are from the first one."""
    figure = Picture(figsize=(12.5, 0.3 * len(rows) + 1.2), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, len(COMPARED), sharey=True)
    for panel, (field, title) in zip(panels, COMPARED.items(), strict=True):
        intervals = [getattr(row, field) for row in rows]
        for place, interval in enumerate(intervals):
            if interval is not None:
                color = "tab:red" if rows[place].method.startswith("SFVQ") else "0.3"
                half = interval.high - interval.mean
                panel.errorbar(
                    interval.mean, place, xerr=half, fmt="o", ms=5, color=color, capsize=2
                )
        first = 0.0 if intervals[0] is None else intervals[0].mean
        panel.axvline(first, color="tab:red", linewidth=0.8, linestyle=":", zorder=0)
        panel.set_title(title, fontsize=9)
        panel.tick_params(labelsize=8)
        panel.locator_params(axis="x", nbins=4)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(rows)), [row.method for row in rows], fontsize=9)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure


def importance_figure(
    importance: np.ndarray, concepts: Sequence[str], title: str, unit: str = "dimension"
) -> Figure:
    """Heat map of what each coordinate does to each concept, [C, M], beside what all do together.

    Args:
      importance: mean absolute change of the concept's probability, [C, M].
      concepts: C names.
      title: of the figure.
      unit: what a coordinate is.
    """
    c, m = importance.shape
    figure = Picture(figsize=(min(4 + 0.12 * m, 16), 0.28 * c + 1.5), dpi=DPI, layout="constrained")
    heat, bars = figure.subplots(1, 2, sharey=True, width_ratios=(max(m / 12, 3), 1))
    image = heat.imshow(importance, cmap="magma", vmin=0, aspect="auto")
    heat.set_yticks(range(c), concepts)
    heat.set(title=title, xlabel=unit)
    figure.colorbar(image, ax=heat, label="mean |change of p|", pad=0.01)
    greatest = np.sort(importance, 1)[:, ::-1].cumsum(1)
    half = (greatest < greatest[:, -1:] / 2).sum(1) + 1
    bars.barh(range(c), half / m, color="0.4")
    bars.set(title="share that has\nhalf of it", xlim=(0, 0.5))
    bars.axvline(0.5, color="0.7", linewidth=0.8)
    bars.spines[["top", "right"]].set_visible(False)
    return figure


def growth_figure(
    growth: np.ndarray, random: np.ndarray, chosen: Sequence[int], title: str
) -> Figure:
    """How the effect grows with the size of the set, beside random sets.

    Args:
      growth: mean change of the target's probability by the first 1 … M coordinates of each of G
        sets, [G, M]; where growth has stopped, what it had reached.
      random: the same over all goals by random sets, several times, [R, M].
      chosen: sizes of the sets that control their goals, G.
      title: of the figure.
    """
    figure = Picture(figsize=(7, 4.6), dpi=DPI, layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    sizes = np.arange(1, growth.shape[1] + 1)
    low, middle, high = np.percentile(growth, [25, 50, 75], axis=0)
    axes.plot(sizes, growth.mean(0), color="C0", lw=1.8, label="grown sets, mean over goals")
    axes.plot(sizes, middle, ":", color="C0", lw=1, label="median, and half of all goals")
    axes.fill_between(sizes, low, high, color="C0", alpha=0.15, lw=0)
    axes.plot(sizes, random.mean(0), color="0.35", lw=1.4, label="random sets, mean and range")
    axes.fill_between(sizes, random.min(0), random.max(0), color="0.35", alpha=0.3, lw=0)
    axes.set(title=title, ylabel="change of the target's probability")
    axes.legend(fontsize=8, frameon=False)
    below.hist(chosen, bins=(np.arange(len(sizes) + 1) + 0.5).tolist(), color="0.6")
    below.set(xlabel="size of the set", ylabel="goals that\nneed so many", xscale="log")
    ticks = [size for size in 2 ** np.arange(12) if size <= sizes[-1]]
    below.set_xticks(ticks, [str(size) for size in ticks])
    below.minorticks_off()
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    for panel in (axes, below):
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def translation_figure(matrices: Mapping[str, np.ndarray], concepts: Sequence[str]) -> Figure:
    """A matrix a way: share of images that go from each class, rows, to each other one, columns.

    Args:
      matrices: title -> [C, C]; NaN where nothing was measured. Rows and columns that have nothing
        in any of them are left out.
      concepts: C names.
    """
    measured = np.any([np.isfinite(matrix) for matrix in matrices.values()], axis=0)
    sources = np.flatnonzero(measured.any(1)).tolist()
    targets = np.flatnonzero(measured.any(0)).tolist()
    width, height = (0.27 * max(len(shown), 3) + 0.4 for shown in (targets, sources))
    figsize = (len(matrices) * width + 2.2, height + 1.6)
    figure = Picture(figsize=figsize, dpi=DPI, layout="constrained")
    panels = figure.subplots(1, len(matrices), sharey=True, squeeze=False)[0]
    for panel, (title, whole) in zip(panels, matrices.items(), strict=True):
        matrix = whole[np.ix_(sources, targets)]
        panel.imshow(matrix, cmap="viridis", vmin=0, vmax=1)
        mean = f"\nmean {np.nanmean(matrix):.2f}" if np.isfinite(matrix).any() else ""
        panel.set_title(f"{title}{mean}", fontsize=9)
        names = [concepts[i] for i in targets]
        panel.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        for (row, column), share in np.ndenumerate(matrix):
            if share >= 0.005:
                panel.text(
                    column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=6,
                    color="k" if share > 0.6 else "w",
                )  # fmt: skip
    names = [concepts[i] for i in sources]
    panels[0].set_yticks(range(len(names)), names, fontsize=8)
    panels[0].set_ylabel("from")
    figure.supxlabel("to", fontsize=9)
    figure.colorbar(panels[0].images[0], ax=panels.tolist(), label="share of images", pad=0.01)
    return figure


def interventions_figure(
    images: np.ndarray, names: Sequence[str], extremes: Sequence[float], title: str
) -> Figure:
    """Rows of images under growing intervention, the unmoved one framed.

    Args:
      images: [rows, columns, H, W, C].
      names: one a row.
      extremes: how far coordinates are moved, one a column.
      title: of the figure.
    """
    axes = "[rows, columns, H, W, C]"
    images = _pictures(images, axes, rows=len(names), columns=len(extremes))
    rows, columns = images.shape[:2]
    figure, cells = _image_grid(rows, columns, _aspect(images[0]), title, label=True)
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


def _check_kind(value: Any, kind: type, name: str) -> None:
    if not isinstance(value, kind):
        hint = f": pass its .{name}" if isinstance(getattr(value, name, None), kind) else ""
        raise TypeError(f"{name} is a {type(value).__name__}; expected a {kind.__name__}{hint}")


def _image_grid(
    rows: int, columns: int, aspect: float, title: str, *, label: bool = False
) -> tuple[Picture, np.ndarray]:
    cell = CELL_INCHES * (1.4 if label else 1.0)
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
