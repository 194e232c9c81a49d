"""Space-filling vector quantisation in JAX: fit a curve to latent vectors, and read it as a map."""

from sfvq_jax.adam import Adam
from sfvq_jax.curve import Curve, curve_length, decode, line_lengths
from sfvq_jax.devices import data_mesh
from sfvq_jax.dither import dithered_loss
from sfvq_jax.fit import fit
from sfvq_jax.fit_array import StageInfo, fit_array
from sfvq_jax.history import History, Report
from sfvq_jax.io.curve_file import CurveRecord, check_belongs, load_curve, save_curve
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.least_squares import LeastSquares
from sfvq_jax.projection import Projection, distortion, encode, project
from sfvq_jax.quality import CodebookQuality, codebook_quality, same_class_share
from sfvq_jax.result import FitResult
from sfvq_jax.solver import Info, Solver, step
from sfvq_jax.sources import ArraySource, HostSource, IteratorSource, SamplerSource, Source
from sfvq_jax.subdivision import initial_curve, subdivide

__all__ = [
    "Adam",
    "ArraySource",
    "CodebookQuality",
    "Curve",
    "CurveRecord",
    "FitResult",
    "History",
    "HostSource",
    "Info",
    "IteratorSource",
    "LatentModel",
    "LeastSquares",
    "Projection",
    "Report",
    "SamplerSource",
    "Solver",
    "Source",
    "StageInfo",
    "check_belongs",
    "codebook_quality",
    "curve_length",
    "data_mesh",
    "decode",
    "distortion",
    "dithered_loss",
    "encode",
    "fit",
    "fit_array",
    "initial_curve",
    "line_lengths",
    "load_curve",
    "project",
    "same_class_share",
    "save_curve",
    "step",
    "subdivide",
]
