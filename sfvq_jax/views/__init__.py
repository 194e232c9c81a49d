"""Figures (matplotlib): functions from arrays to a Figure, which the caller saves."""

from sfvq_jax.views.figures import distance_figure, edit_figure, history_figure, map_figure
from sfvq_jax.views.images import render_images, to_uint8

__all__ = [
    "distance_figure",
    "edit_figure",
    "history_figure",
    "map_figure",
    "render_images",
    "to_uint8",
]
