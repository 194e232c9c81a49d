"""Checkpoints of rosinality/stylegan2-pytorch make the same images here, or are refused."""

import re

import jax
import numpy as np
import pytest

from ports import containers
from ports.errors import CheckpointError
from ports.stylegan2.assemble import MEAN_SAMPLES
from ports.stylegan2.model import StyleGAN2, init
from tests.ports.conversion import convert, known


def make(size=16, channels=(4, 3, 2), n_mlp=2, style_dim=8, image_channels=3):
    """The state dict of a generator with random weights; `channels` of each block."""
    random = np.random.RandomState(0)
    state = {}

    def normal(name, *shape):
        state[name] = random.standard_normal(shape).astype(np.float32)

    def modulated(name, kernel, inputs, outputs):
        normal(f"{name}.conv.weight", 1, outputs, inputs, kernel, kernel)
        normal(f"{name}.conv.modulation.weight", inputs, style_dim)
        normal(f"{name}.conv.modulation.bias", inputs)

    def layer(name, inputs, outputs, noise, side):
        modulated(name, 3, inputs, outputs)
        normal(f"{name}.noise.weight", 1)
        normal(f"{name}.activate.bias", outputs)
        normal(f"noises.noise_{noise}", 1, 1, side, side)

    def rgb(name, inputs):
        modulated(name, 1, inputs, image_channels)
        normal(f"{name}.bias", 1, image_channels, 1, 1)

    blur = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 16
    for i in range(n_mlp):
        normal(f"style.{i + 1}.weight", style_dim, style_dim)
        normal(f"style.{i + 1}.bias", style_dim)
    normal("input.input", 1, channels[0], 4, 4)
    layer("conv1", channels[0], channels[0], 0, 4)
    rgb("to_rgb1", channels[0])
    for i in range(1, len(channels)):
        side = 4 * 2**i
        layer(f"convs.{2 * i - 2}", channels[i - 1], channels[i], 2 * i - 1, side)
        layer(f"convs.{2 * i - 1}", channels[i], channels[i], 2 * i, side)
        rgb(f"to_rgbs.{i - 1}", channels[i])
        state[f"convs.{2 * i - 2}.conv.blur.kernel"] = blur
        state[f"to_rgbs.{i - 1}.upsample.kernel"] = blur
    assert side == size
    return state


def with_mean(state):
    width = state["conv1.conv.modulation.weight"].shape[1]
    return {"g_ema": state, "latent_avg": np.arange(width, dtype=np.float32)}


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_mlp": 8, "image_channels": 1},
        {"size": 8, "channels": (5, 7), "style_dim": 5},
        {"size": 128, "channels": (512, 512, 512, 512, 256, 128), "style_dim": 16},  # multiplier 1
        {"size": 128, "channels": (64, 64, 64, 64, 64, 32), "n_mlp": 4},  # multiplier 2, over 8
    ],
)
def test_the_architecture_is_read_from_the_shapes(arguments, getkey):
    architecture, config, variables, _ = convert(with_mean(make(**arguments)))
    assert architecture == "stylegan2"
    assert config.img_resolution == arguments.get("size", 16)
    assert config.channels == arguments.get("channels", (4, 3, 2))
    assert config.mapping_layers == arguments.get("n_mlp", 2)
    assert config.img_channels == arguments.get("image_channels", 3)
    assert config.z_dim == config.w_dim == arguments.get("style_dim", 8)
    network = jax.eval_shape(lambda key: init(key, config), getkey()).variables
    assert jax.tree.structure(variables) == jax.tree.structure(network)
    for ours, networks in zip(jax.tree.leaves(variables), jax.tree.leaves(network), strict=True):
        assert (ours.shape, ours.dtype) == (networks.shape, np.float32)
        assert isinstance(ours, np.ndarray)


