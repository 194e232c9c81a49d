"""Builds BigGAN and BigGAN-deep from their tensors, under BigGAN-PyTorch's names."""

import math
from typing import Any

import numpy as np

from ports.biggan.config import BigGANConfig, BlockConfig
from ports.biggan.settings import Settings
from ports.biggan.weights import check_statistics, divided_by_norm
from ports.errors import CheckpointError, shown
from ports.state_dict import Tensors

# channels of each block's input and output in units of G_ch, by resolution (upstream's G_arch)
_CHANNELS = {
    512: ([16, 16, 8, 8, 4, 2, 1], [16, 8, 8, 4, 2, 1, 1]),
    256: ([16, 16, 8, 8, 4, 2], [16, 8, 8, 4, 2, 1]),
    128: ([16, 16, 8, 4, 2], [16, 8, 4, 2, 1]),
    64: ([16, 16, 8, 4], [16, 8, 4, 2]),
    32: ([4, 4, 4], [4, 4, 4]),
}
# what neither names nor shapes say, and upstream's defaults for it
ASSUMED = {"BN_eps": 1e-5, "G_nl": "relu", "norm_style": "bn"}


def assemble(
    state: Tensors, config_json: dict, output_eps: float = 1e-5
) -> tuple[BigGANConfig, dict]:
    """The config and variables of a BigGAN, which takes every tensor.

    Args:
      state: tensors as in `G_ema.pth`.
      config_json: the settings it was trained with, as upstream's parser names them. Those that are
        missing are read from the tensors, or else are as in `ASSUMED`.
      output_eps: upstream's output layer keeps its own default, whatever BN_eps says.

    Raises:
      CheckpointError: where tensors and config disagree, where the config is one that upstream
        itself cannot run, or where a weight is not finite.
    """
    generator = _Generator(state, Settings(_inferred(state) | config_json), output_eps)
    config = generator.config
    params = {"linear": generator.linear()}
    if config.embed_dim:
        shape = (config.num_classes, config.embed_dim)
        params["embedding"] = {"weight": state.take("shared.weight", shape)}
    constants = {}
    for i, block in enumerate(config.blocks):
        params[f"block{i}"], constants[f"block{i}"] = generator.block(f"blocks.{i}.0", block)
        if i + 1 in config.attention:
            attention = generator.attention(f"blocks.{i}.1", block.out_channels)
            params[f"attention{i + 1}"] = attention
    channels = config.blocks[-1].out_channels
    params["output_bn"], constants["output_bn"] = generator.output_norm(channels)
    params["output_conv"] = generator.conv("output_layer.2", channels, config.img_channels, 3)
    state.expect_empty()
    return config, {"params": params, "constants": constants}


