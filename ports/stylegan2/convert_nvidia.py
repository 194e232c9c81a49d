"""Converts NVIDIA's StyleGAN2 in PyTorch: stylegan2-ada-pytorch, the StyleGAN3 repository's, forks.

Of a pickled network the settings are read from the attributes of every layer, never from the
arguments that it was made with: those leave out defaults, which differ between the two projects. A
state dict has no attributes: what its tensors cannot say has stylegan2-ada-pytorch's defaults.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from ports.checkpoint import Converted
from ports.errors import CheckpointError, shown
from ports.records import PersistentObject, Record
from ports.state_dict import Candidate, Format, Tensors
from ports.stylegan2.assemble import assemble
from ports.stylegan2.config import StyleGAN2Config
from ports.stylegan2.network import ACTIVATIONS

DEFAULTS = {"mapping_lr_multiplier": 0.01, "activation": "lrelu", "conv_clamp": None}


def convert(candidate: Candidate) -> Converted:
    """The generator among the candidate's tensors.

    Its `source` has `format`; of a pickled network `fp16_blocks`, the resolutions that upstream
    computes in float16 on a GPU; of a state dict `assumed`, the settings that it cannot say.

    Raises:
      CheckpointError: also where a network's layers disagree in what `StyleGAN2Config` has once for
        all of them.
    """
    path = ".".join(candidate.path) or "G_ema"
    called = {name: f"{path}.{name}" for name in candidate.tensors}
    tensors = Tensors(candidate.tensors, called)
    network = candidate.network
    # a module of other code with these names says no more than its tensors
    if network is None or (isinstance(network, Record) and "z_dim" not in network.state):
        config, variables, _ = assemble(tensors)
        source = {"format": "stylegan2-ada-pytorch, a state dict", "assumed": DEFAULTS}
        return Converted("stylegan2", config, variables, source)
    generator = _Module(path, network)
    mapping, synthesis = generator.child("mapping"), generator.child("synthesis")
    config, variables, _ = assemble(tensors, **_settings(mapping, synthesis))
    for name in (config.activation, config.mapping_activation):
        if name not in ACTIVATIONS:
            raise CheckpointError(f"the activation {shown(name)} is none that StyleGAN2 has")
    _check_attributes(generator, mapping, synthesis, config)
    blocks = {r: synthesis.child(f"b{r}") for r in config.block_resolutions}
    half = [r for r, block in blocks.items() if block.attribute("use_fp16")]
    if half:
        config = dataclasses.replace(config, num_fp16_res=len(half))
    source = {
        "format": "stylegan3-repo stylegan2"
        if "num_fp16_res" in synthesis.state
        else "stylegan2-ada-pytorch",
        "fp16_blocks": half,
    }
    return Converted("stylegan2", config, variables, source)


def _settings(mapping: "_Module", synthesis: "_Module") -> dict[str, Any]:
    """What tensors cannot say, each from the first layer that states it."""
    block = synthesis.child("b4")
    conv = block.child("conv1")
    settings = {
        "z_dim": mapping.integer("z_dim"),
        "architecture": block.text("architecture"),
        "activation": conv.text("activation"),
        "use_noise": bool(conv.attribute("use_noise")),
        "conv_clamp": None if conv.attribute("conv_clamp") is None else conv.number("conv_clamp"),
    }
    if "fc0" in mapping.members("_modules"):
        fc0 = mapping.child("fc0")
        settings["mapping_activation"] = fc0.text("activation")
        settings["mapping_lr_multiplier"] = fc0.number("bias_gain")
    return settings


def _check_attributes(
    generator: "_Module", mapping: "_Module", synthesis: "_Module", config: StyleGAN2Config
) -> None:
    """That the attributes of all layers agree with the config."""
    for module in (generator, mapping, synthesis):
        for name in ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "num_ws"):
            if module is generator or name in module.state:
                module.expect(name, getattr(config, name))
    generator.expect_modules("mapping", "synthesis")
    fcs = [f"fc{i}" for i in range(config.mapping_layers)]
    mapping.expect_modules(*fcs, *["embed"] * (config.c_dim > 0))
    mapping.expect("num_layers", config.mapping_layers)
    synthesis.expect_modules(*(f"b{resolution}" for resolution in config.block_resolutions))
    inputs = config.z_dim + config.embed_features
    for name in fcs:
        fc = mapping.child(name)
        fc.expect_dense(inputs, config.mapping_activation, config.mapping_lr_multiplier)
        inputs = config.layer_features
    if config.c_dim > 0:
        mapping.child("embed").expect_dense(config.c_dim)
    for i, resolution in enumerate(config.block_resolutions):
        block = synthesis.child(f"b{resolution}")
        block.expect("architecture", config.architecture)
        block.expect("is_last", resolution == config.img_resolution)
        block.expect("resolution", resolution)
        convs = ["conv1"] if i == 0 else ["conv0", "conv1"]
        last = config.architecture == "skip" or resolution == config.img_resolution
        residual = config.architecture == "resnet" and i > 0
        block.expect_modules(*convs, *["torgb"] * last, *["skip"] * residual)
        for name in convs:
            layer = block.child(name)
            layer.expect_modules("affine")
            layer.expect("up", 2 if name == "conv0" else 1)
            layer.expect("use_noise", config.use_noise)
            layer.expect("activation", config.activation)
            layer.expect("conv_clamp", config.conv_clamp)
            layer.expect("padding", config.kernel_size // 2)
            layer.expect("act_gain", ACTIVATIONS[config.activation][1])
            layer.expect("resolution", resolution)
            layer.child("affine").expect_dense(config.w_dim)
        if last:
            layer = block.child("torgb")
            layer.expect_modules("affine")
            layer.expect("conv_clamp", config.conv_clamp)
            layer.expect("weight_gain", 1 / math.sqrt(config.channels[i]))
            layer.child("affine").expect_dense(config.w_dim)
        if residual:
            layer = block.child("skip")
            layer.expect_modules()
            expected = {"up": 2, "down": 1, "activation": "linear", "act_gain": 1}
            expected["weight_gain"] = 1 / math.sqrt(config.channels[i - 1])
            for name, value in (expected | {"conv_clamp": None}).items():
                layer.expect(name, value)


# --- a pickled torch module -------------------------------------------------------------------


class _Module(NamedTuple):
    """A pickled `torch.nn.Module`, and its path in the network for what is wrong with it."""

    path: str
    module: PersistentObject | Record

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
        if not isinstance(child, PersistentObject | Record):
            raise CheckpointError(f"{self.path} has no {name}, which StyleGAN2 needs there")
        return _Module(f"{self.path}.{name}", child)

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

    def expect_modules(self, *names: str) -> None:
        """That it has these submodules, and none that would go unused."""
        for name in sorted(self.members("_modules").keys() ^ set(names)):
            verb = "has no" if name in names else "has"
            raise CheckpointError(f"{self.path} {verb} {name:.40}; StyleGAN2 has {names or 'none'}")

    def expect_dense(
        self, inputs: int, activation: str = "linear", lr_multiplier: float = 1
    ) -> None:
        self.expect_modules()
        self.expect("activation", activation)
        self.expect("bias_gain", lr_multiplier)
        self.expect("weight_gain", lr_multiplier / math.sqrt(inputs))


FORMAT = Format(("synthesis.b4.const", "synthesis.b4.conv1.affine.weight"), convert)
