"""Directions that move a network's features along their principal components.

Letters: N samples, L layers, D dimensions, F features, C components.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.interpret.attributes import Scorer
from sfvq_jax.interpret.comparison.methods.method import COUNT, Fitted, look_at
from sfvq_jax.interpret.directions import attribute_gradients, layer_ranges
from sfvq_jax.interpret.directions.bench import called
from sfvq_jax.interpret.geometry import largest_eigen, unit_rows
from sfvq_jax.latent_model import LatentModel

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class FeaturePCA:
    """Principal components of a network's features of images, pulled back to the latents.

    This is GANSpace with features of a network that sees images, in place of those of the
    generator, and with derivatives in place of a regression. With J_n the derivatives of the
    features of image n by latents of variance 1 along all axes, u a component, and ρ a ridge, the
    direction is

      v = argmin Σ_n |J_n v - u|² + ρ |v|²,

    which moves features along u, and as little as possible otherwise, from every start. Each range
    of layers has its own directions. They are not told any attribute, but they contain what the
    network learnt about images.

    Attributes:
      scorer: the scorer whose `features` are used, or its scores if it has none; written in JAX.
      count: number C of components of largest variance, at most F.
      samples: number N of samples for the components.
      differentiated: number of latents whose derivatives are computed, C for each latent.
      ridge: ρ ÷ the mean over axes e of Σ_n |J_n e|²; a much smaller one gives purer directions
        along which latents hardly vary.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import FeaturePCA, Scorer
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> colours = Scorer.of(lambda images: images.mean((1, 2)), ["red", "green", "blue"])
    >>> method = FeaturePCA(colours, count=2, samples=256)
    >>> method.fit(jax.random.key(0), model).directions[0, 0].shape
    (2, 3)
    """

    scorer: Scorer
    count: int = COUNT
    samples: int = 2**12
    differentiated: int = 32
    ridge: float = 1.0

    name = "components of features"

    def fit(self, key: Array, model: LatentModel) -> Fitted:
        """Raises ValueError for a scorer or `render` that JAX cannot trace."""
        latents = model.sample(key, self.samples)
        features = jax.tree_util.Partial(self.scorer.features or self.scorer)
        seen = look_at(model, latents, lambda images: called(features, images)).astype(np.float64)
        centred = seen - seen.mean(0)
        components = largest_eigen(centred.T @ centred, self.count).vectors  # [F, C]
        along = Scorer.of(
            jax.tree_util.Partial(_along, features, jnp.asarray(components, jnp.float32)),
            [f"component {number}" for number in range(components.shape[1])],
        )
        gradients = attribute_gradients(model, along, latents[: self.differentiated])
        covariance = np.atleast_2d(np.cov(np.asarray(latents, np.float64), rowvar=False))
        values, axes = largest_eigen(covariance, model.latent_dim)
        spread = axes * np.sqrt(values)  # [D, R]
        directions = {}
        for first, last in layer_ranges(model.num_layers):
            of_range = gradients[:, :, first : last + 1].sum(2, dtype=np.float64) @ spread
            normal = np.einsum("ncr,ncs->rs", of_range, of_range)
            if not normal.any():  # layers that change nothing have no directions
                continue
            ridge = self.ridge * np.trace(normal) / len(normal) * np.eye(len(normal))
            pulled = np.linalg.solve(normal + ridge, of_range.sum(0).T)  # [R, C]
            directions[first, last] = unit_rows((spread @ pulled).T)
        return Fitted(directions)


def _along(features: jax.tree_util.Partial, components: Array, images: Array) -> Array:
    """Features [N, F] along components [F, C], but for their mean, [N, C]."""
    return jnp.matmul(features(images), components, precision="highest")
