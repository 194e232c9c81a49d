"""Builds a StyleGAN2 from its tensors: the one place that knows blocks, widths and layouts.

Converters bring tensors here under the names that they have in stylegan2-ada-pytorch's state dicts
and in PyTorch's layout: dense weights [out, in], kernels [out, in, k, k], `const` [C, H, W], noise
[H, W].
"""

import math
import re
from typing import Any

import numpy as np

from ports.errors import CheckpointError
from ports.state_dict import Tensors
from ports.stylegan2.config import Filter, StyleGAN2Config

MEAN_SAMPLES = 2**14
_MOST_BLOCKS = 13


def layer(number: int) -> str:
    """The number-th convolution from below: b4.conv1, b8.conv0, b8.conv1, b16.conv0, …"""
    return f"{_block((number + 1) // 2)}.conv{0 if number % 2 else 1}"


def rgb(number: int) -> str:
    """The number-th RGB layer from below."""
    return f"{_block(number)}.torgb"


def _block(number: int) -> str:
    if number >= _MOST_BLOCKS:
        raise CheckpointError(f"it has a block {number}, expected {_MOST_BLOCKS - 1} at most")
    return f"synthesis.b{4 * 2**number}"


def assemble(
    tensors: Tensors,
    *,
    scaled_by_fan_in: bool = False,
    mean_is_sampled: bool = False,
    **settings: Any,
) -> tuple[StyleGAN2Config, dict, dict]:
    """The config and variables of a StyleGAN2, which takes every tensor.

    Args:
      tensors: named as above.
      scaled_by_fan_in: whether upstream scales kernels before it demodulates them, and so adds its
        1e-8 under the root to what is smaller.
      mean_is_sampled: whether upstream estimates a mean of W that is not stored.
      settings: fields of `StyleGAN2Config` that tensors cannot say, or should not.

    Returns:
      Also what was not in the file and was made here, as `source` tells it.

    Raises:
      CheckpointError: where tensors are missing, left over, of another shape or not finite.
    """
    config = _read_config(tensors, settings)
    made = {}
    if "mapping.w_avg" in tensors and not np.any(tensors["mapping.w_avg"]) and mean_is_sampled:
        del tensors["mapping.w_avg"]  # never updated
    if config.use_noise and not any(name.endswith(".noise_const") for name in tensors):
        made["noise_const"] = "drawn, for the file has none"
        tensors.update(_draw_noise(config))
    for name in [name for name in tensors if name.endswith(".resample_filter")]:
        del tensors[name]  # those that are used are in the config
    build = _Builder(tensors, config, scaled_by_fan_in)
    mapping, synthesis, noise = build.mapping(), {}, {}
    for i, resolution in enumerate(config.block_resolutions):
        synthesis[f"b{resolution}"], noise[f"b{resolution}"] = build.block(i)
    if "mapping.w_avg" in tensors:
        mean = {"w_avg": tensors.take("mapping.w_avg", (config.w_dim,))}
    elif mean_is_sampled:
        made["w_avg"] = f"mean of {MEAN_SAMPLES} samples"
        mean = {"w_avg": _mean_of_w(mapping, config)}
    else:
        mean = {}
    tensors.expect_empty()
    params = {"mapping": mapping, "synthesis": synthesis}
    constants = {"mapping": mean, "synthesis": noise}
    return config, {"params": _without_empty(params), "constants": _without_empty(constants)}, made


def as_filter(taps: np.ndarray) -> Filter:
    """A low-pass filter, as one line of taps where it is the outer product of that with itself."""
    if taps.ndim == 2 and taps.shape[0] == taps.shape[1]:
        with np.errstate(over="ignore"):
            line = taps.sum(1)
            taps = line if np.array_equal(np.outer(line, line), taps) else taps
    return tuple(taps.tolist()) if taps.ndim == 1 else tuple(map(tuple, taps.tolist()))


