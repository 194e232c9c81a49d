"""Random directions and pairs, which every other method has to beat; M of them."""

import dataclasses

import jax
import numpy as np

from sfvq_jax.interpret.comparison.methods.method import COUNT, Fitted, draw_latents, in_all_ranges
from sfvq_jax.interpret.geometry import onto_span, unit_rows
from sfvq_jax.latent_model import LatentModel

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class RandomDirections:
    """Directions drawn uniformly from all in which latents differ: a baseline for methods.

    Attributes:
      count: number M of directions.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> from sfvq_jax.interpret import RandomDirections
    >>> model = SimpleNamespace(
    ...     latent_dim=3, num_layers=1, sample=lambda key, n, **_: jax.random.normal(key, (n, 3)))
    >>> RandomDirections(count=5).fit(jax.random.key(0), model).directions[0, 0].shape
    (5, 3)
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
    """Directions from a random latent to another: a baseline for pairs of codewords.

    Attributes:
      count: number M of directions; by default the number of pairs of 64 codewords.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> from sfvq_jax.interpret import RandomPairs
    >>> model = SimpleNamespace(
    ...     latent_dim=3, num_layers=1, sample=lambda key, n, **_: jax.random.normal(key, (n, 3)))
    >>> RandomPairs(count=5).fit(jax.random.key(0), model).directions[0, 0].shape
    (5, 3)
    """

    count: int = 2016

    name = "random pairs"

    def fit(self, key: Array, model: LatentModel) -> Fitted:
        latents = np.asarray(model.sample(key, 2 * self.count), np.float64)
        vectors = unit_rows(latents[self.count :] - latents[: self.count])
        return Fitted(in_all_ranges(vectors, model.num_layers))
