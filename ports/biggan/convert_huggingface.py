"""Converts BigGAN-deep as pytorch-pretrained-BigGAN keeps it: pytorch_model.bin and config.json."""

from typing import Any

from ports.biggan.config import BigGANConfig, BlockConfig
from ports.biggan.settings import Settings
from ports.biggan.weights import check_statistics, normalised
from ports.checkpoint import Converted
from ports.errors import CheckpointError, shown
from ports.state_dict import Candidate, Format, Tensors

# the 128x128 model's, which upstream assumes where its config is silent
_DEFAULT_LAYERS = [
    [False, 16, 16], [True, 16, 16], [False, 16, 16], [True, 16, 8], [False, 8, 8],
    [True, 8, 4], [False, 4, 4], [True, 4, 2], [False, 2, 2], [True, 2, 1],
]  # fmt: skip


def convert(candidate: Candidate, settings: dict | None) -> Converted:
    """The generator among the candidate's tensors.

    Args:
      candidate: of a `pytorch_model.bin`.
      settings: the parsed `config.json` beside it, without which there is no knowing the blocks.
    """
    if settings is None:
        raise CheckpointError(
            "this BigGAN-deep is described by its config.json, which is not there: put it beside"
            " the checkpoint or name it with --config (config=)"
        )
    state = Tensors(candidate.tensors)
    config, width = _read_config(Settings(settings))
    sides = (config.linear_dim, config.linear_inputs)
    params: dict[str, Any] = {
        "embedding": {
            "weight": state.take("embeddings.weight", (config.embed_dim, config.num_classes)).T
        },
        # upstream views its output as NHWC, as the network here does
        "linear": {
            "weight": normalised(state, "generator.gen_z", sides).T,
            "bias": state.take("generator.gen_z.bias", sides[:1]),
        },
    }
    constants: dict[str, Any] = {}
    place = 0
    for i in range(len(config.blocks) + 1):
        if i in config.attention:
            channels = config.attention_channels(i)
            params[f"attention{i}"] = _attention(state, f"generator.layers.{place}", channels)
            place += 1
        if i < len(config.blocks):
            name = f"generator.layers.{place}"
            params[f"block{i}"], constants[f"block{i}"] = _block(
                state, name, config.blocks[i], config
            )
            place += 1
    params["output_bn"] = {
        "gain": state.take("generator.bn.weight", (width,)),
        "bias": state.take("generator.bn.bias", (width,)),
    }
    constants["output_bn"] = _statistics(state, "generator.bn", width, config)
    rgb = _conv(state, "generator.conv_to_rgb", width, width, 3)
    colours = config.img_channels  # the layer has more outputs, and upstream shows the first
    params["output_conv"] = {name: x[..., :colours] for name, x in rgb.items()}
    state.expect_empty()
    variables = {"params": params, "constants": constants}
    return Converted("biggan", config, variables, {"format": "pytorch-pretrained-BigGAN"})


def _read_config(settings: Settings) -> tuple[BigGANConfig, int]:
    """The architecture, and the channels of the last block."""
    width = settings.integer("channel_width", 128, least=1)
    z_dim = settings.integer("z_dim", 128, least=1)
    num_stats = settings.integer("n_stats", 51, least=2)  # with 1 upstream divides by 0
    position = settings.integer("attention_layer_position", 8, least=-(2**31))
    blocks = []
    for layer in settings.value("layers", _DEFAULT_LAYERS, list):
        if not (isinstance(layer, list) and len(layer) == 3 and isinstance(layer[0], bool | int)):
            raise CheckpointError(f"the config's layer {shown(layer)} is not [upsample, in, out]")
        in_factor, out_factor = layer[1:]
        if not all(type(n) is int and 0 < n < 2**20 for n in (in_factor, out_factor)):
            raise CheckpointError(f"the config's layer {shown(layer)} has no channels")
        if out_factor != in_factor and width * in_factor // 2 != width * out_factor:
            raise CheckpointError(
                f"the config's layer {shown(layer)} is none that upstream can run: a layer halves"
                " its channels or keeps them"
            )
        with settings.checked():
            blocks.append(BlockConfig(width * in_factor, width * out_factor, bool(layer[0])))
    if not blocks or blocks[0].in_channels != 16 * width or blocks[-1].out_channels != width:
        raise CheckpointError(
            "the config's layers must go from 16 channel widths to one; upstream has it so"
        )
    with settings.checked():
        config = BigGANConfig(
            z_dim=z_dim,
            num_classes=settings.integer("num_classes", 1000, least=1),
            embed_dim=z_dim,  # upstream leaves class_embed_dim unused
            blocks=tuple(blocks),
            bottleneck=True,
            hierarchy="full",
            attention=(position,) if 0 <= position < len(blocks) else (),
            img_channels=min(3, width),
            num_stats=num_stats,
            eps=settings.number("eps", 1e-4),
            output_eps=settings.number("eps", 1e-4),
        )
    return config, width


def _block(
    state: Tensors, name: str, block: BlockConfig, config: BigGANConfig
) -> tuple[dict, dict]:
    hidden = block.in_channels // 4
    widths = [block.in_channels, hidden, hidden, hidden, block.out_channels]
    params, constants = {}, {}
    for i, size in enumerate((1, 3, 3, 1)):
        params[f"bn{i}"] = {
            ours: normalised(state, f"{name}.bn_{i}.{theirs}", (widths[i], config.block_inputs)).T
            for ours, theirs in (("gain", "scale"), ("bias", "offset"))
        }
        constants[f"bn{i}"] = _statistics(state, f"{name}.bn_{i}", widths[i], config)
        params[f"conv{i}"] = _conv(state, f"{name}.conv_{i}", widths[i], widths[i + 1], size)
    return params, constants


def _attention(state: Tensors, name: str, channels: int) -> dict:
    widths = {
        "theta": ("theta", channels, channels // 8),
        "phi": ("phi", channels, channels // 8),
        "g": ("g", channels, channels // 2),
        "o": ("o_conv", channels // 2, channels),
    }
    params: dict[str, Any] = {
        ours: _conv(state, f"{name}.snconv1x1_{theirs}", inputs, outputs, 1, bias=False)
        for ours, (theirs, inputs, outputs) in widths.items()
    }
    return params | {"gamma": state.take(f"{name}.gamma", (1,)).reshape(())}


def _statistics(state: Tensors, name: str, channels: int, config: BigGANConfig) -> dict:
    shape = (config.num_stats, channels)
    mean, var = (state.take(f"{name}.running_{kind}", shape) for kind in ("means", "vars"))
    check_statistics(name, mean, var, config.eps)
    return {"mean": mean, "var": var}


def _conv(
    state: Tensors, name: str, inputs: int, outputs: int, size: int, *, bias: bool = True
) -> dict:
    weight = normalised(state, name, (outputs, inputs, size, size)).transpose(2, 3, 1, 0)
    return {"weight": weight} | ({"bias": state.take(f"{name}.bias", (outputs,))} if bias else {})


FORMAT = Format(("generator.gen_z.bias",), convert, settings=True)
