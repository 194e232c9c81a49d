"""SeFa: closed-form factorisation of the weights that make styles.

Letters: D dimensions, O styles.
"""

import dataclasses

import jax
import numpy as np

from sfvq_jax.interpret.comparison.methods.method import COUNT, Fitted
from sfvq_jax.interpret.directions import layer_ranges
from sfvq_jax.interpret.geometry import largest_eigen, unit_rows
from sfvq_jax.latent_model import LatentModel

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class SeFa:
    """Directions that move the styles most (SeFa; Shen & Zhou, CVPR 2021, arXiv 2007.06600).

    The directions n for a range of layers have the largest |A n|²: they are eigenvectors of AᵀA,
    where A stacks the `style_weights` of these layers. Each row of A, which makes one style, is
    first scaled to unit length, as in the public code but not in the paper.

    Attributes:
      count: number of directions for each range; fewer if all others would change no style.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import numpy as np
    >>> from sfvq_jax.interpret import SeFa
    >>> model = SimpleNamespace(  # whose two styles hardly see the second latent
    ...     latent_dim=2, num_layers=1, style_weights=lambda: [np.array([[2.0, 0.0], [9.0, 1.0]])])
    >>> print(abs(SeFa(count=1).fit(jax.random.key(0), model).directions[0, 0]).round(1))
    [[1.  0.1]]
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
            vectors = unit_rows(largest_eigen(of_range, self.count).vectors.T)
            if len(vectors):  # layers without styles have none
                directions[first, last] = vectors
        return Fitted(directions)


def _style_gram(weight: Array) -> np.ndarray:
    """AᵀA, [D, D], of a layer's weights [O, D] with rows of unit length."""
    rows = np.asarray(weight, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(lengths > 0, lengths, 1)
    return rows.T @ rows
