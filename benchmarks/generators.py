"""Images a second of both generators beside PyTorch's, in one run.

    pip install "sfvq-jax[benchmarks]"
    python -m benchmarks.generators [--batches 1 4 16] [--seconds 8]

StyleGAN2 at 256 px with its default channels, beside a plain PyTorch version of its synthesis
network, in the two forms that are in use: one kernel a sample (a grouped convolution), and inputs
and outputs scaled around one shared kernel, this also with channels last in memory. BigGAN-deep at
128 px and full width, beside the package pytorch-pretrained-biggan, in both orders of memory. The
fastest other counts. Random weights, the same on both sides, on two CPU threads; where JAX has a
GPU, in float32 and bfloat16 there.
"""

import argparse
import copy
import time
from collections.abc import Callable
from typing import Any

from benchmarks.report import report, use_cores

CORES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seconds", type=float, default=8.0, help="a figure is measured for")
    parser.add_argument("--no-save", action="store_true", help="print only")
    arguments = parser.parse_args()
    use_cores(CORES)
    import jax  # once the cores are set

    on_gpu = jax.default_backend() == "gpu"
    dtypes = ["float32", "bfloat16"] if on_gpu else ["float32"]
    tables = {}
    for name, contenders in (
        ("StyleGAN2, 256 px, synthesis", stylegan2_contenders),
        ("BigGAN-deep, 128 px", biggan_contenders),
    ):
        rows = []
        for dtype in dtypes:
            for batch in arguments.batches:
                row = compare(contenders(batch, dtype), arguments.seconds)
                rows.append({"dtype": dtype, "batch": batch} | row)
                print(name, rows[-1], flush=True)
        tables[f"{name}: images a second"] = rows
    report(
        "generators",
        tables,
        packages=("jax", "jaxlib", "torch", "pytorch-pretrained-biggan"),
        save=not arguments.no_save,
        seconds=arguments.seconds,
        threads=CORES,
    )


def compare(contenders: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Images a second of each, ours ÷ the fastest other, and their largest relative difference."""
    import numpy as np

    outputs = {name: np.asarray(run(), np.float32) for name, run in contenders.items()}
    ours = outputs["ours"]
    times = measured(contenders, seconds)
    row = {name: len(ours) / times[name] for name in contenders}
    others = [name for name in contenders if name != "ours"]
    return row | {
        "ours ÷ fastest other": row["ours"] / max(row[name] for name in others),
        "largest difference": max(
            float(np.abs(outputs[name] - ours).max() / np.abs(ours).max()) for name in others
        ),
    }


def measured(contenders: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Median time of each contender's call; they take turns, so that they share what disturbs."""
    import numpy as np

    times: dict[str, list[float]] = {name: [] for name in contenders}
    start = time.perf_counter()
    while time.perf_counter() - start < seconds * len(contenders) or len(times["ours"]) < 3:
        for name, run in contenders.items():
            before = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - before)
    return {name: float(np.median(values)) for name, values in times.items()}


# --- StyleGAN2 --------------------------------------------------------------------------------


