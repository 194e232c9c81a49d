"""Charts: distances of a curve, the history of its fit, a comparison, controlling dimensions."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from sfvq_jax.curve import Curve
from sfvq_jax.history import History
from sfvq_jax.interpret.comparison import MethodSummary
from sfvq_jax.quality import pairwise_distances
from sfvq_jax.views.picture import DPI, Picture, check_kind

COMPARED = {  # field of `MethodSummary` -> title
    "reached": "attributes reached\n(more is better)",
    "recognition": "directions recognised\n(more is better)",
    "recognition_equal": "recognised, equal steps\n(more is better)",
    "strength_gap": "strength, gap\n(less is better)",
    "dependency_gap": "attribute dependency, gap\n(less is better)",
    "content_gap": "content preserved, gap\n(more is better)",
    "correlation_gap": "path correlation, gap\n(more is better)",
}


def distance_figure(curve: Curve) -> Figure:
    """Draws the distances between all codewords; a good order is dark near the diagonal.

    Raises:
      TypeError: the argument is no curve.

    >>> import jax.numpy as jnp
    >>> from sfvq_jax import Curve
    >>> from sfvq_jax.views import distance_figure
    >>> figure = distance_figure(Curve(jnp.arange(8.0).reshape(4, 2)))
    >>> figure.axes[0].get_title()
    'Distances between 4 codewords'
    """
    check_kind(curve, Curve, "curve")
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
    """Draws the history of a fit: distortion, share of lines in use, final use of each line.

    Raises:
      TypeError: the argument is no `History`.

    >>> import numpy as np
    >>> from sfvq_jax import History
    >>> from sfvq_jax.views import history_figure
    >>> errors = np.array([0.4, 0.2])
    >>> history = History(  # that of `fit` is `result.history`
    ...     codewords=np.array([4, 8]), loss=errors, objective=errors, distortion=errors,
    ...     perplexity=np.array([2.5, 6]), use=np.full((2, 7), 1 / 7), samples=np.array([64, 128]))
    >>> [axes.get_title() for axes in history_figure(history).axes]
    ['Distortion', 'Lines in effective use', 'Final use of each line']
    """
    check_kind(history, History, "history")
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


def comparison_figure(rows: Sequence[MethodSummary]) -> Figure:
    """Draws a panel for each measure, with a point and its 95 % interval for each method.

    Gaps are differences from the first method.

    Args:
      rows: rows from `sfvq_jax.interpret.summary`.

    >>> from sfvq_jax.interpret import Comparison, summary
    >>> from sfvq_jax.interpret.comparison.measures import Edit, Recognition
    >>> from sfvq_jax.views import comparison_figure
    >>> edits, told_apart = [], []
    >>> for name in ("SFVQ", "random"):  # as `compare` measures them
    ...     for seed in (0, 1):
    ...         edits.append(Edit(name, seed, "smile", (0, 7), reached=name == "SFVQ"))
    ...         told_apart.append(Recognition(name, seed, 63, 16, 0.9, 0.8, step=1.0))
    >>> figure = comparison_figure(summary(Comparison(edits, told_apart, [], {"seeds": 2})))
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['SFVQ', 'random']
    """
    figure = Picture(figsize=(14.5, 0.3 * len(rows) + 1.2), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, len(COMPARED), sharey=True)
    for panel, (field, title) in zip(panels, COMPARED.items(), strict=True):
        intervals = [getattr(row, field) for row in rows]
        for place, interval in enumerate(intervals):
            if interval is not None:
                color = "tab:red" if rows[place].method.startswith("SFVQ") else "0.3"
                below, above = interval.mean - interval.low, interval.high - interval.mean
                panel.errorbar(
                    interval.mean, place, xerr=[[below], [above]],
                    fmt="o", ms=5, color=color, capsize=2,
                )  # fmt: skip
        first = 0.0 if intervals[0] is None else intervals[0].mean
        panel.axvline(first, color="tab:red", linewidth=0.8, linestyle=":", zorder=0)
        panel.set_title(title, fontsize=9)
        panel.tick_params(labelsize=8)
        panel.locator_params(axis="x", nbins=4)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(rows)), [row.method for row in rows], fontsize=9)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure


def effects_figure(
    effects: np.ndarray,
    directions: Sequence[str],
    attributes: Sequence[str],
    own: Sequence[int | None],
) -> Figure:
    """Draws the effect of each direction on each attribute; outside the frames is entanglement.

    Args:
      effects: standard deviations of the attribute per unit of strength, [R, A]; NaN if unknown.
      directions: names of the R directions.
      attributes: names of the A attributes.
      own: for each direction, the column of its own attribute, which is framed; None for no frame.

    >>> import numpy as np
    >>> from sfvq_jax.views import effects_figure
    >>> effects = np.array([[0.8, -0.1], [0.0, 0.5]])
    >>> figure = effects_figure(effects, ["more smile", "more age"], ["smile", "age"], own=[0, 1])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['+0.8', '-0.1', '+0.0', '+0.5']
    """
    r, a = effects.shape
    figure = Picture(figsize=(5 + 0.5 * a, 2 + 0.3 * r), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    finite = np.nan_to_num(effects)
    most = max(float(np.abs(finite).max(initial=0)), 1e-6)
    image = axes.imshow(effects, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
    for i, j in np.ndindex(r, a):
        if np.isfinite(effects[i, j]):
            color = "white" if abs(effects[i, j]) > 0.6 * most else "black"
            text = f"{effects[i, j]:+.1f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color=color)
        if own[i] == j:
            axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, linewidth=1.5))
    axes.set_xticks(range(a), attributes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(r), [name if len(name) <= 50 else f"{name[:49]}…" for name in directions])
    axes.set_title("What each direction does to every attribute (framed: its own)", fontsize=10)
    figure.colorbar(image, ax=axes, label="standard deviations a unit of strength", pad=0.01)
    return figure


def importance_figure(
    importance: np.ndarray, concepts: Sequence[str], title: str, unit: str = "dimension"
) -> Figure:
    """Draws the effect of each coordinate on each concept.

    Bars show the share of coordinates that have half of the effect on a concept.

    Args:
      importance: mean absolute change of the concept's probability, [C, M].
      concepts: names of the C concepts.
      title: title of the figure.
      unit: word for a coordinate, such as "dimension".

    >>> import numpy as np
    >>> from sfvq_jax.views import importance_figure
    >>> importance = np.array([[0.3, 0.1, 0.0], [0.0, 0.2, 0.2]])  # two concepts, three dimensions
    >>> figure = importance_figure(importance, ["red", "blue"], "What each dimension does")
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['red', 'blue']
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
    """Draws how the effect grows with the size of the set, beside random sets.

    Args:
      growth: mean change of the target's probability by the first 1 … M coordinates of each of G
        sets, [G, M]; after growth has stopped, its last value.
      random: mean change over all goals by R random orders, [R, M].
      chosen: sizes of the G sets that control their goals.
      title: title of the figure.

    >>> import numpy as np
    >>> from sfvq_jax.views import growth_figure
    >>> growth = np.array([[0.3, 0.5, 0.6], [0.2, 0.4, 0.4]])  # two goals, sets of 1 to 3
    >>> random = np.array([[0.1, 0.2, 0.3]])
    >>> figure = growth_figure(growth, random, chosen=[3, 2], title="Growing sets")
    >>> figure.axes[0].get_ylabel()
    "change of the target's probability"
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
    """Draws the shares of images that go from each class (row) to each other class (column).

    Args:
      matrices: one matrix [C, C] for each title; NaN where nothing was measured. Rows and columns
        that are empty in all matrices are left out.
      concepts: names of the C concepts.

    >>> import numpy as np
    >>> from sfvq_jax.views import translation_figure
    >>> matrix = np.array([[np.nan, 0.75], [0.25, np.nan]])  # of `flip_matrix`
    >>> figure = translation_figure({"grown sets": matrix}, ["red", "blue"])
    >>> figure.axes[0].get_title().split()
    ['grown', 'sets', 'mean', '0.50']
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
