"""Converts `.pkl` snapshots of NVIDIA's StyleGAN2 in TensorFlow: stylegan2 and stylegan2-ada.

A pickled network has its variables, the arguments it was made with, and the name of the function
that builds it. Widths are read from the variables. What only the arguments say has the defaults of
that function.
"""

import math
from typing import Any

import numpy as np

from ports.checkpoint import Converted
from ports.errors import CheckpointError, quoted, shown
from ports.pickles import TensorFlowNetwork
from ports.state_dict import Tensors
from ports.stylegan2.config import Filter, StyleGAN2Config
from ports.stylegan2.network import ACTIVATIONS
from ports.stylegan2.weights import as_filter, scaled_by_fan_in, transposed, without_empty

# function that builds the synthesis network -> format of `source`
_FORMATS = {
    "G_synthesis_stylegan_revised": "stylegan2-tensorflow progressive",  # configs B to D
    "G_synthesis_stylegan2": "stylegan2-tensorflow",
    "G_synthesis": "stylegan2-ada-tensorflow",
}

# What arguments say: widths, which the variables have; what this converter reads; and what is for
# training, for speed, or chosen here with each image (truncation, noise).
_WIDTHS = {
    *("latent_size", "dlatent_size", "label_size", "resolution", "num_channels"),
    *("mapping_layers", "mapping_fmaps", "fmap_base", "fmap_decay", "fmap_min", "fmap_max"),
}
_READ = {
    *("mapping_lrmul", "mapping_nonlinearity", "normalize_latents"),
    *("architecture", "nonlinearity", "resample_kernel", "dtype"),
}
_UNUSED = {
    *("truncation_psi", "truncation_cutoff", "truncation_psi_val", "truncation_cutoff_val"),
    *("dlatent_avg_beta", "style_mixing_prob", "randomize_noise", "fused_modconv", "structure"),
    *("mapping_func", "synthesis_func", "dlatent_broadcast", "impl"),
}
_ADA_ONLY = {"label_fmaps", "fmap_const", "use_noise", "conv_clamp", "num_fp16_res"}


def recognises(content: Any) -> bool:
    """Whether what `pickles.read` made of a file is a network, or several, of NVIDIA's dnnlib."""
    networks = content if isinstance(content, tuple | list) else [content]
    return any(isinstance(network, TensorFlowNetwork) for network in networks)


def convert(content: tuple | list | TensorFlowNetwork) -> Converted:
    """The generator `Gs` of a training snapshot (G, D, Gs).

    Args:
      content: what `pickles.read` makes of a `.pkl` file, or a network out of that.

    Returns:
      Its `source` has `format` and `fp16_blocks`, the resolutions that upstream computes in
      float16.

    Raises:
      CheckpointError: where the network is no StyleGAN2, was made with arguments that are not known
        here, or its variables do not fit them or are not finite.
    """
    generator = _find_generator(content)
    function = _field(generator, "Gs", "build_func_name", str)
    if function != "G_main":
        other = f"Gs was built by {quoted(function)}(), expected G_main()"
        raise CheckpointError(_OTHER_NETWORKS.get(function, other))
    networks = {"": generator} | {
        f"{name}/": network for name, network in _field(generator, "Gs", "components", dict).items()
    }
    if networks.keys() != {"", "mapping/", "synthesis/"}:
        names = quoted(", ".join(name[:-1] for name in networks if name)) or "no components"
        raise CheckpointError(f"Gs has {names}, expected the components mapping and synthesis")
    functions = [
        _field(networks[name], name[:-1], "build_func_name", str)
        for name in ("mapping/", "synthesis/")
    ]
    if functions[0] != "G_mapping" or functions[1] not in _FORMATS:
        names = " and ".join(f"{quoted(name)}()" for name in functions)
        raise CheckpointError(f"Gs was built by {names}, which are not known here together")
    is_ada = functions[1] == "G_synthesis"
    is_progressive = functions[1] == "G_synthesis_stylegan_revised"

    kwargs = _read_kwargs(networks, is_ada)
    tensors = _read_tensors(networks)
    if is_progressive:
        _take_last_rgb(tensors)
        kwargs["architecture"] = "orig"  # whatever it is: this function does not read it
    config = _read_config(tensors, kwargs, is_ada)
    params, constants = _convert_generator(tensors, config)
    tensors.expect_empty()

    first_half = max(1, len(config.channels) - int(_number(kwargs, "num_fp16_res", 0)))
    half = list(config.block_resolutions[first_half:])
    source = {"format": _FORMATS[functions[1]], "fp16_blocks": half}
    variables = {"params": without_empty(params), "constants": without_empty(constants)}
    return Converted("stylegan2", config, variables, source)