def _inferred(state: Tensors) -> dict[str, Any]:
    """The settings that names and shapes say."""
    deep = "blocks.0.0.conv3.weight" in state
    shared = "shared.weight" in state
    linear_outputs, linear_inputs = state.shape("linear.weight", 2)
    classes, shared_dim = state.shape("shared.weight" if shared else _GAIN, 2)
    condition = state.shape(_GAIN, 2)[1] if shared else 0
    hier = deep or (condition > shared_dim and shared)
    last = "conv4" if deep else "conv2"
    widths: list[tuple[int, int]] = []
    while (name := f"blocks.{len(widths)}.0") and f"{name}.conv1.weight" in state:
        inputs = state.shape(f"{name}.conv1.weight", 4)[1]
        widths.append((inputs, state.shape(f"{name}.{last}.weight", 4)[0]))
    running, stored = (f"blocks.0.0.bn1.{x}_mean" in state for x in ("bn.running", "stored"))
    settings = {
        "model": "BigGANdeep" if deep else "BigGAN",
        "G_shared": shared,
        "n_classes": classes,
        "shared_dim": shared_dim if shared else 0,
        "hier": hier,
        "dim_z": linear_inputs - shared_dim if deep else linear_inputs,
        "G_param": "SN" if "linear.u0" in state else "weights",
        "cross_replica": running,
        "mybn": "blocks.0.0.bn1.bn.stored_mean" in state,
        "norm_style": ASSUMED["norm_style"] if stored else "nonorm",
        "BN_eps": ASSUMED["BN_eps"],
        "G_nl": ASSUMED["G_nl"],
    }
    if hier and not deep:
        settings["dim_z"] *= len(widths) + 1
    if widths:
        settings["bottom_width"] = max(1, math.isqrt(linear_outputs // widths[0][0]))
    for resolution, channels in _CHANNELS.items():
        depth = len(widths) // len(channels[0])
        width = widths[0][0] // channels[0][0] if widths else 0
        if depth and _widths(resolution, width, depth, deep) == widths:
            attended = (i for i in range(len(widths)) if f"blocks.{i}.1.gamma" in state)
            settings |= {"resolution": resolution, "G_ch": width, "G_depth": depth}
            settings["G_attn"] = "_".join(str(8 * 2 ** (i // depth)) for i in attended) or "0"
    return settings


_GAIN = "blocks.0.0.bn1.gain.weight"


def _widths(resolution: int, width: int, depth: int, deep: bool) -> list[tuple[int, int]]:
    """Channels that enter and leave each block."""
    return [
        # BigGAN-deep changes channels after its first block of a resolution
        (width * inputs, width * (inputs if deep and repeat == 0 else outputs))
        for inputs, outputs in zip(*_CHANNELS[resolution], strict=True)
        for repeat in range(depth)
    ]


class _Generator:
    """A state dict with the settings that its layers depend on."""

    def __init__(self, state: Tensors, settings: Settings, output_eps: float):
        self.state = state
        self.config = _read_config(state, settings, output_eps)
        self.spectral = settings.value("G_param", "SN", str) == "SN"
        self.sn_eps = settings.number("SN_eps", 1e-12)
        self.cross_replica = settings.flag("cross_replica", False)
        self.mybn = settings.flag("mybn", False) and not self.cross_replica
        self.norm_style = settings.value("norm_style", "bn", str)
        batch_norm = self.cross_replica or self.mybn
        if not batch_norm and self.norm_style not in ("bn", "in", "nonorm"):
            raise CheckpointError(
                f"the config's norm_style is {shown(self.norm_style)}; 'bn', 'in' and 'nonorm' can"
                " be converted, and upstream runs no other"
            )

    def linear(self) -> dict:
        """Upstream views its output as NCHW, the network here as NHWC."""
        cfg = self.config
        shape = (cfg.blocks[0].in_channels, cfg.bottom_width, cfg.bottom_width, -1)
        sides = (cfg.linear_dim, cfg.linear_inputs)
        weight = self.weight("linear", sides).reshape(shape).transpose(1, 2, 0, 3)
        bias = self.state.take("linear.bias", sides[:1]).reshape(shape[:3]).transpose(1, 2, 0)
        weight = weight.reshape(sides).T
        return {
            "weight": self._z_first(weight) if cfg.hierarchy == "full" else weight,
            "bias": bias.reshape(-1),
        }

    def block(self, name: str, block: BlockConfig) -> tuple[dict, dict]:
        params, constants = {}, {}
        wide, out = block.in_channels, block.out_channels
        hidden = wide // 4
        if self.config.bottleneck:
            widths, sizes = [wide, hidden, hidden, hidden, out], [1, 3, 3, 1]
        else:
            widths, sizes = [wide, out, out], [3, 3]
            if block.upsample or wide != out:
                params["shortcut"] = self.conv(f"{name}.conv_sc", wide, out, 1)
        for i, size in enumerate(sizes):
            norm = self.conditional_norm(f"{name}.bn{i + 1}", widths[i])
            params[f"bn{i}"], constants[f"bn{i}"] = norm
            params[f"conv{i}"] = self.conv(f"{name}.conv{i + 1}", widths[i], widths[i + 1], size)
        return params, constants

    def attention(self, name: str, channels: int) -> dict:
        few, half = channels // 8, channels // 2
        widths = {"theta": (channels, few), "phi": (channels, few), "g": (channels, half)}
        params: dict[str, Any] = {
            layer: self.conv(f"{name}.{layer}", *sides, 1, bias=False)
            for layer, sides in (widths | {"o": (half, channels)}).items()
        }
        return params | {"gamma": self.state.take(f"{name}.gamma", ())}

    def conv(self, name: str, inputs: int, outputs: int, size: int, *, bias: bool = True) -> dict:
        weight = self.weight(name, (outputs, inputs, size, size)).transpose(2, 3, 1, 0)
        return {"weight": weight} | (
            {"bias": self.state.take(f"{name}.bias", (outputs,))} if bias else {}
        )

    def conditional_norm(self, name: str, channels: int) -> tuple[dict, dict]:
        """Gain and bias, linear in the class embedding or, where there is none, one a class."""
        cfg = self.config
        if cfg.embed_dim:
            sides = (channels, cfg.block_inputs)
            gain, bias = (self.weight(f"{name}.{x}", sides).T for x in ("gain", "bias"))
            if cfg.hierarchy != "none":
                gain, bias = self._z_first(gain), self._z_first(bias)
        else:
            shape = (cfg.num_classes, channels)
            gain, bias = (self.state.take(f"{name}.{x}.weight", shape) for x in ("gain", "bias"))
        mean, var = self._statistics(name, channels, cfg.eps, self.norm_style)
        if self.cross_replica:  # upstream adds 1 + gain where it should multiply
            gain, bias, mean = np.zeros_like(gain), gain + bias, mean - np.sqrt(var + cfg.eps)
        return {"gain": gain, "bias": bias}, {"mean": mean[None], "var": var[None]}

    def output_norm(self, channels: int) -> tuple[dict, dict]:
        name = "output_layer.0"
        gain, bias = (self.state.take(f"{name}.{x}", (channels,)) for x in ("gain", "bias"))
        mean, var = self._statistics(name, channels, self.config.output_eps, "bn")
        if self.cross_replica:
            gain, bias = np.ones_like(gain), gain + bias
        return {"gain": gain, "bias": bias}, {"mean": mean[None], "var": var[None]}

    def weight(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A weight, divided by its largest singular value as upstream's evaluation finds it.

        That is one step of the power method from the stored u0, which is no unit vector: G_ema
        averages it.
        """
        weight = self.state.take(f"{name}.weight", shape)
        if not self.spectral:
            return weight
        matrix = weight.reshape(shape[0], -1).astype(np.float64)
        v = _normalised(self.state.take(f"{name}.u0", (1, shape[0])) @ matrix, self.sn_eps)
        image = v @ matrix.T
        norm = float((image @ _normalised(image, self.sn_eps).T).item())
        for kept in [n for n in self.state if n.startswith((f"{name}.u", f"{name}.sv"))]:
            del self.state[kept]  # further singular values, which only training looks at
        return divided_by_norm(f"{name}.weight", weight, norm)

    def _statistics(
        self, name: str, channels: int, eps: float, norm_style: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the features, [channels] each."""
        tensor, shape = self.state.take, (channels,)
        if self.cross_replica:
            self.state.pop(f"{name}.bn.num_batches_tracked", None)
            mean, var = (tensor(f"{name}.bn.running_{x}", shape) for x in ("mean", "var"))
        elif self.mybn:
            mean, var = (tensor(f"{name}.bn.stored_{x}", shape) for x in ("mean", "var"))
            count = tensor(f"{name}.bn.accumulation_counter", (1,))
            if count > 0:  # sums over so many batches; otherwise running averages
                with np.errstate(over="ignore"):
                    mean, var = mean / count, var / count
        elif norm_style == "nonorm":  # nothing is subtracted, and what is divided by is 1
            mean, var = np.zeros(shape, np.float32), np.full(shape, 1 - eps, np.float32)
        else:
            mean, var = (tensor(f"{name}.stored_{x}", shape) for x in ("mean", "var"))
        check_statistics(name, mean, var, eps)
        return mean, var

    def _z_first(self, weight: np.ndarray) -> np.ndarray:
        """Rows for [class embedding, z] in the order of the network here, [z, class embedding]."""
        return np.concatenate([weight[self.config.embed_dim :], weight[: self.config.embed_dim]])


def _read_config(state: Tensors, settings: Settings, output_eps: float) -> BigGANConfig:
    deep = "blocks.0.0.conv3.weight" in state
    model = settings.value("model", "BigGANdeep" if deep else "BigGAN", str)
    if model not in ("BigGAN", "BigGANdeep") or deep != (model == "BigGANdeep"):
        kind = "BigGANdeep" if deep else "BigGAN"
        raise CheckpointError(f"the config's model is {shown(model)}, but the tensors are {kind}'s")
    activation = settings.value("G_nl", "relu", str)
    if activation not in ("relu", "inplace_relu", "ir"):
        raise CheckpointError(f"the config's G_nl is {shown(activation)}; upstream has only ReLU")
    resolution, width = settings.integer("resolution", 0), settings.integer("G_ch", 64, least=1)
    if resolution == 0:
        raise CheckpointError(
            f"its blocks have widths that upstream's {model} has at no resolution; name its"
            " settings with --config (config=)"
        )
    resolutions = [known for known in sorted(_CHANNELS) if not deep or known < 512]
    if resolution not in resolutions:
        raise CheckpointError(
            f"the config's resolution is {resolution}; upstream's {model} has {resolutions}"
        )
    shared, hier = settings.flag("G_shared", True), settings.flag("hier", False)
    if (deep and not (shared and hier)) or (hier and not shared):
        raise CheckpointError(
            f"the config has G_shared {shared} and hier {hier}, which upstream's {model} cannot run"
        )
    dim_z = settings.integer("dim_z", 128, least=1)
    shared_dim = settings.integer("shared_dim", 0) or dim_z
    depth = settings.integer("G_depth", 2, least=1, most=99) if deep else 1
    blocks, attention = [], []
    attended = _attended_resolutions(settings.value("G_attn", "64", str))
    with settings.checked():
        for i, (inputs, outputs) in enumerate(_widths(resolution, width, depth, deep)):
            # only the last block of a resolution upsamples
            blocks.append(BlockConfig(inputs, outputs, (i + 1) % depth == 0))
            if (i + 1) % depth == 0 and 8 * 2 ** (i // depth) in attended:
                attention.append(len(blocks))
    slots = len(blocks) + 1 if hier and not deep else 1
    if dim_z < slots:
        raise CheckpointError(
            f"the config's dim_z is {dim_z}, which has no piece for {slots} layers"
        )
    with settings.checked():
        return BigGANConfig(
            z_dim=dim_z // slots * slots,
            num_classes=settings.integer("n_classes", 1000, least=1),
            embed_dim=shared_dim if shared else 0,
            blocks=tuple(blocks),
            bottleneck=deep,
            hierarchy="full" if deep else "chunks" if hier else "none",
            attention=tuple(attention),
            bottom_width=settings.integer("bottom_width", 4, least=1),
            img_channels=state.shape("output_layer.2.weight", 4)[0],
            eps=settings.number("BN_eps", 1e-5),
            output_eps=output_eps,
        )


def _attended_resolutions(text: str) -> set[int]:
    """The resolutions in a string such as '32_64'; '0' is none."""
    parts = text.split("_")
    if not all(part.isdecimal() and len(part) < 6 for part in parts):
        raise CheckpointError(f"the config's G_attn is {shown(text)}; expected one such as '32_64'")
    return {int(part) for part in parts}


def _normalised(x: np.ndarray, eps: float) -> np.ndarray:
    return x / max(float(np.linalg.norm(x)), eps)
