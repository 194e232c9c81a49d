"""pytorch-pretrained-BigGAN's generators give the same images here as there, or are refused."""

import json
import sys
from types import ModuleType

import jax
import numpy as np
import pytest

from ports import containers
from ports.biggan import BigGAN, init
from ports.biggan.model import stats_row
from ports.biggan.network import GeneratorNetwork
from ports.errors import CheckpointError
from tests.ports.conversion import convert, known

torch = pytest.importorskip("torch")

SMALL = {
    "z_dim": 6,
    "num_classes": 5,
    "channel_width": 8,
    "n_stats": 51,
    "eps": 1e-4,
    "layers": [[True, 16, 8], [False, 8, 4], [True, 4, 2], [False, 2, 1]],
    "attention_layer_position": 2,
}
ARCHITECTURES = {
    "attention in the middle": {},
    "attention first, before channels halve": {"attention_layer_position": 0, "n_stats": 11},
    "attention beyond the last layer": {
        "attention_layer_position": 4,
        "channel_width": 12,
        "z_dim": 1,
        "num_classes": 1,
        "n_stats": 2,
        "eps": 1e-2,
    },
    "odd layers, no upsampling in most": {
        "layers": [[0, 16, 16], [False, 16, 8], [False, 8, 4], [1, 4, 2], [0, 2, 1]],
        "class_embed_dim": 99,
        "attention_layer_position": 3,
    },
}
TRUNCATIONS = (0.02, 0.3, 0.4, 0.435, 0.58, 0.99, 1.0)


@pytest.fixture(scope="module")
def upstream():
    """The package, for which stubs stand in for the clients that it downloads weights with."""
    names = {"boto3": {}, "botocore": {}, "botocore.exceptions": {"ClientError": OSError}}
    names["requests"] = {}
    stubs = [name for name in names if name not in sys.modules]
    with pytest.MonkeyPatch.context() as patch:
        for name in stubs:
            module = ModuleType(name)
            vars(module).update(names[name])
            patch.setitem(sys.modules, name, module)
        package = pytest.importorskip("pytorch_pretrained_biggan")
    return package


@pytest.fixture
def generator(upstream):
    """A function that makes upstream's generator with random weights and statistics."""

    def make(config_json, seed=0):
        torch.manual_seed(seed)
        config = upstream.BigGANConfig.from_dict(config_json)
        model = upstream.BigGAN(config)
        with torch.no_grad():
            for _ in range(3):  # each a step of the power method, from random vectors
                model(torch.zeros(1, config.z_dim), torch.zeros(1, config.num_classes), 1.0)
            for name, tensor in model.state_dict().items():
                if name.endswith("vars"):
                    tensor.uniform_(0.3, 3)
                elif name.endswith("weight_u"):  # stored vectors need not fit their weight
                    tensor += 0.3 * len(tensor) ** -0.5 * torch.randn(tensor.shape)
                elif not name.endswith(("weight_v", "weight_orig")):
                    tensor.normal_(0, 0.2)
        return model.eval()

    return make


def saved(model, path, **options):
    """Upstream's state dict as `containers.read` finds it in a file that PyTorch wrote."""
    torch.save(model.state_dict(), path, **options)
    return containers.read(path)


def nchw(x):
    return np.moveaxis(np.asarray(x), 3, 1)


def ours(content, config_json):
    _, config, variables, _ = convert(content, config_json)
    return BigGAN(jax.tree.map(jax.numpy.asarray, variables), config)


def test_images_are_upstreams_at_every_truncation(generator, tmp_path):
    for name, options in ARCHITECTURES.items():
        config_json = SMALL | options
        theirs = generator(config_json)
        model = ours(saved(theirs, tmp_path / "new.bin"), config_json)
        rng = np.random.default_rng(0)
        z = rng.normal(size=(2, config_json["z_dim"])).astype(np.float32)
        y = rng.dirichlet(np.ones(config_json["num_classes"]), 2).astype(np.float32)
        for truncation in TRUNCATIONS:
            with torch.no_grad():
                expected = theirs(torch.tensor(z), torch.tensor(y), truncation).numpy()
            images = nchw(model(z, y, truncation))
            assert 0.01 < np.abs(expected).max() < 0.9999
            assert np.abs(images - expected).max() < 1e-4, (name, truncation)


def test_the_nearer_set_of_statistics_counts_less_upstream(generator, tmp_path):
    theirs = generator(SMALL)
    model = ours(saved(theirs, tmp_path / "new.bin"), SMALL)
    z, y = np.ones((2, 6), np.float32), np.eye(5, dtype=np.float32)[:2]
    with torch.no_grad():
        expected = theirs(torch.tensor(z), torch.tensor(y), 0.435).numpy()
    assert np.abs(nchw(model(z, y, 0.435)) - expected).max() < 1e-4
    assert np.abs(nchw(model(z, y, 0.435, interpolation="linear")) - expected).max() > 1e-2
    # halfway between two sets both ways are one
    halfway = model(z, y, 0.43), model(z, y, 0.43, interpolation="linear")
    np.testing.assert_allclose(*halfway, atol=1e-5)


