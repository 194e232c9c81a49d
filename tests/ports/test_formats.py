"""Every format that the registry has: wrappers, names and choices, and what is refused by name."""

import collections
import datetime
import fractions
import pickle

import flax.traverse_util
import jax
import numpy as np
import pytest
import safetensors.numpy

import ports
from ports import upstream
from ports.errors import CheckpointError
from ports.formats import FORMATS
from ports.records import PersistentObject
from ports.stylegan2 import StyleGAN2Config, init
from ports.verify import compare, read_reference
from sfvq_jax.cli import main

# checkpoint in the shared cases, upstream's outputs, format
CASES = [
    ("nvidia_vendored_package.pkl", "nvidia_vendored_package", "stylegan2-ada-pytorch"),
    ("nvidia_state_dict.pt", "nvidia", "stylegan2-ada-pytorch, a state dict"),
    ("nvidia_state_dict_snapshot.pt", "nvidia", "stylegan2-ada-pytorch, a state dict"),
    ("nvidia.safetensors", "nvidia", "stylegan2-ada-pytorch, a state dict"),
    ("nvidia_side_object.pkl", "nvidia", "stylegan2-ada-pytorch"),
    ("nvidia_rectangular.pkl", "nvidia_rectangular", "stylegan2-ada-pytorch"),
    ("rosinality_in_psp_e4e.pt", "rosinality_w_avg", "rosinality stylegan2-pytorch"),
    ("rosinality_state_dict.pt", "rosinality", "rosinality stylegan2-pytorch"),
    ("rosinality_torch_compile.pt", "rosinality_w_avg", "rosinality stylegan2-pytorch"),
    ("genforce.pth", "genforce", "genforce StyleGAN2"),
    ("biggan_no_config/G_ema.pth", "biggan", "BigGAN-PyTorch BigGAN"),
    ("studiogan_biggan.pth", "studiogan_biggan", "PyTorch-StudioGAN BigGAN"),
]


@pytest.mark.parametrize(("file", "reference", "format"), CASES)
def test_a_checkpoint_gives_upstreams_outputs(shared, file, reference, format):
    folder = shared / "cases/ports"
    converted = upstream.read(folder / file)
    assert converted.source["format"] == format
    arrays = read_reference(folder / f"{reference}.npz")
    for difference in compare(ports.build(converted), arrays):
        assert difference.relative < 2e-6, difference


# --- one generator, under the names of every project -------------------------------------------

CONFIG = StyleGAN2Config(
    z_dim=8, c_dim=0, w_dim=8, img_resolution=16, img_channels=3, mapping_layers=2,
    embed_features=0, layer_features=8, channels=(6, 5, 4), base_shape=(4, 2),
)  # fmt: skip
SQUARE = StyleGAN2Config(**CONFIG.to_json() | {"base_shape": (4, 4)})


def nvidia(config, seed=0):
    """The state dict of a generator with random weights."""
    random = np.random.RandomState(seed)
    shapes = jax.eval_shape(lambda key: init(key, config), jax.random.key(0)).variables
    filter_ = np.outer(config.resample_filter, config.resample_filter).astype(np.float32)
    state = {}
    for tree in shapes.values():
        for name, leaf in flax.traverse_util.flatten_dict(tree, sep=".").items():
            x = random.standard_normal(leaf.shape).astype(np.float32)
            last = name.rpartition(".")[2]
            axes = {"weight": (3, 2, 0, 1) if x.ndim == 4 else (1, 0), "const": (2, 0, 1)}
            state[name] = x.transpose(axes[last]) if last in axes else x
            if last == "noise_const":
                state[name.replace("noise_const", "resample_filter")] = filter_
    return state | {f"synthesis.b{r}.resample_filter": filter_ for r in config.block_resolutions}


def convert(content, network=None):
    format, candidate = upstream.choose(content, network)
    return format.convert(candidate, *[None] * format.settings)


def same(one, other):
    assert one.config == other.config
    jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)


