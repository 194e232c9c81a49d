"""Figures (matplotlib), which the caller saves, and edits as files."""

from sfvq_jax.images import render_images, to_uint8
from sfvq_jax.views.charts import (
    comparison_figure,
    distance_figure,
    effects_figure,
    growth_figure,
    history_figure,
    importance_figure,
    translation_figure,
)
from sfvq_jax.views.edit_files import write_edits
from sfvq_jax.views.grids import (
    directions_figure,
    edit_figure,
    interventions_figure,
    inversion_figure,
    map_figure,
)
from sfvq_jax.views.page import Page, explore
from sfvq_jax.views.walk import write_walk

__all__ = [
    "Page",
    "comparison_figure",
    "directions_figure",
    "distance_figure",
    "edit_figure",
    "effects_figure",
    "explore",
    "growth_figure",
    "history_figure",
    "importance_figure",
    "interventions_figure",
    "inversion_figure",
    "map_figure",
    "render_images",
    "to_uint8",
    "translation_figure",
    "write_edits",
    "write_walk",
]
