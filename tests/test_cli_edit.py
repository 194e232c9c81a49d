"""`edit`: latents of a file, strengths in standard deviations, images at full size."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import ports
from sfvq_jax import Curve, CurveRecord, save_curve
from sfvq_jax.cli import main
from sfvq_jax.images import render_images
from sfvq_jax.interpret import Direction, DirectionRecord, load_direction, save_direction

from .test_cli import image_size, refused

MODEL = ports.load(ports.bundled("fashion_mnist"))
W = np.asarray(MODEL.sample(jax.random.key(1), 4096))
LINE = ("--line", 2, "--layers", "1-3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a curve through W, and latents of z, W and one code a layer."""
    folder = tmp_path_factory.mktemp("edit")
    save_curve(folder / "c.npz", CurveRecord(Curve(W[:8]), "stylegan2-w", MODEL.model_hash))
    z = jax.random.normal(jax.random.key(2), (70, 64))
    w = MODEL.mapping(z)
    np.save(folder / "z.npy", z)
    np.save(folder / "w.npy", np.asarray(w[:, 0], np.float64))
    np.save(folder / "codes.npy", w[:5])
    return folder


def run(*arguments):
    return main([str(argument) for argument in arguments])


def edit(folder, *arguments):
    return run("edit", "fashion_mnist", folder / "c.npz", *LINE, *arguments)


def test_a_line_is_moved_by_standard_deviations_and_both_units_are_told(folder, tmp_path, capsys):
    saved = ["--save-direction", tmp_path / "d.json"]
    options = ["--strength", "-3:3:3", "--seeds", "5,2", *saved, "-o", tmp_path / "e"]
    assert edit(folder, *options) == 0
    told = capsys.readouterr().out
    vector = np.asarray(load_direction(tmp_path / "d.json").direction.vector)
    deviation = (W @ vector).std()
    latents = np.load(tmp_path / "e/latents.npy").reshape(2, 3, 8, 64)
    along = (latents[:, 2] - latents[:, 1]) @ vector
    assert_allclose(along[:, 1:4], np.full((2, 3), 3 * deviation), rtol=0.05)
    assert_allclose(along[:, [0, 4, 5, 6, 7]], 0, atol=1e-5)
    assert f"one standard deviation is {deviation:.2g}"[:-1] in told
    assert "strengths -3 to +3 are lengths" in told
    files = json.loads((tmp_path / "e/edits.json").read_text())["files"]
    assert [file["row"] for file in files] == [0, 0, 0, 1, 1, 1]
    assert files[2]["lengths"] == pytest.approx([3 * deviation], rel=0.05)
    with Image.open(tmp_path / "e/images/seed-5/2_+3sd.png") as image:
        assert_array_equal(np.asarray(image)[..., None], render_images(MODEL, latents[0, 2:3])[0])


def test_a_file_of_another_unit_is_taken_in_standard_deviations(folder, tmp_path, capsys):
    vector = jnp.eye(64)[3]
    record = DirectionRecord(Direction(vector, (0, 7), 1.0), "", "stylegan2-w", MODEL.model_hash)
    save_direction(tmp_path / "d.json", record)
    options = ["--direction", tmp_path / "d.json", "--strength", 2, "--seeds", 0]
    assert run("edit", "fashion_mnist", *options, "-o", tmp_path / "e") == 0
    assert "d.json has the unit 1, and one standard deviation of" in capsys.readouterr().err
    unedited, moved = np.load(tmp_path / "e/latents.npy")
    assert_allclose((moved - unedited)[:, 3], np.full(8, 2 * W[:, 3].std()), rtol=0.05)