def test_old_and_new_files_hold_the_same(generator, tmp_path):
    model = generator(SMALL)
    new = convert(saved(model, tmp_path / "new.bin"), SMALL)
    old = convert(saved(model, tmp_path / "old.bin", _use_new_zipfile_serialization=False), SMALL)
    jax.tree.map(np.testing.assert_array_equal, new.variables, old.variables)


def test_weights_that_were_normalised_before_are_taken_as_they_are(generator, tmp_path):
    model = generator(SMALL)
    before = convert(saved(model, tmp_path / "a.bin"), SMALL).variables
    with torch.no_grad():
        model(torch.zeros(1, 6), torch.zeros(1, 5), 1.0)  # sets the normalised weights
    for module in model.modules():
        if hasattr(module, "weight_orig"):
            torch.nn.utils.remove_spectral_norm(module)
    after = convert(saved(model, tmp_path / "b.bin"), SMALL).variables
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), before, after)


def test_the_tree_is_that_of_the_network_in_float32(generator, tmp_path, getkey):
    _, config, variables, source = convert(saved(generator(SMALL), tmp_path / "a.bin"), SMALL)
    network = jax.eval_shape(lambda key: init(key, config), getkey()).variables
    assert source == {"format": "pytorch-pretrained-BigGAN"}
    assert jax.tree.structure(variables) == jax.tree.structure(network)
    for mine, networks in zip(jax.tree.leaves(variables), jax.tree.leaves(network), strict=True):
        assert (mine.shape, mine.dtype) == (networks.shape, np.float32)


@pytest.mark.parametrize("name", ["huggingface_deep256_ch8", "huggingface_odd32"])
def test_every_array_is_upstreams_within_1e4(shared, name):
    folder = shared / "fixtures" / "biggan" / name
    config_json = json.loads((folder / "config.json").read_text())
    upstream = dict(np.load(folder / "ref.npz"))
    _, config, variables, _ = convert(containers.read(folder / "pytorch_model.bin"), config_json)
    model = BigGAN(jax.tree.map(jax.numpy.asarray, variables), config)
    network = jax.jit(GeneratorNetwork(config).apply)

    def run(z, y, truncation):
        zs = z if z.ndim == 3 else np.repeat(z[:, None], config.num_zs, axis=1)
        embeddings = np.repeat(model.embed(y)[:, None], config.num_zs, axis=1)
        images, layers = network(variables, zs, embeddings, stats_row(truncation, config.num_stats))
        return nchw(images), layers

    onehot, first = upstream["class_onehot"], upstream["truncations"][0]
    np.testing.assert_array_equal(onehot.argmax(1), upstream["class_index"])
    errors = {}
    for truncation in upstream["truncations"].tolist():
        images, layers = run(upstream[f"z_{truncation}"], onehot, truncation)
        for array in (f"out_{truncation}", f"out64_{truncation}"):
            if array in upstream:
                errors[array] = np.abs(images - upstream[array]).max()
        if truncation == first and "tap_gen_z" in upstream:
            errors |= tap_errors(upstream, layers, model.embed(onehot), config)
    z = upstream[f"z_{first}"]
    images, _ = run(z, upstream["class_soft"], first)
    errors["out_soft"] = np.abs(images - upstream["out_soft"]).max()
    images, _ = run(upstream["multi_z"], onehot, first)
    errors["out_multi_z"] = np.abs(images - upstream["out_multi_z"]).max()
    # in training mode upstream has moved u once before it computes: no way to use a generator
    outputs = {a for a in upstream if a.startswith(("out", "tap")) and "trainmode" not in a}
    if "tap_bn" in outputs:  # neither is an output here: batch norm and ReLU come as one
        outputs -= {"tap_bn", "tap_conv_to_rgb"}
    assert errors.keys() == outputs
    assert max(errors.values()) < 1e-4, errors
    assert upstream["bad_maxabs"].min() > 0.3


def tap_errors(upstream, layers, embedding, config):
    """Errors of the layers' outputs, relative to the largest |output|."""
    taps, place = {"tap_embeddings": embedding, "tap_gen_z": layers["linear"]}, 0
    for i in range(len(config.blocks)):
        for kind in ("attention", "block"):
            if f"{kind}{i}" in layers:
                taps[f"tap_layers.{place}"] = nchw(layers[f"{kind}{i}"])
                place += 1
    errors = {}
    for name, tap in taps.items():
        expected = upstream[name]
        errors[name] = np.abs(tap[:1] - expected).max() / np.abs(expected).max()
    return errors