def _read_config(tensors: Tensors, settings: dict[str, Any]) -> StyleGAN2Config:
    convs = _convs(tensors)
    shapes = [tensors.shape(f"{name}.weight", 4) for name in convs]
    num_layers = sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in tensors)
    w_dim = tensors.shape("synthesis.b4.conv1.affine.weight", 2)[1]
    embed, c_dim = tensors.shape("mapping.embed.weight", 2) if _has_labels(tensors) else (0, 0)
    first = tensors.shape("mapping.fc0.weight", 2) if num_layers > 0 else (w_dim, w_dim)
    height, width = tensors.shape("synthesis.b4.const", 3)[1:]
    last = convs[-1].removesuffix(".conv1")
    blocks = [name.removesuffix(".conv1") for name in convs[1:]]
    architecture = "skip" if "synthesis.b4.torgb.weight" in tensors else "orig"
    if any(f"{block}.skip.weight" in tensors for block in blocks):
        architecture = "resnet"
    fields = {
        "z_dim": first[1] - embed,
        "c_dim": c_dim,
        "w_dim": w_dim,
        "img_resolution": 4 * 2 ** len(blocks),
        "img_channels": tensors.shape(f"{last}.torgb.weight", 4)[0],
        "mapping_layers": num_layers,
        "embed_features": embed,
        "layer_features": first[0],
        "channels": tuple(shape[0] for shape in shapes),
        "architecture": architecture,
        "kernel_size": shapes[0][-1],
        "use_noise": any(name.endswith(".noise_strength") for name in tensors),
        "base_shape": (height, width),
    }
    try:
        if "resample_filter" not in settings and (found := _filter(tensors, blocks)):
            fields["resample_filter"] = found
        return StyleGAN2Config(**fields | settings)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"the generator is no StyleGAN2: {error}") from error


def _convs(tensors: Tensors) -> list[str]:
    """The last convolution of every block."""
    names = [layer(2 * i) for i in range(_MOST_BLOCKS)]
    last = max((i for i, name in enumerate(names) if f"{name}.weight" in tensors), default=0)
    return names[: last + 1]


def _has_labels(tensors: Tensors) -> bool:
    return "mapping.embed.weight" in tensors


def _filter(tensors: Tensors, blocks: list[str]) -> Filter | None:
    """The one low-pass filter of all layers that upsample."""
    found = {}
    for block in blocks:
        # the first must be there: what upstream does without it, nothing says
        names = [f"{block}.conv0", block, f"{block}.skip"]
        for name in names:
            name = f"{name}.resample_filter"
            if name in tensors or name == f"{names[0]}.resample_filter":
                found.setdefault(_read_filter(tensors, name), tensors.called.get(name, name))
    if len(found) > 1:
        raise CheckpointError(f"{' and '.join(found.values())} differ; expected one filter for all")
    if not found and "synthesis.b4.resample_filter" in tensors:
        return _read_filter(tensors, "synthesis.b4.resample_filter")
    return next(iter(found), None)


def _read_filter(tensors: Tensors, name: str) -> Filter:
    is_line = name in tensors and np.ndim(tensors[name]) == 1
    return as_filter(tensors.take(name, tensors.shape(name, 1 if is_line else 2)))


