from .attributes import sample_by_attribute
from .balance import sample_balanced
from .dataset import write_dataset
from .drawing import Samples
from .labelled import LabelledPlaces, labelled_places
from .lines import positions_along, sample_around

__all__ = [
    "LabelledPlaces",
    "Samples",
    "labelled_places",
    "positions_along",
    "sample_around",
    "sample_balanced",
    "sample_by_attribute",
    "write_dataset",
]
