"""Methods that give directions in a latent space: SFVQ, and others to compare it with.

Each is a value, `fit` of which looks at a model and gives unit vectors for every range of layers.
None is told what the directions should do; which of them raise an attribute is for others to say.

Letters: N samples, D dimensions, L layers, K codewords, M directions, F activations, O styles.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from sfvq_jax.curve import Curve
from sfvq_jax.fit import DEFAULT_SOLVER, fit
from sfvq_jax.images import in_batches
from sfvq_jax.interpret.map_quality import kmeans, numpy_generator
from sfvq_jax.interpret.screening import layer_ranges
from sfvq_jax.latent_model import LatentModel, method
from sfvq_jax.quality import shorter_order
from sfvq_jax.short import short_repr
from sfvq_jax.solver import Solver

Array = jax.Array

COUNT = 63  # directions, as many as a curve of 6 bits has lines
LATENTS = 4096  # at least, to see how they spread
BATCH = 256  # latents whose activations are computed at once
RANK = 1e-9  # eigenvalues below so much of the largest are rounding errors of zero


class Fitted(NamedTuple):
    """What a method has found.

    Attributes:
      directions: first and last layer of a range, both included -> unit vectors, [M, D] float32;
        the most important first where the method ranks. M may differ from range to range.
      curve: of methods that fit one, else None.
    """

    directions: Mapping[tuple[int, int], Array]
    curve: Curve | None = None

    __repr__ = short_repr


@runtime_checkable
class Method(Protocol):
    """Any way to directions in a latent space.

    >>> import ports
    >>> model = ports.load(ports.bundled("fashion_mnist"))
    >>> fitted = PCA(count=5, samples=256).fit(jax.random.key(0), model)
    >>> len(fitted.directions), fitted.directions[0, 3].shape
    (36, (5, 64))
    """

    @property
    def name(self) -> str: ...

    def fit(self, key: Array, model: LatentModel) -> Fitted:
        """Directions for all ranges of the model's layers; the same key gives the same ones."""
        ...


def in_all_ranges(vectors: Array, num_layers: int) -> dict[tuple[int, int], Array]:
    """The same vectors [M, D] for every range of layers, of a method that knows no layers."""
    return dict.fromkeys(layer_ranges(num_layers), vectors)


@dataclasses.dataclass(frozen=True)
class SFVQ:
    """Lines of a curve (Vali & Bäckström, TMLR 2025, arXiv 2410.20573).

    Attributes:
      bits: the curve has 2**bits codewords.
      solver: of `sfvq_jax.fit`.
    """

    bits: int = 6
    solver: Solver = DEFAULT_SOLVER

    name = "SFVQ"

    def fit(self, key: Array, model: LatentModel) -> Fitted:
        return _along(fit(key, model, bits=self.bits, solver=self.solver).curve, model)


@dataclasses.dataclass(frozen=True)
class KMeans:
    """Lines of a short path through the means of k-means: order as an afterthought.

    Nearest neighbour, then 2-opt (`shorter_order`).

    Attributes:
      codewords: K.
      samples: latents, K or more.
    """

    codewords: int = 64
    samples: int = 2**14

    name = "k-means"

    def fit(self, key: Array, model: LatentModel) -> Fitted:
        """Raises ValueError for fewer latents than codewords."""
        if self.samples < self.codewords:
            raise ValueError(f"{self.samples} latents have no {self.codewords} means")
        sample_key, key = jax.random.split(key)
        latents = np.asarray(model.sample(sample_key, self.samples))
        means = kmeans(numpy_generator(key), latents, self.codewords)
        return _along(Curve(jnp.asarray(means[shorter_order(means)])), model)


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


@dataclasses.dataclass(frozen=True)
class SeFa:
    """What moves the styles most (Shen & Zhou, CVPR 2021, arXiv 2007.06600).

    The directions n for a range of layers are those of greatest |A n|², the eigenvectors of AᵀA,
    where A has the `style_weights` of these layers one below the other. As in the public code, not
    the paper, each row of A, which makes one style, is scaled to unit length before.

    Attributes:
      count: directions a range; fewer where all others would change no style at all.
    """

    count: int = COUNT

    name = "SeFa"

    def fit(self, key: Array, model: LatentModel) -> Fitted:
        """Raises ValueError for a model without `style_weights`; `key` decides on nothing."""
        style_weights = getattr(model, "style_weights", None)
        if style_weights is None:
            raise ValueError(
                "SeFa factorises the weights that make styles of latents, and this model has no"
                " style_weights: add that method (see LatentModel), or choose another way"
            )
        grams = np.stack([_style_gram(weight) for weight in style_weights()])
        directions = {}
        for first, last in layer_ranges(model.num_layers):
            of_range = grams[first : last + 1].sum(0)
            vectors = unit_rows(_eigen(of_range, self.count).vectors.T)
            if len(vectors):  # layers without styles have none
                directions[first, last] = vectors
        return Fitted(directions)