def test_a_generator_converted_there_from_tensorflow_is_the_same_as_here(fixture_file):
    networks = containers.read(fixture_file("stylegan2/tiny_tf_sg2.pkl"))
    mapping, synthesis = (
        dict(networks[2].state["components"][name].state["variables"])
        for name in ("mapping", "synthesis")
    )
    blur = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 16
    state = {"input.input": synthesis["4x4/Const/const"]}
    for i in range(8):
        state[f"style.{i + 1}.weight"] = mapping[f"Dense{i}/weight"].T
        state[f"style.{i + 1}.bias"] = mapping[f"Dense{i}/bias"]

    def convolution(there, here, flip=False):
        weight = synthesis[f"{here}/weight"]
        weight = weight[::-1, ::-1] if flip else weight
        state[f"{there}.conv.weight"] = weight.transpose(3, 2, 0, 1)[None]
        state[f"{there}.conv.modulation.weight"] = synthesis[f"{here}/mod_weight"].T
        state[f"{there}.conv.modulation.bias"] = synthesis[f"{here}/mod_bias"] + 1
        if "RGB" in here:
            state[f"{there}.bias"] = synthesis[f"{here}/bias"].reshape(1, 3, 1, 1)
        else:
            state[f"{there}.noise.weight"] = np.reshape(synthesis[f"{here}/noise_strength"], 1)
            state[f"{there}.activate.bias"] = synthesis[f"{here}/bias"]

    convolution("conv1", "4x4/Conv")
    convolution("to_rgb1", "4x4/ToRGB")
    for i, side in enumerate([8, 16, 32]):
        convolution(f"convs.{2 * i}", f"{side}x{side}/Conv0_up", flip=True)
        convolution(f"convs.{2 * i + 1}", f"{side}x{side}/Conv1")
        convolution(f"to_rgbs.{i}", f"{side}x{side}/ToRGB")
        state[f"convs.{2 * i}.conv.blur.kernel"] = blur
        state[f"to_rgbs.{i}.upsample.kernel"] = blur
    for i in range(7):
        state[f"noises.noise_{i}"] = synthesis[f"noise{i}"]
    mean = dict(networks[2].state["variables"])["dlatent_avg"]
    theirs = convert({"g_ema": state, "latent_avg": mean})
    ours = convert(networks)
    assert theirs.config == ours.config
    jax.tree.map(np.testing.assert_array_equal, theirs.variables, ours.variables)


def test_files_of_all_kinds_hold_the_same_generator():
    state = make()
    mean = np.arange(8, dtype=np.float32)
    training = {"g": make(channels=(1, 1, 1)), "d": {}, "g_ema": state, "args": object()}
    expected = convert(training)
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    for content in ({"g_ema": parallel}, state, parallel):
        assert known(content)
        jax.tree.map(np.testing.assert_array_equal, convert(content).variables, expected.variables)
    for content in (
        {"g_ema": state, "latent_avg": mean},
        {"g_ema": state, "latent_avg": mean[None]},
        state | {"latent_avg": mean},
    ):
        converted = convert(content)
        assert converted.source["w_avg"] == "stored"
        np.testing.assert_array_equal(converted.variables["constants"]["mapping"]["w_avg"], mean)


def test_a_mean_that_is_not_stored_is_that_of_the_mapping_network(getkey):
    _, config, variables, source = convert(make())
    assert source == {
        "format": "rosinality stylegan2-pytorch",
        "noise_const": "stored",
        "w_avg": f"mean of {MEAN_SAMPLES} samples",
    }
    w = np.asarray(StyleGAN2(variables, config).sample(getkey(), 2**16), np.float64)
    standard_error = w.std(0) * np.sqrt(2 / len(w))  # of the difference of two such means
    w_avg = variables["constants"]["mapping"]["w_avg"]
    assert (np.abs(w_avg - w.mean(0)) < 5 * standard_error).all()


def test_noise_that_is_not_stored_is_drawn_alike_each_time():
    state = {name: value for name, value in make().items() if not name.startswith("noises")}
    first, second = convert(with_mean(state)), convert(with_mean(state))
    assert first.source["noise_const"] == "drawn, for the file has none"
    jax.tree.map(np.testing.assert_array_equal, first.variables, second.variables)
    noise = np.concatenate(
        [x.ravel() for x in jax.tree.leaves(first.variables["constants"]["synthesis"])]
    )
    assert noise.size == len(np.unique(noise)) == 16 + 2 * 64 + 2 * 256
    assert abs(noise.mean()) < 0.15
    assert abs(noise.std() - 1) < 0.1


