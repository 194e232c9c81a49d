"""Images and models of users, by the commands: what is read, and what is said of the rest."""

import numpy as np
import pytest
from PIL import Image

from sfvq_jax import Curve, CurveRecord, load_curve, save_curve
from sfvq_jax.cli.models import load_for
from sfvq_jax.cli.scorer import read_labelled

from .test_cli import refused


def photos(folder, sizes=((40, 48),), classes=("cat", "dog"), ending="png"):
    """Three photos a class, dark ones and light ones, of these sizes in turn."""
    random = np.random.default_rng(0)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            height, width = sizes[i % len(sizes)]
            pixels = random.integers(0, 60, (height, width, 3)) + 150 * label
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.{ending}")
    return folder


def test_a_folder_a_class_is_read(tmp_path):
    images, labels, names = read_labelled(str(photos(tmp_path / "p")))
    assert images.shape == (6, 40, 48, 3)
    assert images.dtype == np.uint8
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert names == ["cat", "dog"]
    assert images[labels == 0].max() < 100 < images[labels == 1].min()


def test_large_photos_are_scaled_down(tmp_path):
    images, _, _ = read_labelled(str(photos(tmp_path / "p", [(200, 200), (90, 90)])))
    assert images.shape == (6, 64, 64, 3)


@pytest.mark.parametrize(
    ("sizes", "side"), [([(28, 28), (24, 28)], 32), ([(28, 28), (90, 40)], 64)]
)
def test_photos_of_other_proportions_are_stretched_and_that_is_said(tmp_path, sizes, side):
    with pytest.warns(
        UserWarning, match=f"2 sizes and .* proportions: all are stretched to {side}"
    ):
        images, _, _ = read_labelled(str(photos(tmp_path / "p", sizes)))
    assert images.shape == (6, side, side, 3)


def test_gray_photos_beside_coloured_ones_are_coloured(tmp_path):
    folder = photos(tmp_path / "p")
    Image.new("L", (48, 40), 77).save(folder / "cat" / "0.png")
    images, _, _ = read_labelled(str(folder))
    assert (images[0] == 77).all()
    assert images.shape[-1] == 3


def test_what_systems_leave_between_photos_is_passed_over(tmp_path):
    folder = photos(tmp_path / "p")
    for name in (".DS_Store", "cat/._0.png", "dog/Thumbs.db", "labels.csv"):
        (folder / name).write_bytes(b"\0Bud1")
    (folder / ".ipynb_checkpoints").mkdir()
    images, _, names = read_labelled(str(folder))
    assert (len(images), names) == (6, ["cat", "dog"])


def test_a_folder_that_has_no_classes_is_described(tmp_path, capsys):
    def told(path):
        return refused(capsys, tmp_path, ["scorer", path, "-o", tmp_path / "s.npz"])

    photos(tmp_path / "deep" / "all")
    assert "all holds folders (cat, …), and 0 files beside them" in told(tmp_path / "deep")
    assert "cat holds 3 files (0.png, …) and no folders" in told(tmp_path / "deep/all/cat")
    (tmp_path / "empty/one").mkdir(parents=True)
    assert "the 1 folders in" in told(tmp_path / "empty")
    assert "one holds nothing: expected a folder of images for each" in told(tmp_path / "empty/one")
    Image.new("L", (8, 8)).save(photos(tmp_path / "p") / "loose.jpg")
    assert "holds 1 images (loose.jpg, …) beside its folders" in told(tmp_path / "p")
    (tmp_path / "p/loose.jpg").unlink()
    (tmp_path / "p/dog/2.png").write_bytes(b"")
    assert "2.png is empty" in told(tmp_path / "p")
    (tmp_path / "p/dog/2.png").write_bytes(b"\xff\xd8 no photo")
    assert "2.png is no image that can be read" in told(tmp_path / "p")


def test_arrays_of_images_are_read_and_what_is_none_is_told(tmp_path, capsys):
    images, labels = np.zeros((6, 8, 8, 1), np.uint8), np.arange(6) % 2
    np.savez_compressed(tmp_path / "i.npz", images=images, labels=labels, names=["a", "b"])
    found = read_labelled(str(tmp_path / "i.npz"))
    np.testing.assert_array_equal(found[0], images)
    assert found[2] == ["a", "b"]
    np.savez(tmp_path / "x.npz", images=images)
    told = refused(capsys, tmp_path, ["scorer", tmp_path / "x.npz", "-o", tmp_path / "s.npz"])
    assert "x.npz is no .npz with images and labels, or a damaged one" in told
    np.save(tmp_path / "first.npy", np.zeros((80, 3, 32, 32), np.uint8))
    np.save(tmp_path / "labels.npy", np.arange(80) % 2)
    given = [tmp_path / "first.npy", "--labels", tmp_path / "labels.npy"]
    told = refused(capsys, tmp_path, ["scorer", *given, "-o", tmp_path / "s.npz"])
    assert "shape (80, 3, 32, 32), channels first" in told


@pytest.fixture(scope="module")
def unknown(tmp_path_factory):
    """A curve that says nothing of its model, as wide as the bundled one's latents."""
    folder = tmp_path_factory.mktemp("unknown")
    latents = np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32)
    save_curve(folder / "c.npz", CurveRecord(Curve(latents[:4])))
    np.save(folder / "x.npy", latents)
    return folder


def test_a_curve_of_an_unknown_model_is_said(unknown):
    said = "curve does not say which model it is of: .* one of fashion_mnist, space stylegan2-w"
    with pytest.warns(UserWarning, match=said):
        load_for("fashion_mnist", [load_curve(unknown / "c.npz")])


def test_an_option_that_would_do_nothing_is_told(unknown, tmp_path, capsys):
    curve, nosuch = unknown / "c.npz", ["--scorer", tmp_path / "nosuch.npz"]

    def told(*arguments):
        return refused(capsys, tmp_path, arguments)

    assert "--scorer judges images" in told("quality", unknown / "x.npy", curve, *nosuch)
    output = ["-o", tmp_path / "o.npz"]
    line = ["augment", "fashion_mnist", curve, "--line", 1]
    assert "--scorer goes with --attribute or --balanced" in told(*line, *nosuch, *output)
    balanced = [*line[:3], "--balanced", "--above", 1]
    assert "are limits of --attribute" in told(*balanced, *output)
    edit = ["edit", "fashion_mnist", curve, "--line", 1, *nosuch, "-o", tmp_path / "e.png"]
    assert "--scorer goes with --hold" in told(*edit)