def stylegan2_config(px: int, width: int = 512) -> Any:
    """With upstream's default channels, at most `width` of them, and codes as wide."""
    from ports.stylegan2 import StyleGAN2Config

    sides = [4 * 2**i for i in range((px // 4).bit_length())]
    return StyleGAN2Config(
        z_dim=width,
        c_dim=0,
        w_dim=width,
        img_resolution=px,
        img_channels=3,
        mapping_layers=8,
        embed_features=0,
        layer_features=width,
        channels=tuple(min(width, 2**15 // side) for side in sides),
    )


def stylegan2_contenders(batch: int, dtype: str) -> dict[str, Callable[[], Any]]:
    """Functions that make a batch of images [N, C, H, W] of the same codes."""
    import jax
    import numpy as np
    import torch

    from ports.stylegan2 import init

    config = stylegan2_config(256)
    model = init(jax.random.key(0), config)
    ws = jax.random.normal(jax.random.key(1), (batch, config.num_ws, config.w_dim))
    device, torch_dtype = torch_place(dtype)
    params = jax.tree.map(
        lambda x: torch.tensor(np.asarray(x), device=device), model.variables["params"]["synthesis"]
    )
    noise = jax.tree.map(
        lambda x: torch.tensor(np.asarray(x), device=device),
        model.variables["constants"]["synthesis"],
    )
    prepared = prepare_stylegan2(params, torch_dtype, torch.contiguous_format)
    last = prepare_stylegan2(params, torch_dtype, torch.channels_last)
    torch_ws = torch.tensor(np.asarray(ws), device=device)
    model = model.cast(dtype)

    def run_torch(prepared: dict, fused: bool) -> Any:
        with torch.inference_mode():
            images = synthesise(prepared, noise, torch_ws, fused=fused, dtype=torch_dtype)
        return images.cpu()

    return {
        "ours": lambda: np.asarray(model.synthesis(ws)).transpose(0, 3, 1, 2),
        "PyTorch, a kernel a sample": lambda: run_torch(prepared, True),
        "PyTorch, shared kernel": lambda: run_torch(prepared, False),
        "PyTorch, channels last": lambda: run_torch(last, False),
    }


def prepare_stylegan2(params: dict, dtype: Any, order: Any) -> dict:
    """Kernels as PyTorch has them, [O, I, k, k], and affine weights with their gain.

    Kernels and the first input are in the given order of memory, which the activations then keep.
    """
    prepared = {}
    for block, layers in params.items():
        prepared[block] = {}
        for name, layer in layers.items():
            if name == "const":
                prepared[block][name] = layer.permute(2, 0, 1)[None].to(dtype, memory_format=order)
                continue
            affine = layer["affine"]
            prepared[block][name] = {
                "weight": layer["weight"].permute(3, 2, 0, 1).contiguous(memory_format=order),
                "bias": layer["bias"].to(dtype),
                "affine": affine["weight"] / affine["weight"].shape[0] ** 0.5,
                "affine_bias": affine["bias"],
                "noise_strength": layer.get("noise_strength"),
            }
    return prepared


def synthesise(params: dict, noise: dict, ws: Any, *, fused: bool, dtype: Any) -> Any:
    """StyleGAN2's synthesis network ('skip', constant noise): [N, L, D] -> [N, C, H, W]."""
    import torch

    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=ws.device) / 8
    filter = torch.outer(taps, taps)[None, None].to(dtype)
    image, code = None, 0
    x = params["b4"]["const"].expand(len(ws), -1, -1, -1)
    for block in sorted(params, key=lambda name: int(name[1:])):
        layers = params[block]
        for name in ("conv0", "conv1"):
            if name in layers:
                strength = noise[block][name]["noise_const"] * layers[name]["noise_strength"]
                up = name == "conv0"
                x = modulated_conv(x, layers[name], ws[:, code], filter, up=up, fused=fused)
                x = x + strength.to(dtype)
                x = x + layers[name]["bias"][:, None, None]
                x = torch.nn.functional.leaky_relu(x, 0.2) * 2**0.5
                code += 1
        rgb = layers["torgb"]
        styles = styles_of(rgb, ws[:, code]) / rgb["weight"].shape[1] ** 0.5
        y = convolve(x, rgb["weight"].to(dtype), styles, None, fused=fused)
        y = (y + rgb["bias"][:, None, None]).float()
        image = y if image is None else y + upsampled(image, filter.float())
    return image


def styles_of(layer: dict, w: Any) -> Any:
    return w @ layer["affine"] + layer["affine_bias"]


def modulated_conv(x: Any, layer: dict, w: Any, filter: Any, *, up: bool, fused: bool) -> Any:
    weight = layer["weight"]
    styles = styles_of(layer, w)
    scale = (styles**2 @ (weight**2).sum((2, 3)).T + 1e-8).rsqrt()
    x = convolve(x, weight.to(x.dtype), styles, scale, fused=fused, up=up)
    return filtered(x, filter * 4, 1) if up else x


def convolve(x: Any, weight: Any, styles: Any, scale: Any, *, fused: bool, up: bool = False) -> Any:
    """Convolution, transposed where it upsamples, with inputs and outputs scaled."""
    import torch.nn.functional as F

    n, _, height, width = x.shape
    groups = 1
    if fused:
        weight = weight[None] * styles[:, None, :, None, None].to(x.dtype)
        if scale is not None:
            weight = weight * scale[:, :, None, None, None].to(x.dtype)
        x, groups = x.reshape(1, -1, height, width), n
        weight = weight.transpose(1, 2).flatten(0, 1) if up else weight.flatten(0, 1)
    else:
        x = x * styles[:, :, None, None].to(x.dtype)
        weight = weight.transpose(0, 1) if up else weight
    if up:
        x = F.conv_transpose2d(x, weight, stride=2, groups=groups)
    else:
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups)
    if fused:
        return x.reshape(n, -1, *x.shape[2:])
    return x if scale is None else x * scale[:, :, None, None].to(x.dtype)


def filtered(x: Any, filter: Any, pad: int) -> Any:
    """Every channel convolved with the low-pass filter."""
    import torch.nn.functional as F

    channels = x.shape[1]
    return F.conv2d(x, filter.expand(channels, 1, 4, 4), padding=pad, groups=channels)


def upsampled(image: Any, filter: Any) -> Any:
    """Zeros between the pixels, then the low-pass filter."""
    import torch.nn.functional as F

    n, channels, height, width = image.shape
    zeros = image.new_zeros(n, channels, 2 * height, 2 * width)
    zeros[:, :, ::2, ::2] = image
    return filtered(F.pad(zeros, (2, 1, 2, 1)), filter * 4, 0)


# --- BigGAN-deep ------------------------------------------------------------------------------


def biggan_contenders(batch: int, dtype: str) -> dict[str, Callable[[], Any]]:
    """Functions that make a batch of images [N, C, H, W] of the same z and classes."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch
    from pytorch_pretrained_biggan import BigGAN as UpstreamBigGAN
    from pytorch_pretrained_biggan import BigGANConfig as UpstreamConfig

    from ports.biggan import BigGAN
    from ports.biggan.convert_huggingface import convert
    from ports.state_dict import Candidate

    device, torch_dtype = torch_place(dtype)
    torch.manual_seed(0)
    upstream = UpstreamBigGAN(UpstreamConfig())
    with torch.no_grad():
        for name, parameter in upstream.named_parameters():
            if name.endswith("generator.bn.weight"):  # upstream leaves these two uninitialised
                parameter.fill_(1.0)
            elif name.endswith("generator.bn.bias"):
                parameter.fill_(0.0)
        z, y = torch.randn(1, 128), torch.nn.functional.one_hot(torch.tensor([0]), 1000).float()
        for _ in range(5):  # the power method finds the norms of the weights while in training
            upstream(z, y, 1.0)
    upstream = upstream.eval().to(device)
    tensors = {name: x.cpu().numpy() for name, x in upstream.state_dict().items()}
    converted = convert(Candidate((), tensors, None, {}), {})
    variables = jax.tree.map(jnp.asarray, converted.variables)
    model = BigGAN(variables, converted.config, dtype=jnp.dtype(dtype))
    z = model.sample_z(jax.random.key(0), batch, 0.4)
    y = jax.nn.one_hot(jnp.arange(batch), 1000)
    upstream = upstream.to(torch_dtype)
    last = copy.deepcopy(upstream).to(memory_format=torch.channels_last)
    torch_z, torch_y = (
        torch.tensor(np.asarray(x), device=device, dtype=torch_dtype) for x in (z, y)
    )

    def run_torch(network: Any) -> Any:
        with torch.inference_mode():
            return network(torch_z, torch_y, 0.4).float().cpu()

    return {
        "ours": lambda: np.asarray(model(z, y, 0.4)).transpose(0, 3, 1, 2),
        "pytorch-pretrained-biggan": lambda: run_torch(upstream),
        "the same, channels last": lambda: run_torch(last),
    }


def torch_place(dtype: str) -> tuple[Any, Any]:
    """PyTorch's device and dtype for a comparison; its CPU threads are as many as JAX's."""
    import torch

    torch.set_num_threads(CORES)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu"), getattr(torch, dtype)


if __name__ == "__main__":
    main()