@pytest.mark.parametrize("taps", [[1], [1, 2, 1], [1, 4, 6, 4, 1]])
def test_blur_kernels_are_stored_times_four(taps):
    state = make()
    blur = np.outer(taps, taps).astype(np.float32) * 4 / sum(taps) ** 2
    state |= {name: blur for name in state if name.endswith(".kernel")}
    expected = tuple(np.divide(taps, sum(taps)).tolist())
    assert convert(with_mean(state)).config.resample_filter == expected


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("convs.1.conv.weight", np.zeros((1, 3, 4, 3, 3), "f4"), "expected (3, 3, 3, 3)"),
        ("convs.1.conv.weight", np.zeros((3, 3, 3, 3), "f4"), "expected"),
        ("convs.0.activate.bias", np.full(3, np.nan, "f4"), "has values that are not finite"),
        ("convs.0.activate.bias", np.zeros(3, int), "is int64, expected a tensor"),
        ("convs.0.bias", np.zeros(3, "f4"), "which the architecture has not"),
        ("noises.noise_5", np.zeros((1, 1, 32, 32), "f4"), "which the architecture has not"),
        ("noises.noise_0", np.zeros((1, 1, 16, 16), "f4"), "expected (4, 4)"),
        ("input.input", np.zeros((1, 9, 4, 4), "f4"), "expected (4, 4, 4)"),
        ("style.2.weight", np.zeros((8, 9), "f4"), "expected (8, 8)"),
        ("to_rgbs.0.upsample.kernel", np.zeros((4, 3), "f4"), "differ"),
    ],
)
def test_wrong_tensors_are_named(name, value, sentence):
    with pytest.raises(CheckpointError, match=re.escape(name)) as raised:
        convert({"g_ema": make() | {name: value}})
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("style.1.bias", "mapping.fc0.bias is missing beside style.1.weight"),
        ("noises.noise_3", "noise_const is missing beside convs.2.conv.weight"),
        ("to_rgbs.1.bias", "torgb.bias is missing beside to_rgbs.1.conv.weight"),
        ("convs.2.conv.blur.kernel", "resample_filter is missing beside convs.2.conv.weight"),
    ],
)
def test_missing_tensors_are_named(name, beside):
    state = make()
    del state[name]
    with pytest.raises(CheckpointError, match=beside):
        convert({"g_ema": state})


def test_other_generators_are_refused():
    swagan = make() | {"iwt.ll": np.ones((2, 2), "f4"), "to_rgbs.0.iwt.ll": np.ones((2, 2), "f4")}
    with pytest.raises(CheckpointError, match="SWAGAN"):
        convert({"g_ema": swagan})
    with pytest.raises(CheckpointError, match="differ; expected one filter"):
        convert(make() | {"convs.0.conv.blur.kernel": np.ones((2, 2), "f4")})
    with pytest.raises(CheckpointError, match="differs by layer"):
        convert({"g_ema": make(), "latent_avg": np.eye(2, 8, dtype="f4")})
    with pytest.raises(CheckpointError, match="kernel_size is 2"):
        convert(make() | {"conv1.conv.weight": np.zeros((1, 4, 4, 2, 2), "f4")})
    state = make()
    huge = {f"to_rgbs.{i}.conv.weight": state["to_rgbs.0.conv.weight"] for i in range(5000)}
    with pytest.raises(CheckpointError, match="has a block 13, expected 12"):
        convert(state | huge)


@pytest.mark.parametrize("content", [None, [], {}, {"g_ema": None}, {"G_ema": 1}, {1: 2}])
def test_what_is_no_generator_of_that_project_is_not_recognised(content):
    assert not known(content)
    with pytest.raises(CheckpointError, match="no generator that is known here"):
        convert(content)
