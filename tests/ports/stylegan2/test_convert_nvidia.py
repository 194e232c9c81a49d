"""NVIDIA's snapshots give the same images here as there, or are refused in a sentence."""

import re

import jax
import numpy as np
import pytest

from ports import containers
from ports.errors import CheckpointError
from ports.records import PersistentObject
from ports.stylegan2.model import init
from ports.upstream import choose
from tests.ports.conversion import convert

SNAPSHOTS = ["tiny_ada_gray_cond", "tiny_ada_resnet", "tiny_ada_nonoise", "tiny_sg3_clamp"]


@pytest.fixture
def snapshot(fixture_file):
    """A snapshot to be spoilt."""
    return containers.read(fixture_file("stylegan2/tiny_ada_gray_cond.pkl"))


def state_of(snapshot, path):
    """The state of a module, by its path below G_ema."""
    state = snapshot["G_ema"].state
    for name in path.split("."):
        state = state["_modules"][name].state
    return state


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_the_tree_is_that_of_the_network_in_float32(fixture_file, name, getkey):
    _, config, variables, _ = convert(containers.read(fixture_file(f"stylegan2/{name}.pkl")))
    network = jax.eval_shape(lambda key: init(key, config), getkey()).variables
    if not config.use_noise:
        network["constants"].pop("synthesis")
    assert jax.tree.structure(variables) == jax.tree.structure(network)
    for ours, networks in zip(jax.tree.leaves(variables), jax.tree.leaves(network), strict=True):
        assert type(ours) is np.ndarray
        assert (ours.shape, ours.dtype) == (networks.shape, np.float32)


def test_the_source_names_the_project(fixture_file, snapshot):
    assert convert(snapshot).source == {"format": "stylegan2-ada-pytorch", "fp16_blocks": []}
    from_sg3 = convert(containers.read(fixture_file("stylegan2/tiny_sg3_clamp.pkl")))
    assert from_sg3.source["format"] == "stylegan3-repo stylegan2"
    assert from_sg3.architecture == "stylegan2"


def test_blocks_that_upstream_computes_in_float16_are_listed(snapshot):
    state_of(snapshot, "synthesis.b16")["use_fp16"] = True
    state_of(snapshot, "synthesis.b32")["use_fp16"] = True
    assert convert(snapshot).source["fp16_blocks"] == [16, 32]


def test_the_arguments_of_the_constructors_are_not_believed(snapshot):
    before = convert(snapshot).config
    for path in ("mapping", "synthesis", "synthesis.b8"):
        state_of(snapshot, path)["_init_kwargs"] = {"w_dim": 1, "conv_clamp": 256, "num_layers": 1}
    assert convert(snapshot).config == before


def test_a_generator_that_tracked_no_mean_has_no_w_avg(snapshot):
    state_of(snapshot, "mapping")["_buffers"].pop("w_avg")
    assert "mapping" not in convert(snapshot).variables["constants"]


def test_frozen_and_half_precision_parameters_are_converted_like_others(snapshot):
    before = convert(snapshot).variables["params"]["mapping"]["fc0"]
    state = state_of(snapshot, "mapping.fc0")
    state["_buffers"]["weight"] = state["_parameters"].pop("weight")
    state["_parameters"]["bias"] = state["_parameters"]["bias"].astype(np.float16)
    after = convert(snapshot).variables["params"]["mapping"]["fc0"]
    np.testing.assert_array_equal(after["weight"], before["weight"])
    assert after["bias"].dtype == np.float32
    np.testing.assert_allclose(after["bias"], before["bias"], rtol=1e-3)


def test_one_clamp_for_all_layers_is_read_from_them(snapshot):
    for block in state_of(snapshot, "synthesis")["_modules"].values():
        for layer in block.state["_modules"].values():
            layer.state["conv_clamp"] = 256
    assert convert(snapshot).config.conv_clamp == 256


LINE = np.arange(1, 10, dtype=np.float32) / 45
SQUARE = np.array([[0.5, 0.25], [0.25, 0]], np.float32)


@pytest.mark.parametrize(
    ("buffer", "expected"),
    [
        (np.ones((1, 1), np.float32), (1.0,)),
        (np.outer([0.25, 0.75], [0.25, 0.75]).astype(np.float32), (0.25, 0.75)),
        (LINE, tuple(LINE.tolist())),
        (SQUARE, ((0.5, 0.25), (0.25, 0.0))),
    ],
)
def test_filters_of_any_shape_are_read(snapshot, buffer, expected):
    for block in state_of(snapshot, "synthesis")["_modules"].values():
        block.state["_buffers"]["resample_filter"] = buffer
        for layer in block.state["_modules"].values():
            if layer.state.get("up") == 2:
                layer.state["_buffers"]["resample_filter"] = buffer
    assert convert(snapshot).config.resample_filter == expected


