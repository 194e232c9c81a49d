from .feature_space import FeaturePCA
from .gan_space import ICA, PCA
from .k_means import KMeans
from .latent_clr import LatentCLR
from .method import Fitted, Method, in_all_ranges
from .random import RandomDirections, RandomPairs
from .se_fa import SeFa
from .sfvq import SFVQ, curve_pairs
from .supervised import ClassMeans, Hyperplane

__all__ = [
    "ICA",
    "PCA",
    "SFVQ",
    "ClassMeans",
    "FeaturePCA",
    "Fitted",
    "Hyperplane",
    "KMeans",
    "LatentCLR",
    "Method",
    "RandomDirections",
    "RandomPairs",
    "SeFa",
    "curve_pairs",
    "in_all_ranges",
]