@pytest.fixture(scope="module")
def state():
    return nvidia(SQUARE)


def test_images_that_are_not_square_have_the_shape_of_the_first_features():
    converted = convert(nvidia(CONFIG))
    assert converted.config == CONFIG
    model = ports.build(converted)
    assert model.image_shape == (16, 8, 3)
    w = model.sample(jax.random.key(0), 2)
    assert model.render(w).shape == (2, 16, 8, 3)
    assert model.synthesis(w[:, None].repeat(6, 1), "random", key=jax.random.key(1)).shape[2] == 8


def prefixed(prefix, state):
    return {prefix + name: x for name, x in state.items()}


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda s: s,
        lambda s: {"G_ema": s},
        lambda s: {"state_dict": prefixed("generator.", s), "epoch": 3},
        lambda s: prefixed("module.", s),
        lambda s: prefixed("_orig_mod.module.", s),
        lambda s: {"model": {"ema": prefixed("net.G.", s) | {"encoder.weight": np.zeros(3)}}},
        lambda s: {n.replace("synthesis.", "synthesis._orig_mod."): x for n, x in s.items()},
        lambda s: prefixed("G_ema.", s) | prefixed("D.", s) | prefixed("G.", nvidia(SQUARE, 1)),
        lambda s: {"G": nvidia(SQUARE, 1), "D": s, "G_ema": s},
    ],
)
def test_a_state_dict_is_found_under_any_wrapper(state, wrapped):
    same(convert(wrapped(state)), convert(state))


def test_what_a_state_dict_cannot_say_is_told_as_assumed(state):
    assumed = {"mapping_lr_multiplier": 0.01, "activation": "lrelu", "conv_clamp": None}
    assert convert(state).source["assumed"] == assumed


def test_an_averaged_generator_is_taken_and_another_on_request(state, tmp_path, capsys):
    content = {"g": state, "d": {}, "g_ema": nvidia(SQUARE, 1), "when": object}
    same(convert(content), convert(content["g_ema"]))
    same(convert(content, "g"), convert(state))
    path = tmp_path / "training.pkl"
    seen = collections.deque([fractions.Fraction(1)])
    beside = {"d": {}, "when": datetime.date(2021, 3, 4), "seen": seen}
    path.write_bytes(pickle.dumps({"g": state} | beside))
    source = upstream.read(path).source
    assert source["network"] == "g, for there is no averaged one"
    assert source["inert objects"] == ["collections.deque", "datetime.date", "fractions.Fraction"]
    assert upstream.read(path, network="g").source["network"] == "g"
    assert main(["inspect", str(path), "--network", "g"]) == 0
    assert '"collections.deque"' in capsys.readouterr().out
    with pytest.raises(
        CheckpointError, match=r"training\.pkl: it has no generator ema; there is g"
    ):
        ports.inspect(path, network="ema")


def test_a_name_with_and_without_a_wrapper_is_refused(state):
    with pytest.raises(CheckpointError, match=r"synthesis\.b4\.const is there twice"):
        convert(state | {"module.synthesis.b4.const": state["synthesis.b4.const"]})


def test_safetensors_and_a_pickled_module_hold_the_same(state, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.numpy.save({n: x.copy() for n, x in state.items()}))
    same(upstream.read(path), convert(state))
    # a module of a class that is not here: names alone, as `torch.save(model, …)` has it
    names = rosinality(state)
    root = torch.nn.Module()
    for name, x in names.items():
        *above, last = name.split(".")
        module = root
        for part in above:
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module._modules[part]
        module.register_buffer(last, torch.tensor(x))
    torch.save({"epoch": 1, "model": root}, tmp_path / "model.pt")
    same(upstream.read(tmp_path / "model.pt"), convert(names))


def layers(state):
    """NVIDIA's names of convolutions and RGB layers from below."""
    convs = sorted(
        (int(n.split(".")[1][1:]), n.rpartition(".")[0]) for n in state if n.endswith("noise_const")
    )
    rgbs = sorted((int(n.split(".")[1][1:]), n[:-5]) for n in state if n.endswith("torgb.bias"))
    return [name for _, name in convs], [name for _, name in rgbs]


