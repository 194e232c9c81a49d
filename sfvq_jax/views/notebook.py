"""What a notebook shows of a curve and of a map, as HTML."""

import base64
import html
import io

import jax
import numpy as np
from jax.core import Tracer
from PIL import Image

from sfvq_jax.curve import Curve, curve_length, trimmed

MOST_POINTS = 1024  # of a curve that are drawn
MOST_PIXELS = 2**20  # of all images of a map; of more a picture is smaller
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


def map_html(images: np.ndarray, title: str, labels: list[str] | None = None) -> str | None:
    """Images uint8 [K, H, W, C], each with its number; None where they are many and large."""
    if images[..., 0].size > MOST_PIXELS:
        return None
    cells = "".join(
        f'<img src="data:image/png;base64,{_png(image)}" title="{i}'
        f'{"" if labels is None else f": {html.escape(labels[i])}"}" alt="codeword {i}"'
        ' style="display:inline; margin:1px; min-width:48px; image-rendering:pixelated">'
        for i, image in enumerate(images)
    )
    return f'<div>{html.escape(title)}</div><div style="line-height:0">{cells}</div>'


def _png(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, format="png")
    return base64.b64encode(file.getvalue()).decode("ascii")
