"""What a method that gives directions in a latent space is.

Each is a value, `fit` of which looks at a model and gives unit vectors for every range of layers.
None is told what the directions should do; which of them raise an attribute is for others to say.

Letters: N samples, D dimensions, M directions.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from sfvq_jax.curve import Curve
from sfvq_jax.images import batch_of, in_batches
from sfvq_jax.interpret.directions import layer_ranges
from sfvq_jax.interpret.directions.bench import called
from sfvq_jax.interpret.edit import codes_of
from sfvq_jax.latent_model import LatentModel, method
from sfvq_jax.short import short_repr

Array = jax.Array

COUNT = 63  # directions, as many as a curve of 6 bits has lines
BATCH = 32  # images at once, fewer where they are large
LATENTS = 4096  # at least, to see how they spread


class Fitted(NamedTuple):
    """The directions that a method found.

    Attributes:
      directions: unit vectors, [M, D] float32, for each range of layers (first and last, both
        included); the most important first if the method ranks them. M may differ between ranges.
      curve: the curve of methods that fit one, otherwise None.
    """

    directions: Mapping[tuple[int, int], Array]
    curve: Curve | None = None

    __repr__ = short_repr


@runtime_checkable
class Method(Protocol):
    """Protocol for any method that finds directions in a latent space.

    >>> import ports
    >>> from sfvq_jax.interpret import PCA
    >>> model = ports.load(ports.bundled("fashion_mnist"))
    >>> fitted = PCA(count=5, samples=256).fit(jax.random.key(0), model)
    >>> len(fitted.directions), fitted.directions[0, 3].shape
    (36, (5, 64))
    """

    @property
    def name(self) -> str: ...

    def fit(self, key: Array, model: LatentModel) -> Fitted:
        """Finds directions for all ranges of layers; the same key gives the same directions."""
        ...


def in_all_ranges(vectors: Array, num_layers: int) -> dict[tuple[int, int], Array]:
    """The same vectors [M, D] for every range of layers, of a method that knows no layers."""
    return dict.fromkeys(layer_ranges(num_layers), vectors)


def draw_latents(key: Array, model: LatentModel) -> np.ndarray:
    """So many latents [N, D] that they fill all dimensions that the model's latents fill."""
    return np.asarray(model.sample(key, max(LATENTS, 2 * model.latent_dim)))


def look_at(model: LatentModel, latents: Array, function: Callable[[Array], Array]) -> np.ndarray:
    """What a function of images -> [n, F] gives for those of latents [N, D], [N, F]."""
    render = method(model, "render")
    codes = codes_of(latents, model.num_layers)
    return in_batches(lambda part: function(called(render, part)), codes, batch_of(model, BATCH))
