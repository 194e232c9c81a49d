"""The same page as one file, fed from what it holds: images of the curve, strips, tables.

Letters: K codewords, S seeds.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sfvq_jax.curve import decode
from sfvq_jax.explore.pictures import Pictures, at_most, encoded, tiled
from sfvq_jax.explore.subject import SEEDS, Subject
from sfvq_jax.explore.survey import THUMB, Measures, strips, survey, thumbs
from sfvq_jax.io.label_file import Label

STATIC = Path(__file__).with_name("static")
MODULES = ("words.js", "source.js", "tracks.js", "panels.js", "labels.js", "main.js")
FRAMES_A_LINE = 8  # images from a codeword to the next; half as many of large images
MOST_LIMITED = 127  # lines, up to which it is measured how far each goes
STRENGTHS = (-2.0, -1.0, 1.0, 2.0)  # of strips, beside 0, which all have in common
FRAME_PIXELS, STRIP_PIXELS = 24e6, 16e6  # of all images of a kind; more of them are smaller
SMALL = 64  # pixels, up to which an image keeps its size
SHEET_SIDE = 4096  # pixels
QUALITIES = (82, 65, 45, 30)  # of WebP; the first that is small enough
MOST_BYTES = 15_000_000


def export_page(
    subject: Subject,
    *,
    labels: Sequence[Label] = (),
    limits: bool = False,
    on_step: Callable[[int, int], object] = lambda done, total: None,
) -> str:
    """The page of a subject as one HTML text, at most 15 MB.

    Args:
      subject: what it shows.
      labels: that it shows at first.
      limits: whether it is measured how far each line goes, which takes most of the time; of more
        than 127 lines it is not.
      on_step: called with how many steps of how many are done.

    Raises:
      ValueError: a page of more than 15 MB at the lowest quality of images.
    """
    pictures = Pictures(subject)
    measures = Measures(subject, pictures)
    about = survey(subject, pictures, measures)
    lines, layers = subject.curve.num_lines, subject.model.num_layers
    total, done = 3 * lines + len(subject.directions), 0

    def step() -> None:
        nonlocal done
        done += 1
        on_step(done, total)

    h, w = about["model"]["image"][:2]
    large = max(h, w) > SMALL
    frames_a_line = FRAMES_A_LINE // 2 if large else FRAMES_A_LINE
    frame_side = _side(FRAME_PIXELS, frames_a_line * lines + 1, h, w)
    seeds = len(first := pictures.first(SEEDS))
    each = seeds * len(STRENGTHS)
    strip_side = _side(STRIP_PIXELS, each * (lines + len(subject.directions)), h, w)
    frames = []
    for line in range(lines):
        fractions = line + np.arange(frames_a_line) / frames_a_line
        points = np.asarray(decode(subject.curve, fractions.astype(np.float32)))
        frames.append(at_most(pictures.render(points), frame_side))
        step()
    last = pictures.render(subject.codewords[-1:])
    images = {
        "codewords": thumbs(subject, pictures, min(THUMB, 64)),
        "frames": np.concatenate([*frames, at_most(last, frame_side)]),
        "seeds": at_most(pictures.render(first), strip_side),
    }
    of_lines = {f"line:{line}": (0, layers - 1) for line in range(lines)}
    of_directions = {d["id"]: tuple(d["layers"]) for d in about["directions"]}
    for name, ids in {"lines": of_lines, "directions": of_directions}.items():
        if ids:
            images[name] = strips(
                subject, pictures, ids, STRENGTHS, seeds=seeds, side=strip_side, on_strip=step
            )
    cards = []
    for line in range(lines):
        cards.append(measures.line(line, (0, layers - 1), limits=limits and lines <= MOST_LIMITED))
        step()
    about |= {
        "live": False,
        "cards": measures.bench is not None,
        "card_of": cards,
        "frames_a_line": frames_a_line,
        "strip": {"strengths": list(STRENGTHS), "seeds": seeds},
        "labels": {"revision": 0, "file": "", "labels": [label._asdict() for label in labels]},
    }
    for quality in QUALITIES:
        packed = {name: _packed(kind, quality) for name, kind in images.items()}
        page = _page(about | {"sheets": packed})
        if len(page.encode()) <= MOST_BYTES:
            return page
    raise ValueError(
        f"the page would have more than {MOST_BYTES:,} bytes: export a curve of fewer codewords,"
        " or fewer directions"
    )


def _side(pixels: float, count: int, height: int, width: int) -> int:
    """Of images whose pixels all together are no more than so many, unless they are small."""
    side = math.sqrt(pixels / max(count, 1) * max(height, width) / min(height, width))
    return max(min(SMALL, max(height, width)), min(int(side), max(height, width)))


def _packed(images: np.ndarray, quality: int) -> dict[str, Any]:
    """Images in sheets of at most 4096 pixels a side, each as a data URL."""
    count, height, width, _ = images.shape
    columns = max(1, min(SHEET_SIDE // width, math.ceil(math.sqrt(count))))
    rows = max(1, SHEET_SIDE // height)
    sheets = []
    for start in range(0, count, columns * rows):
        part = images[start : start + columns * rows]
        sheet = tiled(part, max(height, width), columns=columns)
        content, kind = encoded(sheet, quality=quality)
        sheets.append(f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}")
    return {
        "count": count,
        "width": width,
        "height": height,
        "columns": columns,
        "rows": rows,
        "sheets": sheets,
    }


def _page(about: dict[str, Any]) -> str:
    """index.html with its style, its modules as one, and the data; nothing else may run in it."""
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    style = (STATIC / "style.css").read_text(encoding="utf-8")
    script = "\n".join(_as_part((STATIC / name).read_text(encoding="utf-8")) for name in MODULES)
    allowed = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)};"
        " img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    for mark, text in {
        '<meta charset="utf-8" />': '<meta charset="utf-8" />\n    <meta'
        f' http-equiv="Content-Security-Policy" content="{allowed}" />',
        '<link rel="stylesheet" href="style.css" />': f"<style>{style}</style>",
        '<script type="module" src="main.js"></script>': '<script type="application/json"'
        f' id="data">{told(about)}</script>\n    <script type="module">{script}</script>',
    }.items():
        before, found, after = page.partition(mark)
        assert found, mark
        page = before + text + after
    return page


def _as_part(module: str) -> str:
    """A module without what ties it to the others, which stand before it in the same script."""
    module = re.sub(r"^import [^;]*;\n", "", module, flags=re.MULTILINE)
    return re.sub(r"^export ", "", module, flags=re.MULTILINE)


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def told(about: dict[str, Any]) -> str:
    """JSON that ends no script element."""
    text = json.dumps(about, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
