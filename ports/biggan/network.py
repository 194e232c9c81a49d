"""BigGAN's generator as Flax modules, for both families.

Sources: Brock et al., "Large Scale GAN Training for High Fidelity Natural Image Synthesis" (ICLR
2019; BigGAN-deep in Appendix B), and the public code of BigGAN-PyTorch and of
pytorch-pretrained-BigGAN. Spectral normalisation is no part of it: converted weights are divided by
their norm already. Images and features are NHWC, kernels HWIO, linear weights [in, out].

Letters: N samples, Z width of z, E width of the class embedding, L layers that see z, S sets of
statistics, C channels.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ports.biggan.config import BigGANConfig, BlockConfig
from ports.convolution import conv

Array = jax.Array


class StatsRow(NamedTuple):
    """Which batch statistics to use: `weight` of row `first` and the rest of the next one.

    Attributes:
      first: int32 scalar.
      weight: float32 scalar.
    """

    first: Array
    weight: Array


class GeneratorNetwork(nn.Module):
    """zs [N, L, Z], class embeddings [N, L, E] -> images [N, H, W, C] float32, and every layer.

    The second result maps "linear", "block0", "attention1", … to each layer's output. Where `h`, an
    output of the linear layer [N, linear_dim], is given, it stands in for that layer's own. With
    `row` None, features are normalised by the statistics of the batch, as in training, and these
    are sown in the collection "statistics".
    """

    config: BigGANConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, zs: Array, embeddings: Array, row: StatsRow | None, h: Array | None = None
    ) -> tuple[Array, dict[str, Array]]:
        cfg, out = self.config, {}
        linear = Linear(cfg.linear_dim, name="linear")
        if h is None:
            h = linear(linear_input(cfg, zs[:, 0], embeddings[:, 0]))
        out["linear"] = h
        side, channels = cfg.bottom_width, cfg.blocks[0].in_channels
        x = h.reshape(h.shape[0], side, side, channels).astype(self.dtype)
        block_type = BottleneckBlock if cfg.bottleneck else ResidualBlock
        for i, block in enumerate((*cfg.blocks, None)):
            if i in cfg.attention:
                x = out[f"attention{i}"] = SelfAttention(name=f"attention{i}")(x)
            if block is not None:
                condition = block_input(cfg, zs, embeddings, i)
                layer = block_type(block, cfg.eps, cfg.num_stats, name=f"block{i}")
                x = out[f"block{i}"] = layer(x, condition, row)
        x = nn.relu(BatchNorm(cfg.output_eps, cfg.num_stats, name="output_bn")(x, None, row))
        x = Conv(cfg.img_channels, 3, name="output_conv")(x)
        return jnp.tanh(x.astype(jnp.float32)), out


def linear_input(cfg: BigGANConfig, z: Array, embedding: Array) -> Array:
    """What the first linear layer sees, [N, linear_inputs], of z [N, Z] and embeddings [N, E]."""
    if cfg.hierarchy == "full":
        return jnp.concatenate([z, embedding], axis=1)
    return z[:, : cfg.linear_inputs]


def block_input(cfg: BigGANConfig, zs: Array, embeddings: Array, index: int) -> Array:
    """What gains and biases of a block are made from, [N, block_inputs]."""
    if cfg.hierarchy == "none":
        return embeddings[:, 0]
    z = zs[:, index + 1]
    if cfg.hierarchy == "chunks":
        width = cfg.z_dim // cfg.num_zs
        z = z[:, (index + 1) * width : (index + 2) * width]
    return jnp.concatenate([z, embeddings[:, index + 1]], axis=1)


class ResidualBlock(nn.Module):
    """BigGAN's block: two 3x3 convolutions beside a 1x1 one."""

    config: BlockConfig
    eps: float
    num_stats: int

    @nn.compact
    def __call__(self, x: Array, condition: Array, row: StatsRow | None) -> Array:
        cfg = self.config
        h = nn.relu(BatchNorm(self.eps, self.num_stats, name="bn0")(x, condition, row))
        h = Conv(cfg.out_channels, 3, name="conv0")(h, upsample=cfg.upsample)
        h = nn.relu(BatchNorm(self.eps, self.num_stats, name="bn1")(h, condition, row))
        h = Conv(cfg.out_channels, 3, name="conv1")(h)
        if cfg.upsample or cfg.in_channels != cfg.out_channels:
            # 1x1, so it gives the same before upsampling at a quarter of the work
            x = Conv(cfg.out_channels, 1, name="shortcut")(x)
        return h + (upsample(x) if cfg.upsample else x)


class BottleneckBlock(nn.Module):
    """BigGAN-deep's block: 1x1, 3x3, 3x3, 1x1 on a quarter of the channels; surplus are dropped."""

    config: BlockConfig
    eps: float
    num_stats: int

    @nn.compact
    def __call__(self, x: Array, condition: Array, row: StatsRow | None) -> Array:
        cfg = self.config
        hidden = cfg.in_channels // 4
        h = x
        for i, (features, size) in enumerate(
            [(hidden, 1), (hidden, 3), (hidden, 3), (cfg.out_channels, 1)]
        ):
            h = nn.relu(BatchNorm(self.eps, self.num_stats, name=f"bn{i}")(h, condition, row))
            h = Conv(features, size, name=f"conv{i}")(h, upsample=cfg.upsample and i == 1)
        x = x[..., : cfg.out_channels]
        return h + (upsample(x) if cfg.upsample else x)


