"""StyleGAN2's generator as Flax modules, named as the checkpoints of stylegan2-ada-pytorch.

Source of the network: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN"
(CVPR 2020) and the public code of stylegan2-ada-pytorch and of the StyleGAN3 repository. Images
and features are NHWC, kernels HWIO, fully connected weights [in, out].

Letters: N samples, L codes an image (`num_ws`), D width of W, H x W pixels, C channels.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ports.convolution import conv
from ports.precision import low_precision_kernel
from ports.stylegan2.config import StyleGAN2Config

Array = jax.Array

# of a strip's taps in `upsampling_conv`
_STRIP_BYTES = 2**25

# name -> (function, gain that keeps the variance), as upstream's bias_act has them
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], float]] = {
    "linear": (lambda x: x, 1.0),
    "relu": (nn.relu, math.sqrt(2)),
    "lrelu": (lambda x: nn.leaky_relu(x, 0.2), math.sqrt(2)),
    "tanh": (jnp.tanh, 1.0),
    "sigmoid": (nn.sigmoid, 1.0),
    "elu": (nn.elu, 1.0),
    "selu": (nn.selu, 1.0),
    "softplus": (nn.softplus, 1.0),
    "swish": (nn.swish, math.sqrt(2)),
}


class MappingNetwork(nn.Module):
    """z [N, z_dim] and labels c [N, c_dim] -> w [N, w_dim]."""

    config: StyleGAN2Config

    @nn.compact
    def __call__(self, z: Array, c: Array | None = None) -> Array:
        cfg = self.config
        parts = []
        if cfg.z_dim > 0:
            parts.append(z)
        if c is not None and cfg.c_dim > 0:
            parts.append(FullyConnected(cfg.embed_features, name="embed")(c))
        if cfg.input_normalization == "each":
            parts = [normalize_second_moment(part) for part in parts]
        x = jnp.concatenate(parts, axis=1)
        if cfg.input_normalization == "joint":
            x = normalize_second_moment(x)
        for i in range(cfg.mapping_layers):
            last = i == cfg.mapping_layers - 1
            x = FullyConnected(
                cfg.w_dim if last else cfg.layer_features,
                activation=cfg.mapping_activation,
                lr_multiplier=cfg.mapping_lr_multiplier,
                name=f"fc{i}",
            )(x)
        return x


class SynthesisNetwork(nn.Module):
    """Codes ws [N, L, D] -> images [N, H, W, img_channels] in float32, and every block's output.

    Convolutions of the resolutions in `config.low_precision` compute in `dtype`, where that has 16
    bits; all others, styles and RGB images stay in float32, those convolutions with products in
    TF32 where an accelerator has them, as upstream's have by PyTorch's default. The second result
    maps "b4/x", "b4/img", … to each block's features and running RGB image.
    """

    config: StyleGAN2Config
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, ws: Array, noise_mode: str = "const") -> tuple[Array, dict[str, Array]]:
        cfg = self.config
        x, img, out = None, None, {}
        first, precision = 0, "tensorfloat32" if jnp.dtype(self.dtype).itemsize == 2 else "highest"
        for i, resolution in enumerate(cfg.block_resolutions):
            convolutions = 1 if i == 0 else 2
            # a block takes one code more than it uses up: RGB shares the next block's first one
            block_ws = ws[:, first : first + convolutions + 1]
            first += convolutions
            dtype = self.dtype if resolution in cfg.low_precision else jnp.float32
            block = SynthesisBlock(
                cfg, i, resolution == cfg.img_resolution, dtype, precision, name=f"b{resolution}"
            )
            x, img = block(x, img, block_ws, noise_mode)
            out[f"b{resolution}/x"] = x
            if img is not None:
                out[f"b{resolution}/img"] = img
        assert img is not None  # the last block always makes RGB
        return img, out


class SynthesisBlock(nn.Module):
    """One resolution: one or two convolutions, and RGB where the architecture has it."""

    config: StyleGAN2Config
    index: int
    is_last: bool
    dtype: jnp.dtype
    precision: str

    @nn.compact
    def __call__(
        self, x: Array | None, img: Array | None, ws: Array, noise_mode: str
    ) -> tuple[Array, Array | None]:
        cfg = self.config
        channels = cfg.channels[self.index]
        if x is None:
            const = self.param("const", nn.initializers.normal(1.0), (*cfg.base_shape, channels))
            x = jnp.broadcast_to(const, (ws.shape[0], *const.shape)).astype(self.dtype)
            conv1 = SynthesisLayer(cfg, channels, 1, self.precision, name="conv1")
            x = conv1(x, ws[:, 0], noise_mode)
        else:
            x = x.astype(self.dtype)
            conv0 = SynthesisLayer(cfg, channels, 2, self.precision, name="conv0")
            conv1 = SynthesisLayer(cfg, channels, 1, self.precision, name="conv1")
            if cfg.architecture == "resnet":
                y = SkipLayer(cfg, channels, self.precision, name="skip")(x, gain=math.sqrt(0.5))
                x = conv0(x, ws[:, 0], noise_mode)
                x = y + conv1(x, ws[:, 1], noise_mode, gain=math.sqrt(0.5))
            else:
                x = conv1(conv0(x, ws[:, 0], noise_mode), ws[:, 1], noise_mode)
        if img is not None:
            img = upsample(img, cfg.resample_filter)
        if self.is_last or cfg.architecture == "skip":
            rgb = ToRGBLayer(cfg, self.precision, name="torgb")(x, ws[:, -1]).astype(jnp.float32)
            img = rgb if img is None else img + rgb
        return x, img


class SynthesisLayer(nn.Module):
    """Modulated convolution, noise, bias, activation, gain and clamp, in this order."""

    config: StyleGAN2Config
    features: int
    up: int
    precision: str

    @nn.compact
    def __call__(self, x: Array, w: Array, noise_mode: str, gain: float = 1.0) -> Array:
        cfg = self.config
        k, in_features = cfg.kernel_size, x.shape[-1]
        weight = self.param(
            "weight", nn.initializers.normal(1.0), (k, k, in_features, self.features)
        )
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        styles = FullyConnected(in_features, bias_init=1.0, name="affine")(w)
        how = {"up": self.up, "resample_filter": cfg.resample_filter, "precision": self.precision}
        x = modulated_conv(x, weight, styles, **how)
        if cfg.use_noise:
            shape = x.shape[1:3]
            strength = self.param("noise_strength", nn.initializers.zeros, ())
            const = self.variable(
                "constants",
                "noise_const",
                lambda: jax.random.normal(self.make_rng("params"), shape),
            )
            if noise_mode == "const":
                x = x + (const.value * strength)[None, :, :, None].astype(x.dtype)
            elif noise_mode == "random":
                noise = jax.random.normal(self.make_rng("noise"), (*x.shape[:3], 1))
                x = x + (noise * strength).astype(x.dtype)
        return bias_act(x, bias, cfg.activation, gain, cfg.conv_clamp)


class ToRGBLayer(nn.Module):
    """Modulated 1x1 convolution to image channels, without demodulation."""

    config: StyleGAN2Config
    precision: str

    @nn.compact
    def __call__(self, x: Array, w: Array) -> Array:
        cfg = self.config
        in_features = x.shape[-1]
        weight = self.param(
            "weight", nn.initializers.normal(1.0), (1, 1, in_features, cfg.img_channels)
        )
        bias = self.param("bias", nn.initializers.zeros, (cfg.img_channels,))
        styles = FullyConnected(in_features, bias_init=1.0, name="affine")(w)
        styles = styles / math.sqrt(in_features)
        # so few outputs that a kernel a sample costs less than scaling its inputs
        kernels = weight[0] * styles[:, :, None]
        x = jnp.einsum("nhwi,nio->nhwo", x, kernels.astype(x.dtype), precision=self.precision)
        return bias_act(x, bias, "linear", 1.0, cfg.conv_clamp)


class SkipLayer(nn.Module):
    """The residual branch of the 'resnet' architecture: 1x1 convolution and upsampling."""

    config: StyleGAN2Config
    features: int
    precision: str

    @nn.compact
    def __call__(self, x: Array, gain: float) -> Array:
        in_features = x.shape[-1]
        weight = self.param(
            "weight", nn.initializers.normal(1.0), (1, 1, in_features, self.features)
        )
        weight = (weight * (gain / math.sqrt(in_features))).astype(x.dtype)
        return upsample(conv(x, weight, self.precision), self.config.resample_filter)


class FullyConnected(nn.Module):
    """x·weight + bias with the equalised learning rate: stored parameters count lr_multiplier."""

    features: int
    activation: str = "linear"
    lr_multiplier: float = 1.0
    bias_init: float = 0.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        in_features = x.shape[-1]
        init = nn.initializers.normal(1.0 / self.lr_multiplier)
        weight = self.param("weight", init, (in_features, self.features))
        bias = self.param("bias", nn.initializers.constant(self.bias_init), (self.features,))
        x = jnp.matmul(
            x, weight * (self.lr_multiplier / math.sqrt(in_features)), precision="highest"
        )
        return bias_act(x, bias * self.lr_multiplier, self.activation)


def modulated_conv(
    x: Array,
    weight: Array,
    styles: Array,
    *,
    up: int = 1,
    resample_filter=None,
    precision: str = "highest",
) -> Array:
    """Convolution whose kernel is scaled by each sample's styles, then to norm 1 for each output.

    Scaling the kernel's inputs and outputs is scaling the features before and after one shared
    convolution (StyleGAN2, Appendix B), which needs no kernel a sample.

    Args:
      x: features, [N, H, W, I].
      weight: kernel, [k, k, I, O] float32, or `low_precision_kernel` of it.
      styles: scale of each input channel, [N, I] float32.
      up: 2 upsamples by a transposed convolution and the filter.
      resample_filter: needed where up is 2.
      precision: of the convolution's products, as JAX names it.

    Returns:
      [N, up·H, up·W, O] in the dtype of x.
    """
    kernel = low_precision_kernel(weight, x.dtype)
    if x.dtype == jnp.float16:  # as of the kernel, demodulation undoes any scale of the styles
        styles = styles / jnp.abs(styles).max(1, keepdims=True)
    y = x * styles[:, None, None, :].astype(x.dtype)
    if up == 1:
        y = conv(y, kernel, precision)
    else:
        y = upsampling_conv(y, kernel, resample_filter, precision)
    # tap by tap: XLA's reduction over leading axes takes 50 times as long on CPU
    taps = [tap.astype(styles.dtype) for row in kernel for tap in row]
    squares = functools.reduce(operator.add, [tap**2 for tap in taps])
    energy = jnp.matmul(styles**2, squares, precision="highest")
    return y * lax.rsqrt(energy + 1e-8)[:, None, None, :].astype(x.dtype)


def upsampling_conv(x: Array, kernel: Array, resample_filter, precision: str = "highest") -> Array:
    """Transposed convolution of stride 2, then the low-pass filter: [N, H, W, I] -> [N, 2H, 2W, O].

    One matrix product makes every tap's contribution, and shifted sums put them in place: gradients
    are then matrix products too, 10 to 30 times faster on CPU than those of a dilated convolution.
    The contributions are k·k/4 times as large as the result, so that on CPU they are made for a
    strip of rows at a time, which its cache holds.
    """
    n, height, width, in_features = x.shape
    k, out_features = kernel.shape[0], kernel.shape[3]
    row = width * k * k * out_features * x.dtype.itemsize
    rows = height
    while rows % 2 == 0 and rows * row > _STRIP_BYTES:
        rows //= 2
    if rows == height:
        return _upsampling_conv(x, kernel, resample_filter, precision)

    def in_strips(x: Array, kernel: Array) -> Array:
        # how many rows around it a row of x is seen with: beyond the image they are zeros
        reach = (k // 2 + (_filter_shape(resample_filter)[0] + 1) // 2) // 2
        x = jnp.pad(x, [(0, 0), (reach, reach), (0, 0), (0, 0)])
        starts = range(0, height, rows)
        strips = jnp.stack([x[:, start : start + rows + 2 * reach] for start in starts], 1)

        def one(strip: Array) -> Array:
            y = _upsampling_conv(strip, kernel, resample_filter, precision)
            return y[:, 2 * reach : 2 * (reach + rows)]

        y = lax.map(one, strips.reshape(n * len(starts), 1, rows + 2 * reach, width, in_features))
        return y.reshape(n, 2 * height, 2 * width, out_features)

    def whole(x: Array, kernel: Array) -> Array:
        return _upsampling_conv(x, kernel, resample_filter, precision)

    return lax.platform_dependent(x, kernel, cpu=in_strips, default=whole)


def _upsampling_conv(x: Array, kernel: Array, resample_filter, precision: str) -> Array:
    k, in_features, out_features = kernel.shape[0], kernel.shape[2], kernel.shape[3]
    taps = kernel.transpose(2, 0, 1, 3).reshape(in_features, k * k * out_features)
    y = jnp.matmul(x, taps, precision=precision).reshape(*x.shape[:3], k, k, out_features)
    y = _place_taps(_place_taps(y, 2), 1)
    height, width = _filter_shape(resample_filter)
    pads = [_padding_after_transposed_conv(k, taps) for taps in (height, width)]
    return fir(y, resample_filter, pads, gain=4.0)


def upsample(x: Array, resample_filter) -> Array:
    """Zeros between the pixels, then the low-pass filter: [N, H, W, C] -> [N, 2H, 2W, C]."""
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, 1, 1), (0, 1, 1), (0, 0, 0)])
    pads = [((taps + 1) // 2, (taps - 2) // 2) for taps in _filter_shape(resample_filter)]
    return fir(x, resample_filter, pads, gain=4.0)


def fir(x: Array, taps, pads: Sequence[tuple[int, int]], gain: float = 1.0) -> Array:
    """True convolution of each channel with a small filter, as sums of shifted images.

    Args:
      x: [N, H, W, C].
      taps: as `StyleGAN2Config.resample_filter`.
      pads: zeros before and after, for H and W; negative crops.
      gain: factor of the result.
    """
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (*pads[0], 0), (*pads[1], 0), (0, 0, 0)])
    taps = np.asarray(taps, np.float64)
    lines = (taps, taps) if taps.ndim == 1 else _separated(taps)
    if lines is None:
        return _shifted_sum(x, gain * taps)
    x = _shifted_sum(x, math.sqrt(gain) * lines[0][:, None])
    return _shifted_sum(x, math.sqrt(gain) * lines[1][None])


def _shifted_sum(x: Array, taps: np.ndarray) -> Array:
    kh, kw = taps.shape
    h, w = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    terms = [
        x[:, i : i + h, j : j + w] * float(taps[kh - 1 - i, kw - 1 - j])
        for i in range(kh)
        for j in range(kw)
    ]
    return functools.reduce(operator.add, terms)


def bias_act(
    x: Array, bias: Array, activation: str, gain: float = 1.0, clamp: float | None = None
) -> Array:
    """activation(x + bias) · gain, where gain multiplies the activation's own and the clamp."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; there are {', '.join(ACTIVATIONS)}")
    function, own_gain = ACTIVATIONS[activation]
    x = function(x + bias.reshape((1,) * (x.ndim - 1) + bias.shape).astype(x.dtype))
    x = x * (own_gain * gain)
    return x if clamp is None else jnp.clip(x, -clamp * gain, clamp * gain)


