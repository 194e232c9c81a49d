"""BigGAN-PyTorch's generators give the same images here as there, or are refused in a sentence."""

import json

import jax
import numpy as np
import pytest

from ports import containers
from ports.biggan import BigGAN, init
from ports.biggan.assemble import ASSUMED
from ports.biggan.model import stats_row
from ports.biggan.network import GeneratorNetwork
from ports.errors import CheckpointError
from tests.ports.conversion import convert, known

torch = pytest.importorskip("torch")

from tests.ports.biggan.reference import Reference  # noqa: E402

FIXTURES = ["ajbrock_deep128", "ajbrock_biggan32_cifar_noshared", "ajbrock_biggan32_shared_nohier"]
SMALL = {"resolution": 32, "G_ch": 8, "n_classes": 5, "dim_z": 20, "G_attn": "0"}
DEEP = SMALL | {"model": "BigGANdeep", "hier": True, "G_attn": "16"}

# each with architecture of its own, and so a compilation
ARCHITECTURES = {
    "no shared embedding": {"G_shared": False, "SN_eps": 1e-8},
    "shared embedding": {"shared_dim": 12, "G_attn": "8_32", "num_G_SVs": 2, "num_G_SV_itrs": 3},
    "pieces of z": {"hier": True, "dim_z": 30, "G_attn": "16", "bottom_width": 3},
    "pieces of z, 64": {"hier": True, "resolution": 64, "G_attn": "8_64_999", "BN_eps": 0.01},
    "what is not said has upstream's default": {"only": {"hier": True, "G_ch": 8, "n_classes": 3}},
    "deep, one block each": {"model": "BigGANdeep", "hier": True, "G_depth": 1, "shared_dim": 3},
    "deep, three blocks each": DEEP | {"G_depth": 3, "bottom_width": 2},
    "deep, 64": DEEP | {"resolution": 64, "G_attn": "16_64", "bottom_width": 1, "SN_eps": 0.1},
}

# all of them of one architecture
TENSORS = {
    "no spectral norm": {"G_param": "weights"},
    "one singular value": {},
    "three singular values": {"num_G_SVs": 3, "num_G_SV_itrs": 2},
    "a large SN_eps": {"SN_eps": 0.6},
    "running averages of mybn": {"mybn": True},
    "cross_replica, whose gain is added": {"cross_replica": True},
    "cross_replica before mybn": {"cross_replica": True, "mybn": True, "norm_style": "gn"},
    "instance norm": {"norm_style": "in"},
    "no norm": {"norm_style": "nonorm"},
}


def nchw(x):
    return np.moveaxis(np.asarray(x), 3, 1)


def images(content, config_json, z, y):
    """Images [N, C, H, W] of the converted generator."""
    _, config, variables, _ = convert(content, config_json)
    model = BigGAN(jax.tree.map(jax.numpy.asarray, variables), config)
    return nchw(model(z[:, : config.z_dim], y))


def numpys(state, dtype=np.float32):
    """A state dict as `containers.read` would give it."""
    return {
        name: np.asarray(0) if name.endswith("num_batches_tracked") else x.numpy().astype(dtype)
        for name, x in state.items()
    }


def inputs(config, n=2):
    rng = np.random.default_rng(1)
    z = rng.normal(size=(n, config.get("dim_z", 128))).astype(np.float32)
    return z, rng.integers(0, config["n_classes"], n).astype(np.int32)


def drawn(config, **options):
    """A generator's random tensors, and what it makes of z and y."""
    z, y = inputs(config)
    reference = Reference(config, **options)
    expected = reference(torch.tensor(z).double(), torch.tensor(y).long()).numpy()
    return reference.state, z, y, expected


def relative_error(ours, expected):
    assert ours.shape == expected.shape
    return np.abs(ours - expected).max() / np.abs(expected).max()


@pytest.fixture
def checkpoint(shared):
    """The tensors, settings and upstream outputs of a fixture."""

    def read(name):
        folder = shared / "fixtures" / "biggan" / name
        config_json = json.loads((folder / "config.json").read_text())
        return containers.read(folder / "G_ema.pth"), config_json, dict(np.load(folder / "ref.npz"))

    return read