@pytest.mark.parametrize(
    ("path", "attribute", "value"),
    [
        ("synthesis.b8.conv0", "activation", "relu"),
        ("synthesis.b8.conv0", "up", 1),
        ("synthesis.b8.conv1", "use_noise", False),
        ("synthesis.b8.conv1", "act_gain", 1),
        ("synthesis.b8.conv1", "padding", 0),
        ("synthesis.b16.conv1", "conv_clamp", 256),
        ("synthesis.b16.torgb", "conv_clamp", 256),
        ("synthesis.b16.torgb", "weight_gain", 1),
        ("synthesis.b16.torgb.affine", "bias_gain", 0.01),
        ("synthesis.b32", "architecture", "orig"),
        ("synthesis", "img_resolution", 64),
        ("synthesis", "num_ws", 9),
        ("mapping", "num_layers", 2),
        ("mapping", "num_ws", None),
        ("mapping.fc1", "activation", "linear"),
        ("mapping.fc1", "bias_gain", 1),
        ("mapping.embed", "weight_gain", 1),
    ],
)
def test_a_layer_unlike_the_others_is_named(snapshot, path, attribute, value):
    state_of(snapshot, path)[attribute] = value
    with pytest.raises(CheckpointError, match=re.escape(f"G_ema.{path} has {attribute} {value!r}")):
        convert(snapshot)


@pytest.mark.parametrize(
    ("path", "kind", "name", "value", "sentence"),
    [
        (
            "synthesis.b8.conv0",
            "_parameters",
            "weight",
            np.zeros((64, 64, 5, 5), "f4"),
            "has shape",
        ),
        ("synthesis.b8.conv0", "_parameters", "bias", None, "is missing beside"),
        ("synthesis.b8.conv0", "_parameters", "bias", np.zeros(64, int), "is int64"),
        ("synthesis.b8.conv0", "_parameters", "bias", np.full(64, np.nan), "not finite"),
        ("synthesis.b8.conv0", "_parameters", "bias", np.full(64, 1e300), "not finite"),
        (
            "synthesis.b8.conv0",
            "_parameters",
            "gamma",
            np.zeros(64, "f4"),
            "which the architecture has not",
        ),
        ("synthesis.b8.conv0", "_buffers", "resample_filter", SQUARE, "differ"),
        ("synthesis.b8", "_modules", "torgb", None, "b8.torgb.weight is missing"),
        ("synthesis.b8", "_modules", "skip", PersistentObject("Conv2dLayer", {}), "has skip"),
        ("synthesis", "_modules", "b16", None, "b16.conv1.weight is missing"),
        ("mapping", "_modules", "fc0", None, "fc0.weight is missing"),
        (
            "mapping",
            "_modules",
            "fc2",
            PersistentObject("FullyConnectedLayer", {}),
            "fc1.weight has shape",
        ),
    ],
)
def test_missing_surplus_and_wrong_tensors_are_named(snapshot, path, kind, name, value, sentence):
    state_of(snapshot, path)[kind][name] = value
    with pytest.raises(CheckpointError, match=f"{path}.*{sentence}|{sentence}"):
        convert(snapshot)


def test_the_averaged_generator_is_taken_and_others_on_request(snapshot):
    assert choose(snapshot)[1].path == ("G_ema",)
    assert choose(snapshot, "G")[1].path == ("G",)
    assert choose({"G": snapshot["G"], "D": snapshot["D"]})[1].path == ("G",)
    with pytest.raises(CheckpointError, match=r"no generator g; there is G_ema, G"):
        choose(snapshot, "g")


def test_other_networks_are_called_by_their_name(snapshot):
    for other in ({"G_ema": snapshot["D"]}, {"D": snapshot["G_ema"]}, {"G_ema": None}):
        with pytest.raises(CheckpointError, match=r"entries such as .*; no generator"):
            convert(other)
    state = state_of(snapshot, "synthesis")
    freqs = {"_parameters": {}, "_buffers": {"freqs": np.zeros((4, 2), "f4")}, "_modules": {}}
    state["_modules"] = {"input": PersistentObject("SynthesisInput", freqs)}
    with pytest.raises(CheckpointError, match="StyleGAN3, which is another network"):
        convert({"G_ema": snapshot["G_ema"]})
