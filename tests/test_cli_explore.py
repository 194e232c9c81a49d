"""`explore`, `walk` and what `augment` makes of labels, with a bundled generator."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import ports
from sfvq_jax import Curve, CurveRecord, save_curve
from sfvq_jax.cli import main
from sfvq_jax.interpret.directions import bench
from sfvq_jax.io.curve_file import curve_sha256
from sfvq_jax.io.label_file import Label, Labels, save_labels
from sfvq_jax.io.latents_file import LatentsRecord, save_latents


@pytest.fixture(scope="module")
def curve(tmp_path_factory):
    """A curve of five codewords; the first three are labelled alike."""
    import jax

    model = ports.load(ports.bundled("fashion_mnist"))
    codewords = model.sample(jax.random.key(0), 5)
    record = CurveRecord(Curve(codewords), "stylegan2-w", model.model_hash)
    path = tmp_path_factory.mktemp("explore") / "curve.npz"
    save_curve(path, record)
    labels = (Label(0, 2, "top"), Label(3, 4, "shoe"), Label(1.2, 1.5, "odd", True))
    save_labels(path.with_suffix(".labels.json"), Labels(labels, curve_sha256(record)))
    return path


def test_export_writes_one_file_with_the_labels(curve, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "BANK", 128)
    monkeypatch.setattr(bench, "HELD_OUT", 64)
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=(40, 64)))
    output = tmp_path / "map.html"
    model = ports.load(ports.bundled("fashion_mnist"))
    codes = np.zeros((3, 8, 64), np.float32)  # one code a layer
    record = LatentsRecord(codes, ("me", "you", "they"), "stylegan2-w", model.model_hash)
    save_latents(tmp_path / "us.npz", record)
    data = ["--data", str(tmp_path / "mine.npy")]
    data += ["--latents", str(tmp_path / "us.npz"), "--rows", "2,0"]
    assert main(["explore", "fashion_mnist", str(curve), *data, "--export", str(output)]) == 0
    assert "no network is needed" in capsys.readouterr().out
    text = output.read_text(encoding="utf-8")
    about = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert [label["text"] for label in about["labels"]["labels"]] == ["top", "shoe", "odd"]
    assert about["data"]["rows"] == 40
    assert (about["photographs"]["names"], about["photographs"]["rows"]) == (["they", "me"], [2, 0])
    assert about["strip"]["seeds"] == about["sheets"]["seeds"]["count"] == 2  # in place of seeds
    assert len(about["card_of"]) == 4
    assert about["classes"]["names"][1] == "trouser"


@pytest.fixture
def rows(tmp_path):
    """Files of 40 rows, their images and classes, and a curve through them."""
    x = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "images.npy", np.arange(40 * 16, dtype=np.uint8).reshape(40, 4, 4, 1))
    np.save(tmp_path / "labels.npy", np.where(x[:, 0] > 0, "right", "left"))
    save_curve(tmp_path / "curve.npz", CurveRecord(Curve(x[:4])))
    return tmp_path


def test_rows_with_images_need_no_generator(rows, capsys, monkeypatch):
    monkeypatch.setattr(bench, "BANK", 128)
    monkeypatch.setattr(bench, "HELD_OUT", 64)
    monkeypatch.chdir(rows)
    files = ["--images", "images.npy", "--labels", "labels.npy", "--export", "page.html"]
    assert main(["explore", "x.npy", "curve.npz", *files]) == 0
    about = json.loads(re.search(r'id="data">(.*?)</script>', (rows / "page.html").read_text())[1])
    assert about["model"]["rows"]
    assert about["seeds"]["truncation"] is None
    assert about["classes"]["names"] == about["data"]["classes"] == ["left", "right"]
    assert np.sum(about["data"]["counts"]) == 40


def test_augment_draws_of_each_label_equally_many(curve, tmp_path, capsys):
    labels = ["--labels", str(curve.with_suffix(".labels.json"))]
    output = tmp_path / "labelled"
    arguments = ["augment", "fashion_mnist", str(curve), *labels, "--count", "6"]
    assert main([*arguments, "-o", str(output)]) == 0
    assert "shoe from 1, top from 1" in capsys.readouterr().out
    found = {path.parent.name for path in output.rglob("*.png")}
    assert found == {"shoe", "top"}
    with np.load(output / "latents.npz") as arrays:
        line = arrays["positions"].astype(int)
        assert sorted(line[arrays["labels"] == 0].tolist()) == [3, 3, 3]
        assert sorted(line[arrays["labels"] == 1].tolist()) == [0, 0, 0]


@pytest.mark.parametrize("name", ["walk.gif", "walk.webp", "walk"])
def test_walk_films_the_curve(curve, tmp_path, name):
    output = tmp_path / name
    arguments = ["--stretch", "0.5:2.5", "--frames", "3", "-o", str(output)]
    assert main(["walk", "fashion_mnist", str(curve), *arguments]) == 0
    if output.is_dir():
        files = json.loads((output / "walk.json").read_text())["files"]
        assert [file["position"] for file in files][:3] == pytest.approx([0.5, 5 / 6, 7 / 6])
        assert all((output / file["name"]).exists() for file in files)
        return
    with Image.open(output) as film:
        assert film.n_frames == 7 + 5  # there and back
