"""Factors are read from images as they were drawn, and edits tell what they change."""

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageDraw

from benchmarks import known_factors, sprites
from examples.disvae import load

LATENTS = np.random.default_rng(0).uniform(-1, 1, (64, 3))


def drawn(latents):
    """Images of hearts whose x and y, in pixels ÷ 8 from the middle, and scale are the latents."""
    x, y, scale = np.asarray(latents, float).reshape(-1, 3).T
    plain = np.zeros(len(x)), np.full(len(x), 2)
    return sprites.draw(sprites.Factors(31.5 + 8 * x, 31.5 + 8 * y, 0.75 + scale / 6, *plain))


@pytest.fixture(scope="module")
def codec():
    return known_factors.Codec(encode=np.asarray, render=drawn)


@pytest.fixture(scope="module")
def edits(codec):
    """What directions do for x, y, scale and orientation, by name."""
    gradients = known_factors.derivatives(codec, LATENTS[:16])

    def of(vectors):
        deviations = (LATENTS @ vectors.T).std(0)
        found = known_factors.edits(
            codec, vectors, gradients, 4 * deviations, LATENTS[16:32], LATENTS[32:]
        )
        return {row["factor"]: row for row in found}

    return of


def test_factors_are_measured_as_they_were_drawn():
    values = sprites.draw_values(np.random.default_rng(0), 600)
    known = sprites.factors_of(values)
    read, seen = sprites.measure(sprites.draw(known))
    assert seen.all()
    assert_array_equal(read.shape, known.shape)
    assert_allclose(read.x, known.x, atol=0.5)  # a pixel's border
    assert_allclose(read.y, known.y, atol=0.5)
    assert_allclose(read.scale, known.scale, atol=0.03)
    turned = np.abs((read.orientation - known.orientation + 0.5) % 1 - 0.5)
    degrees = turned * np.array(sprites.PERIODS)[known.shape]
    assert np.median(degrees) < 1
    assert degrees[known.scale > 0.6].max() < 6  # pixels make small hearts look otherwise


def test_orientation_is_anticlockwise_and_y_downward():
    picture = Image.new("L", (64, 64))
    # a square about (24, 40), which Pillow counts from the border of pixels and not their middle,
    # of side 14 with a corner 20 degrees above the x axis
    corners = np.radians(20 + 90 * np.arange(4))
    points = 24 + 7 * 2**0.5 * np.cos(corners), 40 - 7 * 2**0.5 * np.sin(corners)
    ImageDraw.Draw(picture).polygon(list(zip(*points, strict=True)), fill=255)
    read, _ = sprites.measure(np.asarray(picture, np.float32)[None, ..., None] / 127.5 - 1)
    assert sprites.SHAPES[read.shape[0]] == "square"
    assert_allclose([read.x[0], read.y[0]], [23.5, 39.5], atol=0.2)
    assert_allclose(read.orientation[0] * 90, 20 + 45, atol=2)  # its corners are at 45 degrees


def test_an_empty_image_has_no_sprite():
    _, seen = sprites.measure(np.full((1, 64, 64, 1), -1.0))
    assert not seen[0]


def test_a_pure_direction_changes_nothing_else_and_none_turns_what_does_not_turn(edits):
    found = edits(np.eye(3))
    for name in ("x", "y", "scale"):
        assert found[name]["reached"]
        assert_allclose(found[name]["change"], 1, atol=0.15)
        assert found[name]["dependency"] < 0.05
        assert found[name]["shape kept"] == found[name]["seen"] == 1
    assert not found["orientation"]["reached"]


def test_a_diagonal_changes_one_of_three_other_factors_as_much(edits):
    diagonal = np.array([[1, 1, 0], [1, -1, 0]]) / 2**0.5
    found = edits(diagonal)
    assert_allclose([found[n]["dependency"] for n in "xy"], 1 / 3, atol=0.05)
    assert not found["scale"]["reached"]


def test_the_best_of_all_directions_is_taken_in_its_better_sense(edits):
    both = np.concatenate([known_factors.unit(np.array([[1, 1, 0.3], [0.2, 1, 1]])), -np.eye(3)])
    assert edits(both)["x"]["dependency"] < 0.05


def test_directions_in_the_span_of_others_are_left_out_and_codes_are_coordinates():
    random = np.random.default_rng(0)
    mixing = known_factors.unit(random.standard_normal((3, 5)))
    codes = random.standard_normal((500, 3)) * [3, 2, 1]
    latents = codes @ mixing
    few = known_factors.chosen(np.concatenate([mixing, mixing[::-1], -mixing]), latents)
    assert len(few) == 3
    rows = np.abs(few @ mixing.T).argmax(1)
    signs = np.sign((few * mixing[rows]).sum(1))
    assert_allclose(latents @ np.linalg.pinv(few), codes[:, rows] * signs, atol=1e-9)


def test_the_vaes_reconstruct_sprites_that_are_drawn_here(shared):
    model = load(shared / "data/real_models/disvae/btcvae_dsprites/model.pt")
    known = sprites.factors_of(sprites.draw_values(np.random.default_rng(0), 32))
    codec = known_factors.Codec.of(model)
    read, seen = sprites.measure(codec.render(codec.encode(sprites.draw(known))))
    assert seen.all()
    assert_allclose(read.x, known.x, atol=1)
    assert_allclose(read.y, known.y, atol=1)
    assert_allclose(read.scale, known.scale, atol=0.12)


def test_the_example_of_sprites_runs(shared, tmp_path, monkeypatch):
    root = Path(known_factors.__file__).parents[1]
    text = (root / "examples" / "dsprites.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.setenv("DISVAE", str(shared / "data/real_models/disvae"))
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("4096", "96"), "examples/dsprites.md", "exec"), {})
    codes = np.load("latents.npy")
    assert codes.shape == (96, 10)
    assert codes.std(0).max() > 20 * codes.std(0).min()  # five of ten latents say nothing
