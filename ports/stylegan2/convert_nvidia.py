"""Converts `.pkl` snapshots of stylegan2-ada-pytorch and of the StyleGAN3 repository's StyleGAN2.

The architecture is read from the attributes and tensors of every layer, never from the arguments
that the network was made with: those leave out the defaults, which differ between the two projects.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ports.checkpoint import Converted
from ports.errors import CheckpointError, shown
from ports.pickles import PersistentObject
from ports.state_dict import float32
from ports.stylegan2.config import Filter, StyleGAN2Config
from ports.stylegan2.network import ACTIVATIONS
from ports.stylegan2.weights import as_filter, transposed, without_empty


def recognises(content: Any) -> bool:
    """Whether what `pickles.read` made of a file is a snapshot, or a network, of these projects."""
    networks = content.values() if isinstance(content, dict) else [content]
    return any(isinstance(network, PersistentObject) for network in networks)


def convert(content: dict | PersistentObject) -> Converted:
    """The generator of a training snapshot, `G_ema`.

    Args:
      content: what `pickles.read` makes of a `.pkl` file, or a network out of that.

    Returns:
      Its `source` has `format` and `fp16_blocks`, the resolutions that upstream computes in float16
      on a GPU.

    Raises:
      CheckpointError: where this is no StyleGAN2 of those two projects, where its layers disagree
        in what `StyleGAN2Config` has once for all of them, or where a weight is not finite.
    """
    generator = _Module("G_ema", _find_generator(content))
    config, variables = _convert_generator(generator)
    synthesis = generator.child("synthesis")
    blocks = [synthesis.child(f"b{resolution}") for resolution in config.block_resolutions]
    half = [
        resolution
        for resolution, block in zip(config.block_resolutions, blocks, strict=True)
        if block.attribute("use_fp16")
    ]
    is_sg3 = "num_fp16_res" in synthesis.state
    source = {
        "format": "stylegan3-repo stylegan2" if is_sg3 else "stylegan2-ada-pytorch",
        "fp16_blocks": half,
    }
    return Converted("stylegan2", config, variables, source)


def _find_generator(snapshot: Any) -> PersistentObject:
    if isinstance(snapshot, dict):
        if "G_ema" not in snapshot:
            names = [name[:40] for name in snapshot if isinstance(name, str)][:8]
            raise CheckpointError(f"the snapshot has no generator G_ema, only {names}")
        snapshot = snapshot["G_ema"]
    if not isinstance(snapshot, PersistentObject):
        kind = type(snapshot).__name__
        raise CheckpointError(f"expected a generator of NVIDIA's PyTorch code, found {kind}")
    if snapshot.class_name != "Generator":
        raise CheckpointError(f"expected a Generator, found a {snapshot.class_name[:40]}")
    return snapshot


# --- the generator, top down ------------------------------------------------------------------


def _convert_generator(generator: "_Module") -> tuple[StyleGAN2Config, dict]:
    generator.expect_contents(["mapping", "synthesis"], [])
    mapping, synthesis = generator.child("mapping"), generator.child("synthesis")
    if "input" in synthesis.members("_modules"):
        raise CheckpointError("this is a StyleGAN3 generator; only StyleGAN2 can be converted")
    config = _read_config(mapping, synthesis)
    for name in (config.activation, config.mapping_activation):
        if name not in ACTIVATIONS:
            raise CheckpointError(f"the activation {shown(name)} is none that StyleGAN2 has")
    for name in ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "num_ws"):
        generator.expect(name, getattr(config, name))
    mapping_params, mapping_constants = _convert_mapping(mapping, config)
    synthesis_params, synthesis_constants = _convert_synthesis(synthesis, config)
    params = {"mapping": mapping_params, "synthesis": synthesis_params}
    constants = {"mapping": mapping_constants, "synthesis": synthesis_constants}
    return config, {"params": without_empty(params), "constants": without_empty(constants)}


def _read_config(mapping: "_Module", synthesis: "_Module") -> StyleGAN2Config:
    """The architecture, each fact from the first layer that states it."""
    num_blocks = sum(name.startswith("b") for name in synthesis.members("_modules"))
    num_layers = sum(name.startswith("fc") for name in mapping.members("_modules"))
    blocks = [synthesis.child(f"b{4 * 2**i}") for i in range(max(num_blocks, 1))]
    conv = blocks[0].child("conv1")
    c_dim, w_dim = mapping.integer("c_dim"), mapping.integer("w_dim")
    fc0 = mapping.child("fc0") if num_layers > 0 else None
    try:
        return StyleGAN2Config(
            z_dim=mapping.integer("z_dim"),
            c_dim=c_dim,
            w_dim=w_dim,
            img_resolution=4 * 2 ** (len(blocks) - 1),
            img_channels=synthesis.integer("img_channels"),
            mapping_layers=num_layers,
            embed_features=mapping.child("embed").tensor("bias").size if c_dim > 0 else 0,
            layer_features=fc0.tensor("bias").size if fc0 else w_dim,
            channels=tuple(block.child("conv1").tensor("bias").size for block in blocks),
            mapping_activation=fc0.text("activation") if fc0 else "lrelu",
            mapping_lr_multiplier=fc0.number("bias_gain") if fc0 else 0.01,
            architecture=blocks[0].text("architecture"),
            kernel_size=(0, *conv.tensor("weight").shape)[-1],
            activation=conv.text("activation"),
            use_noise=bool(conv.attribute("use_noise")),
            conv_clamp=None if conv.attribute("conv_clamp") is None else conv.number("conv_clamp"),
            resample_filter=_read_filter(blocks[-1]),
        )
    except ValueError as error:  # the config's own, or a CheckpointError of the lines above
        raise CheckpointError(str(error)) from error


def _convert_mapping(mapping: "_Module", config: StyleGAN2Config) -> tuple[dict, dict]:
    inner = [config.layer_features] * (config.mapping_layers - 1)
    widths = [config.z_dim + config.embed_features, *inner, config.w_dim]
    if config.mapping_layers == 0 and widths[0] != config.w_dim:
        raise CheckpointError(f"{mapping.path} has no layers, but its input is not as wide as w")
    names = [f"fc{i}" for i in range(config.mapping_layers)]
    embed = ["embed"] if config.c_dim > 0 else []
    w_avg = ["w_avg"] if "w_avg" in mapping.tensors() else []
    mapping.expect_contents([*embed, *names], w_avg)
    mapping.expect("num_layers", config.mapping_layers)
    mapping.expect("num_ws", config.num_ws)

    params = {}
    for name in embed:
        layer = mapping.child(name)
        params[name] = _convert_dense(layer, config.c_dim, config.embed_features)
    for i, name in enumerate(names):
        params[name] = _convert_dense(
            mapping.child(name),
            widths[i],
            widths[i + 1],
            config.mapping_activation,
            config.mapping_lr_multiplier,
        )
    return params, {name: mapping.tensor(name, (config.w_dim,)) for name in w_avg}


def _convert_synthesis(synthesis: "_Module", config: StyleGAN2Config) -> tuple[dict, dict]:
    names = [f"b{resolution}" for resolution in config.block_resolutions]
    synthesis.expect_contents(names, [])
    for name in ("w_dim", "num_ws", "img_resolution"):
        synthesis.expect(name, getattr(config, name))
    converted = {
        name: _convert_block(synthesis.child(name), config, i) for i, name in enumerate(names)
    }
    params = {name: params for name, (params, _) in converted.items()}
    return params, {name: constants for name, (_, constants) in converted.items()}


def _convert_block(block: "_Module", config: StyleGAN2Config, index: int) -> tuple[dict, dict]:
    resolution, channels = config.block_resolutions[index], config.channels[index]
    is_first, is_last = index == 0, resolution == config.img_resolution
    in_channels = 0 if is_first else config.channels[index - 1]
    convs = ["conv1"] if is_first else ["conv0", "conv1"]
    rgb = ["torgb"] if is_last or config.architecture == "skip" else []
    skip = ["skip"] if config.architecture == "resnet" and not is_first else []
    const = ["const"] if is_first else []
    block.expect_contents([*convs, *rgb, *skip], ["resample_filter", *const])
    block.expect("architecture", config.architecture)
    block.expect("is_last", is_last)
    block.expect("resolution", resolution)
    _expect_filter(block, config)

    params, constants = {}, {}
    for name in const:
        params[name] = transposed(block.tensor(name, (channels, 4, 4)), 1, 2, 0)
    for name in convs:
        up, width = (2, in_channels) if name == "conv0" else (1, channels)
        layer = block.child(name)
        params[name] = _convert_synthesis_layer(layer, config, up, width, channels)
        layer.expect("resolution", resolution)
        if config.use_noise:
            noise = layer.tensor("noise_const", (resolution, resolution))
            constants[name] = {"noise_const": noise}
    for name in rgb:
        params[name] = _convert_rgb(block.child(name), config, channels)
    for name in skip:
        params[name] = _convert_skip(block.child(name), config, in_channels, channels)
    return params, constants


def _convert_synthesis_layer(
    layer: "_Module", config: StyleGAN2Config, up: int, in_channels: int, channels: int
) -> dict:
    noise = ["noise_const", "noise_strength"] if config.use_noise else []
    layer.expect_contents(["affine"], ["weight", "bias", "resample_filter", *noise])
    layer.expect("up", up)
    layer.expect("use_noise", config.use_noise)
    layer.expect("activation", config.activation)
    layer.expect("conv_clamp", config.conv_clamp)
    layer.expect("padding", config.kernel_size // 2)
    layer.expect("act_gain", ACTIVATIONS[config.activation][1])
    if up == 2:
        _expect_filter(layer, config)
    shape = (channels, in_channels, config.kernel_size, config.kernel_size)
    params = {
        "weight": transposed(layer.tensor("weight", shape), 2, 3, 1, 0),
        "bias": layer.tensor("bias", (channels,)),
        "affine": _convert_dense(layer.child("affine"), config.w_dim, in_channels),
    }
    if config.use_noise:
        params["noise_strength"] = layer.tensor("noise_strength", ())
    return params


def _convert_rgb(layer: "_Module", config: StyleGAN2Config, in_channels: int) -> dict:
    layer.expect_contents(["affine"], ["weight", "bias"])
    layer.expect("conv_clamp", config.conv_clamp)
    layer.expect("weight_gain", 1 / math.sqrt(in_channels))
    weight = layer.tensor("weight", (config.img_channels, in_channels, 1, 1))
    return {
        "weight": transposed(weight, 2, 3, 1, 0),
        "bias": layer.tensor("bias", (config.img_channels,)),
        "affine": _convert_dense(layer.child("affine"), config.w_dim, in_channels),
    }


def _convert_skip(
    layer: "_Module", config: StyleGAN2Config, in_channels: int, channels: int
) -> dict:
    layer.expect_contents([], ["weight", "resample_filter"])
    layer.expect("up", 2)
    layer.expect("down", 1)
    layer.expect("activation", "linear")
    layer.expect("act_gain", 1)
    layer.expect("conv_clamp", None)
    layer.expect("weight_gain", 1 / math.sqrt(in_channels))
    _expect_filter(layer, config)
    return {"weight": transposed(layer.tensor("weight", (channels, in_channels, 1, 1)), 2, 3, 1, 0)}


def _convert_dense(
    layer: "_Module",
    in_features: int,
    features: int,
    activation: str = "linear",
    lr_multiplier: float = 1,
) -> dict:
    layer.expect_contents([], ["weight", "bias"])
    if in_features == 0:
        raise CheckpointError(f"{layer.path} has no inputs")
    layer.expect("activation", activation)
    layer.expect("bias_gain", lr_multiplier)
    layer.expect("weight_gain", lr_multiplier / math.sqrt(in_features))
    return {
        "weight": transposed(layer.tensor("weight", (features, in_features)), 1, 0),
        "bias": layer.tensor("bias", (features,)),
    }


def _read_filter(module: "_Module") -> Filter:
    """The low-pass filter, as one line of taps where it is the outer product of that with itself.

    Upstream stores the outer product of up to 7 taps, and 8 or more as a line.
    """
    taps = module.tensor("resample_filter")
    if taps.ndim not in (1, 2) or taps.size == 0:
        raise CheckpointError(f"{module.path} has a resample_filter of shape {taps.shape}")
    return as_filter(taps)


def _expect_filter(module: "_Module", config: StyleGAN2Config) -> None:
    if _read_filter(module) != config.resample_filter:
        raise CheckpointError(f"{module.path} has another resample_filter than the last block")


# --- a pickled torch module -------------------------------------------------------------------


class _Module(NamedTuple):
    """A pickled `torch.nn.Module`, and its path in the network for what is wrong with it."""

    path: str
    module: PersistentObject

    @property
    def state(self) -> dict:
        return self.module.state

    def members(self, kind: str) -> dict[str, Any]:
        """Its `_parameters`, `_buffers` or `_modules`, without those that are None."""
        members = self.state.get(kind)
        if not isinstance(members, dict) or not all(isinstance(name, str) for name in members):
            raise CheckpointError(f"{self.path} has no {kind}, so it is no PyTorch module")
        return {name: member for name, member in members.items() if member is not None}

    def child(self, name: str) -> "_Module":
        child = self.members("_modules").get(name)
        if not isinstance(child, PersistentObject):
            raise CheckpointError(f"{self.path} has no {name}, which StyleGAN2 needs there")
        return _Module(f"{self.path}.{name}", child)

    def tensors(self) -> dict[str, Any]:
        """Its parameters and buffers; a frozen parameter (Freeze-M) is pickled as a buffer."""
        return self.members("_parameters") | self.members("_buffers")

    def tensor(self, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """A copy of a parameter or buffer in float32, of this shape if one is given."""
        value = self.tensors().get(name)
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
            raise CheckpointError(f"{self.path} has no tensor {name}, which StyleGAN2 needs there")
        return float32(f"{self.path}.{name}", value, shape)

    def attribute(self, name: str) -> int | float | str | None:
        """A number, text or None among its attributes."""
        value = self.state.get(name, ())
        value = value.item() if isinstance(value, np.generic) else value
        if not isinstance(value, int | float | str | None):
            raise CheckpointError(f"{self.path} has no {name}, which StyleGAN2 needs there")
        return value

    def integer(self, name: str) -> int:
        value = self.attribute(name)
        if not isinstance(value, int) or not 0 <= value < 2**31:
            raise CheckpointError(f"{self.path} has {name} {shown(value)}; expected a width")
        return value

    def number(self, name: str) -> float:
        value = self.attribute(name)
        if not isinstance(value, int | float) or not abs(value) < 2**53:
            raise CheckpointError(f"{self.path} has {name} {shown(value)}; expected a number")
        return float(value)

    def text(self, name: str) -> str:
        value = self.attribute(name)
        if not isinstance(value, str):
            raise CheckpointError(f"{self.path} has {name} {shown(value)}; expected a name")
        return value

    def expect(self, name: str, expected: int | float | str | None) -> None:
        """That an attribute agrees with the config; numbers up to rounding."""
        value = self.attribute(name)
        if isinstance(value, int | float) and isinstance(expected, int | float):
            same = math.isclose(self.number(name), expected, rel_tol=1e-6)
        else:
            same = value == expected
        if not same:
            raise CheckpointError(
                f"{self.path} has {name} {shown(value)}, but the rest of the network {expected!r}"
            )

    def expect_contents(self, modules: list[str], tensors: list[str]) -> None:
        """That it has these submodules and tensors, and none that would go unused."""
        found = {*self.members("_modules"), *self.tensors()}
        for name in sorted({*modules, *tensors} - found):
            raise CheckpointError(f"{self.path} has no {name}, which StyleGAN2 needs there")
        for name in sorted(found - {*modules, *tensors}):
            raise CheckpointError(f"{self.path} has {name:.40}, which StyleGAN2 has not there")
