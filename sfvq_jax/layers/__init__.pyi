from . import linen, nnx
from .gradients import GRADIENTS, through_noise, through_point, toward_ends, toward_point
from .quantiser import Quantised, Quantiser, Upkeep, curve_of

__all__ = [
    "GRADIENTS",
    "Quantised",
    "Quantiser",
    "Upkeep",
    "curve_of",
    "linen",
    "nnx",
    "through_noise",
    "through_point",
    "toward_ends",
    "toward_point",
]
