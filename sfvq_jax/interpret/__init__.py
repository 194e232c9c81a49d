"""What a curve is for: directions with names, edits, new samples, and the health of a map."""

from sfvq_jax.interpret.attributes import (
    STATISTICS,
    Scorer,
    class_scorer,
    image_statistics,
    join,
    judging_statistics,
)
from sfvq_jax.interpret.augmentation import (
    Samples,
    positions_along,
    sample_around,
    sample_balanced,
    sample_by_attribute,
)
from sfvq_jax.interpret.comparison import (
    Comparison,
    MethodSummary,
    compare,
    default_methods,
    order_summary,
    shared_attributes,
    summary,
)
from sfvq_jax.interpret.coordinates import (
    Coordinates,
    coordinates_along,
    curve_lines,
    intervene,
    latent_axes,
)
from sfvq_jax.interpret.dataset import write_dataset
from sfvq_jax.interpret.dimensions import (
    Effects,
    GrownSet,
    Ranking,
    gini,
    grow_set,
    hoyer,
    intervention_effects,
    joint_scores,
    overlap,
)
from sfvq_jax.interpret.direction_file import (
    DirectionRecord,
    load_direction,
    measured_of,
    save_direction,
)
from sfvq_jax.interpret.directions import FoundDirection, find_directions
from sfvq_jax.interpret.editing import (
    Direction,
    deviation_along,
    edit_latents,
    hold_attributes,
    line_direction,
    pair_direction,
    render_edits,
)
from sfvq_jax.interpret.fitted_scorer import (
    FittedFunction,
    ScorerFit,
    ScorersFit,
    fit_scorer,
    fit_scorers,
)
from sfvq_jax.interpret.latent_clr import LatentCLR
from sfvq_jax.interpret.map_quality import MapQuality, map_quality
from sfvq_jax.interpret.masks import mask_ranking, optimise_mask, published_mask
from sfvq_jax.interpret.measuring import Bench, Effect, Interval
from sfvq_jax.interpret.methods import (
    PCA,
    SFVQ,
    Fitted,
    KMeans,
    Method,
    RandomDirections,
    RandomPairs,
    SeFa,
)
from sfvq_jax.interpret.scorer_file import Scorers, load_scorers, save_scorers
from sfvq_jax.interpret.screening import attribute_gradients
from sfvq_jax.interpret.translation import Found, Move, Translation, translate
from sfvq_jax.interpret.translation_summary import (
    Concentration,
    WaySummary,
    concentration,
    flip_matrix,
    translation_summary,
)
from sfvq_jax.interpret.verdicts import Finding, report

__all__ = [
    "PCA",
    "SFVQ",
    "STATISTICS",
    "Bench",
    "Comparison",
    "Concentration",
    "Coordinates",
    "Direction",
    "DirectionRecord",
    "Effect",
    "Effects",
    "Finding",
    "Fitted",
    "FittedFunction",
    "Found",
    "FoundDirection",
    "GrownSet",
    "Interval",
    "KMeans",
    "LatentCLR",
    "MapQuality",
    "Method",
    "MethodSummary",
    "Move",
    "RandomDirections",
    "RandomPairs",
    "Ranking",
    "Samples",
    "Scorer",
    "ScorerFit",
    "Scorers",
    "ScorersFit",
    "SeFa",
    "Translation",
    "WaySummary",
    "attribute_gradients",
    "class_scorer",
    "compare",
    "concentration",
    "coordinates_along",
    "curve_lines",
    "default_methods",
    "deviation_along",
    "edit_latents",
    "find_directions",
    "fit_scorer",
    "fit_scorers",
    "flip_matrix",
    "gini",
    "grow_set",
    "hold_attributes",
    "hoyer",
    "image_statistics",
    "intervene",
    "intervention_effects",
    "join",
    "joint_scores",
    "judging_statistics",
    "latent_axes",
    "line_direction",
    "load_direction",
    "load_scorers",
    "map_quality",
    "mask_ranking",
    "measured_of",
    "optimise_mask",
    "order_summary",
    "overlap",
    "pair_direction",
    "positions_along",
    "published_mask",
    "render_edits",
    "report",
    "sample_around",
    "sample_balanced",
    "sample_by_attribute",
    "save_direction",
    "save_scorers",
    "shared_attributes",
    "summary",
    "translate",
    "translation_summary",
    "write_dataset",
]
