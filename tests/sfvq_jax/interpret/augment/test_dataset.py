"""Datasets on disk: whole or not at all, as PNGs and as one .npz."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from sfvq_jax.interpret.augment.dataset import write_dataset


class Blobs:
    """Blobs whose place and size are the latents, in so many channels."""

    latent_dim, num_layers = 2, 3

    def __init__(self, channels=1, fails_at=None):
        self.channels, self.fails_at, self.rendered = channels, fails_at, []

    def sample(self, key, n, *, label=None, truncation=None):
        return jax.random.normal(key, (n, 2))

    def render(self, latents):
        self.rendered.append(len(latents))
        if len(self.rendered) == self.fails_at:
            raise KeyboardInterrupt
        if latents.ndim == 3:
            latents = latents.mean(1)
        offset = latents[:, :1] - jnp.linspace(-2, 2, 8)[None]
        row = jnp.exp(-(offset**2) * jnp.exp(latents[:, 1:]))
        column = jnp.linspace(-1, 1, 6)[None, :, None, None]
        channel = jnp.linspace(1, 0.2, self.channels)[None, None, None]
        return 2 * row[:, None, :, None] * channel - 1 + 0.1 * column


N = 11
LATENTS = np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)
ABOUT = {"model_hash": "abc", "space": "blobs", "seed": 3}
CLASSES = ("T-shirt/top", "a dress")
FULL = {
    "positions": np.linspace(0, 3, N, dtype=np.float32),
    "labels": np.arange(N) % 2,
    "scores": np.random.default_rng(1).normal(size=(N, 3)).astype(np.float32),
    "names": CLASSES,
    "score_names": ["x", "y", "z"],
}


def write(path, model=None, latents=LATENTS, **options):
    model = Blobs() if model is None else model
    write_dataset(path, model, latents, about=ABOUT, **{"batch": 4} | options)


def read_npz(path):
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def test_an_npz_holds_all_and_needs_no_pickle(tmp_path):
    model = Blobs(5)
    write(tmp_path / "set.npz", model, **FULL)
    stored = read_npz(tmp_path / "set.npz")
    assert stored["images"].shape == (N, 6, 8, 5)
    assert stored["images"].dtype == np.uint8
    expected = np.clip(np.round(np.asarray(model.render(LATENTS)) * 127.5 + 127.5), 0, 255)
    assert_array_equal(stored["images"], expected)
    assert_array_equal(stored["latents"], LATENTS)
    for name in ("positions", "labels", "scores"):
        assert_array_equal(stored[name], FULL[name])
    manifest = json.loads(str(stored["manifest"]))
    assert manifest["about"] == ABOUT
    assert (manifest["count"], manifest["image_shape"]) == (N, [6, 8, 5])
    assert manifest["format_version"] == 1
    assert manifest["names"] == list(CLASSES)
    assert manifest["score_names"] == ["x", "y", "z"]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_pngs_have_the_pixels_of_the_npz_and_the_manifest_names_each(tmp_path, channels, mode):
    model = Blobs(channels)
    write(tmp_path / "set.npz", model, **FULL)
    write(tmp_path / "set", model, **FULL)
    images = read_npz(tmp_path / "set.npz")["images"]
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert len(manifest["files"]) == N == manifest["count"]
    for i, entry in enumerate(manifest["files"]):
        with Image.open(tmp_path / "set" / entry["name"]) as image:
            assert image.mode == mode
            assert_array_equal(np.asarray(image).reshape(images[i].shape), images[i])
        assert entry["label"] == FULL["labels"][i]
        assert np.float32(entry["position"]) == FULL["positions"][i]
        assert_array_equal(np.float32(entry["scores"]), FULL["scores"][i])
    assert manifest["files"][3]["name"] == "images/a_dress/03.png"
    found = {str(p.relative_to(tmp_path / "set")) for p in (tmp_path / "set").rglob("*.png")}
    assert found == {entry["name"] for entry in manifest["files"]}
    stored = read_npz(tmp_path / "set" / "latents.npz")
    assert_array_equal(stored["latents"], LATENTS)
    assert_array_equal(stored["labels"], FULL["labels"])


def test_latents_alone_make_a_dataset(tmp_path):
    codes = np.repeat(LATENTS[:, None], 3, axis=1)
    write(tmp_path / "set", latents=jnp.asarray(codes))
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert manifest["files"][10] == {"name": "images/10.png"}
    assert list(read_npz(tmp_path / "set" / "latents.npz")) == ["latents"]


def test_all_batches_are_of_one_size(tmp_path):
    model = Blobs()
    write(tmp_path / "set", model)
    assert model.rendered == [1, 4, 4, 4]  # the first tells what size they are


def test_class_folders_are_safe_and_told_apart(tmp_path):
    names = ["a/b", "a b", "A_B", "..", "con", "é" * 100, "x."]
    options = {"labels": np.arange(N) % 7, "names": names}
    write(tmp_path / "set", **options)
    folders = {path.name for path in (tmp_path / "set" / "images").iterdir()}
    assert folders == {"a_b", "1_a_b", "2_A_B", "class", "4_con", "é" * 60, "x"}


@pytest.mark.parametrize("name", ["set", "set.npz"])
@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_an_interrupted_write_leaves_nothing(tmp_path, name, fails_at):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / name, Blobs(fails_at=fails_at))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["set", "set.npz"])
def test_what_exists_is_replaced_only_where_asked(tmp_path, name):
    write(tmp_path / name, latents=LATENTS[:1])
    with pytest.raises(FileExistsError, match="exists already"):
        write(tmp_path / name)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / name, Blobs(fails_at=2), overwrite=True)
    where = tmp_path / name / "latents.npz" if name == "set" else tmp_path / name
    assert len(read_npz(where)["latents"]) == 1
    write(tmp_path / name, overwrite=True)
    assert len(read_npz(where)["latents"]) == N


def test_no_two_classes_share_a_folder(tmp_path):
    names = ["x", "2_x", "x!", "3_x!", "X?"]  # of which the third would be 2_x
    write(tmp_path / "set", labels=np.arange(N) % 5, names=names)
    assert len(list((tmp_path / "set" / "images").iterdir())) == 5


def test_a_folder_of_another_kind_is_never_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"holds no manifest\.json"):
        write(tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize("channels", [2, 5])
def test_channels_that_pngs_have_not_are_refused_with_the_way_out(tmp_path, channels):
    with pytest.raises(ValueError, match=rf"{channels} channels.*\.npz"):
        write(tmp_path / "set", Blobs(channels))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latents": LATENTS[:0]}, "latents has shape"),
        ({"positions": np.zeros(3)}, r"positions has shape \(3,\); 11 latents take \[11\]"),
        ({"scores": np.zeros(N), "score_names": ["x"]}, r"11 latents take \[11, A\]"),
        ({"scores": np.zeros((N, 2)), "score_names": ["x"]}, "1 names of scores"),
        ({"labels": np.arange(N), "names": ["a"]}, "labels go from 0 to 10, and there are 1 names"),
        ({"labels": np.zeros(N), "names": ["a"]}, "expected integers"),
    ],
)
def test_arrays_that_do_not_belong_together_are_named_before_rendering(tmp_path, options, message):
    model = Blobs()
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "set", model, **options)
    assert not model.rendered
    assert not list(tmp_path.iterdir())


def test_what_is_no_json_is_refused_before_rendering(tmp_path):
    model = Blobs()
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_dataset(tmp_path / "set", model, LATENTS, about={"curve": LATENTS})
    assert not model.rendered


@pytest.mark.parametrize("name", ["set", "set.npz"])
def test_a_disk_without_room_is_told_before_anything_is_rendered(tmp_path, monkeypatch, name):
    model, usage = Blobs(), shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=200))
    with pytest.raises(OSError, match=rf"{name} takes [\d,]+ bytes, and its disk has 200 left"):
        write(tmp_path / name, model)
    assert model.rendered == [1]  # what size they are
    assert not list(tmp_path.iterdir())
