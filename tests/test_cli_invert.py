"""`invert`: photographs of any form into a bundled generator, and edits of them."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import ports
from sfvq_jax import Curve, CurveRecord, save_curve
from sfvq_jax.cli import main
from sfvq_jax.images import render_images
from sfvq_jax.interpret.inversion import optimising
from sfvq_jax.io.latents_file import LatentsRecord, load_latents, save_latents
from sfvq_jax.io.photos import fitted

MODEL = ports.load(ports.bundled("fashion_mnist"))
W = np.asarray(MODEL.sample(jax.random.key(1), 4))
STEPS = ("--steps", 25)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With photographs of which the model has made what is on them, and a curve near these."""
    folder = tmp_path_factory.mktemp("invert")
    (folder / "photos").mkdir()
    for i, image in enumerate(render_images(MODEL, W)):
        picture = Image.fromarray(image[..., 0])
        picture.resize((64, 64)).convert("RGB").save(folder / f"photos/{i}.png")
    save_curve(
        folder / "c.npz", CurveRecord(Curve(jax.numpy.asarray(W)), "stylegan2-w", MODEL.model_hash)
    )
    return folder


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(optimising, "OWN_IMAGES", 64)
    monkeypatch.setattr(optimising, "SPREAD_SAMPLES", 2**10)
    return lambda *arguments: main([str(argument) for argument in arguments])


def test_photographs_come_back_from_the_curve_and_are_edited(folder, run, tmp_path, capsys):
    options = ["--curve", folder / "c.npz", *STEPS, "--overview", tmp_path / "o.png"]
    latents = tmp_path / "l.npz"
    assert run("invert", "fashion_mnist", folder / "photos", *options, "-o", latents) == 0
    told = capsys.readouterr().out
    assert "photograph  likeness (PSNR)" in told
    record = load_latents(latents)
    assert record.names == ("0", "1", "2", "3")
    assert (record.space, record.model_hash) == ("stylegan2-w", MODEL.model_hash)
    error = np.linalg.norm(record.latents - W, axis=1) / np.linalg.norm(W - W.mean(0), axis=1)
    assert error.max() < 0.5
    with Image.open(tmp_path / "o.png") as image:
        assert image.size[0] > 300
    edit = ["--line", 1, "--strength", 1, "--latents", latents, "--rows", "2,0"]
    output = ["-o", tmp_path / "e"]
    assert run("edit", "fashion_mnist", folder / "c.npz", *edit, *output) == 0
    assert (tmp_path / "e/images/2/0_unedited.png").exists()
    unedited = np.load(tmp_path / "e/latents.npy")[0]
    assert_allclose(unedited[0], record.latents[2], rtol=1e-6)


def test_each_layer_has_a_code_of_its_own(folder, run, tmp_path):
    latents = tmp_path / "l.npz"
    options = ["--each-layer", *STEPS, "-o", latents]
    assert run("invert", "fashion_mnist", *[folder / "photos/1.png"] * 2, *options) == 0
    record = load_latents(latents)
    assert record.latents.shape == (2, 8, 64)
    assert record.names == ("1", "1-2")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["photos", "--curve", "c.npz", "--start", "mean"], "leave one of them out"),
        (["photos", "--start", "encoder"], "the model has no encode(images)"),
        (["photos/9.png"], "photos/9.png: there is no such file"),
        (["c.npz"], "c.npz is no image that can be read"),
        (["empty"], "empty has no images"),
        (["photos", "--steps", "0"], "steps is 0"),
    ],
)
def test_what_is_wrong_is_told(folder, run, monkeypatch, capsys, arguments, told):
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir(exist_ok=True)
    assert run("invert", "fashion_mnist", *arguments, "-o", "none.npz") == 2
    assert told in capsys.readouterr().err
    assert not (folder / "none.npz").exists()


def test_latents_of_another_model_are_refused(folder, run, tmp_path, capsys):
    other = LatentsRecord(np.zeros((2, 64), np.float32), ("a", "b"), "stylegan2-w", "f" * 64)
    save_latents(tmp_path / "other.npz", other)
    edit = ["--line", 1, "--latents", tmp_path / "other.npz", "-o", tmp_path / "e"]
    assert run("edit", "fashion_mnist", folder / "c.npz", *edit) == 2
    assert "with hash ffffffffffff" in capsys.readouterr().err


WIDE = np.zeros((10, 30, 3), np.uint8)
WIDE[:, 10:20, 0] = 255


class TestFitted:
    def test_the_middle_is_cropped(self):
        found = fitted(WIDE, (10, 10, 3))
        assert_array_equal(found, WIDE[:, 10:20])

    def test_the_border_is_padded_by_its_colour(self):
        white = 255 - WIDE
        found = fitted(white, (30, 30, 3), "pad")
        assert_array_equal(found[:8], np.full((8, 30, 3), 255))
        assert found[15, 15].tolist() == [0, 255, 255]

    def test_it_is_stretched(self):
        found = fitted(WIDE, (9, 9, 3), "stretch")
        assert found[4, 4].tolist() == [255, 0, 0]
        assert found[4, 0, 0] < 9

    def test_colour_becomes_gray_and_gray_colour(self):
        assert fitted(WIDE, (10, 10, 1))[5, 5].tolist() == [76]  # .299 of 255
        assert fitted(WIDE[..., :1], (10, 10, 3)).shape == (10, 10, 3)
