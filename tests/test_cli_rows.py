"""Plain data by the commands: latents in an .npy, with the images and the classes of its rows."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sfvq_jax import Curve, CurveRecord, save_curve
from sfvq_jax.cli import main
from sfvq_jax.io.row_images import RowImages

from .test_cli import image_size, refused

N, K = 40, 5


@pytest.fixture
def folder(tmp_path):
    """Rows on a line, whose images are as light as they are far along it, in files 1 … 40."""
    place = np.random.default_rng(0).permutation(N)
    x = np.stack([place, np.zeros(N)], 1).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "labels.npy", np.where(place < N // 2, "dark", "light"))
    images = np.broadcast_to((6 * place).astype(np.uint8)[:, None, None, None], (N, 6, 8, 1))
    np.save(tmp_path / "images.npy", images)
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(tmp_path / "photos" / f"{i + 1}.png")
    ends = jnp.stack([jnp.linspace(0, N - 1, K), jnp.zeros(K)], 1)
    save_curve(tmp_path / "c.npz", CurveRecord(Curve(ends)))
    return tmp_path


def lights(tiles):
    return (tiles[:, 0, 0, 0] // 6).tolist()


@pytest.mark.parametrize("name", ["photos", "images.npy"])
def test_images_are_those_of_the_rows_in_the_order_of_their_names(folder, name):
    images = RowImages(folder / name, N)
    place = np.load(folder / "x.npy")[:, 0]
    rows = np.array([[3, 9], [10, 39], [0, 3]])
    tiles = images.tiles(rows, 160)
    assert lights(tiles) == place[rows[:, 0]].tolist()
    assert (tiles[:, -1, 0, 0] // 6).tolist() == place[rows[:, 1]].tolist()
    assert tiles.shape == (3, 13, 8, 1)  # with a gap
    assert images.tiles(rows[:, :1], 4).shape == (3, 3, 4, 1)


def test_floats_and_gray_arrays_are_images_too(folder):
    images = np.load(folder / "images.npy")
    np.save(folder / "floats.npy", np.float32(images[..., 0]) / 127.5 - 1)
    rows = np.arange(N)[:, None]
    found = RowImages(folder / "floats.npy", N).tiles(rows, 160)
    np.testing.assert_array_equal(found, images)


def test_a_map_and_its_quality_are_of_rows(folder, capsys):
    arguments = ["map", str(folder / "x.npy"), str(folder / "c.npz"), "--nearest", "2"]
    labels = ["--labels", str(folder / "labels.npy")]
    for i, images in enumerate(([], ["--images", str(folder / "photos")])):
        output = folder / f"map{i}.png"
        assert main([*arguments, *labels, *images, "-o", str(output)]) == 0
        assert image_size(output)[0] > 300
    assert "1.png of row 0 to 40.png of row 39" in capsys.readouterr().out
    assert main(["quality", *arguments[1:3], *labels]) == 0
    out = capsys.readouterr().out
    assert "class runs                       0.75" in out
    assert "purity" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            "map x.npy c.npz -o m.png",
            "by themselves are no pictures: name their images by --images",
        ),
        ("map x.npy c.npz -o m.png --images none", "there is no file or folder none"),
        ("map x.npy c.npz -o m.png --images c.npz", "c.npz is no .npy, but images go in an .npy"),
        ("map x.npy c.npz -o m.png --images x.npy", "x.npy has shape (40, 2), but images go in"),
        ("map x.npy c.npz -o m.png --images few", "few has 2 images of 40 latents"),
        ("map x.npy c.npz -o m.png --images deep", "deep holds 1 folders (few, …); expected"),
        ("map x.npy c.npz -o m.png --images empty", "empty holds no images; expected an image of"),
        ("map x.npy c.npz -o m.png --images dark.npy", "dark.npy: images are floats from 0.0"),
        ("map x.npy c.npz -o m.png --labels x.npy", "x.npy is no .npy of labels [N]"),
        ("map x.npy c.npz -o m.png --labels 39.npy", "there are 39 labels of 40 latents"),
        ("quality x.npy c.npz --labels 39.npy", "there are 39 labels of 40 latents"),
        ("quality x.npy c.npz --labels none.npy", "there is no .npy of labels"),
        ("quality fashion_mnist c.npz --labels labels.npy", "--labels goes with latents"),
        ("map fashion_mnist c.npz --images few -o m.png", "--images goes with latents"),
    ],
)
def test_what_does_not_go_together_is_told(folder, arguments, told, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    for name in ("few", "deep/few", "empty"):
        (folder / name).mkdir(parents=True)
    for i in range(2):
        Image.new("L", (4, 4)).save(folder / "few" / f"{i}.png")
    np.save(folder / "39.npy", np.arange(39) // 2)
    np.save(folder / "dark.npy", np.random.default_rng(0).random((N, 4, 4, 3), np.float32))
    assert told in refused(capsys, folder, arguments.split())
