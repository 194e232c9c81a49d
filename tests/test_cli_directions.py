"""What the curve is for, by the commands, end to end on the bundled generator."""

import contextlib
import csv
import functools
import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

import ports
from sfvq_jax import CurveRecord, decode, load_curve, save_curve
from sfvq_jax.cli import augment, compare, main
from sfvq_jax.cli.common import with_statistics
from sfvq_jax.interpret import (
    PCA,
    RandomDirections,
    load_direction,
    load_scorers,
    sample_by_attribute,
)
from sfvq_jax.interpret.attributes import fitting, statistics
from sfvq_jax.interpret.comparison import trial
from sfvq_jax.interpret.dimensions import translation
from sfvq_jax.interpret.directions import bench, finding

from .test_cli import QUICK, image_size, refused


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a 3-bit curve in W of the bundled generator, and directions found along it, in two goes:
    the first is interrupted."""
    folder = tmp_path_factory.mktemp("directions")
    assert run("fit", "fashion_mnist", "--bits", 3, "-o", folder / "c.npz", *QUICK) == 0
    find = ["--attributes", "width,pullover", "--latents", 32, "-o", folder / "found"]
    command = ["directions", "fashion_mnist", folder / "c.npz", *find]
    with pytest.MonkeyPatch.context() as patch:  # on few latents, to be quick
        patch.setattr(finding, "SCREENED", 32)
        patch.setattr(finding, "CHOSEN_ON", 32)
        patch.setattr(finding, "SHORTLIST", 3)
        patch.setattr(finding, "LIMITED_ON", 16)
        patch.setattr(bench, "BANK", 128)
        patch.setattr(bench, "HELD_OUT", 64)
        patch.setattr(bench, "STRENGTHS", (2.0, 8.0))
        with interrupted(patch, finding, "_measured", 2):
            assert run(*command) == 130
        assert not (folder / "found").exists()
        parts = {path: path.stat().st_mtime_ns for path in (folder / "found.part").iterdir()}
        assert len(parts) == 4  # about.json, derivatives, codewords, width
        assert run(*command, "--seed", 1) == 2  # of another run nothing is taken
        assert {path: path.stat().st_mtime_ns for path in parts} == parts
        with interrupted(patch, finding, "_measured", 2):  # once, for the second attribute alone
            assert run(*command) == 0
        assert not (folder / "found.part").exists()
    return folder


@pytest.fixture
def few_surveyed(monkeypatch):
    """`augment` looks at fewer images first, to be quick."""
    few = functools.partial(sample_by_attribute, surveyed=768)
    monkeypatch.setattr(augment, "sample_by_attribute", few)


@contextlib.contextmanager
def interrupted(patch, module, name, call):
    """Control-C at this call of a function."""
    function, calls = getattr(module, name), []

    def counting(*arguments, **options):
        calls.append(name)
        if len(calls) == call:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    with patch.context() as inner:
        inner.setattr(module, name, counting)
        yield


def run(*arguments):
    return main([str(argument) for argument in arguments])


def direction_files(folder):
    return sorted(f for f in (folder / "found").glob("*.json") if f.name != "directions.json")


def test_directions_are_files_a_table_and_a_picture(folder):
    width, pullover = map(load_direction, direction_files(folder))
    assert width.name.startswith("more width")
    assert pullover.name.startswith("more pullover")
    assert width.measured["judged"]["width"]["low"] > 0
    assert width.space == "stylegan2-w"
    start, stop = width.source["codewords"]
    codewords = np.float64(load_curve(folder / "c.npz").curve.codewords)
    step = codewords[stop] - codewords[start]
    np.testing.assert_allclose(width.direction.vector, step / np.linalg.norm(step), atol=1e-5)
    table = json.loads((folder / "found/directions.json").read_text())
    assert [row["attribute"] for row in table] == ["width", "pullover"]
    assert image_size(folder / "found/effects.png")[0] > 300
    with (folder / "found/directions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [path.name for path in direction_files(folder)]
    vectors = [load_direction(path).direction.vector for path in direction_files(folder)]
    np.testing.assert_array_equal(np.load(folder / "found/directions.npy"), vectors)
    for row, measured in zip(rows, table, strict=True):
        assert row["confirmed"] == str(measured["confirmed"])
        for name, effect in measured["judged"].items():
            assert float(row[f"effect on {name}"]) == effect["mean"]
        assert float(row["effect low"]) == measured["judged"][row["attribute"]]["low"]
    assert image_size(folder / "found/directions.png")[0] > 300


def test_directions_are_edits_together_or_with_something_held(folder, tmp_path):
    width, pullover = direction_files(folder)
    both = ["--direction", width, "--direction", f"{pullover}:-0.5", "--seeds", "0-1"]
    assert run("edit", "fashion_mnist", *both, "-o", tmp_path / "both.png") == 0
    assert image_size(tmp_path / "both.png")[0] > 300
    by_name = ["--direction", folder / "found", "--attribute", "width", "--seeds", 0]
    alone = ["--direction", width, "--seeds", 0]
    for name, options in (("by_name", by_name), ("alone", alone)):
        assert run("edit", "fashion_mnist", *options, "-o", tmp_path / f"{name}.png") == 0
    assert (tmp_path / "by_name.png").read_bytes() == (tmp_path / "alone.png").read_bytes()
    held = ["--direction", width, "--hold", "brightness", "--save-direction", tmp_path / "h.json"]
    assert run("edit", "fashion_mnist", *held, "--seeds", 0, "-o", tmp_path / "held.png") == 0
    record = load_direction(tmp_path / "h.json")
    assert record.name.endswith("brightness held")
    assert record.measured == {}  # nothing of it was measured
    assert not np.allclose(record.direction.vector, load_direction(width).direction.vector)
    line = [folder / "c.npz", "--line", 3, "--layers", "1-2", "--seeds", 0]
    save = ["--save-direction", tmp_path / "line.json", "-o", tmp_path / "line.png"]
    assert run("edit", "fashion_mnist", *line, *save) == 0
    record = load_direction(tmp_path / "line.json")
    assert record.source["codewords"] == [3, 4]
    assert record.direction.layers == (1, 2)
    w = ports.load(ports.bundled("fashion_mnist")).sample(jax.random.key(1), 4096)
    deviation = float((w @ record.direction.vector).std())
    assert record.direction.unit == pytest.approx(deviation, rel=0.05)


def test_augment_writes_a_line_as_pngs_with_a_manifest(folder, tmp_path):
    output = tmp_path / "samples"
    line = ["augment", "fashion_mnist", folder / "c.npz", "--line", 5, "--count", 11]
    assert run(*line, "-o", output) == 0
    assert image_size(output / "images/00.png") == (32, 32)
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["about"]["stretch"] == [5, 6]
    assert len(manifest["files"]) == 11
    with np.load(output / "latents.npz") as samples:
        np.testing.assert_allclose(samples["positions"], 5 + (np.arange(11) + 0.5) / 11, rtol=1e-6)
        curve = load_curve(folder / "c.npz").curve
        expected = decode(curve, samples["positions"])
        np.testing.assert_allclose(samples["latents"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("few_surveyed")
def test_augment_gives_what_is_asked_for(folder, tmp_path, capsys):
    curve = folder / "c.npz"
    ask = ["--attribute", "trouser", "--count", 20, "-o", tmp_path / "trousers.npz"]
    assert run("augment", "fashion_mnist", curve, *ask) == 0
    assert "have their attribute by the judge" in capsys.readouterr().out
    with np.load(tmp_path / "trousers.npz", allow_pickle=False) as data:
        names = json.loads(str(data["manifest"]))["score_names"]
        assert (data["scores"][:, names.index("trouser")] > 0).all()
        assert data["images"].shape == (20, 32, 32, 1)
    light = ["--attribute", "brightness", "--count", 20, "-o", tmp_path / "light.npz"]
    assert run("augment", "fashion_mnist", curve, *light) == 0
    told = re.search(
        r"images, (.*)% of those drawn, with brightness above (.*); (.*)% have",
        capsys.readouterr().out,
    )
    with np.load(tmp_path / "light.npz", allow_pickle=False) as data:
        about = json.loads(str(data["manifest"]))["about"]
        assert (data["scores"][:, 0] > about["above"]["brightness"]).all()
    share, threshold, judged = map(float, told.groups())
    assert share == pytest.approx(100 * about["accepted"], abs=0.05)
    assert share < 95
    assert threshold == pytest.approx(about["above"]["brightness"], rel=0.01)
    assert threshold > 0.2
    assert judged > 80
    dark = ["--attribute", "brightness", "--below", 0.1, "--count", 5, "-o", tmp_path / "dark.npz"]
    assert run("augment", "fashion_mnist", curve, *dark) == 0
    with np.load(tmp_path / "dark.npz", allow_pickle=False) as data:
        assert (data["scores"][:, 0] < 0.1).all()


def test_statistics_need_a_background(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(statistics, "LEAST_SHARE", 2)  # as if no image had any
    augment = ["augment", "fashion_mnist", folder / "c.npz", "--count", 2]
    told = refused(capsys, tmp_path, [*augment, "--attribute", "area", "-o", tmp_path / "a.npz"])
    assert "could be their background, without which there is no area: ask for others" in told
    with pytest.warns(UserWarning, match="there is no area, x position, .*: left out"):
        find, judge = with_statistics(None, ports.load(ports.bundled("fashion_mnist")))
    assert find.names == judge.names == ("brightness", "contrast", "edge energy")


def test_quality_is_told_in_words_and_a_fit_from_the_curve_mends_it(folder, tmp_path, capsys):
    curve, mended = load_curve(folder / "c.npz").curve, tmp_path / "mended.npz"
    shuffled = curve.replace(codewords=curve.codewords[np.array([0, 4, 1, 5, 2, 6, 3, 7])])
    np.save(tmp_path / "x.npy", np.asarray(decode(curve, np.linspace(0, 7, 2000))))
    save_curve(tmp_path / "s.npz", CurveRecord(shuffled))
    start = ["--start", tmp_path / "s.npz", "--bits", 3]
    assert run("fit", tmp_path / "x.npy", *start, "-o", mended) == 0

    def neighbours(path):
        capsys.readouterr()
        assert run("quality", tmp_path / "x.npy", path) == 0
        told = capsys.readouterr().out.splitlines()
        return float(next(line for line in told if line.startswith("nearest is a")).split()[4])

    assert neighbours(tmp_path / "s.npz") < 0.4 < 0.8 < neighbours(mended)


@pytest.mark.usefixtures("few_surveyed")
def test_a_scorer_is_learnt_from_a_folder_of_images(folder, tmp_path, capsys):
    random = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(30):
            pixels = random.integers(level - 40, level + 40, (20, 24, 1)).astype(np.uint8)
            Image.fromarray(pixels[..., 0]).save(tmp_path / "photos" / name / f"{i}.png")
    output = tmp_path / "s.npz"
    assert run("scorer", tmp_path / "photos", "--epochs", 30, "-o", output) == 0
    assert "dark" in capsys.readouterr().out
    scorers = load_scorers(output)
    assert scorers.find.names == scorers.judge.names == ("dark", "light")
    ask = ["--attribute", "dark", "--count", 3, "--scorer", output, "-o", tmp_path / "dark.npz"]
    assert run("augment", "fashion_mnist", folder / "c.npz", *ask) == 0


def test_what_does_not_go_together_is_told(folder, tmp_path, capsys):
    curve, (width, pullover) = folder / "c.npz", direction_files(folder)

    def told(*arguments):
        return refused(capsys, tmp_path, [*arguments, "-o", tmp_path / "o.png"])

    edit = ["edit", "fashion_mnist"]
    assert "name either --line" in told(*edit, curve)
    assert "--line goes with a curve" in told(*edit, "--line", 3)
    assert "has its own layers" in told(*edit, "--direction", width, "--layers", "0-1")
    assert "no direction file" in told(*edit, "--direction", tmp_path / "none.json")
    assert "is no direction file" in told(*edit, "--direction", curve)
    both, saved = ["--direction", width, "--direction", pullover], tmp_path / "d.json"
    assert "writes one direction" in told(*edit, *both, "--save-direction", saved)
    assert "no attribute 'sleeve'" in told(*edit, "--direction", width, "--hold", "sleeve")
    find = ["directions", "fashion_mnist", curve]
    assert "no attribute 'sleeve'" in told(*find, "--attributes", "sleeve")
    assert "per_attribute is 0" in told(*find, "--each", 0)
    assert "no file of scorers" in told(*find, "--scorer", curve)
    augment = ["augment", "fashion_mnist", curve]
    assert "leave them out" in told(*augment, "--line", 3, "--above", 1)
    assert "position 99 is outside 0-7" in told(*augment, "--stretch", "3:99")
    assert "noise is 2" in told(*augment, "--line", 3, "--noise", 2)
    scorer = ["scorer", "-o", tmp_path / "o.npz"]
    assert "no .npz with images and labels" in refused(capsys, tmp_path, [*scorer, curve])
    assert "no file or folder" in refused(capsys, tmp_path, [*scorer, tmp_path / "none"])
    (tmp_path / "o.npz").write_bytes(b"precious")
    occupied = [*augment, "--line", 3, "-o", tmp_path / "o.npz"]
    assert "exists already" in refused(capsys, tmp_path, occupied)


def test_a_direction_of_another_space_is_refused(folder, tmp_path, capsys):
    path = direction_files(folder)[0]
    content = json.loads(path.read_text()) | {"space": "biggan-z, class 1"}
    (tmp_path / "d.json").write_text(json.dumps(content))
    edit = ["edit", "fashion_mnist", "--direction", tmp_path / "d.json", "-o", tmp_path / "e.png"]
    message = refused(capsys, tmp_path, edit)
    assert "biggan-z" in message
    assert "stylegan2-w" in message


def test_methods_are_compared_by_labels_of_ones_own(tmp_path, capsys, monkeypatch):
    for name, value in {"SPREAD_SAMPLES": 256, "SCREENED": 16, "CHOSEN_ON": 16}.items():
        monkeypatch.setattr(trial, name, value)
    monkeypatch.setattr(bench, "STRENGTHS", (4.0, 8.0))
    monkeypatch.setattr(trial, "RECOGNITION_EPOCHS", 2)
    monkeypatch.setattr(bench, "BANK", 128)
    monkeypatch.setattr(fitting, "LEAST_STEPS", 30)
    few = (PCA(3, samples=256), RandomDirections(3))  # the others are tested by themselves
    monkeypatch.setattr(compare, "default_methods", lambda model, bits, scorer: few)
    random = np.random.default_rng(0)
    labels = np.arange(80) % 2
    images = random.integers(0, 120, (80, 32, 32, 1)) + 120 * labels[:, None, None, None]
    np.save(tmp_path / "images.npy", images.astype(np.uint8))
    np.save(tmp_path / "labels.npy", labels)
    labelled = ["--images", tmp_path / "images.npy", "--labels", tmp_path / "labels.npy"]
    settings = ["--attributes", "brightness,area", "--seeds", 2, "--latents", 8]
    output = tmp_path / "compared"
    command = ["compare", "fashion_mnist", *labelled, *settings, "-o", output]
    with interrupted(monkeypatch, trial.Trial, "recognition", 3):  # one a method and seed
        assert run(*command) == 130
    assert "the same command goes on from where it was" in capsys.readouterr().err
    with interrupted(monkeypatch, trial.Trial, "recognition", 3):  # two are left
        assert run(*command) == 0
    captured = capsys.readouterr()
    assert f"goes on from what {output}.part keeps" in captured.err
    told = captured.out
    assert "scorers, recall on held-out images" in told
    assert re.search("GANSpace, PCA +3 ", told)
    content = json.loads((output / "comparison.json").read_text())
    assert [row["method"] for row in content["summary"]] == [
        "GANSpace, PCA",
        "random",
        "random, equal steps",
    ]
    assert len(content["edits"]) == 2 * 3 * 2
    assert content["space"] == "stylegan2-w"
    assert image_size(output / "comparison.png")[0] > 300
    assert "exists already" in refused(capsys, tmp_path, command)


def test_dimensions_are_sets_directions_and_pictures(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "BANK", 128)
    monkeypatch.setattr(bench, "HELD_OUT", 64)
    monkeypatch.setattr(translation, "RANDOM_ORDERS", 1)
    few = ["--latents", 4, "--fresh", 8, "--mask-steps", 2]
    goals = ["--sources", "pullover", "--targets", "sneaker,bag"]
    output = tmp_path / "found"
    command = ["dimensions", "fashion_mnist", "--space", "z", *goals, *few, "-o", output]
    with interrupted(monkeypatch, translation, "grow_set", 2):  # one a goal
        assert run(*command) == 130
    with interrupted(monkeypatch, translation, "grow_set", 2):
        assert run(*command) == 0
    assert not output.with_name("found.part").exists()
    told = capsys.readouterr().out
    assert "pullover  sneaker" in told
    assert "whole mask" in told
    assert "status" in told
    content = json.loads((output / "dimensions.json").read_text())
    assert content["space"] == "stylegan2-z"
    assert [(f["source"], f["target"]) for f in content["found"]] == [
        ("pullover", "sneaker"),
        ("pullover", "bag"),
    ]
    assert np.shape(content["effects"]["pullover"]["importance"]) == (64, 10)
    for name in ("importance", "growth", "translation", "images"):
        assert image_size(output / f"{name}.png")[0] > 300
    statuses = {f"{f['source']}-to-{f['target']}.json": f["status"] for f in content["found"]}
    written = {path.name for path in output.glob("*-to-*.json")}
    assert written == {name for name, status in statuses.items() if status == "found"}
    assert ("no direction file" in told) == (len(written) < 2)
    path = output / "pullover-to-sneaker.json"
    direction = load_direction(path)
    found = content["found"][0]
    moved = np.flatnonzero(np.abs(direction.direction.vector) > 1e-6)
    assert moved.tolist() == sorted(found["set"]) == sorted(direction.source["dimensions"])
    edit = ["--direction", path, "--strength", "0,3", "--seeds", 0, "-o", tmp_path / "e.png"]
    assert run("edit", "fashion_mnist", *edit) == 0
    assert "exists already" in refused(capsys, tmp_path, command)


def test_dimensions_need_concepts_and_one_space(folder, tmp_path, capsys):
    def told(*arguments):
        return refused(capsys, tmp_path, ["dimensions", *arguments, "-o", tmp_path / "o"])

    curve = ["fashion_mnist", "--curve", folder / "c.npz"]
    assert "has one latent space" in told(*curve, "--space", "z")
    assert "no concept 'sleeve'" in told(*curve, "--targets", "sleeve")
    assert "share is 2" in told("fashion_mnist", "--share", 2)
    model = tmp_path / "model"
    model.symlink_to(ports.bundled("fashion_mnist"))
    assert "learn them by `sfvq-jax scorer`" in told(model)


def test_images_and_labels_that_do_not_go_together_are_told(tmp_path, capsys):
    def told(*arguments):
        return refused(capsys, tmp_path, [*arguments, "-o", tmp_path / "o.npz"])

    np.save(tmp_path / "images.npy", np.zeros((80, 32, 32, 1), np.uint8))
    compare = ["compare", "fashion_mnist"]
    assert "--labels goes with --images" in told(*compare, "--labels", tmp_path / "images.npy")
    alone = ["--images", tmp_path / "images.npy"]
    assert "take --labels" in told(*compare, *alone)
    assert "take --labels" in told("scorer", tmp_path / "images.npy")
    both = [*compare, *alone, "--labels", tmp_path / "none.npy"]
    assert "none.npy" in told(*both)
    assert "leave out --scorer" in told(*both, "--scorer", tmp_path / "s.npz")
    (tmp_path / "text.npy").write_text("no array")
    assert "is no .npy of numbers" in told(*compare, *alone, "--labels", tmp_path / "text.npy")
