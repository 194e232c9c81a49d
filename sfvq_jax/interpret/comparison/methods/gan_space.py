"""GANSpace: principal components.

Letters: N samples, F activations, C components.
"""

import dataclasses

import jax
import numpy as np

from sfvq_jax.images import in_batches
from sfvq_jax.interpret.comparison.methods.method import COUNT, Fitted, in_all_ranges
from sfvq_jax.interpret.geometry import largest_eigen, unit_rows
from sfvq_jax.latent_model import LatentModel, method

Array = jax.Array

BATCH = 256  # latents whose activations are computed at once


@dataclasses.dataclass(frozen=True)
class PCA:
    """Principal components (GANSpace; Härkönen et al., 2020, arXiv 2004.02546).

    Of the latents; or, where the model has `activations`, of these, with the way back to latents by
    least squares (§3.2): with x_j the coordinates of activations along the components, z_j the
    latents and z̄ their mean, U = argmin Σ_j |U x_j - (z_j - z̄)|², whose columns are the directions.

    Memory and time are those of exact components: min(N, F)² and min(N, F)³.

    Attributes:
      count: of the components of greatest variance; those of none are left out.
      samples: N.
    """

    count: int = COUNT
    samples: int = 2**14

    name = "GANSpace, PCA"

    def fit(self, key: Array, model: LatentModel) -> Fitted:
        latents = np.asarray(model.sample(key, self.samples))
        seen = latents
        if hasattr(model, "activations"):
            activations = jax.jit(method(model, "activations"))
            seen = in_batches(activations, latents, BATCH)
        coordinates = _principal_coordinates(seen.astype(np.float64), self.count)
        centred = latents - latents.mean(0, dtype=np.float64)
        # coordinates along different components are uncorrelated, so that each has its own U; its
        # length does not matter. For the latents themselves it is the component.
        return Fitted(in_all_ranges(unit_rows(coordinates.T @ centred), model.num_layers))


def _principal_coordinates(x: np.ndarray, count: int) -> np.ndarray:
    """Coordinates of samples [N, F] along their principal components, [N, C], C <= count."""
    x = x - x.mean(0)
    n, f = x.shape
    if n < f:  # the same from the smaller of two matrices, but for a factor a component
        return largest_eigen(x @ x.T, count).vectors
    return x @ largest_eigen(x.T @ x, count).vectors