@pytest.fixture(scope="module")
def tiny(upstream):
    """A state dict, to be spoilt in copies."""
    torch.manual_seed(0)
    model = upstream.BigGAN(upstream.BigGANConfig.from_dict(SMALL))
    torch.nn.init.ones_(model.generator.bn.weight)  # upstream leaves both as memory has them
    torch.nn.init.zeros_(model.generator.bn.bias)
    return {name: x.numpy() for name, x in model.state_dict().items()}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"n_stats": 1}, "n_stats is 1; expected a whole number, 2 to"),
        ({"n_stats": 50}, "running_means has shape"),
        ({"n_stats": 2**31 - 1}, "num_stats is 2147483647; expected"),
        ({"z_dim": 7}, "expected"),
        ({"z_dim": 0}, "z_dim is 0"),
        ({"z_dim": "6"}, "z_dim is '6'"),
        ({"num_classes": 4}, r"embeddings.weight has shape \(6, 5\), expected \(6, 4\)"),
        ({"num_classes": -1}, "num_classes is -1"),
        ({"channel_width": 16}, "expected"),
        ({"channel_width": 1}, "too narrow"),
        ({"channel_width": 0}, "channel_width is 0"),
        ({"channel_width": 8.0}, "channel_width is 8.0; expected a whole number"),
        ({"channel_width": 10**400}, "channel_width is"),
        ({"channel_width": 1e300}, "channel_width is"),
        ({"channel_width": 2**31 - 1}, "expected"),
        ({"eps": -1}, "eps is -1; expected a number"),
        ({"eps": [1e-4]}, r"eps is \[0.0001\]"),
        ({"eps": 10**5000}, "eps is a int"),
        ({"attention_layer_position": 1}, "has shape|is missing"),
        ({"attention_layer_position": 3}, "is missing"),
        ({"attention_layer_position": 2.5}, "attention_layer_position is 2.5"),
        ({"layers": []}, "from 16 channel widths to one"),
        ({"layers": SMALL["layers"][:-1]}, "from 16 channel widths to one"),
        ({"layers": SMALL["layers"][1:]}, "from 16 channel widths to one"),
        ({"layers": [[False, 16, 16], *SMALL["layers"]]}, "is missing|has shape"),
        ({"layers": [[True, 16, 8], [False, 4, 2], [True, 2, 1]]}, "is followed by one that takes"),
        ({"layers": [[True, 16, 4], [False, 4, 2], [True, 2, 1]]}, "halves its channels or keeps"),
        ({"layers": [[True, 16, 32]]}, "halves its channels or keeps"),
        ({"layers": [[True, 16]]}, r"layer \[True, 16\] is not \[upsample, in, out\]"),
        ({"layers": [["yes", 16, 16]]}, "is not"),
        ({"layers": [[True, 16, 0]]}, "has no channels"),
        ({"layers": [[True, 16, 2.0]]}, "has no channels"),
        ({"layers": [[True, 16, 10**5000]]}, "a list has no channels"),
        ({"layers": [16]}, "layer 16 is not"),
        ({"layers": {"0": [True, 16, 1]}}, "layers is .* expected list"),
        ({"layers": "[[true, 16, 1]]" * 10**5}, "layers is .* expected list"),
    ],
)
def test_a_config_that_the_tensors_do_not_fit_is_named(tiny, change, sentence):
    with pytest.raises(CheckpointError, match=sentence) as caught:
        convert(dict(tiny), SMALL | change)
    assert len(str(caught.value)) < 300


def test_what_the_config_does_not_say_is_the_128_models(tiny):
    with pytest.raises(CheckpointError, match=r"\(6, 5\), expected \(128, 1000\)"):
        convert(tiny, {})


SCALE = "generator.layers.0.bn_0.scale"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("embeddings.weight", None, "embeddings.weight is missing"),
        ("generator.gen_z.weight_u", None, "generator.gen_z.weight_u is missing"),
        ("generator.gen_z.weight_v", np.zeros(3, "f4"), "generator.gen_z.weight_v has shape"),
        (f"{SCALE}.weight_orig", None, f"{SCALE}.weight_u is there|{SCALE}.weight is missing"),
        (f"{SCALE}.weight_u", np.zeros(128, "f4"), f"{SCALE}.weight_orig has the spectral norm 0"),
        (f"{SCALE}.weight_u", np.full(128, 1e-42, "f4"), f"{SCALE}.weight_orig has the spectral"),
        (f"{SCALE}.weight_u", np.full(128, np.nan, "f4"), f"{SCALE}.weight_u has values that are"),
        ("generator.bn.bias", np.zeros(8, np.int64), "generator.bn.bias is int64"),
        ("generator.bn.running_vars", np.full((51, 8), -1, "f4"), "a variance that is negative"),
        ("generator.layers.2.gamma", np.zeros((), "f4"), "generator.layers.2.gamma has shape"),
        ("discriminator.bias", np.zeros(1, "f4"), "discriminator.bias is there"),
    ],
)
def test_a_tensor_that_is_wrong_is_named(tiny, name, value, sentence):
    content = {**tiny, name: value}
    if value is None:
        content.pop(name)
    with pytest.raises(CheckpointError, match=sentence):
        convert(content, SMALL)


def test_other_networks_are_not_recognised(tiny):
    assert known(tiny)
    for other in ({"output_layer.0.gain": np.zeros(1)}, {}, None, {"generator.gen_z.weight": 1}):
        assert not known(other)