@pytest.mark.parametrize("name", FIXTURES)
def test_every_array_is_upstreams_within_1e5_of_the_largest(checkpoint, name):
    content, config_json, upstream = checkpoint(name)
    _, config, variables, source = convert(content, config_json)
    z, y = upstream.pop("z"), upstream.pop("y").astype(np.int32)
    model = BigGAN(jax.tree.map(jax.numpy.asarray, variables), config)
    network = jax.jit(GeneratorNetwork(config).apply)

    def run(z, embedding):
        zs, embeddings = (np.repeat(x[:, None], config.num_zs, axis=1) for x in (z, embedding))
        images, layers = network(variables, zs, embeddings, stats_row(1.0, 1))
        return nchw(images), layers

    out, layers = run(z, model.embed(y))
    side = config.bottom_width
    taps = {"tap_linear": nchw(layers["linear"].reshape(len(z), side, side, -1))[:1].reshape(1, -1)}
    for i in range(len(config.blocks)):
        taps[f"tap_blocks.{i}.0"] = nchw(layers[f"block{i}"])[:1]
        if i + 1 in config.attention:
            taps[f"tap_blocks.{i}.1"] = nchw(layers[f"attention{i + 1}"])[:1]
    ours = {"out": out, "out64": out} | taps
    ours["out_trunc05"], _ = run(upstream.pop("z_trunc05"), model.embed(y))
    if "y_embed_mix" in upstream:
        ours["out_embed_mix"], _ = run(z, upstream.pop("y_embed_mix"))
    upstream.pop("bad_names")
    nearest_mistake = upstream.pop("bad_maxabs").min()
    assert ours.keys() == upstream.keys()
    for array, expected in upstream.items():
        assert relative_error(ours[array], expected) < 1e-5, array
    assert np.abs(ours["out"] - upstream["out"]).max() < 1e-4 * nearest_mistake
    assert source["format"] == "BigGAN-PyTorch " + config_json["model"]
    assert source["assumed"] == {"G_nl": "relu"}


@pytest.mark.parametrize("name", FIXTURES)
def test_the_reference_is_upstream_in_float64(checkpoint, name):
    content, config_json, upstream = checkpoint(name)
    reference = Reference(config_json, {k: torch.tensor(x) for k, x in content.items()})
    z, y = torch.tensor(upstream["z"]).double(), torch.tensor(upstream["y"])
    np.testing.assert_allclose(reference(z, y), upstream["out64"], rtol=0, atol=1e-13)


