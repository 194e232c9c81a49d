"""GANSpace: principal and independent components.

Letters: N samples, F activations, C components.
"""

import dataclasses

import jax
import numpy as np

from sfvq_jax.images import in_batches
from sfvq_jax.interpret.comparison.methods.method import COUNT, Fitted, in_all_ranges
from sfvq_jax.interpret.geometry import largest_eigen, numpy_generator, unit_rows
from sfvq_jax.latent_model import LatentModel, method

Array = jax.Array

BATCH = 256  # latents whose activations are computed at once
ICA_ROUNDS = 200
ICA_TOLERANCE = 1e-4  # of a cosine; both are scikit-learn's


@dataclasses.dataclass(frozen=True)
class PCA:
    """Principal components (GANSpace; Härkönen et al., 2020, arXiv 2004.02546).

    They are components of the latents or, if the model has `activations`, of these, brought back to
    latents by least squares (§3.2). With x_j the coordinates of activations along the components,
    z_j the latents and z̄ their mean, U = argmin Σ_j |U x_j - (z_j - z̄)|²; its columns are the
    directions.

    Exact components need memory of min(N, F)² and time of min(N, F)³.

    Attributes:
      count: number of components of largest variance; those without variance are left out.
      samples: number N of samples.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> from sfvq_jax.interpret import PCA
    >>> model = SimpleNamespace(
    ...     latent_dim=3, num_layers=1, sample=lambda key, n, **_: jax.random.normal(key, (n, 3)))
    >>> PCA(count=2, samples=256).fit(jax.random.key(0), model).directions[0, 0].shape
    (2, 3)
    """

    count: int = COUNT
    samples: int = 2**14

    name = "GANSpace, PCA"

    def fit(self, key: Array, model: LatentModel) -> Fitted:
        latents, seen = _seen(key, model, self.samples)
        vectors = _way_back(_principal_coordinates(seen, self.count), latents)
        return Fitted(in_all_ranges(unit_rows(vectors), model.num_layers))


@dataclasses.dataclass(frozen=True)
class ICA:
    """Independent components, GANSpace's other choice, of latents or activations as for `PCA`.

    FastICA (Hyvärinen, 1999, IEEE Transactions on Neural Networks 10(3)) finds all components at
    once, by the log of cosh, within the principal components of largest variance. If latents are
    normal, as in Z, all directions are equally independent, and the result is arbitrary.

    Attributes:
      count: number of components; those that explain most of the latents' variance come first.
      samples: number N of samples.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> from sfvq_jax.interpret import ICA
    >>> model = SimpleNamespace(
    ...     latent_dim=3, num_layers=1, sample=lambda key, n, **_: jax.random.normal(key, (n, 3)))
    >>> ICA(count=2, samples=256).fit(jax.random.key(0), model).directions[0, 0].shape
    (2, 3)
    """

    count: int = COUNT
    samples: int = 2**14

    name = "GANSpace, ICA"

    def fit(self, key: Array, model: LatentModel) -> Fitted:
        latents, seen = _seen(key, model, self.samples)
        start_key = jax.random.fold_in(key, 1)
        white = _principal_coordinates(seen, self.count)
        white *= np.sqrt(len(white)) / np.linalg.norm(white, axis=0)
        vectors = _way_back(_independent(numpy_generator(start_key), white), latents)
        vectors = vectors[np.argsort(-np.linalg.norm(vectors, axis=1), kind="stable")]
        return Fitted(in_all_ranges(unit_rows(vectors), model.num_layers))


def _seen(key: Array, model: LatentModel, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Latents [N, D], and their activations where the model has some, [N, F]; float64."""
    latents = np.asarray(model.sample(key, samples))
    seen = latents
    if hasattr(model, "activations"):
        seen = in_batches(jax.jit(method(model, "activations")), latents, BATCH)
    return latents.astype(np.float64), seen.astype(np.float64)


def _way_back(coordinates: np.ndarray, latents: np.ndarray) -> np.ndarray:
    """Directions [C, D] in which latents [N, D] change with coordinates [N, C] (see `PCA`).

    Coordinates along different components are uncorrelated, so that each has its own U. Here it is
    as long as the coordinate's variance makes it; for the latents themselves it is the component.
    """
    return coordinates.T @ (latents - latents.mean(0))


def _principal_coordinates(x: np.ndarray, count: int) -> np.ndarray:
    """Coordinates of samples [N, F] along their principal components, [N, C], C <= count."""
    x = x - x.mean(0)
    n, f = x.shape
    if n < f:  # the same from the smaller of two matrices, but for a factor a component
        return largest_eigen(x @ x.T, count).vectors
    return x @ largest_eigen(x.T @ x, count).vectors


def _independent(random: np.random.Generator, white: np.ndarray) -> np.ndarray:
    """Coordinates [N, C] along independent components, of uncorrelated ones of variance 1."""
    n, c = white.shape
    rotation = _orthogonal(random.standard_normal((c, c)))
    for _ in range(ICA_ROUNDS):
        slopes = np.tanh(white @ rotation.T)
        moved = slopes.T @ white / n - (1 - slopes**2).mean(0)[:, None] * rotation
        before, rotation = rotation, _orthogonal(moved)
        # of each component; its sign does not matter
        if np.abs(np.abs((rotation * before).sum(1)) - 1).max() < ICA_TOLERANCE:
            break
    return white @ rotation.T


def _orthogonal(matrix: np.ndarray) -> np.ndarray:
    """The nearest orthogonal matrix."""
    left, _, right = np.linalg.svd(matrix)
    return left @ right
