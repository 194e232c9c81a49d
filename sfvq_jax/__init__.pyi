from . import interpret, layers, views
from .adam import Adam
from .curve import Curve, curve_length, decode, line_lengths
from .devices import data_mesh
from .dither import dithered_loss
from .fit import fit
from .fit_array import StageInfo, fit_array
from .history import History, Report
from .io.curve_file import CurveRecord, check_belongs, load_curve, save_curve
from .latent_model import LatentModel
from .least_squares import LeastSquares
from .memory import limited_memory
from .projection import Projection, distortion, encode, project
from .quality import CodebookQuality, codebook_quality, same_class_share
from .result import FitResult
from .solver import Info, Solver, step
from .sources import ArraySource, HostSource, IteratorSource, SamplerSource, Source
from .streaming import Stream, StreamInfo, partial_fit, start_stream
from .subdivision import initial_curve, resample, subdivide

__version__: str

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
    "Stream",
    "StreamInfo",
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
    "interpret",
    "layers",
    "limited_memory",
    "line_lengths",
    "load_curve",
    "partial_fit",
    "project",
    "resample",
    "same_class_share",
    "save_curve",
    "start_stream",
    "step",
    "subdivide",
    "views",
]