def rosinality(state):
    """The same tensors (not the same function) under rosinality's names, and layouts."""
    convs, rgbs = layers(state)
    names = {"input.input": state["synthesis.b4.const"][None]}
    for i in range(2):
        for kind in ("weight", "bias"):
            names[f"style.{i + 1}.{kind}"] = state[f"mapping.fc{i}.{kind}"]
    for i, ours in enumerate(convs):
        theirs = "conv1" if i == 0 else f"convs.{i - 1}"
        names[f"{theirs}.conv.weight"] = state[f"{ours}.weight"][None]
        names[f"{theirs}.activate.bias"] = state[f"{ours}.bias"]
        names[f"{theirs}.noise.weight"] = state[f"{ours}.noise_strength"].reshape(1)
        names[f"noises.noise_{i}"] = state[f"{ours}.noise_const"][None, None]
        if i % 2 == 1:
            names[f"{theirs}.conv.blur.kernel"] = 4 * state[f"{ours}.resample_filter"]
    for i, ours in enumerate(rgbs):
        theirs = "to_rgb1" if i == 0 else f"to_rgbs.{i - 1}"
        names[f"{theirs}.conv.weight"] = state[f"{ours}.weight"][None]
        names[f"{theirs}.bias"] = state[f"{ours}.bias"].reshape(1, 3, 1, 1)
        if i > 0:
            names[f"{theirs}.upsample.kernel"] = 4 * state["synthesis.b8.resample_filter"]
    for ours, theirs in zip(
        convs + rgbs,
        [n[:-7] for n in names if n.endswith(("conv.weight",)) and "rgb" not in n]
        + [n[:-7] for n in names if n.endswith(("conv.weight",)) and "rgb" in n],
        strict=True,
    ):
        for kind in ("weight", "bias"):
            names[f"{theirs}.modulation.{kind}"] = state[f"{ours}.affine.{kind}"]
    return names


def mmgeneration(state):
    """As StyleGANv2Generator of MMGeneration calls them, whose code is rosinality's."""
    names = {}
    for name, x in rosinality(state).items():
        name = name.replace("noises.noise_", "injected_noise_")
        name = name.replace("input.input", "constant_input.input").replace(
            "style.", "style_mapping."
        )
        name = name.replace("noise.weight", "noise_injector.weight")
        name = name.replace("modulation.weight", "style_modulation.linear.weight_orig")
        name = name.replace("modulation.bias", "style_modulation.bias")
        name = name.replace("style_style_", "style_").replace("conv.weight", "conv.weight_orig")
        if name.startswith("style_mapping") and name.endswith("weight"):
            name = name.replace("weight", "linear.weight_orig")
        names[name] = x
    return names


def test_mmgenerations_names_are_those_of_rosinalitys_tensors(state):
    expected = convert(rosinality(state) | {"latent_avg": np.arange(8, dtype=np.float32)})
    assert expected.config == SQUARE
    names = mmgeneration(state) | {"w_avg": np.arange(8, dtype=np.float32)}
    for content in (
        {"state_dict": prefixed("generator_ema.", names) | prefixed("generator.", names)},
        {"state_dict": prefixed("generator_ema.module.", names)},  # MMagic
    ):
        converted = convert(content)
        same(converted, expected)
        assert converted.source["format"] == "MMGeneration StyleGAN2"
        assert converted.source["assumed"]["channels"].startswith("RGB")
    never = convert(names | {"w_avg": np.zeros(8, np.float32)})
    assert never.source["w_avg"].startswith("mean of")


