from .likeness import ImageDistance
from .optimising import Inversion, invert

__all__ = ["ImageDistance", "Inversion", "invert"]