def normalize_second_moment(x: Array) -> Array:
    """x [N, D] scaled so that the mean square of each row is 1."""
    return x * lax.rsqrt((x**2).mean(1, keepdims=True) + 1e-8)


def _place_taps(y: Array, axis: int) -> Array:
    """Adds up a transposed convolution's taps, at axis + 2: out[2i + t] += y[i, t]."""
    n, k = y.shape[axis], y.shape[axis + 2]
    length = n + (k - 1) // 2  # of the even outputs, the longer half
    halves = []
    for parity in (0, 1):
        half = 0
        for t in range(parity, k, 2):
            tap = lax.index_in_dim(y, t, axis + 2, keepdims=False)
            pad = [(0, 0)] * tap.ndim
            pad[axis] = (t // 2, length - n - t // 2)
            half = half + jnp.pad(tap, pad)
        halves.append(half if k > parity else jnp.zeros_like(halves[0]))
    merged = jnp.stack(halves, axis + 1)
    merged = merged.reshape(*merged.shape[:axis], 2 * length, *merged.shape[axis + 2 :])
    return lax.slice_in_dim(merged, 0, 2 * n - 2 + k, axis=axis)


def _padding_after_transposed_conv(k: int, taps: int) -> tuple[int, int]:
    """What upstream's conv2d_resample pads between the transposed convolution and the filter."""
    return k // 2 + (taps + 1) // 2 - (k - 1), k // 2 + (taps - 2) // 2 - (k - 2)


def _filter_shape(taps) -> tuple[int, int]:
    shape = np.shape(taps)
    return (shape[0], shape[0]) if len(shape) == 1 else (shape[0], shape[1])


def _separated(taps: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Two lines whose outer product is the filter, or None where there are none."""
    total = taps.sum()
    if total == 0:
        return None
    lines = taps.sum(1), taps.sum(0) / total
    near = np.allclose(np.outer(*lines), taps, rtol=0, atol=1e-7 * np.abs(taps).max())
    return lines if near else None