@pytest.mark.parametrize("options", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_architectures(options):
    config = options.get("only", SMALL | options)
    state, z, y, expected = drawn(config)
    assert np.abs(expected).max() < 0.999
    assert relative_error(images(numpys(state), config, z, y), expected) < 1e-5


@pytest.mark.parametrize("options", TENSORS.values(), ids=TENSORS)
def test_tensors_of_one_architecture(options):
    config = SMALL | {"G_attn": "16"} | options
    state, z, y, expected = drawn(config)
    assert np.abs(expected).max() < 0.999
    assert relative_error(images(numpys(state), config, z, y), expected) < 1e-5


def test_sums_of_statistics_are_divided_by_their_count():
    config = SMALL | {"G_attn": "16", "mybn": True}
    state, z, y, expected = drawn(config, counter=16)
    assert relative_error(images(numpys(state), config, z, y), expected) < 1e-5


def test_weights_of_data_parallel_and_of_half_precision():
    config = SMALL | {"G_attn": "16"}
    state, z, y, expected = drawn(config)
    half = {f"module.{name}": x for name, x in numpys(state, np.float16).items()}
    assert known(half)
    assert relative_error(images(half, config, z, y), expected) < 1e-5


def test_several_random_generators_of_one_architecture():
    config = SMALL | {"G_attn": "16"}
    for seed in range(1, 6):
        state, z, y, expected = drawn(config, seed=seed)
        assert relative_error(images(numpys(state), config, z, y), expected) < 1e-5


@pytest.mark.parametrize("config", [SMALL, SMALL | {"hier": True}, DEEP])
def test_the_tree_is_that_of_the_network_in_float32(config, getkey):
    state, *_ = drawn(config)
    _, ours, variables, _ = convert(numpys(state, np.float64), config)
    network = jax.eval_shape(lambda key: init(key, ours), getkey()).variables
    assert jax.tree.structure(variables) == jax.tree.structure(network)
    for mine, networks in zip(jax.tree.leaves(variables), jax.tree.leaves(network), strict=True):
        assert type(mine) is np.ndarray
        assert (mine.shape, mine.dtype) == (networks.shape, np.float32)


def test_what_convert_is_given_stays_as_it_was():
    state, *_ = drawn(SMALL | {"cross_replica": True})
    content = numpys(state)
    for x in content.values():
        x.flags.writeable = False
    variables = convert(content, SMALL | {"cross_replica": True}).variables
    assert not any(
        np.shares_memory(x, y) for x in jax.tree.leaves(variables) for y in content.values()
    )


@pytest.fixture(scope="module")
def tiny():
    """Tensors of a generator of one of each kind of layer, to be spoilt in copies."""
    return numpys(drawn(SMALL | {"G_attn": "16"})[0])


@pytest.fixture(scope="module")
def tiny_deep():
    return numpys(drawn(DEEP)[0])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"resolution": 48}, r"resolution is 48; upstream's BigGAN has \[32, 64"),
        ({"resolution": 64}, "has shape"),
        ({"resolution": "32"}, "resolution is '32'"),
        ({"G_ch": 16}, r"linear.weight has shape \(512, 20\), expected \(1024, 20\)"),
        ({"G_ch": 1e9}, "G_ch is 1000000000.0; expected a whole number"),
        ({"G_ch": -8}, "G_ch is -8"),
        ({"G_ch": 0}, "G_ch is 0"),
        ({"G_ch": 2**31 - 1}, "in_channels is 8589934588; expected"),
        ({"G_ch": 10**400}, "G_ch is"),
        ({"G_ch": 10**5000}, "G_ch is"),
        ({"G_ch": True}, "G_ch is True"),
        ({"G_ch": None}, "G_ch is None"),
        ({"G_ch": "8" * 10**6}, "G_ch is '8888888888"),
        ({"G_ch": [[[[8]]]]}, "G_ch is"),
        ({"n_classes": 6}, r"shared.weight has shape \(5, 20\), expected \(6, 20\)"),
        ({"n_classes": 0}, "n_classes is 0"),
        ({"dim_z": 21}, "expected"),
        ({"dim_z": 0}, "dim_z is 0"),
        ({"shared_dim": 21}, "expected"),
        ({"bottom_width": 0}, "bottom_width is 0"),
        ({"bottom_width": 2**30}, "bottom_width is 1073741824; expected"),
        ({"G_attn": "8"}, "blocks.0.1.theta.weight is missing"),
        ({"G_attn": "0"}, "blocks.1.1.g.sv0 is there"),
        ({"G_attn": ""}, "G_attn is ''; expected one such as '32_64'"),
        ({"G_attn": "16_"}, "G_attn is '16_'"),
        ({"G_attn": "1" * 5000}, "G_attn is '1111111111"),
        ({"G_attn": 16}, "G_attn is 16"),
        ({"G_param": "weights"}, "which the architecture has not"),
        ({"G_param": None}, "G_param is None"),
        ({"G_nl": "leaky_relu"}, "G_nl is 'leaky_relu'; upstream has only ReLU"),
        ({"G_shared": False}, "gain.weight has shape"),
        ({"G_shared": "yes"}, "G_shared is 'yes'; expected true or false"),
        ({"G_shared": [1]}, "G_shared is"),
        ({"hier": True, "G_shared": False}, "cannot run"),
        ({"hier": True, "dim_z": 3}, "dim_z is 3"),
        ({"mybn": True}, "blocks.0.0.bn1.bn.stored_mean is missing"),
        ({"cross_replica": True}, "blocks.0.0.bn1.bn.running_mean is missing"),
        ({"norm_style": "gn"}, "norm_style is 'gn'"),
        ({"norm_style": "nonorm"}, "stored_mean is there"),
        ({"norm_style": ["bn"]}, "norm_style is"),
        ({"BN_eps": -1e-5}, "BN_eps is -1e-05; expected a number"),
        ({"BN_eps": float("nan")}, "BN_eps is nan"),
        ({"BN_eps": 10**400}, "BN_eps is"),
        ({"SN_eps": "1e-12"}, "SN_eps is '1e-12'"),
        ({"SN_eps": float("inf")}, "SN_eps is inf"),
        ({"model": "BigGANdeep"}, "model is 'BigGANdeep', but the tensors are BigGAN's"),
        ({"model": {}}, "model is"),
    ],
)
def test_a_config_that_the_tensors_do_not_fit_is_named(tiny, change, sentence):
    with pytest.raises(CheckpointError, match=sentence) as caught:
        convert(dict(tiny), SMALL | {"G_attn": "16"} | change)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hier": False}, "G_shared True and hier False, which upstream's BigGANdeep cannot run"),
        ({"G_shared": False}, "G_shared False and hier True"),
        ({"G_depth": 0}, "G_depth is 0"),
        ({"G_depth": 1}, "is missing"),
        ({"G_depth": 3}, "is missing"),
        ({"G_depth": 2**31 - 1}, "G_depth is 2147483647"),
        ({"G_depth": 1, "resolution": 64}, "is followed by one that takes"),
        ({"G_depth": 3, "resolution": 64}, "is followed by one that takes"),
        ({"G_ch": 1}, "attention"),
        ({"resolution": 512}, "resolution is 512"),
        ({"model": "BigGAN"}, "model is 'BigGAN', but the tensors are BigGANdeep's"),
    ],
)
def test_a_config_that_deep_tensors_do_not_fit_is_named(tiny_deep, change, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        convert(dict(tiny_deep), DEEP | change)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("linear.bias", None, "linear.bias is missing"),
        ("blocks.1.1.gamma", None, "blocks.1.1.gamma is missing"),
        ("blocks.2.0.conv1.u0", None, "blocks.2.0.conv1.u0 is missing"),
        ("output_layer.2.weight", None, "output_layer.2.weight is missing"),
        ("output_layer.2.weight", np.ones((), "f4"), "output_layer.2.weight has shape"),
        ("output_layer.2.weight", np.zeros((0, 32, 3, 3), "f4"), "output_layer.2.weight has shape"),
        ("output_layer.2.weight", np.zeros((3, 32, 3, 3), "f4"), "spectral norm 0"),
        ("linear.weight", np.full((512, 20), 1e-42, "f4"), "linear.weight has the spectral norm"),
        ("linear.bias", np.zeros(511, "f4"), r"linear.bias has shape \(511,\), expected \(512,\)"),
        ("linear.bias", np.zeros((1, 512), "f4"), "linear.bias has shape"),
        ("linear.bias", np.zeros(512, int), "linear.bias is int64, expected a tensor of floating"),
        ("linear.bias", np.zeros(512, complex), "linear.bias is complex128"),
        ("linear.bias", np.full(512, np.nan), "linear.bias has values that are not finite"),
        ("linear.bias", np.full(512, 1e300), "linear.bias has values that are not finite"),
        ("linear.u0", np.full((1, 512), np.inf, "f4"), "linear.u0 has values that are not finite"),
        (
            "blocks.0.0.bn1.stored_var",
            np.full(32, -1, "f4"),
            r"blocks\.0\.0\.bn1.* variance that is negative",
        ),
        (
            "output_layer.0.stored_var",
            np.full(32, -1, "f4"),
            r"output_layer\.0 .* variance that is negative",
        ),
        ("blocks.3.0.conv1.weight", np.zeros(1, "f4"), "blocks.3.0.conv1.weight has shape"),
        ("a\x1b" * 99, np.zeros(1, "f4"), "is there"),
    ],
)
def test_a_tensor_that_is_wrong_is_named(tiny, name, value, sentence):
    content = {**tiny, name: value}
    if value is None:
        content.pop(name)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        convert(content, SMALL | {"G_attn": "16"})
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


