from .attributes import sample_by_attribute
from .balance import sample_balanced
from .dataset import write_dataset
from .drawing import Samples
from .labelled import LabelledSamples, sample_labelled
from .lines import positions_along, sample_around

__all__ = [
    "LabelledSamples",
    "Samples",
    "positions_along",
    "sample_around",
    "sample_balanced",
    "sample_by_attribute",
    "sample_labelled",
    "write_dataset",
]
