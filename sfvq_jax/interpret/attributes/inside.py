"""Whether images lie in the distribution of a model's, by small pixels and a scorer's features.

Letters: N images, B images that stand for the distribution, F features.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

FALSE_ALARMS = 0.05  # share of the distribution's own images that is called outside
NEIGHBOURS = 3  # of an image of the distribution, which say how far its neighbourhood goes
WIDEST = 0.9  # quantile of these reaches
SIDE = 16  # of small pixels


class Inside:
    """Decides which images lie in a distribution: near one of its images in each kind of features.

    The neighbourhood of an image reaches to its third nearest neighbour (precision; Kynkäänniemi et
    al., 2019, eq. 1; equation 18 of docs/explanation/equations.md). It is scaled so that a share
    `FALSE_ALARMS` of held-out images is called outside, divided evenly over the kinds. Radii are
    limited to their 0.9 quantile: otherwise anything near an unusual image would be inside. Small
    pixels see light, colours and noise. A scorer's features see shapes that none of the images
    have.

    Args:
      bank: features of the B images of the distribution, [B, F] for each kind.
      held_out: features of other images of the distribution, [N, F] for each kind.

    >>> import numpy as np
    >>> from sfvq_jax.interpret import Inside
    >>> random = np.random.default_rng(0)
    >>> bank, held_out = random.normal(size=(256, 4)), random.normal(size=(64, 4))
    >>> inside = Inside([bank], [held_out])
    >>> inside([np.array([[0.0, 0.0, 0.0, 0.0], [9.0, 0.0, 0.0, 0.0]])]).tolist()
    [True, False]
    """

    def __init__(self, bank: Sequence[np.ndarray], held_out: Sequence[np.ndarray]):
        self._bank = [jnp.asarray(features, jnp.float32) for features in bank]
        self._squared_radii = [_squared_radii(features) for features in self._bank]
        share = 1 - FALSE_ALARMS / len(self._bank)
        self._farthest = [np.quantile(farness, share) for farness in self._farness(held_out)]

    def __call__(self, seen: Sequence[np.ndarray]) -> np.ndarray:
        """Of images with these features, [N, F] of each kind: [N] bool."""
        farness = self._farness(seen)
        return np.all([f <= most for f, most in zip(farness, self._farthest, strict=True)], 0)

    def _farness(self, seen: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Least squared distance ÷ squared radius of an image's neighbourhood, [N] of each kind."""
        return [
            np.asarray(_farness(jnp.asarray(features, jnp.float32), bank, radii))
            for features, bank, radii in zip(seen, self._bank, self._squared_radii, strict=True)
        ]


def small_pixels(images: Array) -> Array:
    """Scales images [N, H, W, C] to 16x16 and flattens them, [N, 256 C]; keeps dtype and range.

    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import small_pixels
    >>> small_pixels(jnp.zeros((2, 32, 32, 3))).shape
    (2, 768)
    """
    n, _, _, c = images.shape
    return jax.image.resize(images, (n, SIDE, SIDE, c), "linear").reshape(n, -1)


@jax.jit
def _squared_radii(bank: Array) -> Array:
    # the nearest of all is the image itself
    squared_radii = jnp.sort(_squared_distances(bank, bank), 1)[:, NEIGHBOURS]
    return jnp.minimum(squared_radii, jnp.quantile(squared_radii, WIDEST))


@jax.jit
def _farness(seen: Array, bank: Array, squared_radii: Array) -> Array:
    least = jnp.finfo(seen.dtype).tiny  # images that are there twice
    return (_squared_distances(seen, bank) / jnp.maximum(squared_radii, least)[None]).min(1)


@jax.jit
def _squared_distances(a: Array, b: Array) -> Array:
    """Of features [N, F] and [M, F], [N, M]."""
    mean = b.mean(0, keepdims=True)
    a, b = a - mean, b - mean
    product = jnp.matmul(a, b.T, precision="highest")
    return jnp.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * product, 0)
