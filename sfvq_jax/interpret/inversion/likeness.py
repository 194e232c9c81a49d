"""How unlike two images are: pixels at several scales, and a network's features.

Letters: N images of H x W pixels and C channels, E numbers that describe one, F features.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.images import in_batches

Array = jax.Array

COARSEST = 4  # pixels of a side, at least
LEAST_VARIANCE = 1e-6  # of a pixel or a feature


@flax.struct.dataclass
class ImageDistance:
    """Maps images to points whose squared distance is the difference between images.

    It is the mean over scales of the mean squared difference of pixels, at full size and averaged
    over 2x2, 4x4, …, plus the mean squared difference of features. Each term is in units of its
    variance over a model's images. So the squared distance of two unrelated images of the model is
    about 2 (4 with features).

    Attributes:
      deviations: standard deviation of pixels at each scale, [S].
      feature_deviations: standard deviation of each feature, [F]; None without features.
      features: differentiable function of images [N, H, W, C] to [N, F].
      finest: largest side of a scale that is used.

    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import ImageDistance
    >>> images = jnp.linspace(-1.0, 1.0, 64).reshape(64, 1, 1, 1).repeat(8, 1).repeat(8, 2)
    >>> points = ImageDistance.among(images)(images)
    >>> [round(float(((points[0] - points[i]) ** 2).sum()), 1) for i in (0, 63)]
    [0.0, 11.6]
    """

    deviations: Array
    feature_deviations: Array | None
    features: Callable[[Array], Array] | None
    finest: int = flax.struct.field(pytree_node=False, default=2**30)

    @classmethod
    def among(
        cls, images: Array, features: Callable[[Array], Array] | None = None, batch: int = 64
    ) -> "ImageDistance":
        """The distance in units of the variance over images [N, H, W, C], float32 in [-1, 1]."""
        variances = jnp.stack([jnp.var(scale, 0).mean() for scale in scales(images)])
        of_features = None
        if features is not None:
            features = jax.tree_util.Partial(features)
            of_features = _deviation(jnp.var(in_batches(jax.jit(features), images, batch), 0))
        return cls(_deviation(variances), of_features, features)

    def at_most(self, side: int) -> "ImageDistance":
        """The same distance without scales of more than `side` pixels a side."""
        return self.replace(finest=side)  # type: ignore[attr-defined]

    def __call__(self, images: Array) -> Array:
        """The points of images [N, H, W, C], [N, E]."""
        parts, n = [], images.shape[0]
        kept = [
            (scale, deviation)
            for scale, deviation in zip(scales(images), self.deviations, strict=True)
            if max(scale.shape[1:3]) <= self.finest
        ]
        for scale, deviation in kept:
            pixels = scale.reshape(n, -1)
            parts.append(pixels / (deviation * jnp.sqrt(1.0 * len(kept) * pixels.shape[1])))
        if self.features is not None and self.feature_deviations is not None:
            found = self.features(images) / self.feature_deviations[None]
            parts.append(found / jnp.sqrt(1.0 * found.shape[1]))
        return jnp.concatenate(parts, 1)


def scales(images: Array) -> list[Array]:
    """Images [N, H, W, C] and their halves, averages of 2x2 pixels, down to `COARSEST` a side."""
    found = [images]
    while min(found[-1].shape[1:3]) >= 2 * COARSEST:
        n, h, w, c = found[-1].shape
        even = found[-1][:, : h // 2 * 2, : w // 2 * 2]
        found.append(even.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4)))
    return found


def _deviation(variance: Array) -> Array:
    return jnp.sqrt(jnp.maximum(variance, LEAST_VARIANCE))


def psnr(images: Array | np.ndarray, wanted: Array | np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of images in [-1, 1], [N, H, W, C] each, in dB: [N]."""
    squares = np.square(np.clip(images, -1, 1) - np.asarray(wanted), dtype=np.float64)
    return 10 * np.log10(4 / np.maximum(squares.mean((1, 2, 3)), 1e-12))
