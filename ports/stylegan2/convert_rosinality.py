"""Converts `.pt` checkpoints of rosinality/stylegan2-pytorch, the common port of StyleGAN2.

Its files hold tensors only, so the architecture is read from their names and shapes; what has no
tensor (activations, the learning rate of the mapping network) is always the same there.
"""

from typing import Any

import numpy as np

from ports.checkpoint import Converted
from ports.pickles import CheckpointError
from ports.state_dict import Tensors, float32, tensors_of
from ports.stylegan2.config import StyleGAN2Config
from ports.stylegan2.weights import as_filter, scaled_by_fan_in, transposed, without_empty

MEAN_SAMPLES = 2**14


def recognises(content: Any) -> bool:
    """Whether what `pickles.read` made of a file holds a generator with this project's names."""
    state = _generator_state(content)
    return "input.input" in state and "conv1.conv.modulation.weight" in state


def convert(content: dict) -> Converted:
    """The generator `g_ema` of a training file or of one that `convert_weight.py` made.

    Args:
      content: what `pickles.read` makes of a `.pt` file: a dict with `g_ema` and maybe `latent_avg`
        beside it, or the state dict of a generator.

    Returns:
      Its `source` says in `noise_const` and `w_avg` whether they were `stored`. Upstream draws
      noise anew for each image where the file, an early one, has none; and training files have
      no mean of W, which upstream's scripts estimate from samples, as is done here.

    Raises:
      CheckpointError: where tensors are missing, unknown, of another shape or not finite, and for
        SWAGAN, another network of that project.
    """
    if not recognises(content):
        raise CheckpointError("found no generator of rosinality/stylegan2-pytorch")
    tensors = _generator_state(content)
    if any(".iwt." in f".{name}" for name in tensors):
        raise CheckpointError("this is a SWAGAN generator; only StyleGAN2 can be converted")
    stored_mean = tensors.pop("latent_avg", content.get("latent_avg"))
    has_noise = any(name.startswith("noises.") for name in tensors)
    config = _read_config(tensors)
    if not has_noise:
        tensors.update(_draw_noise(config))
    synthesis, noise = _convert_synthesis(tensors, config)
    mapping = {
        f"fc{i}": _convert_dense(tensors, f"style.{i + 1}", config.w_dim, config.w_dim)
        for i in range(config.mapping_layers)
    }
    tensors.expect_empty()

    if stored_mean is None:
        w_avg = _mean_of_w(mapping, config)
    else:
        w_avg = float32("latent_avg", stored_mean)
        if w_avg.shape not in ((config.w_dim,), (1, config.w_dim)):
            raise CheckpointError(
                f"latent_avg has shape {w_avg.shape}, expected {(config.w_dim,)}, as w has"
            )
    variables = {
        "params": without_empty({"mapping": mapping, "synthesis": synthesis}),
        "constants": {"mapping": {"w_avg": w_avg.reshape(-1)}, "synthesis": noise},
    }
    source = {
        "format": "rosinality stylegan2-pytorch",
        "noise_const": "stored" if has_noise else "drawn, for the file has none",
        "w_avg": f"mean of {MEAN_SAMPLES} samples" if stored_mean is None else "stored",
    }
    return Converted("stylegan2", config, variables, source)


def _generator_state(content: Any) -> Tensors:
    """The state dict in a file, without the prefixes of DataParallel."""
    state = content.get("g_ema", content) if isinstance(content, dict) else {}
    return tensors_of(state) if isinstance(state, dict) else Tensors()


def _read_config(tensors: Tensors) -> StyleGAN2Config:
    num_layers = sum(n.startswith("style.") and n.endswith(".weight") for n in tensors)
    num_rgbs = sum(n.startswith("to_rgbs.") and n.endswith(".conv.weight") for n in tensors)
    if num_rgbs > 10:
        raise CheckpointError(f"the generator has {num_rgbs} layers to_rgbs, expected 10 at most")
    convs = ["conv1", *(f"convs.{2 * i + 1}" for i in range(num_rgbs))]
    shapes = [tensors.shape(f"{name}.conv.weight", 5) for name in convs]
    filters = {_read_filter(tensors, f"convs.{2 * i}.conv.blur.kernel") for i in range(num_rgbs)}
    filters |= {_read_filter(tensors, f"to_rgbs.{i}.upsample.kernel") for i in range(num_rgbs)}
    if len(filters) > 1:
        raise CheckpointError(
            f"the blur kernels of convs and to_rgbs differ, {len(filters)} of them; expected one"
        )
    w_dim = tensors.shape("conv1.conv.modulation.weight", 2)[1]
    try:
        return StyleGAN2Config(
            z_dim=w_dim,
            c_dim=0,
            w_dim=w_dim,
            img_resolution=4 * 2**num_rgbs,
            img_channels=tensors.shape("to_rgb1.conv.weight", 5)[1],
            mapping_layers=num_layers,
            embed_features=0,
            layer_features=w_dim,
            channels=tuple(shape[1] for shape in shapes),
            kernel_size=shapes[0][-1],
            **({"resample_filter": filters.pop()} if filters else {}),
        )
    except ValueError as error:
        raise CheckpointError(f"the generator is no StyleGAN2: {error}") from error


