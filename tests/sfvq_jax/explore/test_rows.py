"""A page of rows shows their own images, the nearest one at every place."""

import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

from sfvq_jax import Curve
from sfvq_jax.explore import row_model as rows
from sfvq_jax.interpret.directions import bench
from sfvq_jax.io.row_images import RowImages
from sfvq_jax.sources import HostSource
from sfvq_jax.views import explore


@pytest.fixture
def data():
    """20 rows in a plane, and a gray level of each one's own as its image."""
    latents = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    images = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None, None, None], (20, 4, 6, 1))
    return latents, images


def model_of(data, folder):
    latents, images = data
    np.save(folder / "x.npy", latents)
    np.save(folder / "images.npy", images)
    return rows.row_model(HostSource(folder / "x.npy"), RowImages(folder / "images.npy", 20))


def levels(images):
    """Which rows' images these are."""
    return np.rint((np.asarray(images)[:, 0, 0, 0] + 1) * 127.5).astype(int)


def test_an_image_is_that_of_the_nearest_row(data, tmp_path):
    model = model_of(data, tmp_path)
    x = np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32)
    expected = ((x[:, None] - data[0][None]) ** 2).sum(-1).argmin(1)
    images = jax.jit(type(model).render)(model, x[:, None])
    assert images.shape == (50, 4, 6, 1)
    np.testing.assert_array_equal(levels(images), expected)


def test_samples_are_rows(data, tmp_path):
    model = model_of(data, tmp_path)
    drawn = model.sample(jax.random.key(0), 100)
    np.testing.assert_array_equal(data[0][levels(model.render(drawn))], drawn)
    with pytest.raises(ValueError, match="leave out label and truncation"):
        model.sample(jax.random.key(0), 1, truncation=0.5)


def test_of_too_many_rows_some_are_held_with_their_own_images(data, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "MOST_BYTES", 5 * 2 * 4)
    monkeypatch.setattr(rows, "BLOCK", 7)
    model = model_of(data, tmp_path)
    assert model.latents.shape == (5, 2)
    np.testing.assert_array_equal(data[0][levels(model.render(model.latents))], model.latents)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_of_an_array_may_be_black_or_white(tmp_path, dtype):
    """Which alone would be taken for images in [0, 1]."""
    levels = np.array([0, 1, 255], np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (3, 4, 4, 1))
    given = images if dtype == np.uint8 else images / dtype(127.5) - 1
    np.save(tmp_path / "images.npy", given)
    for place in (tmp_path / "images.npy", given):
        found = RowImages(place, 3)
        for row in range(3):
            np.testing.assert_array_equal(found.of_one_size(np.array([row]), 256), images[[row]])


def test_a_nan_in_any_image_is_told(tmp_path):
    images = np.zeros((1000, 4, 4, 1), np.float32) - 1
    images[1, 0, 0] = np.nan
    np.save(tmp_path / "images.npy", images)
    with pytest.raises(ValueError, match="images have values that are NaN"):
        RowImages(tmp_path / "images.npy", 1000).tiles(np.array([[1]]), 256)


@pytest.mark.parametrize("first", ["L", "RGB"])
def test_images_of_a_folder_come_in_the_first_ones_size_and_colours(tmp_path, first):
    for i, (mode, size) in enumerate([(first, (6, 4)), ("RGB", (9, 9)), ("L", (3, 2))]):
        Image.new(mode, size, 100).save(tmp_path / f"{i}.png")
    images = RowImages(tmp_path, 3)
    for row in range(3):
        found = images.of_one_size(np.array([row, row]), 256)
        assert found.shape == (2, 4, 6, 1 if first == "L" else 3)


def test_a_notebook_shows_rows_by_their_images(data, monkeypatch):
    monkeypatch.setattr(bench, "BANK", 64)
    monkeypatch.setattr(bench, "HELD_OUT", 32)
    latents, images = data
    labels = np.where(np.arange(20) < 10, "dark", "light")
    page = explore(latents, Curve(latents[:4]), images=images, labels=labels)
    about = json.loads(re.search(r'id="data">(.*?)</script>', page.html)[1])
    assert about["model"]["rows"]
    assert about["data"]["rows"] == 20
    assert about["classes"]["names"] == ["dark", "light"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give those of the rows as images="),
        ({"images": np.zeros((19, 4, 4, 1), np.uint8)}, "images has 19 images of 20 latents"),
    ],
)
def test_a_notebook_is_told_what_lacks(data, options, message):
    with pytest.raises(ValueError, match=message):
        explore(data[0], Curve(data[0][:4]), **options)