_OTHER_NETWORKS = {
    "G_style": "this is a StyleGAN1 generator; only StyleGAN2 can be converted",
    "G_paper": "this is a ProGAN generator; only StyleGAN2 can be converted",
    "G_mapping": "this is a mapping network alone; expected the whole generator Gs",
}


# --- the pickled network ----------------------------------------------------------------------


def _find_generator(content: Any) -> TensorFlowNetwork:
    if isinstance(content, tuple | list):
        if len(content) != 3:
            raise CheckpointError(f"expected three networks (G, D, Gs), found {len(content)}")
        content = content[2]
    if not isinstance(content, TensorFlowNetwork):
        kind = type(content).__name__
        raise CheckpointError(f"expected a generator of NVIDIA's TensorFlow code, found {kind}")
    return content


def _field(network: Any, path: str, name: str, kind: type) -> Any:
    value = network.state.get(name) if isinstance(network, TensorFlowNetwork) else None
    if not isinstance(value, kind):
        raise CheckpointError(f"{path} has no {name}, so it is no network of NVIDIA's dnnlib")
    return value


def _read_kwargs(networks: dict, is_ada: bool) -> dict:
    """The arguments; those of the whole network replace its components', as upstream does."""
    kwargs = {}
    for prefix in ("synthesis/", "mapping/", ""):
        kwargs |= _field(networks[prefix], prefix[:-1] or "Gs", "static_kwargs", dict)
    for name in sorted(map(str, kwargs)):
        if name not in _WIDTHS | _READ | _UNUSED | (_ADA_ONLY if is_ada else set()):
            raise CheckpointError(
                f"Gs was made with {quoted(name)} = {shown(kwargs.get(name))}, an argument that its"
                " own code ignores or that is not known here"
            )
    kwargs = {
        name: value.tolist() if isinstance(value, np.generic | np.ndarray) else value
        for name, value in kwargs.items()
    }
    dtype = kwargs.get("dtype", "float32")
    if dtype != "float32":
        raise CheckpointError(f"Gs was made with dtype = {shown(dtype)}, expected 'float32'")
    return kwargs


def _number(kwargs: dict, name: str, default: float) -> Any:
    value = kwargs.get(name, default)
    if not isinstance(value, int | float) or not abs(value) < 2**31:
        raise CheckpointError(f"Gs was made with {name} = {shown(value)}, expected a number")
    return value


def _read_tensors(networks: dict) -> Tensors:
    """The variables of all three networks, named as in the whole one."""
    tensors = Tensors()
    for prefix, network in networks.items():
        for variable in _field(network, prefix[:-1] or "Gs", "variables", list):
            if not isinstance(variable, tuple | list) or len(variable) != 2:
                raise CheckpointError("Gs has variables without name or value")
            name, value = variable
            value = np.asarray(value) if isinstance(value, np.generic) else value
            tensors[f"{prefix}{name}"] = value
    return tensors


def _take_last_rgb(tensors: Tensors) -> None:
    """Renames the RGB layer of the full resolution, and drops those of progressive growing."""
    lod = tensors.take("lod", ())
    if lod != 0:
        raise CheckpointError(
            f"lod is {float(lod)}: the generator has not grown to its full resolution; expected 0"
        )
    tensors.pop("synthesis/lod", None)
    resolution = _resolution(tensors)
    for name in [name for name in tensors if name.startswith("synthesis/ToRGB_lod")]:
        value = tensors.pop(name)
        if name.startswith("synthesis/ToRGB_lod0/"):
            last = name.rpartition("/")[2]
            tensors[f"synthesis/{resolution}x{resolution}/ToRGB/{last}"] = value


def _resolution(tensors: Tensors) -> int:
    blocks = sum(n.startswith("synthesis/") and n.endswith("/Conv1/weight") for n in tensors)
    if blocks > 10:
        raise CheckpointError(f"Gs doubles the resolution {blocks} times, expected 10 at most")
    return 4 * 2**blocks


# --- the architecture -------------------------------------------------------------------------


