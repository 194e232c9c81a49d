"""Vectors and distances in any latent space: unit vectors, spans, nearest points, means.

Letters: N samples, D dimensions, M points or vectors, K means, C components.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import lax
from scipy.cluster.vq import kmeans2

Array = jax.Array

RANK = 1e-9  # eigenvalues below so much of the largest are rounding errors of zero
KMEANS_ROUNDS = 20


def unit_rows(vectors: Array | np.ndarray | Sequence[np.ndarray]) -> Array:
    """Vectors [M, D] of length 1, float32; those of no length are left out."""
    vectors = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(vectors, axis=1)
    kept = lengths > 0
    return jnp.asarray(vectors[kept] / lengths[kept, None], jnp.float32)


class Eigen(NamedTuple):
    """The largest eigenvalues [C], from the largest on, and their eigenvectors [D, C]."""

    values: np.ndarray
    vectors: np.ndarray


def largest_eigen(symmetric: np.ndarray, count: int) -> Eigen:
    """At most `count` of a positive semidefinite matrix [D, D] float64, those of zero left out."""
    d = len(symmetric)
    ends = (max(d - count, 0), d - 1)
    values, vectors = scipy.linalg.eigh(symmetric, subset_by_index=ends)
    kept = np.flatnonzero(values > RANK * max(values[-1], 0))[::-1]
    return Eigen(values[kept], vectors[:, kept])


def onto_span(latents: np.ndarray) -> np.ndarray | None:
    """The projection [D, D] onto the directions in which latents [N, D] differ; None for all."""
    centred = latents - latents.mean(0, dtype=np.float64)
    basis = largest_eigen(centred.T @ centred, latents.shape[1]).vectors
    return None if basis.shape[1] == latents.shape[1] else basis @ basis.T


class Nearest(NamedTuple):
    """Of samples [N]: the number of the nearest point, [N] int32, and its distance, [N]."""

    point: Array
    distance: Array


@jax.jit
def nearest(points: Array, x: Array) -> Nearest:
    """The nearest of points [M, D] to each of samples [N, D], in memory for 256 × M distances."""
    origin = points.mean(0, keepdims=True)
    centred = points - origin
    half_norm = jnp.sum(centred**2, 1) / 2
    point = lax.map(
        lambda row: jnp.argmin(half_norm - jnp.matmul(centred, row, precision="highest")),
        x - origin,
        batch_size=256,
    )
    # from the difference itself, which has lost no digits
    return Nearest(point, jnp.sqrt(jnp.sum((x - points[point]) ** 2, 1)))


def kmeans(random: np.random.Generator, x: np.ndarray, k: int) -> np.ndarray:
    """K means of samples [N, D]: k-means++ (Arthur & Vassilvitskii, 2007), then 20 rounds at most.

    SciPy's own k-means++ takes time K² N D.
    """
    centre = x.mean(0)
    x = x - centre
    means, squared_norm = np.empty((k, x.shape[1]), x.dtype), np.sum(x**2, 1)
    chosen, squared_distance = random.integers(len(x)), np.full(len(x), np.inf, x.dtype)
    for i in range(k):
        means[i] = new = x[chosen]
        squared_distance = np.minimum(squared_distance, squared_norm - 2 * (x @ new) + new @ new)
        reached = np.cumsum(np.maximum(squared_distance, 0), dtype=np.float64)
        chosen = min(np.searchsorted(reached, random.uniform(0, reached[-1])), len(x) - 1)
    with warnings.catch_warnings():  # a mean of no samples stays where it is
        warnings.simplefilter("ignore", UserWarning)
        return kmeans2(x, means, iter=KMEANS_ROUNDS, minit="matrix")[0] + centre


def numpy_generator(key: Array) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))