def test_latents_of_a_file_are_edited_in_any_form(folder, tmp_path):
    rows = ["--rows", "3,1", "--strength", 1]
    found = []
    for name, more in {"w": [], "codes": [], "z": ["--space", "z"]}.items():
        options = ["--latents", folder / f"{name}.npy", *rows, *more, "-o", tmp_path / name]
        assert edit(folder, *options) == 0
        found.append(np.load(tmp_path / name / "latents.npy"))
    w = np.load(folder / "w.npy")
    assert_allclose(found[0][0], np.broadcast_to(w[3], (8, 64)), rtol=1e-5)
    assert_allclose(found[0][2], np.broadcast_to(w[1], (8, 64)), rtol=1e-5)
    assert_allclose(found[1], found[0], rtol=1e-5)
    assert_allclose(found[2], found[0], rtol=1e-4, atol=1e-4)
    content = json.loads((tmp_path / "z/edits.json").read_text())
    assert content["rows"] == ["row 3", "row 1"]
    assert content["about"]["space"] == "z"
    # what was written is edited further
    again = ["--latents", tmp_path / "w/latents.npy", "--rows", 1, "--strength", -1]
    assert edit(folder, *again, "-o", tmp_path / "back") == 0
    assert_allclose(np.load(tmp_path / "back/latents.npy")[0], found[0][0], rtol=1e-4, atol=1e-4)


def test_truncated_z_comes_to_truncated_w(folder, tmp_path):
    options = ["--latents", folder / "z.npy", "--space", "z", "--truncation", 0.5, "--rows", 0]
    assert edit(folder, *options, "-o", tmp_path / "e") == 0
    expected = MODEL.mapping(jnp.asarray(np.load(folder / "z.npy")[:1]), truncation_psi=0.5)
    unedited = np.load(tmp_path / "e/latents.npy")[2]
    assert_allclose(unedited, expected[0], rtol=1e-4, atol=1e-4)


def test_latents_that_cannot_be_meant_are_told(folder, tmp_path, capsys):
    def told(array, *options):
        np.save(tmp_path / "x.npy", array)
        latents = ["--latents", tmp_path / "x.npy", *options]
        command = ["edit", "fashion_mnist", folder / "c.npz", *LINE, *latents]
        return refused(capsys, tmp_path, [*command, "-o", tmp_path / "e"])

    w = np.load(folder / "w.npy")
    assert "are [N, 64] or, one code a layer, [N, 8, 64]" in told(w[:, :60])
    assert "[N, 8, 64]: x[None] makes one row" in told(w[0])
    assert "[N, 8, 64]: x[None]" not in told(w[:0])
    assert "has 70 latents: choose some of them" in told(w)
    assert "row 70 is outside 0-69" in told(w, "--rows", "3,70")
    assert "floating point" in told(w[:5].astype(int))
    w[7, 3] = np.inf
    assert "row 7 of" in told(w, "--rows", "6-8")
    assert "'linear'; a StyleGAN2 has" in told(w, "--space", "linear", "--rows", 0)
    assert "--truncation with these or with seeds" in told(w, "--truncation", 0.5)


def test_latents_far_from_the_space_are_told_and_edited(folder, tmp_path, capsys):
    np.save(tmp_path / "far.npy", 30 * np.load(folder / "w.npy")[:3])
    assert edit(folder, "--latents", tmp_path / "far.npy", "-o", tmp_path / "e") == 0
    assert "row 0 of" in (said := capsys.readouterr().err)
    assert "are they latents of this model" in said
    assert edit(folder, "--latents", folder / "codes.npy", "-o", tmp_path / "f") == 0
    assert capsys.readouterr().err == ""


def test_the_overview_alone_is_a_figure_and_a_sweep_wants_a_folder(folder, tmp_path, capsys):
    for side in (50, 200):
        output = tmp_path / f"{side}.png"
        assert edit(folder, "--seeds", 0, "--side", side, "-o", output) == 0
    width, height = image_size(tmp_path / "200.png")
    assert width > 5 * 200
    assert width > 2 * image_size(tmp_path / "50.png")[0]
    assert height > 200
    command = ["edit", "fashion_mnist", folder / "c.npz", *LINE]
    told = refused(capsys, tmp_path, [*command, "--sweep", "gif", "-o", tmp_path / "e.png"])
    assert "is the overview alone" in told
    told = refused(capsys, tmp_path, [*command, "-o", tmp_path / "e.gif"])
    assert "-o e --sweep gif" in told
    assert (
        edit(folder, "--seeds", "0-1", "--sweep", "gif", "--frames", 3, "-o", tmp_path / "e") == 0
    )
    assert sorted(p.name for p in (tmp_path / "e/sweeps").iterdir()) == ["seed-0.gif", "seed-1.gif"]