def test_rows_of_latent_avg_are_one_mean_of_w_or_refused(state):
    names, mean = rosinality(state), np.arange(8, dtype=np.float32)
    encoder = {"encoder.input_layer.0.weight": np.zeros((4, 3, 3, 3), np.float32)}
    content = {
        "state_dict": encoder | prefixed("decoder.", names),
        "latent_avg": np.tile(mean, (6, 1)),
    }
    same(convert(content), convert(names | {"latent_avg": mean}))
    content["latent_avg"][3] += 1
    with pytest.raises(
        CheckpointError, match=r"latent_avg has shape \(6, 8\) and differs by layer"
    ):
        convert(content)


# --- what is refused ---------------------------------------------------------------------------

OTHERS = {
    "StyleGAN3": ("synthesis.input.freqs", "mapping.fc0.weight", "synthesis.L0_36_512.weight"),
    "StyleGAN-XL": ("synthesis.input.freqs", "mapping.embed_proj.weight", "mapping.fc0.weight"),
    "FastGAN": ("init.init.0.weight_orig", "feat_8.1.weight_orig", "to_big.weight_orig"),
    "lucidrains' stylegan2-pytorch": ("initial_conv.weight", "blocks.0.to_style1.weight"),
    "StudioGAN's SNGAN or SAGAN": ("linear0.bias", "blocks.0.0.bn1.embed0.weight"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_generators_are_refused_by_their_name(name, tmp_path):
    tensors = {mark: np.zeros((2, 2), np.float32) for mark in OTHERS[name]}
    for content in (tensors, {"g_ema": tensors}, {"GAN": prefixed("G.", tensors)}):
        path = tmp_path / "other.pkl"
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(CheckpointError, match=r"other\.pkl: this is a generator of") as raised:
            upstream.read(path)
        assert name in str(raised.value)


def test_no_generator_fits_two_formats(state):
    for names in (state, rosinality(state), mmgeneration(state)):
        fitting = [f for f in FORMATS if f.marks and all(mark in names for mark in f.marks)]
        assert len(fitting) == 1


def test_a_module_whose_names_have_dots_is_read_as_its_tensors(state):
    module = PersistentObject("M", {"_parameters": state, "_buffers": {}, "_modules": {}})
    inside = {"_parameters": prefixed("G.", state), "_buffers": {}, "_modules": {}}
    same(convert({"a": PersistentObject("M", inside)}), convert(state))
    with pytest.raises(CheckpointError, match="G_ema has no mapping"):
        convert(module)


@pytest.mark.parametrize("content", [{"a": {"b": {"c": {"d": {}}}}}, {"": 1}, {1: {2: 3}}, "text"])
def test_what_holds_no_generator_is_told(content):
    with pytest.raises(CheckpointError, match="no generator that is known here"):
        convert(content)


ODD = [
    np.zeros((), "f4"),
    np.zeros((3, 0), "f4"),
    np.zeros((1, 2) * 3, "f4"),
    np.ones((2, 2), "i8"),
    None,
]


@pytest.mark.parametrize("naming", [lambda s: s, rosinality, mmgeneration])
def test_any_tensor_that_is_wrong_or_missing_ends_in_a_sentence(state, naming):
    random = np.random.RandomState(0)
    names = naming(state) | ({} if naming(state) is state else {"latent_avg": np.ones(8, "f4")})
    # some may be absent, and one number has any shape
    spared = ("filter", "kernel", "avg", "noise.weight", "injector.weight")
    needed = [n for n in sorted(names) if not n.endswith(spared)]
    for name in random.permutation(needed)[:20]:
        odd = ODD[random.randint(len(ODD))]
        content = {other: x for other, x in names.items() if other != name}
        with pytest.raises(CheckpointError) as raised:
            convert(content | ({} if odd is None else {name: odd}))
        assert len(str(raised.value)) < 300


def test_thousands_of_generators_in_one_file_are_refused_at_once(state):
    names = ("synthesis.b4.const", "synthesis.b4.conv1.affine.weight")
    many = {f"{i}.{name}": state[name] for i in range(10**4) for name in names}
    with pytest.raises(CheckpointError, match="it holds 10000 generators"):
        convert(many)
