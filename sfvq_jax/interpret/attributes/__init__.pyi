from .file import Scorers, load_scorers, save_scorers
from .fitting import ScorerFit, ScorersFit, fit_scorer, fit_scorers
from .inside import Inside, small_pixels
from .network import FittedFunction
from .scorer import Scorer, class_scorer, join, probability
from .statistics import (
    LEAST_SHARE,
    LOOKED_AT,
    OF_BACKGROUND,
    STATISTICS,
    Statistics,
    has_background,
    image_statistics,
    judging_statistics,
    no_background,
    statistics_of,
)

__all__ = [
    "LEAST_SHARE",
    "LOOKED_AT",
    "OF_BACKGROUND",
    "STATISTICS",
    "FittedFunction",
    "Inside",
    "Scorer",
    "ScorerFit",
    "Scorers",
    "ScorersFit",
    "Statistics",
    "class_scorer",
    "fit_scorer",
    "fit_scorers",
    "has_background",
    "image_statistics",
    "join",
    "judging_statistics",
    "load_scorers",
    "no_background",
    "probability",
    "save_scorers",
    "small_pixels",
    "statistics_of",
]