class SelfAttention(nn.Module):
    """x + gamma · attention over all pixels (Zhang et al., SAGAN, 2019), keys and values pooled."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        n, height, width, channels = x.shape
        query = Conv(channels // 8, 1, bias=False, name="theta")(x)
        key = _max_pool(Conv(channels // 8, 1, bias=False, name="phi")(x))
        value = _max_pool(Conv(channels // 2, 1, bias=False, name="g")(x))
        query, key, value = (a.reshape(n, -1, a.shape[-1]) for a in (query, key, value))
        scores = jnp.einsum("nqc,nkc->nqk", query, key, precision="highest")
        weights = nn.softmax(scores.astype(jnp.float32)).astype(x.dtype)
        y = jnp.einsum("nqk,nkc->nqc", weights, value, precision="highest")
        y = Conv(channels, 1, bias=False, name="o")(y.reshape(n, height, width, -1))
        gamma = self.param("gamma", nn.initializers.zeros, ())
        return x + gamma.astype(x.dtype) * y


class BatchNorm(nn.Module):
    """Normalisation by stored statistics; gain and bias from `condition` [N, E], or learned."""

    eps: float
    num_stats: int

    @nn.compact
    def __call__(self, x: Array, condition: Array | None, row: StatsRow | None) -> Array:
        channels = x.shape[-1]
        if condition is None:
            gain = self.param("gain", nn.initializers.ones, (channels,))[None]
            bias = self.param("bias", nn.initializers.zeros, (channels,))[None]
        else:
            shape = (condition.shape[1], channels)
            gain = 1 + _dot(condition, self.param("gain", nn.initializers.zeros, shape))
            bias = _dot(condition, self.param("bias", nn.initializers.zeros, shape))
        if row is None:
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
            self.sow("statistics", "mean", mean)
            self.sow("statistics", "var", var)
        else:
            table = (self.num_stats, channels)
            mean = _interpolated(self.variable("constants", "mean", jnp.zeros, table).value, row)
            var = _interpolated(self.variable("constants", "var", jnp.ones, table).value, row)
        scale = gain * lax.rsqrt(var + self.eps)[None]
        shift = bias - mean[None] * scale
        return x * scale[:, None, None].astype(x.dtype) + shift[:, None, None].astype(x.dtype)


def _interpolated(table: Array, row: StatsRow) -> Array:
    """The statistics [C] between two rows of a table [S, C]."""
    if table.shape[0] == 1:
        return table[0]
    here = lax.dynamic_index_in_dim(table, row.first, keepdims=False)
    following = lax.dynamic_index_in_dim(table, row.first + 1, keepdims=False)  # the last stays
    return here * row.weight + following * (1 - row.weight)


class Conv(nn.Module):
    """Convolution with zero padding to the same size; `upsample` doubles the input first."""

    features: int
    size: int
    bias: bool = True

    @nn.compact
    def __call__(self, x: Array, *, upsample: bool = False) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("weight", nn.initializers.orthogonal(), shape).astype(x.dtype)
        x = upsampled_conv3x3(x, kernel) if upsample else conv(x, kernel)
        if not self.bias:
            return x
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(x.dtype)
        return x + bias[None, None, None]


class Linear(nn.Module):
    """x·weight + bias."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[-1], self.features)
        weight = self.param("weight", nn.initializers.orthogonal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return _dot(x, weight) + bias[None]


def upsampled_conv3x3(x: Array, kernel: Array) -> Array:
    """`conv(upsample(x), kernel)` for 3x3 kernels: [N, H, W, I] -> [N, 2H, 2W, O].

    Each output pixel sees two by two pixels of x, some twice: its kernel is a sum of taps, and four
    kernels of 2x2 at the small resolution do the work of one of 3x3 at the large one, 16 products
    instead of 36.
    """
    rows = jnp.stack([_paired_taps(kernel, 0, parity) for parity in (0, 1)])
    taps = jnp.stack([_paired_taps(rows, 2, parity) for parity in (0, 1)], 1)
    # taps [row parity, column parity, 2, 2, I, O]
    n, height, width, _ = x.shape
    out_features = kernel.shape[3]
    kernels = taps.transpose(2, 3, 4, 0, 1, 5).reshape(2, 2, x.shape[3], 4 * out_features)
    # padded apart: the gradient of a convolution that pads an even kernel is 15 times slower on CPU
    y = lax.conv_general_dilated(
        jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)]),
        kernels,
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    ).reshape(n, height + 1, width + 1, 2, 2, out_features)
    # an even output pixel 2i sees x[i - 1] and x[i], an odd one x[i] and x[i + 1]
    quarters = [[y[:, i : i + height, j : j + width, i, j] for j in (0, 1)] for i in (0, 1)]
    y = jnp.stack([jnp.stack(row, 3) for row in quarters], 2)
    return y.reshape(n, 2 * height, 2 * width, out_features)


def _paired_taps(kernel: Array, axis: int, parity: int) -> Array:
    """Sums of three taps along an axis that fall on the same of two pixels before upsampling."""
    first, middle, last = (lax.index_in_dim(kernel, i, axis, keepdims=False) for i in range(3))
    pair = [first, middle + last] if parity == 0 else [first + middle, last]
    return jnp.stack(pair, axis)


def upsample(x: Array) -> Array:
    """Every pixel twice in height and width."""
    n, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (n, height, 2, width, 2, channels))
    return x.reshape(n, 2 * height, 2 * width, channels)


def _max_pool(x: Array) -> Array:
    n, height, width, channels = x.shape
    # a last odd row or column is left out, as upstream's pooling does
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))


def _dot(x: Array, weight: Array) -> Array:
    return jnp.matmul(x, weight, precision="highest")
