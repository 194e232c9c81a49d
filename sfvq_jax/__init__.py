"""Space-filling vector quantisation in JAX: fit a curve to latent vectors, and read it as a map."""

from sfvq_jax.curve import Curve, curve_length, decode, initial_curve, line_lengths, subdivide
from sfvq_jax.curve_file import CurveRecord, check_belongs, load_curve, save_curve
from sfvq_jax.fit import FitResult, History, Report, fit
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.objective import dithered_loss
from sfvq_jax.projection import Projection, distortion, project
from sfvq_jax.quality import CodebookQuality, codebook_quality, same_class_share
from sfvq_jax.sharding import data_mesh
from sfvq_jax.solvers import Adam, LeastSquares
from sfvq_jax.sources import ArraySource, HostSource, IteratorSource, SamplerSource, Source

__all__ = [
    "Adam",
    "ArraySource",
    "CodebookQuality",
    "Curve",
    "CurveRecord",
    "FitResult",
    "History",
    "HostSource",
    "IteratorSource",
    "LatentModel",
    "LeastSquares",
    "Projection",
    "Report",
    "SamplerSource",
    "Source",
    "check_belongs",
    "codebook_quality",
    "curve_length",
    "data_mesh",
    "decode",
    "distortion",
    "dithered_loss",
    "fit",
    "initial_curve",
    "line_lengths",
    "load_curve",
    "project",
    "same_class_share",
    "save_curve",
    "subdivide",
]
