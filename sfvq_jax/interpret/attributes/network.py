"""The small network of a fitted scorer, for images of any size.

Letters: N images of H x W pixels and C channels, A attributes, F features.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax

from sfvq_jax.interpret.attributes.scorer import limit, log_odds
from sfvq_jax.short import short_repr

Array = jax.Array

# of the convolutions, by height and width of the image
CHANNELS = {16: (32, 64), 32: (16, 32, 64), 64: (16, 32, 64, 64)}
FEATURES = 64
MEASURES = {"classes": "recall", "yes/no": "balanced accuracy", "numbers": "R²"}  # by kind


class ScorerNetwork(nn.Module):
    """Images [N, side, side, C] in [-1, 1] -> outputs [N, A] and features [N, F]."""

    side: int
    outputs: int

    @nn.compact
    def __call__(self, images: Array) -> tuple[Array, Array]:
        x = images
        for i, channels in enumerate(CHANNELS[self.side]):
            x = nn.relu(nn.Conv(channels, (3, 3), name=f"conv{i}")(x))
            n, h, w, c = x.shape
            # as a reshape: the gradient of XLA's pooling window is some six times slower on CPU
            x = x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
        x = nn.relu(nn.Dense(FEATURES, name="features")(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.outputs, name="outputs")(x), x


@flax.struct.dataclass(eq=False)  # and so it can be hashed, as jax.jit(scorer) needs it
class FittedFunction:
    """The pure `function` of a fitted scorer: a pytree, for images of any height and width.

    Attributes:
      params: parameters of the network.
      offset: offset added to the scores of numbers, [A]; 0 for other kinds.
      scale: factor on the scores of numbers before the offset, [A]; 1 for other kinds.
      kind: kind of the labels, a key of `MEASURES`.
      side: height and width that images are resized to.
      channels: number C of channels of the images.
    """

    params: dict
    offset: Array
    scale: Array
    kind: str = flax.struct.field(pytree_node=False)
    side: int = flax.struct.field(pytree_node=False)
    channels: int = flax.struct.field(pytree_node=False)

    __repr__ = short_repr

    @jax.jit
    def __call__(self, images: Array) -> Array:
        """Scores [N, A] of images [N, H, W, C], float32 in [-1, 1]."""
        outputs, _ = self._apply(images)
        if self.kind == "classes":
            return log_odds(jax.nn.log_softmax(outputs))
        if self.kind == "yes/no":
            return limit(outputs)
        return outputs * self.scale[None] + self.offset[None]

    @jax.jit
    def features(self, images: Array) -> Array:
        """The last layer but one, [N, F]: what images that look alike to it have in common."""
        return self._apply(images)[1]

    @property
    def threshold(self) -> float | None:
        """The score above which an image has an attribute; None of numbers."""
        return None if self.kind == "numbers" else 0.0

    @property
    def network(self) -> ScorerNetwork:
        return ScorerNetwork(self.side, self.offset.shape[-1])

    def _apply(self, images: Array) -> tuple[Array, Array]:
        if images.ndim != 4 or images.shape[-1] != self.channels:
            raise ValueError(
                f"the scorer was fitted on images [N, H, W, {self.channels}]; these have shape"
                f" {images.shape}"
            )
        network: Any = self.network  # Any, since flax types what apply returns for all cases
        return network.apply({"params": self.params}, resized(images, self.side))


def resized(images: Array, side: int) -> Array:
    """Images [N, side, side, C] of images of any height and width."""
    if images.shape[1:3] == (side, side):
        return images
    shape = (images.shape[0], side, side, images.shape[3])
    return jax.image.resize(images, shape, "linear", antialias=True)