def test_a_count_that_makes_statistics_infinite_is_refused():
    config = SMALL | {"mybn": True}
    content = numpys(drawn(config)[0])
    content["output_layer.0.bn.accumulation_counter"] = np.full(1, 1e-45, np.float32)
    with pytest.raises(CheckpointError, match=r"output_layer\.0"):
        convert(content, config)


def test_other_networks_are_not_recognised(tiny):
    discriminator = {"blocks.0.0.conv1.weight": tiny["linear.weight"], "embed.weight": np.zeros(3)}
    assert known(tiny)
    for other in (discriminator, {}, [], None, {"output_layer.0.gain": 1}, {0: np.zeros(1)}):
        assert not known(other)


@pytest.mark.parametrize("options", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_names_and_shapes_say_the_architecture(options):
    config = options.get("only", SMALL | options)
    tensors = numpys(drawn(config)[0])
    given = convert(tensors, config)
    assumed = {name: value for name, value in config.items() if name in ASSUMED}
    found = convert(tensors, assumed or None)
    assert found.config == given.config
    assert found.source["assumed"] == {n: x for n, x in ASSUMED.items() if n not in assumed}


@pytest.mark.parametrize("options", TENSORS.values(), ids=TENSORS)
def test_tensors_say_how_they_are_normalised(options):
    config = SMALL | {"G_attn": "16"} | options
    tensors = numpys(drawn(config)[0])
    known = {name: config[name] for name in ("norm_style", "SN_eps") if name in config}
    found, given = convert(tensors, known or None), convert(tensors, config)
    jax.tree.map(np.testing.assert_array_equal, found.variables, given.variables)


def test_widths_of_no_resolution_ask_for_the_settings(tiny):
    other = tiny | {"blocks.3.0.conv1.weight": np.zeros((8, 32, 3, 3), "f4")}
    other["blocks.3.0.conv2.weight"] = np.zeros((8, 8, 3, 3), "f4")
    with pytest.raises(CheckpointError, match=r"name its settings with --config"):
        convert(other, None)
