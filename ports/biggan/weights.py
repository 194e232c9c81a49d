"""Arrays of a BigGAN checkpoint: weights over their spectral norm, and batch statistics."""

import numpy as np

from ports.errors import CheckpointError
from ports.state_dict import Tensors


def divided_by_norm(name: str, weight: np.ndarray, norm: float) -> np.ndarray:
    """A weight divided by its spectral norm, which must not be 0 or nearly so."""
    with np.errstate(all="ignore"):
        divided = (weight / np.float64(norm)).astype(np.float32)
    if not np.isfinite(divided).all():
        raise CheckpointError(f"{name} has the spectral norm {norm:g}, which nothing is divided by")
    return divided


def normalised(state: Tensors, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight divided by its spectral norm uᵀWv, with the stored u and v (torch's own way)."""
    if f"{name}.weight_orig" not in state:  # normalised by who saved it
        return state.take(f"{name}.weight", shape)
    weight = state.take(f"{name}.weight_orig", shape)
    matrix = weight.reshape(shape[0], -1).astype(np.float64)
    u = state.take(f"{name}.weight_u", matrix.shape[:1])
    v = state.take(f"{name}.weight_v", matrix.shape[1:])
    state.pop(f"{name}.weight", None)  # what the last step of training computed with
    norm = u @ (matrix @ v)
    return divided_by_norm(f"{name}.weight_orig", weight, float(norm))


def check_statistics(name: str, mean: np.ndarray, var: np.ndarray, eps: float) -> None:
    """Raises CheckpointError for batch statistics that make images of NaN."""
    if not (np.isfinite(mean).all() and np.isfinite(var).all() and (var + eps > 0).all()):
        raise CheckpointError(f"{name} has a mean that is infinite or a variance that is negative")