def _read_config(tensors: Tensors, kwargs: dict, is_ada: bool) -> StyleGAN2Config:
    resolution = _resolution(tensors)
    blocks = [4 * 2**i for i in range(1, int(math.log2(resolution)) - 1)]
    convs = ["4x4/Conv", *(f"{r}x{r}/Conv1" for r in blocks)]
    shapes = [tensors.shape(f"synthesis/{name}/weight", 4) for name in convs]
    w_dim = tensors.shape("synthesis/4x4/Conv/mod_weight", 2)[0]
    label = "mapping/LabelEmbed/weight" if is_ada else "mapping/LabelConcat/weight"
    c_dim, embed_features = tensors.shape(label, 2) if label in tensors else (0, 0)
    num_layers = sum(n.startswith("mapping/Dense") and n.endswith("/weight") for n in tensors)
    first = tensors.shape("mapping/Dense0/weight", 2) if num_layers > 0 else (w_dim, w_dim)
    img_channels = tensors.shape(f"synthesis/{resolution}x{resolution}/ToRGB/weight", 4)[3]
    widths = {
        "latent_size": first[0] - embed_features,
        "label_size": c_dim,
        "dlatent_size": w_dim,
        "resolution": resolution,
        "num_channels": img_channels,
        "mapping_layers": num_layers,
    }
    for name, width in widths.items():
        if _number(kwargs, name, width) != width:
            raise CheckpointError(
                f"Gs was made with {name} = {kwargs[name]}, but its variables have {width}"
            )
    activations = [kwargs.get(n, "lrelu") for n in ("mapping_nonlinearity", "nonlinearity")]
    for name in activations:
        if not isinstance(name, str) or name not in ACTIVATIONS:
            raise CheckpointError(f"the nonlinearity {shown(name)} is none that StyleGAN2 has")
    try:
        return StyleGAN2Config(
            z_dim=widths["latent_size"],
            c_dim=c_dim,
            w_dim=w_dim,
            img_resolution=resolution,
            img_channels=img_channels,
            mapping_layers=num_layers,
            embed_features=embed_features,
            layer_features=first[1],
            channels=tuple(shape[3] for shape in shapes),
            mapping_activation=activations[0],
            mapping_lr_multiplier=float(_number(kwargs, "mapping_lrmul", 0.01)),
            input_normalization=_input_normalization(kwargs, c_dim, is_ada),
            architecture=kwargs.get("architecture", "skip"),
            kernel_size=shapes[0][0],
            activation=activations[1],
            use_noise=bool(kwargs.get("use_noise", True)),
            conv_clamp=None
            if kwargs.get("conv_clamp") is None
            else float(_number(kwargs, "conv_clamp", 0)),
            resample_filter=_read_filter(kwargs.get("resample_kernel", [1, 3, 3, 1])),
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"Gs is no StyleGAN2: {error}") from error


def _input_normalization(kwargs: dict, c_dim: int, is_ada: bool) -> str:
    if bool(kwargs.get("normalize_latents", True)):
        return "joint" if c_dim > 0 and not is_ada else "each"
    if is_ada and c_dim > 0:
        raise CheckpointError(
            "Gs was made with normalize_latents = False and labels, which it normalises without z;"
            " this cannot be converted"
        )
    return "none"


def _read_filter(kernel: Any) -> Filter:
    """The low-pass filter; upstream makes a square of a line and divides by the sum."""
    try:
        taps = np.asarray([1, 1] if kernel is None else kernel, np.float64)
    except (TypeError, ValueError, OverflowError):
        taps = np.empty(0)
    is_square = taps.ndim in (1, 2) and taps.shape == taps.shape[:1] * taps.ndim
    if not is_square or not np.isfinite(taps).all() or taps.sum() == 0:
        raise CheckpointError(
            f"Gs was made with resample_kernel = {shown(kernel)}, expected a line or square of taps"
        )
    taps = taps / taps.sum()
    return as_filter(taps)


# --- the variables ----------------------------------------------------------------------------


