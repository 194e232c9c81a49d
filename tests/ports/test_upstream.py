"""Whatever a lab has is recognised by itself, converted whole, and gives upstream's images."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

import ports
from ports import checkpoint, upstream
from ports.errors import CheckpointError
from ports.verify import TOLERANCE, check_differences, compare, read_reference

# checkpoint, upstream's outputs, format; all the BigGANs' arrays are compared in their own tests
CHECKPOINTS = [
    *(
        (f"stylegan2/{name}", f"stylegan2/{name.split('.')[0]}.npz", kind)
        for name, kind in {
            "tiny_ada_gray_cond.pkl": "stylegan2-ada-pytorch",
            "tiny_ada_nonoise.pkl": "stylegan2-ada-pytorch",
            "tiny_ada_resnet.pkl": "stylegan2-ada-pytorch",
            "tiny_sg3_clamp.pkl": "stylegan3-repo stylegan2",
            "tiny_tf_sg2.pkl": "stylegan2-tensorflow",
            "tiny_rosi_converted.pt": "rosinality stylegan2-pytorch",
            "tiny_rosi_old_nonoise.pt": "rosinality stylegan2-pytorch",
        }.items()
    ),
    *(
        (f"biggan/{name}", f"biggan/{name}/ref.npz", kind)
        for name, kind in (
            ("ajbrock_biggan32_cifar_noshared", "BigGAN-PyTorch BigGAN"),
            ("huggingface_odd32", "pytorch-pretrained-BigGAN"),
        )
    ),
]
STYLEGAN2_INPUTS = {"z", "c", "ws_mix", "latent_avg"}  # the last is sampled anew


@pytest.fixture
def biggan(shared, tmp_path):
    """The folder of a BigGAN, to be spoilt."""
    folder = tmp_path / "biggan"
    shutil.copytree(shared / "fixtures/biggan/ajbrock_biggan32_cifar_noshared", folder)
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)
    return folder


@pytest.mark.parametrize(("name", "reference", "kind"), CHECKPOINTS)
def test_a_checkpoint_is_recognised_and_gives_upstreams_outputs(
    fixture_file, name, reference, kind
):
    converted = upstream.read(fixture_file(name))
    assert converted.source["format"] == kind
    arrays = read_reference(fixture_file(reference))
    differences = compare(ports.build(converted), arrays)
    for difference in differences:
        assert difference.relative < (5e-4 if "pretrained" in kind else 1e-5), difference
    if converted.architecture == "stylegan2":
        assert {d.name for d in differences} == arrays.keys() - STYLEGAN2_INPUTS


@pytest.mark.parametrize(("name", "reference"), [CHECKPOINTS[0][:2], CHECKPOINTS[-1][:2]])
def test_converted_saved_and_loaded_gives_the_same_images_bit_for_bit(
    fixture_file, name, reference, tmp_path
):
    converted = upstream.read(fixture_file(name))
    before = ports.build(converted)
    ports.convert(fixture_file(name), tmp_path / "model")
    after = ports.load(tmp_path / "model")
    assert jax.tree.structure(after.variables) == jax.tree.structure(before.variables)
    arrays = read_reference(fixture_file(reference))
    for ours, again in zip(compare(before, arrays), compare(after, arrays), strict=True):
        assert ours == again
    if isinstance(after, ports.StyleGAN2):
        ws = jax.numpy.asarray(arrays["ws"])
        np.testing.assert_array_equal(before.synthesis(ws), after.synthesis(ws))
    else:
        z, y = arrays["z_0.4"], arrays["class_index"]
        np.testing.assert_array_equal(before(z, y), after(z, y))


def test_neither_pytorch_nor_tensorflow_is_imported(fixture_file, tmp_path):
    names = [CHECKPOINTS[i][0] for i in (0, 4, 5, 7, 8)]
    files = [str(fixture_file(name)) for name in names]
    program = (
        "import sys\n"
        "for name in ('torch', 'tensorflow', 'dnnlib', 'legacy'): sys.modules[name] = None\n"
        "import ports\n"
        f"for i, file in enumerate({files!r}): ports.convert(file, f'{tmp_path}/{{i}}')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
    assert len(list(tmp_path.iterdir())) == len(files)


def test_the_source_names_file_hash_and_settings(biggan):
    converted = upstream.read(biggan)
    assert converted.source["file"] == "G_ema.pth"
    assert len(converted.source["sha256"]) == 64
    assert converted.source["config"] == json.loads((biggan / "config.json").read_text())
    by_file = upstream.read(biggan / "G_ema.pth")
    assert by_file.source == converted.source


def test_settings_are_found_under_the_names_that_upstream_gives_them(biggan, tmp_path):
    expected = upstream.read(biggan).config
    config = biggan / "config.json"
    elsewhere = tmp_path / "elsewhere.json"
    config.rename(elsewhere)
    without = upstream.read(biggan)  # names and shapes say the same
    assert without.config == expected
    assert without.source["assumed"] == {"BN_eps": 1e-5, "G_nl": "relu", "norm_style": "bn"}
    assert upstream.read(biggan, elsewhere).config == expected
    settings = json.loads(elsewhere.read_text())
    # BigGAN-PyTorch keeps them in its training state, beside things that are no settings
    state = {"itr": 3, "config": settings | {"G_activation": {"not": "a setting"}}}
    (biggan / "state_dict.pth").write_bytes(pickle.dumps(state, 2))
    assert upstream.read(biggan).config == expected


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"a": 1}, r"network\.pkl: it holds 1 entries such as a; no generator"),
        ([1, 2], r"network\.pkl: it holds one list; no generator"),
        ({"linear.weight": np.zeros(3)}, "no generator that is known here"),
    ],
)
def test_what_is_no_generator_is_told(content, sentence, tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match=sentence):
        upstream.read(path)


def test_a_folder_without_or_with_several_checkpoints_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint; name the file"):
        upstream.read(tmp_path)
    for name in ("a.pkl", "b.pt"):
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=r"holds a\.pkl, b\.pt; name the file"):
        upstream.read(tmp_path)
    with pytest.raises(CheckpointError, match="is converted already"):
        upstream.read(ports.bundled("fashion_mnist"))


def test_a_config_for_a_checkpoint_that_has_none_is_refused(fixture_file, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="needs no config"):
        upstream.read(fixture_file("stylegan2/tiny_ada_gray_cond.pkl"), tmp_path / "config.json")


@pytest.mark.parametrize("text", ["", "[1]", "{", "3", "null", "[" * 10**5])
def test_a_damaged_config_is_told(biggan, text):
    (biggan / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        upstream.read(biggan)


# --- conversion with verification --------------------------------------------------------------


def test_outputs_that_differ_are_told_and_nothing_is_written(fixture_file, tmp_path):
    checkpoint_file = fixture_file("stylegan2/tiny_ada_gray_cond.pkl")
    arrays = read_reference(fixture_file("stylegan2/tiny_ada_gray_cond.npz"))
    reference = tmp_path / "ref.npz"
    np.savez(reference, z=arrays["z"], c=arrays["c"], img_const=arrays["img_const"])
    (difference,) = ports.convert(checkpoint_file, tmp_path / "good", verify=reference)
    assert difference.name == "img_const"
    assert difference.relative < 1e-5
    arrays["img_const"][0, 0, 0, 0] += 2 * TOLERANCE * np.abs(arrays["img_const"]).max()
    np.savez(reference, z=arrays["z"], c=arrays["c"], img_const=arrays["img_const"])
    with pytest.raises(CheckpointError, match=r"img_const differs .* nothing was written"):
        ports.convert(checkpoint_file, tmp_path / "bad", verify=reference)
    assert not (tmp_path / "bad").exists()


def test_a_reference_of_another_model_is_told(fixture_file):
    model = ports.build(upstream.read(fixture_file("stylegan2/tiny_ada_gray_cond.pkl")))
    z = np.zeros((2, 32), np.float32)
    images = np.zeros((2, 3, 32, 32), np.float32)
    with pytest.raises(CheckpointError, match="holds a, none of them an output"):
        compare(model, {"a": z})
    with pytest.raises(CheckpointError, match="does not fit the model"):
        compare(model, {"img_const": images})
    with pytest.raises(CheckpointError, match=r"img_const has shape \(2, 3, 32, 32\)"):
        compare(model, {"z": z, "c": np.eye(10, dtype=np.float32)[:2], "img_const": images})
    nan = np.full((2, 1, 32, 32), np.nan, np.float32)
    differences = compare(model, {"z": z, "c": np.eye(10, dtype=np.float32)[:2], "img_const": nan})
    with pytest.raises(CheckpointError, match="differs"):  # NaN is no agreement
        check_differences(differences)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_conversion_leaves_nothing_behind(
    fixture_file, tmp_path, monkeypatch, number
):
    from sfvq_jax.cli import main

    hashes = checkpoint._file_hashes

    def interrupted(folder):
        os.kill(os.getpid(), number)
        return hashes(folder)

    monkeypatch.setattr(checkpoint, "_file_hashes", interrupted)
    source = fixture_file("stylegan2/tiny_ada_gray_cond.pkl")
    assert main(["convert", str(source), str(tmp_path / "model")]) == 128 + number
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# --- inspection --------------------------------------------------------------------------------


def test_inspection_tells_the_same_before_and_after_conversion(fixture_file, tmp_path):
    path = fixture_file("stylegan2/tiny_ada_gray_cond.pkl")
    before = ports.inspect(path)
    ports.convert(path, tmp_path / "model")
    after = ports.inspect(tmp_path / "model")
    assert before._replace(versions=after.versions) == after
    assert after.model_hash == ports.load(tmp_path / "model").model_hash
    assert before.format == "stylegan2-ada-pytorch"
    assert (before.image_shape, before.num_classes) == ((32, 32, 1), 10)
    assert before.latent_spaces == {"stylegan2-w": 48, "stylegan2-z": 32}
    assert before.num_parameters == sum(
        x.size for x in jax.tree.leaves(upstream.read(path).variables["params"])
    )
    assert len(before.layers) == 8
    assert before.layers[0] == ("b4.conv1", 4)
    assert before.layers[3] == ("b16.conv0, b8.torgb", 16)
    assert before.layers[7] == ("b32.torgb", 32)


def test_inspection_of_a_biggan_lists_the_layers_that_a_z_can_steer(biggan, shared):
    found = ports.inspect(biggan)
    assert found.layers == (("linear", 4),)  # its blocks see the class alone
    assert found.latent_spaces == {"biggan-z": 128, "biggan-linear": 1024}
    deep = ports.inspect(shared / "fixtures/biggan/ajbrock_deep128")
    assert deep.architecture == "BigGAN-deep"
    assert [layer.resolution for layer in deep.layers] == [4, 4, 8, 8, 16, 16, 32, 32, 64, 64, 128]


def test_inspection_of_bundled_models():
    spaces = ports.inspect(ports.bundled("fashion_mnist")).latent_spaces
    assert spaces == {"stylegan2-w": 64, "stylegan2-z": 64}
    assert ports.inspect(ports.bundled("fashion_mnist_classifier")).num_classes == 10
