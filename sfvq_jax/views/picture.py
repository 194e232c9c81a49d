"""A figure that a notebook shows by itself, and what all figures ask of their arguments."""

import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from sfvq_jax.views.notebook import map_html

DPI = 100


class Picture(Figure):
    """A figure that a notebook shows by itself, without `%matplotlib inline`.

    Attributes:
      tiles: the images of a map, which in HTML are shown one by one, with their numbers.
      tile_labels: of the images, where they have some.
      tile_colours: of the labels, one an image, such as "#1f77b4".
    """

    tiles: np.ndarray | None = None
    tile_labels: list[str] | None = None
    tile_colours: list[str] | None = None

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
        return map_html(self.tiles, self.get_suptitle(), self.tile_labels, self.tile_colours)


def check_kind(value: Any, kind: type, name: str) -> None:
    if not isinstance(value, kind):
        hint = f": pass its .{name}" if isinstance(getattr(value, name, None), kind) else ""
        raise TypeError(f"{name} is a {type(value).__name__}; expected a {kind.__name__}{hint}")