class _Builder:
    """Takes tensors for the layers of `network.py`."""

    def __init__(self, tensors: Tensors, config: StyleGAN2Config, scaled_by_fan_in: bool):
        self._tensors = tensors
        self._config = config
        self._scaled_by_fan_in = scaled_by_fan_in

    def mapping(self) -> dict:
        cfg, width = self._config, self._config.z_dim + self._config.embed_features
        params = {}
        if cfg.c_dim > 0:
            params["embed"] = self._dense("mapping.embed", cfg.c_dim, cfg.embed_features)
        for i in range(cfg.mapping_layers):
            features = cfg.w_dim if i == cfg.mapping_layers - 1 else cfg.layer_features
            params[f"fc{i}"] = self._dense(f"mapping.fc{i}", width, features)
            width = features
        return params

    def block(self, index: int) -> tuple[dict, dict]:
        """Parameters and noise."""
        cfg, name = self._config, _block(index)
        out = cfg.channels[index]
        below = cfg.channels[index - 1]
        params: dict[str, Any] = {}
        if index == 0:
            const = self._tensors.take(f"{name}.const", (out, *cfg.base_shape))
            params["const"] = _transposed(const, 1, 2, 0)
        layers = {"conv1": out} if index == 0 else {"conv0": below, "conv1": out}
        noise = {}
        for layer, inputs in layers.items():
            params[layer] = self._convolution(f"{name}.{layer}", inputs, out, cfg.kernel_size)
            if cfg.use_noise:
                shape = tuple(side * 2**index for side in cfg.base_shape)
                noise_const = self._tensors.take(f"{name}.{layer}.noise_const", shape)
                noise[layer] = {"noise_const": noise_const}
        if cfg.architecture == "skip" or index == len(cfg.channels) - 1:
            params["torgb"] = self._convolution(f"{name}.torgb", out, cfg.img_channels, 0)
        if cfg.architecture == "resnet" and index > 0:
            params["skip"] = {"weight": self._kernel(f"{name}.skip", below, out, 1)}
        return params, noise

    def _convolution(self, name: str, inputs: int, outputs: int, size: int) -> dict:
        """A modulated convolution; of size 0 the 1x1 to RGB, which has neither norm nor noise."""
        weight = self._kernel(name, inputs, outputs, size or 1)
        if size and self._scaled_by_fan_in:
            weight *= np.float32(1 / math.sqrt(math.prod(weight.shape[:3])))
        params = {
            "weight": weight,
            "bias": self._tensors.take(f"{name}.bias", (outputs,)),
            "affine": self._dense(f"{name}.affine", self._config.w_dim, inputs),
        }
        if size and self._config.use_noise:
            params["noise_strength"] = self._tensors.take(f"{name}.noise_strength", ())
        return params

    def _kernel(self, name: str, inputs: int, outputs: int, size: int) -> np.ndarray:
        weight = self._tensors.take(f"{name}.weight", (outputs, inputs, size, size))
        return _transposed(weight, 2, 3, 1, 0)

    def _dense(self, name: str, inputs: int, outputs: int) -> dict:
        weight = self._tensors.take(f"{name}.weight", (outputs, inputs))
        bias = self._tensors.take(f"{name}.bias", (outputs,))
        return {"weight": _transposed(weight, 1, 0), "bias": bias}


def _transposed(x: np.ndarray, *axes: int) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(axes))


def _draw_noise(config: StyleGAN2Config) -> dict[str, np.ndarray]:
    """Noise of all layers from a fixed seed."""
    random = np.random.RandomState(0)  # its numbers are the same in every version of NumPy
    height, width = config.base_shape
    noise = {}
    for i in range(config.num_ws - 1):
        scale = 2 ** ((i + 1) // 2)
        drawn = random.standard_normal((height * scale, width * scale))
        noise[f"{layer(i)}.noise_const"] = drawn.astype(np.float32)
    return noise


def _mean_of_w(mapping: dict, config: StyleGAN2Config) -> np.ndarray:
    """The mean of w over samples of z from a fixed seed, [w_dim].

    In float64, so that the result in float32, a part of the model's hash, is the same everywhere.
    """
    random = np.random.RandomState(0)
    total = np.zeros(config.w_dim)
    for _ in range(MEAN_SAMPLES // 4096):
        x = random.standard_normal((4096, config.z_dim))
        x /= np.sqrt((x**2).mean(1, keepdims=True) + 1e-8)
        for fc in mapping.values():
            gain = config.mapping_lr_multiplier
            x = x @ (fc["weight"] * (gain / np.sqrt(len(fc["weight"])))) + fc["bias"] * gain
            x = np.sqrt(2) * np.maximum(x, 0.2 * x)
        total += x.sum(0)
    return (total / MEAN_SAMPLES).astype(np.float32)


def _without_empty(tree: dict) -> dict:
    """The tree without branches that hold nothing."""
    branches = {k: _without_empty(v) if isinstance(v, dict) else v for k, v in tree.items()}
    return {k: v for k, v in branches.items() if not isinstance(v, dict) or v}
