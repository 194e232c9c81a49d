"""Networks of NVIDIA's TensorFlow code make the same images here, or are refused in a sentence."""

import math
import re

import jax
import numpy as np
import pytest

from ports.errors import CheckpointError
from ports.records import TensorFlowNetwork
from ports.stylegan2.model import StyleGAN2, init
from tests.ports.conversion import convert, known

# --- networks made by hand, and what TensorFlow would make of them ----------------------------

CHANNELS = {4: 6, 8: 5, 16: 4}
SG2, ADA, PROGRESSIVE = "G_synthesis_stylegan2", "G_synthesis", "G_synthesis_stylegan_revised"


def make(function=SG2, *, layers=2, labels=0, scale=1.0, **kwargs):
    """A generator with random weights as upstream pickles it; `layers` of mapping, `labels`."""
    random = np.random.RandomState(0)
    z_dim, w_dim, fmaps = 8, 10, kwargs.get("mapping_fmaps", 10 if function == ADA else 12)
    embed = kwargs.get("label_fmaps", z_dim) if labels else 0

    def normal(*shape):
        return random.standard_normal(shape).astype(np.float32)

    mapping, synthesis = {}, {}
    if labels:
        name = "LabelEmbed" if function == ADA else "LabelConcat"
        mapping[f"{name}/weight"] = normal(labels, embed)
        if function == ADA:
            mapping[f"{name}/bias"] = normal(embed)
    widths = [z_dim + embed, *[fmaps] * (layers - 1), w_dim]
    for i in range(layers):
        mapping[f"Dense{i}/weight"] = normal(widths[i], widths[i + 1]) * 100
        mapping[f"Dense{i}/bias"] = normal(widths[i + 1]) * 100

    def layer(name, size, inputs, outputs):
        synthesis[f"{name}/weight"] = normal(size, size, inputs, outputs) * np.float32(scale)
        synthesis[f"{name}/mod_weight"] = normal(w_dim, inputs)
        synthesis[f"{name}/mod_bias"] = normal(inputs) / 10
        synthesis[f"{name}/bias"] = normal(outputs)
        if size == 3 and kwargs.get("use_noise", True):
            synthesis[f"{name}/noise_strength"] = random.standard_normal(1).astype("f4")[0]

    synthesis["4x4/Const/const"] = normal(1, 6, 4, 4)
    architecture = kwargs.get("architecture", "skip")
    for i, (resolution, channels) in enumerate(CHANNELS.items()):
        block = f"{resolution}x{resolution}"
        if resolution == 4:
            layer(f"{block}/Conv", 3, channels, channels)
        else:
            layer(f"{block}/Conv0_up", 3, CHANNELS[resolution // 2], channels)
            layer(f"{block}/Conv1", 3, channels, channels)
            if architecture == "resnet":
                synthesis[f"{block}/Skip/weight"] = normal(
                    1, 1, CHANNELS[resolution // 2], channels
                )
        if function == PROGRESSIVE:
            layer(f"ToRGB_lod{2 - i}", 1, channels, 3)
        elif architecture == "skip" or resolution == 16:
            layer(f"{block}/ToRGB", 1, channels, 3)
    if kwargs.get("use_noise", True):
        for i in range(5):
            side = 4 * 2 ** ((i + 1) // 2)
            synthesis[f"noise{i}"] = normal(1, 1, side, side)
    if function == PROGRESSIVE:
        synthesis["lod"] = np.float32(0)

    def network(name, variables, **components):
        state = {"version": 4, "build_func_name": name, "components": components}
        state |= {"static_kwargs": dict(kwargs), "variables": list(variables.items())}
        network = TensorFlowNetwork()
        network.__setstate__(state)
        return network

    own = {"lod": np.float32(0)} if function != ADA else {}
    return network(
        "G_main",
        own | {"dlatent_avg": normal(w_dim)},
        mapping=network("G_mapping", mapping),
        synthesis=network(function, synthesis),
    )


def upstream_w(generator, z, c):
    """What G_mapping gives, in float64."""
    v = dict(generator.state["components"]["mapping"].state["variables"])
    kwargs = generator.state["static_kwargs"]
    gain = kwargs.get("mapping_lrmul", 0.01)

    def normalized(x):
        return x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-8)

    x = z.astype(np.float64)
    if "LabelEmbed/weight" in v:
        y = c @ v["LabelEmbed/weight"] / np.sqrt(c.shape[1]) + v["LabelEmbed/bias"]
        x = np.concatenate([normalized(x), normalized(y)], 1)
    else:
        y = [c @ v["LabelConcat/weight"]] if "LabelConcat/weight" in v else []
        x = np.concatenate([x, *y], 1)
        x = normalized(x) if kwargs.get("normalize_latents", True) else x
    for i in range(sum(name.endswith("bias") and "Dense" in name for name in v)):
        x = x @ v[f"Dense{i}/weight"] * (gain / np.sqrt(x.shape[1])) + gain * v[f"Dense{i}/bias"]
        slope = 0.0 if kwargs.get("mapping_nonlinearity") == "relu" else 0.2
        x = np.sqrt(2) * np.where(x > 0, x, slope * x)
    return x


def upstream_image(generator, w):
    """What G_synthesis gives for w with constant noise, in float64 by PyTorch's convolutions."""
    torch = pytest.importorskip("torch")
    conv2d, pad = torch.nn.functional.conv2d, torch.nn.functional.pad
    network = generator.state["components"]["synthesis"]
    kwargs = generator.state["static_kwargs"]
    v = {n: torch.tensor(np.asarray(x, np.float64)) for n, x in network.state["variables"]}
    w = torch.tensor(w)
    progressive = network.state["build_func_name"] == PROGRESSIVE
    architecture = "orig" if progressive else kwargs.get("architecture", "skip")
    kernel = np.asarray(kwargs.get("resample_kernel", [1, 3, 3, 1]) or [1, 1], np.float64)
    kernel = np.outer(kernel, kernel) if kernel.ndim == 1 else kernel
    kernel = torch.tensor(4 * kernel / kernel.sum())
    margin = len(kernel) - 2

    def filtered(x, before, after):
        taps = kernel.flip(0, 1).expand(x.shape[1], 1, *kernel.shape)
        return conv2d(pad(x, (before, after, before, after)), taps, groups=x.shape[1])

    def upsample(x):
        y = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
        y[:, :, ::2, ::2] = x
        return filtered(y, (margin + 1) // 2 + 1, margin // 2)

    def convolve(x, weight, up=False):  # weight HWIO
        if not up:
            return conv2d(x, weight.permute(3, 2, 0, 1), padding=len(weight) // 2)
        mirrored = weight.flip(0, 1).permute(2, 3, 0, 1)
        p = margin - (len(weight) - 1)
        x = torch.nn.functional.conv_transpose2d(x, mirrored, stride=2)
        return filtered(x, (p + 1) // 2 + 1, p // 2 + 1)

    def modulated(x, name, up=False, demodulate=True):
        weight = v[f"{name}/weight"]
        weight = weight / math.sqrt(weight[..., 0].numel())
        styles = w @ v[f"{name}/mod_weight"] / math.sqrt(w.shape[1]) + v[f"{name}/mod_bias"] + 1
        images = []
        for i, style in enumerate(styles):
            own = weight * style[:, None]
            own = own / ((own**2).sum((0, 1, 2)) + 1e-8).sqrt() if demodulate else own
            images.append(convolve(x[i : i + 1], own, up))
        return torch.cat(images)

    def clamped(x):
        limit = kwargs.get("conv_clamp")
        return x if limit is None else x.clamp(-limit, limit)

    def layer(x, name, number, up=False):
        x = modulated(x, name, up)
        if f"{name}/noise_strength" in v:
            x = x + v[f"noise{number}"] * v[f"{name}/noise_strength"]
        slope = 0.0 if kwargs.get("nonlinearity") == "relu" else 0.2
        x = x + v[f"{name}/bias"][:, None, None]
        return clamped(torch.where(x > 0, x, slope * x) * math.sqrt(2))

    x = v["4x4/Const/const"].repeat(len(w), 1, 1, 1)
    x, image = layer(x, "4x4/Conv", 0), None
    for i, resolution in enumerate(CHANNELS):
        block = f"{resolution}x{resolution}"
        if i > 0:
            skip = x
            x = layer(x, f"{block}/Conv0_up", 2 * i - 1, up=True)
            x = layer(x, f"{block}/Conv1", 2 * i)
            if architecture == "resnet":
                x = x + convolve(skip, v[f"{block}/Skip/weight"] / math.sqrt(skip.shape[1]), True)
                x = x / math.sqrt(2)
        if architecture == "skip" or resolution == 16:
            name = "ToRGB_lod0" if progressive else f"{block}/ToRGB"
            rgb = clamped(modulated(x, name, demodulate=False) + v[f"{name}/bias"][:, None, None])
            image = rgb if image is None else upsample(image) + rgb
    return image.permute(0, 2, 3, 1).numpy()


VARIANTS = {
    "defaults": {},
    "orig": {"architecture": "orig", "nonlinearity": "relu"},
    "resnet": {"architecture": "resnet", "resample_kernel": [1, 2, 4], "dtype": "float32"},
    "box filter": {"resample_kernel": None, "structure": "auto", "truncation_psi": 0.5},
    # demodulation adds 1e-8, which tiny weights show
    "tiny weights": {"scale": 1e-3, "fused_modconv": True},
    "configs B to D": {"function": PROGRESSIVE, "architecture": "skip"},
    "labels": {"labels": 5, "label_size": 5, "mapping_fmaps": 7, "mapping_lrmul": 0.02},
    "raw latents": {"normalize_latents": False, "layers": 3, "mapping_nonlinearity": "relu"},
    "ada": {"function": ADA, "num_fp16_res": 2, "conv_clamp": 0.5, "architecture": "resnet"},
    "ada labels": {"function": ADA, "labels": 5, "label_fmaps": 7, "layers": 1},
    "ada without noise": {
        "function": ADA,
        "use_noise": False,
        "resample_kernel": [[1, 2], [3, 5]],
        "style_mixing_prob": None,
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_images_are_those_of_the_formulas_in_float64(variant):
    generator = make(**VARIANTS[variant])
    random = np.random.RandomState(1)
    z = random.standard_normal((2, 8)).astype(np.float32)
    _, config, variables, _ = convert((None, None, generator))
    model = StyleGAN2(variables, config)
    c = np.eye(config.c_dim, dtype=np.float32)[[1, 3]] if config.c_dim else None
    expected_w = upstream_w(generator, z, c)
    w = model.mapping(z, c)[:, 0]
    assert np.abs(w - expected_w).max() < 1e-5 * np.abs(expected_w).max()
    expected = upstream_image(generator, expected_w)
    error = np.abs(model.render(w) - expected).max() / np.abs(expected).max()
    assert error < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_tree_is_that_of_the_network_in_float32(variant, getkey):
    _, config, variables, _ = convert(make(**VARIANTS[variant]))
    network = jax.eval_shape(lambda key: init(key, config), getkey()).variables
    if not config.use_noise:
        network["constants"].pop("synthesis")
    assert jax.tree.structure(variables) == jax.tree.structure(network)
    for ours, networks in zip(jax.tree.leaves(variables), jax.tree.leaves(network), strict=True):
        assert (ours.shape, ours.dtype) == (networks.shape, np.float32)
        assert isinstance(ours, np.ndarray)


def test_the_source_names_project_and_the_blocks_in_float16():
    assert convert(make(PROGRESSIVE)).source["format"] == "stylegan2-tensorflow progressive"
    assert convert(make(ADA, num_fp16_res=1)).source == {
        "format": "stylegan2-ada-tensorflow",
        "fp16_blocks": [16],
    }
    # the 4x4 block never is
    assert convert(make(ADA, num_fp16_res=4)).source["fp16_blocks"] == [8, 16]


def test_a_mapping_network_without_layers_only_normalises():
    generator = make(layers=0)
    mapping = generator.state["components"]["mapping"].state
    mapping["variables"] = []
    _, config, variables, _ = convert(generator)
    assert (config.z_dim, config.mapping_layers) == (10, 0)
    z = np.random.RandomState(2).standard_normal((2, 10)).astype(np.float32)
    w = StyleGAN2(variables, config).mapping(z)[:, 0]
    np.testing.assert_allclose(w, z / np.sqrt((z**2).mean(1, keepdims=True)), rtol=1e-6)


def test_arguments_of_the_whole_network_replace_those_of_its_parts():
    generator = make(nonlinearity="relu")
    generator.state["components"]["synthesis"].state["static_kwargs"]["nonlinearity"] = "elu"
    assert convert(generator).config.activation == "relu"


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"use_wscale": False}, "use_wscale = False"),
        ({"init_res": [4, 4]}, "init_res = [4, 4]"),
        ({"conv_clamp": 256}, "conv_clamp = 256"),  # only ada's code reads it
        ({"function": ADA, "blur_filter": [1, 2, 1]}, "blur_filter = [1, 2, 1]"),
        ({"dtype": "float16"}, "dtype = 'float16', expected 'float32'"),
        ({"nonlinearity": "mish"}, "the nonlinearity 'mish'"),
        ({"mapping_nonlinearity": None}, "the nonlinearity None"),
        ({"mapping_lrmul": "0.1"}, "mapping_lrmul = '0.1', expected a number"),
        ({"mapping_lrmul": math.nan}, "mapping_lrmul = nan, expected a number"),
        ({"function": ADA, "conv_clamp": "1"}, "conv_clamp = '1', expected a number"),
        ({"function": ADA, "num_fp16_res": None}, "num_fp16_res = None"),
        ({"resample_kernel": [1, -1]}, "resample_kernel = [1, -1]"),
        ({"resample_kernel": [[1, 2]]}, "resample_kernel = [[1, 2]]"),
        ({"resample_kernel": "1331x"}, "resample_kernel = '1331x'"),
        ({"resample_kernel": 3}, "resample_kernel = 3"),
        ({"architecture": "unet"}, "architecture is 'unet'"),
        ({"architecture": "orig", "resolution": 32}, "resolution = 32, but its variables have 16"),
        ({"latent_size": 16}, "latent_size = 16, but its variables have 8"),
        ({"mapping_lrmul": 10**5000}, "mapping_lrmul = a int, expected a number"),
        ({"mapping_layers": 8}, "mapping_layers = 8, but its variables have 2"),
        ({"label_size": 3}, "label_size = 3, but its variables have 0"),
        ({"function": ADA, "labels": 5, "normalize_latents": False}, "normalize_latents = False"),
    ],
)
def test_arguments_that_are_not_known_or_contradict_are_named(arguments, sentence):
    with pytest.raises(CheckpointError, match=re.escape(sentence)):
        convert(make(**arguments))


@pytest.mark.parametrize(
    ("part", "name", "value", "sentence"),
    [
        ("synthesis", "8x8/Conv1/bias", np.zeros(7, "f4"), "has shape (7,), expected (5,)"),
        ("synthesis", "8x8/Conv1/bias", np.full(5, np.inf, "f4"), "values that are not finite"),
        ("synthesis", "8x8/Conv1/bias", np.zeros(5, int), "is int64, expected a tensor"),
        ("synthesis", "8x8/Conv1/bias", None, "is NoneType, expected a tensor"),
        ("synthesis", "8x8/Conv1/gamma", np.zeros(5, "f4"), "which the architecture has not"),
        ("synthesis", "4x4/Conv/weight", np.zeros((3, 3)), "(3, 3), expected other axes"),
        ("synthesis", "4x4/Const/const", np.zeros((1, 9, 4, 4), "f4"), "expected (6, 4, 4)"),
        ("mapping", "Dense1/weight", np.zeros((9, 10), "f4"), "expected (10, 12)"),
    ],
)
def test_wrong_variables_are_named(part, name, value, sentence):
    generator = make()
    variables = generator.state["components"][part].state["variables"]
    variables.append((name, value))
    with pytest.raises(CheckpointError, match=re.escape(f"{part}/{name}") + ".*") as raised:
        convert(generator)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("part", "name"),
    [("mapping", "Dense0/bias"), ("synthesis", "8x8/Conv1/bias"), ("synthesis", "4x4/ToRGB/bias")],
)
def test_missing_variables_are_named(part, name):
    generator = make()
    state = generator.state["components"][part].state
    state["variables"] = [(n, value) for n, value in state["variables"] if n != name]
    with pytest.raises(CheckpointError, match=f"missing beside {part}/{name[:7]}"):
        convert(generator)


def test_more_blocks_than_any_image_needs_are_refused():
    generator = make()
    variables = generator.state["components"]["synthesis"].state["variables"]
    variables += [(f"{i}x{i}/Conv1/weight", np.zeros((3, 3, 1, 1), "f4")) for i in range(5000)]
    with pytest.raises(CheckpointError, match="is the same as"):
        convert(generator)


def test_a_generator_that_is_still_growing_is_refused():
    generator = make(PROGRESSIVE)
    generator.state["variables"][0] = ("lod", np.float32(1.5))
    with pytest.raises(CheckpointError, match=r"lod is 1\.5"):
        convert(generator)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"build_func_name": "G_style"}, "this is a StyleGAN1 generator"),
        ({"build_func_name": "G_paper"}, "this is a ProGAN generator"),
        ({"build_func_name": "G_mapping"}, "a mapping network alone"),
        ({"build_func_name": "D_stylegan2"}, r"built by D_stylegan2\(\)"),
        ({"build_func_name": None}, "Gs has no build_func_name"),
        ({"components": {}}, "Gs has no components, expected the components mapping"),
        ({"components": {"mapping": 1}}, "Gs has mapping, expected"),
        ({"components": {"mapping": 1, "synthesis": 2}}, "mapping has no build_func_name"),
        ({"static_kwargs": None}, "Gs has no static_kwargs"),
        ({"variables": [1]}, "variables without name or value"),
    ],
)
def test_other_networks_are_called_by_their_name(changes, sentence):
    generator = make()
    generator.state.update(changes)
    with pytest.raises(CheckpointError, match=sentence):
        convert(generator)


def test_only_networks_of_dnnlib_are_recognised():
    generator = make()
    assert known(generator)
    assert known((generator, generator, generator))
    assert not any(known(other) for other in ({}, (), None, {"G_ema": 1}, [1]))
    generator.state["components"]["synthesis"].state["build_func_name"] = "G_synthesis_stylegan"
    with pytest.raises(CheckpointError, match=r"G_synthesis_stylegan\(\), which are not"):
        convert(generator)