def _read_filter(tensors: Tensors, name: str) -> Any:
    """A blur kernel; the buffers hold it times 4, the gain of upsampling."""
    height, width = tensors.shape(name, 2)
    if height != width:
        raise CheckpointError(f"{name} has shape {(height, width)}, expected a square")
    return as_filter(tensors.take(name, (height, width)) / 4)


def _draw_noise(config: StyleGAN2Config) -> dict[str, np.ndarray]:
    """Noise of all layers from a fixed seed, named as in files that have it."""
    random = np.random.RandomState(0)  # its numbers are the same in every version of NumPy
    sides = [config.block_resolutions[(i + 1) // 2] for i in range(config.num_ws - 1)]
    return {
        f"noises.noise_{i}": random.standard_normal((1, 1, side, side)).astype(np.float32)
        for i, side in enumerate(sides)
    }


def _convert_synthesis(tensors: Tensors, config: StyleGAN2Config) -> tuple[dict, dict]:
    """Parameters and noise of all blocks."""
    params, constants = {}, {}
    for i, (resolution, channels) in enumerate(
        zip(config.block_resolutions, config.channels, strict=True)
    ):
        # layer -> name there, width of its input, number of its noise
        layers = {"conv1": ("conv1", channels, 0)}
        if i > 0:
            layers = {
                "conv0": (f"convs.{2 * i - 2}", config.channels[i - 1], 2 * i - 1),
                "conv1": (f"convs.{2 * i - 1}", channels, 2 * i),
            }
        block, noise = {}, {}
        for layer, (name, in_channels, number) in layers.items():
            block[layer] = _convert_layer(tensors, name, config, in_channels, channels)
            shape = (1, 1, resolution, resolution)
            noise[layer] = {"noise_const": tensors.take(f"noises.noise_{number}", shape)[0, 0]}
        rgb = f"to_rgbs.{i - 1}" if i > 0 else "to_rgb1"
        block["torgb"] = _convert_rgb(tensors, rgb, config, channels)
        params[f"b{resolution}"], constants[f"b{resolution}"] = block, noise
    const = tensors.take("input.input", (1, config.channels[0], 4, 4))
    params["b4"]["const"] = transposed(const[0], 1, 2, 0)
    return params, constants


def _convert_layer(
    tensors: Tensors, name: str, config: StyleGAN2Config, in_channels: int, channels: int
) -> dict:
    size = config.kernel_size
    weight = tensors.take(f"{name}.conv.weight", (1, channels, in_channels, size, size))
    return {
        "weight": scaled_by_fan_in(transposed(weight[0], 2, 3, 1, 0)),
        "bias": tensors.take(f"{name}.activate.bias", (channels,)),
        "affine": _convert_dense(tensors, f"{name}.conv.modulation", config.w_dim, in_channels),
        "noise_strength": tensors.take(f"{name}.noise.weight", (1,)).reshape(()),
    }


def _convert_rgb(tensors: Tensors, name: str, config: StyleGAN2Config, in_channels: int) -> dict:
    weight = tensors.take(f"{name}.conv.weight", (1, config.img_channels, in_channels, 1, 1))
    bias = tensors.take(f"{name}.bias", (1, config.img_channels, 1, 1))
    return {
        "weight": transposed(weight[0], 2, 3, 1, 0),
        "bias": bias.reshape(-1),
        "affine": _convert_dense(tensors, f"{name}.conv.modulation", config.w_dim, in_channels),
    }


def _convert_dense(tensors: Tensors, name: str, in_features: int, features: int) -> dict:
    return {
        "weight": transposed(tensors.take(f"{name}.weight", (features, in_features)), 1, 0),
        "bias": tensors.take(f"{name}.bias", (features,)),
    }


def _mean_of_w(mapping: dict, config: StyleGAN2Config) -> np.ndarray:
    """The mean of w over samples of z from a fixed seed, [w_dim].

    In float64, so that the result in float32, a part of the model's hash, is the same everywhere.
    """
    random = np.random.RandomState(0)
    total = np.zeros(config.w_dim)
    for _ in range(MEAN_SAMPLES // 4096):
        x = random.standard_normal((4096, config.z_dim))
        x /= np.sqrt((x**2).mean(1, keepdims=True) + 1e-8)
        for layer in mapping.values():
            gain = config.mapping_lr_multiplier
            x = (
                x @ (layer["weight"] * (gain / np.sqrt(len(layer["weight"]))))
                + layer["bias"] * gain
            )
            x = np.sqrt(2) * np.maximum(x, 0.2 * x)
        total += x.sum(0)
    return (total / MEAN_SAMPLES).astype(np.float32)
