from .bench import Bench, Effect, Gain, Walk
from .candidates import layer_ranges, layers_price
from .choosing import merit_of
from .file import DirectionRecord, load_direction, measured_of, save_direction
from .finding import FoundDirection, find_directions
from .gradients import attribute_gradients
from .imports import import_directions
from .screening import search_vectors

__all__ = [
    "Bench",
    "DirectionRecord",
    "Effect",
    "FoundDirection",
    "Gain",
    "Walk",
    "attribute_gradients",
    "find_directions",
    "import_directions",
    "layer_ranges",
    "layers_price",
    "load_direction",
    "measured_of",
    "merit_of",
    "save_direction",
    "search_vectors",
]