@dataclasses.dataclass(frozen=True)
class RandomDirections:
    """Directions drawn evenly from all in which latents differ: what a method has to beat.

    Attributes:
      count: M.
    """

    count: int = COUNT

    name = "random"

    def fit(self, key: Array, model: LatentModel) -> Fitted:
        vectors = jax.random.normal(key, (self.count, model.latent_dim))
        projector = onto_span(draw_latents(jax.random.fold_in(key, 1), model))
        if projector is not None:
            vectors = np.asarray(vectors) @ projector
        return Fitted(in_all_ranges(unit_rows(vectors), model.num_layers))


@dataclasses.dataclass(frozen=True)
class RandomPairs:
    """From a random latent to another: what pairs of codewords should be better than.

    Attributes:
      count: M; by default that of the pairs of 64 codewords.
    """

    count: int = 2016

    name = "random pairs"

    def fit(self, key: Array, model: LatentModel) -> Fitted:
        latents = np.asarray(model.sample(key, 2 * self.count), np.float64)
        vectors = unit_rows(latents[self.count :] - latents[: self.count])
        return Fitted(in_all_ranges(vectors, model.num_layers))


def _along(curve: Curve, model: LatentModel) -> Fitted:
    """The lines of a curve."""
    vectors = unit_rows(np.diff(np.asarray(curve.codewords, np.float64), axis=0))
    return Fitted(in_all_ranges(vectors, model.num_layers), curve)


def curve_pairs(curve: Curve) -> Array:
    """Unit vectors [K (K - 1) / 2, D] from each codeword to every later one."""
    codewords = np.asarray(curve.codewords, np.float64)
    start, stop = np.triu_indices(len(codewords), 1)
    return unit_rows(codewords[stop] - codewords[start])


class _Eigen(NamedTuple):
    """The largest eigenvalues [C], from the largest on, and their eigenvectors [D, C]."""

    values: np.ndarray
    vectors: np.ndarray


def _eigen(symmetric: np.ndarray, count: int) -> _Eigen:
    """At most `count` of a positive semidefinite matrix [D, D] float64, those of zero left out."""
    d = len(symmetric)
    ends = (max(d - count, 0), d - 1)
    values, vectors = scipy.linalg.eigh(symmetric, subset_by_index=ends)
    kept = np.flatnonzero(values > RANK * max(values[-1], 0))[::-1]
    return _Eigen(values[kept], vectors[:, kept])


def _principal_coordinates(x: np.ndarray, count: int) -> np.ndarray:
    """Coordinates of samples [N, F] along their principal components, [N, C], C <= count."""
    x = x - x.mean(0)
    n, f = x.shape
    if n < f:  # the same from the smaller of two matrices, but for a factor a component
        return _eigen(x @ x.T, count).vectors
    return x @ _eigen(x.T @ x, count).vectors


def _style_gram(weight: Array) -> np.ndarray:
    """AᵀA, [D, D], of a layer's weights [O, D] with rows of unit length."""
    rows = np.asarray(weight, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(lengths > 0, lengths, 1)
    return rows.T @ rows


def draw_latents(key: Array, model: LatentModel) -> np.ndarray:
    """So many latents [N, D] that they fill all dimensions that the model's latents fill."""
    return np.asarray(model.sample(key, max(LATENTS, 2 * model.latent_dim)))


def onto_span(latents: np.ndarray) -> np.ndarray | None:
    """The projection [D, D] onto the directions in which latents [N, D] differ; None for all."""
    centred = latents - latents.mean(0, dtype=np.float64)
    basis = _eigen(centred.T @ centred, latents.shape[1]).vectors
    return None if basis.shape[1] == latents.shape[1] else basis @ basis.T


def unit_rows(vectors: Array | np.ndarray | Sequence[np.ndarray]) -> Array:
    """Vectors [M, D] of length 1, float32; those of no length are left out."""
    vectors = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(vectors, axis=1)
    kept = lengths > 0
    return jnp.asarray(vectors[kept] / lengths[kept, None], jnp.float32)
