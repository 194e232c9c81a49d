"""The means of k-means, put into an order afterwards; K of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.curve import Curve
from sfvq_jax.interpret.comparison.methods.method import Fitted
from sfvq_jax.interpret.comparison.methods.sfvq import along_lines
from sfvq_jax.interpret.geometry import kmeans, numpy_generator
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.quality import shorter_order

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class KMeans:
    """Lines of a short path through the means of k-means, which are ordered afterwards.

    The order is found by nearest neighbour, then 2-opt (`shorter_order`).

    Attributes:
      codewords: number K of means.
      samples: number of latents, K or more.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> from sfvq_jax.interpret import KMeans
    >>> model = SimpleNamespace(
    ...     latent_dim=3, num_layers=1, sample=lambda key, n, **_: jax.random.normal(key, (n, 3)))
    >>> KMeans(codewords=8, samples=256).fit(jax.random.key(0), model).curve.num_lines
    7
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
        return along_lines(Curve(jnp.asarray(means[shorter_order(means)])), model)