def _convert_generator(tensors: Tensors, config: StyleGAN2Config) -> tuple[dict, dict]:
    """All variables in the trees of `network.py`, `params` and `constants`."""
    mapping = {}
    if config.c_dim > 0:
        mapping["embed"] = _convert_labels(tensors, config)
    width = config.z_dim + config.embed_features
    for i in range(config.mapping_layers):
        features = config.w_dim if i == config.mapping_layers - 1 else config.layer_features
        mapping[f"fc{i}"] = {
            "weight": tensors.take(f"mapping/Dense{i}/weight", (width, features)),
            "bias": tensors.take(f"mapping/Dense{i}/bias", (features,)),
        }
        width = features
    if width != config.w_dim:
        raise CheckpointError("Gs has no mapping layers, but its input is not as wide as w")
    tensors.pop("lod", None)  # matters where the network grows; taken there
    constants = {"mapping": {"w_avg": tensors.take("dlatent_avg", (config.w_dim,))}}

    const = tensors.take("synthesis/4x4/Const/const", (1, config.channels[0], 4, 4))
    synthesis = {"b4": {"const": transposed(const[0], 1, 2, 0)}}
    noise = {}
    for i, resolution in enumerate(config.block_resolutions):
        block = f"b{resolution}"
        synthesis.setdefault(block, {}).update(_convert_block(tensors, config, i))
        if config.use_noise:
            shape = (1, 1, resolution, resolution)
            layers = {"conv1": 0} if i == 0 else {"conv0": 2 * i - 1, "conv1": 2 * i}
            noise[block] = {
                layer: {"noise_const": tensors.take(f"synthesis/noise{number}", shape)[0, 0]}
                for layer, number in layers.items()
            }
    return {"mapping": mapping, "synthesis": synthesis}, constants | {"synthesis": noise}


def _convert_labels(tensors: Tensors, config: StyleGAN2Config) -> dict:
    shape = (config.c_dim, config.embed_features)
    if "mapping/LabelEmbed/weight" in tensors:
        return {
            "weight": tensors.take("mapping/LabelEmbed/weight", shape),
            "bias": tensors.take("mapping/LabelEmbed/bias", shape[1:]),
        }
    # a bare table of vectors there, an equalised layer here
    weight = tensors.take("mapping/LabelConcat/weight", shape)
    return {
        "weight": weight * np.float32(math.sqrt(config.c_dim)),
        "bias": np.zeros(shape[1:], np.float32),
    }


def _convert_block(tensors: Tensors, config: StyleGAN2Config, index: int) -> dict:
    resolution, channels = config.block_resolutions[index], config.channels[index]
    name = f"synthesis/{resolution}x{resolution}"
    block = {}
    if index == 0:
        block["conv1"] = _convert_layer(tensors, f"{name}/Conv", config, channels, channels)
    else:
        below = config.channels[index - 1]
        block["conv0"] = _convert_layer(tensors, f"{name}/Conv0_up", config, below, channels)
        # TensorFlow's transposed convolution gets a kernel that is mirrored first
        block["conv0"]["weight"] = np.ascontiguousarray(block["conv0"]["weight"][::-1, ::-1])
        block["conv1"] = _convert_layer(tensors, f"{name}/Conv1", config, channels, channels)
        if config.architecture == "resnet":
            skip = tensors.take(f"{name}/Skip/weight", (1, 1, below, channels))
            block["skip"] = {"weight": skip}
    if config.architecture == "skip" or resolution == config.img_resolution:
        block["torgb"] = {
            "weight": tensors.take(f"{name}/ToRGB/weight", (1, 1, channels, config.img_channels)),
            "bias": tensors.take(f"{name}/ToRGB/bias", (config.img_channels,)),
            "affine": _convert_affine(tensors, f"{name}/ToRGB", config, channels),
        }
    return block


def _convert_layer(
    tensors: Tensors, name: str, config: StyleGAN2Config, in_channels: int, channels: int
) -> dict:
    size = config.kernel_size
    weight = tensors.take(f"{name}/weight", (size, size, in_channels, channels))
    layer = {
        "weight": scaled_by_fan_in(weight),
        "bias": tensors.take(f"{name}/bias", (channels,)),
        "affine": _convert_affine(tensors, name, config, in_channels),
    }
    if config.use_noise:
        layer["noise_strength"] = tensors.take(f"{name}/noise_strength", ())
    return layer


def _convert_affine(tensors: Tensors, name: str, config: StyleGAN2Config, features: int) -> dict:
    return {
        "weight": tensors.take(f"{name}/mod_weight", (config.w_dim, features)),
        "bias": tensors.take(f"{name}/mod_bias", (features,)) + np.float32(1),
    }
