"""StyleGAN2's discriminator (Appendix B), which also knows classes, in forms that are fast on CPU.

Letters: N samples, R height and width, C channels of the images.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ports.convolution import conv
from ports.stylegan2.network import FullyConnected, bias_act, fir


class Discriminator(nn.Module):
    """The residual discriminator of StyleGAN2.

    Images [N, R, R, C] and labels [N] -> logits [N], and logits [N, num_classes] of the classes.
    """

    channels: tuple[int, ...]  # from the patches' resolution down to 4x4
    num_classes: int = 0
    patch: int = 1  # height and width of the squares of pixels that are taken as channels
    resample_filter: tuple[float, ...] = (0.125, 0.375, 0.375, 0.125)

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = self._conv("from_rgb", _patches(images, self.patch), self.channels[0], 1)
        for i, channels in enumerate(self.channels[1:]):
            y = _downsample(self._conv(f"skip{i}", x, channels, 1, "linear", bias=False, down=True))
            x = self._conv(f"conv0_{i}", x, x.shape[-1], 3)
            x = self._conv(f"conv1_{i}", x, channels, 3, down=True)
            x = (x + y) * math.sqrt(0.5)
        x = _append_batch_deviation(x)
        x = self._conv("last", x, self.channels[-1], 3)
        x = FullyConnected(self.channels[-1], activation="lrelu", name="fc")(x.reshape(len(x), -1))
        logits = FullyConnected(1, name="out")(x)[:, 0]
        if not self.num_classes:
            return logits, jnp.zeros((len(x), 0))
        projections = FullyConnected(self.num_classes, name="projection")(x)
        logits += jnp.take_along_axis(projections, labels[:, None], 1)[:, 0]
        return logits, FullyConnected(self.num_classes, name="classes")(x)

    def _conv(self, name, x, features, k, activation="lrelu", *, bias=True, down=False):
        init_normal = nn.initializers.normal(1.0)
        weight = self.param(f"{name}_weight", init_normal, (k, k, x.shape[-1], features))
        weight = weight / math.sqrt(k * k * x.shape[-1])
        if down:
            pad = (k // 2 + 1, k // 2 + 1)
            x = fir(x, self.resample_filter, [pad, pad])
            x = _strided_conv(x, weight) if k > 1 else conv(x, weight)
        else:
            x = conv(x, weight)
        if not bias:
            return x
        return bias_act(
            x, self.param(f"{name}_bias", nn.initializers.zeros, (features,)), activation
        )


def _patches(x: jax.Array, side: int) -> jax.Array:
    """[N, R, R, C] -> [N, R/side, R/side, side²·C]; few wide convolutions are fast on CPU."""
    n, h, w, c = x.shape
    x = x.reshape(n, h // side, side, w // side, side, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h // side, w // side, side * side * c)


def _downsample(x: jax.Array) -> jax.Array:
    return x[:, ::2, ::2]


def _strided_conv(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Stride-2 convolution without padding, as one matrix product (fast gradients on CPU)."""
    k, _, in_features, features = weight.shape
    n = (x.shape[1] - k) // 2 + 1
    taps = [x[:, i : i + 2 * n - 1 : 2, j : j + 2 * n - 1 : 2] for i in range(k) for j in range(k)]
    return jnp.concatenate(taps, -1) @ weight.reshape(k * k * in_features, features)


def _append_batch_deviation(x: jax.Array, group: int = 4) -> jax.Array:
    """Adds a channel: the mean deviation within groups of images, against mode collapse."""
    n, h, w, c = x.shape
    y = x.reshape(group, n // group, h, w, c)
    y = jnp.sqrt(y.var(0) + 1e-8).mean((1, 2, 3))
    y = jnp.tile(y, group)[:, None, None, None]
    return jnp.concatenate([x, jnp.broadcast_to(y, (n, h, w, 1))], -1)
