"""Converts `.pkl` snapshots of NVIDIA's StyleGAN2 in TensorFlow: stylegan2 and stylegan2-ada.

A pickled network has its variables, the arguments it was made with, and the name of the function
that builds it. Widths are read from the variables. What only the arguments say has the defaults of
that function.
"""

import dataclasses
import math
import re
from typing import Any

import numpy as np

from ports.checkpoint import Converted
from ports.errors import CheckpointError, quoted, shown
from ports.records import TensorFlowNetwork
from ports.state_dict import Candidate, Format, Tensors, renamed
from ports.stylegan2.assemble import as_filter, assemble, layer
from ports.stylegan2.config import Filter
from ports.stylegan2.network import ACTIVATIONS

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


def convert(candidate: Candidate) -> Converted:
    """The generator that the candidate's network is.

    Its `source` has `format` and `fp16_blocks`, the resolutions that upstream computes in float16.

    Raises:
      CheckpointError: also where the network is no StyleGAN2, was made with arguments that are not
        known here, or its variables do not fit them.
    """
    generator = candidate.network
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
    tensors.pop("lod", None)  # matters where the network grows; taken there
    settings = _settings(kwargs, tensors, is_ada)
    named = renamed(_with_label_bias(tensors), _rename)
    config, variables, _ = assemble(named, scaled_by_fan_in=True, **settings)
    widths = {
        "latent_size": config.z_dim,
        "label_size": config.c_dim,
        "dlatent_size": config.w_dim,
        "resolution": config.img_resolution,
        "num_channels": config.img_channels,
        "mapping_layers": config.mapping_layers,
    }
    for name, width in widths.items():
        if _number(kwargs, name, width) != width:
            raise CheckpointError(
                f"Gs was made with {name} = {kwargs[name]}, but its variables have {width}"
            )
    first_half = max(1, len(config.channels) - int(_number(kwargs, "num_fp16_res", 0)))
    half = list(config.block_resolutions[first_half:])
    if half:
        config = dataclasses.replace(config, num_fp16_res=len(half))
    source = {"format": _FORMATS[functions[1]], "fp16_blocks": half}
    return Converted("stylegan2", config, variables, source)


_OTHER_NETWORKS = {
    "G_style": "this is a StyleGAN1 generator; only StyleGAN2 can be converted",
    "G_paper": "this is a ProGAN generator; only StyleGAN2 can be converted",
    "G_mapping": "this is a mapping network alone; expected the whole generator Gs",
}


# --- the pickled network ----------------------------------------------------------------------


def _field(network: Any, path: str, name: str, kind: type) -> Any:
    state = network.state if isinstance(network, TensorFlowNetwork) else None
    value = state.get(name) if isinstance(state, dict) else None
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


def _settings(kwargs: dict, tensors: Tensors, is_ada: bool) -> dict[str, Any]:
    """What only the arguments say."""
    activations = [kwargs.get(n, "lrelu") for n in ("mapping_nonlinearity", "nonlinearity")]
    for name in activations:
        if not isinstance(name, str) or name not in ACTIVATIONS:
            raise CheckpointError(f"the nonlinearity {shown(name)} is none that StyleGAN2 has")
    has_labels = not _LABELS.isdisjoint(tensors)
    clamp = kwargs.get("conv_clamp")
    return {
        "mapping_activation": activations[0],
        "mapping_lr_multiplier": float(_number(kwargs, "mapping_lrmul", 0.01)),
        "input_normalization": _input_normalization(kwargs, has_labels, is_ada),
        "architecture": kwargs.get("architecture", "skip"),
        "activation": activations[1],
        "use_noise": bool(kwargs.get("use_noise", True)),
        "conv_clamp": None if clamp is None else float(_number(kwargs, "conv_clamp", 0)),
        "resample_filter": _read_filter(kwargs.get("resample_kernel", [1, 3, 3, 1])),
    }


def _input_normalization(kwargs: dict, has_labels: bool, is_ada: bool) -> str:
    if bool(kwargs.get("normalize_latents", True)):
        return "joint" if has_labels and not is_ada else "each"
    if is_ada and has_labels:
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

_LABELS = {"mapping/LabelEmbed/weight", "mapping/LabelConcat/weight"}
_NAMES = {
    "weight": "weight",
    "bias": "bias",
    "mod_weight": "affine.weight",
    "mod_bias": "affine.bias",
    "noise_strength": "noise_strength",
}
_LAYERS = {
    "Conv": "conv1",
    "Conv0_up": "conv0",
    "Conv1": "conv1",
    "ToRGB": "torgb",
    "Skip": "skip",
}


def _with_label_bias(tensors: Tensors) -> dict[str, np.ndarray]:
    """With the bias of the labels' layer, which a bare table of vectors has not."""
    name = "mapping/LabelConcat/weight"
    if name in tensors:
        features = tensors.shape(name, 2)[1]
        return tensors | {"mapping/LabelEmbed/bias": np.zeros(features, np.float32)}
    return tensors


def _rename(name: str, x: np.ndarray) -> tuple[str, np.ndarray]:
    if name == "dlatent_avg":
        return "mapping.w_avg", x
    if name == "synthesis/4x4/Const/const":
        return "synthesis.b4.const", x[0]
    if name == "mapping/LabelConcat/weight":  # an equalised layer here
        return "mapping.embed.weight", x.T * np.float32(math.sqrt(len(x)))
    if m := re.fullmatch(r"mapping/(LabelEmbed|Dense(\d{1,4}))/(weight|bias)", name):
        place = "mapping.embed" if m[2] is None else f"mapping.fc{int(m[2])}"
        return f"{place}.{m[3]}", x.T
    if m := re.fullmatch(r"synthesis/noise(\d{1,4})", name):
        return f"{layer(int(m[1]))}.noise_const", x[0, 0]
    m = re.fullmatch(r"synthesis/(\d{1,5})x\1/(\w+)/(\w+)", name)
    if m is None or m[2] not in _LAYERS or m[3] not in _NAMES:
        return name, x  # which the architecture has not
    if m[3] == "weight":
        x = x.transpose(3, 2, 0, 1)
        # TensorFlow's transposed convolution gets a kernel that is mirrored first
        x = x[:, :, ::-1, ::-1] if m[2] == "Conv0_up" else x
    elif m[3] == "mod_weight":
        x = x.T
    elif m[3] == "mod_bias":
        x = x + np.float32(1)
    return f"synthesis.b{m[1]}.{_LAYERS[m[2]]}.{_NAMES[m[3]]}", x


FORMAT = Format((), convert, network=TensorFlowNetwork)
