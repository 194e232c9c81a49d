from .file import Scorers, load_scorers, save_scorers
from .fitting import ScorerFit, ScorersFit, fit_scorer, fit_scorers
from .inside import Inside, small_pixels
from .network import FittedFunction
from .scorer import Scorer, class_scorer, join, probability
from .statistics import STATISTICS, image_statistics, judging_statistics

__all__ = [
    "STATISTICS",
    "FittedFunction",
    "Inside",
    "Scorer",
    "ScorerFit",
    "Scorers",
    "ScorersFit",
    "class_scorer",
    "fit_scorer",
    "fit_scorers",
    "image_statistics",
    "join",
    "judging_statistics",
    "load_scorers",
    "probability",
    "save_scorers",
    "small_pixels",
]
