"""The page of `sfvq-jax explore` in a notebook, and as a file."""

import html
from pathlib import Path

import jax
import numpy as np

from sfvq_jax.curve import Curve
from sfvq_jax.interpret import Scorer, Scorers, join, statistics_of
from sfvq_jax.io.curve_file import CurveRecord, check_belongs
from sfvq_jax.io.output import new_file
from sfvq_jax.io.row_images import RowImages
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.sources import Source, as_rows

Array = jax.Array

HEIGHT = 900  # pixels of the frame


class Page:
    """A page to walk a curve, as one piece of HTML; a notebook shows it.

    Attributes:
      html: the whole page.
    """

    def __init__(self, html: str):
        self.html = html

    def __repr__(self) -> str:
        return f"Page({len(self.html) / 1e6:.1f} MB; save(path) writes it)"

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Writes the page, whole or not at all; raises what `new_file` raises."""
        with new_file(path, overwrite=overwrite) as temporary:
            temporary.write_text(self.html, encoding="utf-8")

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{html.escape(self.html)}" style="width: 100%; height: {HEIGHT}px;'
            ' border: 0" sandbox="allow-scripts allow-downloads allow-modals"'
            ' title="Walk the curve"></iframe>'
        )


def explore(
    model: LatentModel | Source | Array | np.ndarray | str | Path,
    curve: Curve | CurveRecord,
    *,
    images: np.ndarray | str | Path | None = None,
    labels: np.ndarray | None = None,
    scorers: Scorers | tuple[Scorer, Scorer] | None = None,
) -> Page:
    """Makes the page of `sfvq-jax explore --export`, to be seen in a notebook.

    Args:
      model: the generator; or rows [N, D] with images, in an array or a file.
      curve: a curve through its latents, with 3 to 4096 codewords.
      images: images of the rows, [N, H, W, C], uint8 or floats in [-1, 1], an .npy of them, or a
        folder with one for each row in the order of their names. The page shows the image of the
        nearest row.
      labels: classes of the rows, [N] numbers or texts.
      scorers: the scorers that find and judge attributes; scorers from a file may have classes.
        Statistics of images are always included.

    Raises:
      ValueError: a curve of another model or width, or with another number of codewords; images or
        labels that are not as many as the rows, or without rows.

    >>> import jax.numpy as jnp
    >>> import ports
    >>> from sfvq_jax import Curve
    >>> from sfvq_jax.views import explore
    >>> model = ports.load(ports.bundled("fashion_mnist"))  # whose latents have 64 dimensions
    >>> page = explore(model, Curve(jnp.zeros((8, 32))))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: the curve has 32 dimensions, but the model's latents have 64: ...
    """
    from sfvq_jax.explore.export import export_page
    from sfvq_jax.explore.row_model import row_model
    from sfvq_jax.explore.subject import Subject, own_data

    record = curve if isinstance(curve, CurveRecord) else CurveRecord(curve)
    data, name = None, getattr(model, "latent_space", "") or type(model).__name__
    if isinstance(model, LatentModel):
        if images is not None or labels is not None:
            raise ValueError("images and labels are of rows; a generator's images are rendered")
        check_belongs(record, model)
    elif images is None:
        raise ValueError("the page shows images: give those of the rows as images=, or a generator")
    else:
        source = as_rows(model, record.curve)
        name = str(model) if isinstance(model, str | Path) else "the array"
        data = own_data(source, record.curve, name=name, labels=labels)
        model = row_model(source, RowImages(images, source.num_latents))
    find, judge, _ = statistics_of(jax.random.key(0), model)
    if scorers is not None:
        find, judge = join(find, scorers[0]), join(judge, scorers[1])
    classes = scorers.classes if isinstance(scorers, Scorers) else ()
    subject = Subject(
        model,
        record,
        find,
        judge,
        classes=classes,
        model_name=name,
        curve_name="curve",
        data=data,
    )
    return Page(export_page(subject))
