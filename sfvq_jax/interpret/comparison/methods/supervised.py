"""Supervised directions: for each attribute of a scorer one that was made to raise it.

The others are told of no attribute, so these are no fair contender but the ceiling: what can be had
by who knows in advance what to look for.

Letters: N samples, D dimensions, A attributes.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
import scipy.optimize

from sfvq_jax.interpret.attributes import Scorer
from sfvq_jax.interpret.comparison.methods.method import Fitted, in_all_ranges, look_at
from sfvq_jax.interpret.geometry import unit_rows
from sfvq_jax.latent_model import LatentModel

Array = jax.Array

PENALTY = 1.0  # C of the support vector machine


@dataclasses.dataclass(frozen=True)
class ClassMeans:
    """Directions from the mean of latents without an attribute to the mean of those with it.

    Attributes:
      scorer: scorer of the attributes; it need not be differentiable.
      samples: number N of samples.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import ClassMeans, Scorer
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> colours = Scorer.of(lambda images: images.mean((1, 2)), ["red", "green", "blue"])
    >>> fitted = ClassMeans(colours, samples=256).fit(jax.random.key(0), model)
    >>> print(abs(fitted.directions[0, 0]).argmax(1))  # red, green and blue
    [0 1 2]
    """

    scorer: Scorer
    samples: int = 2**13

    name = "class means, supervised"

    def fit(self, key: Array, model: LatentModel) -> Fitted:
        """Attributes that all images have, or none, have no direction."""
        return _fitted(key, model, self.scorer, self.samples, _difference)


@dataclasses.dataclass(frozen=True)
class Hyperplane:
    """Normals of planes that separate latents with and without an attribute, as in InterFaceGAN.

    They come from a linear support vector machine (InterFaceGAN; Shen et al., CVPR 2020, arXiv
    1907.10786, §2.1), here with squared hinge loss and C = 1. It is fitted on the latents that have
    the attribute and as many latents with the lowest scores.

    Attributes:
      scorer: scorer of the attributes; it need not be differentiable.
      samples: number N of samples.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import Hyperplane, Scorer
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> colours = Scorer.of(lambda images: images.mean((1, 2)), ["red", "green", "blue"])
    >>> fitted = Hyperplane(colours, samples=256).fit(jax.random.key(0), model)
    >>> print(abs(fitted.directions[0, 0]).argmax(1))  # red, green and blue
    [0 1 2]
    """

    scorer: Scorer
    samples: int = 2**13

    name = "hyperplanes, supervised"

    def fit(self, key: Array, model: LatentModel) -> Fitted:
        """Attributes that all images have, or none, have no direction."""
        return _fitted(key, model, self.scorer, self.samples, _normal)


def _fitted(
    key: Array,
    model: LatentModel,
    scorer: Scorer,
    samples: int,
    vector: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
) -> Fitted:
    latents = model.sample(key, samples)
    scores = look_at(model, latents, scorer)
    has, x = scores > scorer.thresholds_among(scores), np.asarray(latents, np.float64)
    split = [a for a in range(has.shape[1]) if 0 < has[:, a].sum() < len(x)]
    vectors = [vector(x, scores[:, a], has[:, a]) for a in split]
    return Fitted(in_all_ranges(unit_rows(vectors), model.num_layers))


def _difference(x: np.ndarray, scores: np.ndarray, has: np.ndarray) -> np.ndarray:
    """Of latents [N, D], some of which have an attribute, [N] bool: difference of means, [D]."""
    return x[has].mean(0) - x[~has].mean(0)


def _normal(x: np.ndarray, scores: np.ndarray, has: np.ndarray) -> np.ndarray:
    """The normal [D] of the plane between them and as many of the others of least score."""
    least = np.flatnonzero(~has)[np.argsort(scores[~has], kind="stable")[: has.sum()]]
    rows = np.concatenate([np.flatnonzero(has), least])
    signs = np.where(has[rows], 1.0, -1.0)
    # far from 0 the bias would have to be large, which takes many steps
    centred = np.append(x[rows] - x[rows].mean(0), np.ones((len(rows), 1)), 1)

    def loss(plane: np.ndarray) -> tuple[float, np.ndarray]:
        short = np.maximum(1 - signs * (centred @ plane), 0)
        free = np.append(plane[:-1], 0)  # the bias has no penalty
        value = free @ free / 2 + PENALTY * (short**2).sum()
        return value, free - 2 * PENALTY * centred.T @ (signs * short)

    start = np.zeros(centred.shape[1])
    return scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x[:-1]
