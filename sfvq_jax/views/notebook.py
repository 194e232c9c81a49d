"""What a notebook shows of a curve and of a map, as HTML."""

import base64
import html
import io
from collections.abc import Sequence

import jax
import numpy as np
from jax.core import Tracer
from PIL import Image

from sfvq_jax.curve import Curve, curve_length, trimmed
from sfvq_jax.rows.parts import natural

MOST_POINTS = 1024  # of a curve that are drawn
MOST_PIXELS = 2**20  # of all images of a map; of more a picture is smaller
MOST_NAMES = 20  # of a legend, as in the figure
WIDTH, HEIGHT, MARGIN = 360, 220, 8


def curve_html(curve: Curve) -> str | None:
    """Sizes of a curve, and a drawing on its two principal axes; None while it is traced."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(curve)):
        return None
    curve = trimmed(curve)
    k, d = curve.codewords.shape
    length = float(curve_length(curve))
    codewords = np.asarray(curve.codewords, np.float64)[:: -(-k // MOST_POINTS)]
    centred = codewords - codewords.mean(0)
    _, spread, axes = np.linalg.svd(centred, full_matrices=False)
    flat = np.zeros((len(codewords), 2))
    flat[:, : min(2, len(axes))] = centred @ axes[:2].T
    share = (spread[:2] ** 2).sum() / max((spread**2).sum(), np.finfo(float).tiny)
    low, size = flat.min(0), max(np.ptp(flat, 0).max(), np.finfo(float).tiny)
    scale = (np.array([WIDTH, HEIGHT]) - 2 * MARGIN) / np.maximum(np.ptp(flat, 0), size / 1e6)
    x, y = (MARGIN + (flat - low) * scale.min()).T
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    ends = "".join(
        f'<circle cx="{x[i]:.1f}" cy="{y[i]:.1f}" r="4"><title>codeword {number}</title></circle>'
        for i, number in ((0, 0), (-1, k - 1))
    )
    return (
        f"<div>Curve: {k} codewords of {d} dimensions, length {length:.4g}; drawn on two axes with"
        f" {share:.0%} of their variance</div>"
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="the curve">'
        f'<polyline points="{points}" fill="none" stroke="#888"/>{ends}</svg>'
    )


def map_html(
    images: np.ndarray,
    title: str,
    labels: Sequence[str] | None = None,
    colours: Sequence[str] | None = None,
) -> str | None:
    """A map as HTML, which is as wide as its place; None where images are many and large.

    Args:
      images: uint8 [K, H, W, C], each with its number below it.
      title: above them.
      labels: of the images, K, which are told while the pointer is over an image.
      colours: of the labels, K, of each image's frame; a legend names them.
    """
    if images[..., 0].size > MOST_PIXELS:
        return None
    cells, legend = [], {}
    for i, image in enumerate(images):
        told, frame = str(i), ""
        if labels is not None:
            told += f": {html.escape(labels[i])}"
        if labels is not None and colours is not None:
            frame = f"; border:2px solid {colours[i]}"
            legend[html.escape(labels[i])] = colours[i]
        cells.append(
            '<span style="display:inline-block; margin:1px; text-align:center; line-height:1.1">'
            f'<img src="data:image/png;base64,{_png(image)}" title="{told}" alt="codeword {i}"'
            f' style="display:block; margin:0; min-width:48px; image-rendering:pixelated{frame}">'
            f'<span style="font-size:10px">{i}</span></span>'
        )
    if len(legend) > MOST_NAMES:
        legend = {}
    shown = sorted(legend.items(), key=lambda entry: natural(entry[0]))
    names = "".join(
        f'<span style="margin-right:1em"><span style="color:{colour}">&#9632;</span> {name}</span>'
        for name, colour in shown
    )
    return f"<div>{html.escape(title)}</div><div>{''.join(cells)}</div><div>{names}</div>"


def _png(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, format="png")
    return base64.b64encode(file.getvalue()).decode("ascii")
