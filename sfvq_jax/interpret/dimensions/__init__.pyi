from .coordinates import Coordinates, coordinates_along, curve_lines, intervene, latent_axes
from .goals import Found
from .growth import GrownSet, grow_set
from .importance import Effects, Ranking, intervention_effects, joint_scores
from .masks import mask_ranking, optimise_mask, published_mask
from .moves import Move
from .sparsity import gini, hoyer, overlap
from .summary import Concentration, WaySummary, concentration, flip_matrix, translation_summary
from .translation import Translation, translate

__all__ = [
    "Concentration",
    "Coordinates",
    "Effects",
    "Found",
    "GrownSet",
    "Move",
    "Ranking",
    "Translation",
    "WaySummary",
    "concentration",
    "coordinates_along",
    "curve_lines",
    "flip_matrix",
    "gini",
    "grow_set",
    "hoyer",
    "intervene",
    "intervention_effects",
    "joint_scores",
    "latent_axes",
    "mask_ranking",
    "optimise_mask",
    "overlap",
    "published_mask",
    "translate",
    "translation_summary",
]
