from .comparing import compare, default_methods
from .methods import (
    PCA,
    SFVQ,
    ClassMeans,
    Fitted,
    Hyperplane,
    KMeans,
    LatentCLR,
    Method,
    RandomDirections,
    RandomPairs,
    SeFa,
)
from .tables import Comparison, Gap, MethodSummary, order_summary, summary

__all__ = [
    "PCA",
    "SFVQ",
    "ClassMeans",
    "Comparison",
    "Fitted",
    "Gap",
    "Hyperplane",
    "KMeans",
    "LatentCLR",
    "Method",
    "MethodSummary",
    "RandomDirections",
    "RandomPairs",
    "SeFa",
    "compare",
    "default_methods",
    "order_summary",
    "summary",
]
