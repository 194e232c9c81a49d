"""Edits as files: all images at their own size, what the manifest says of them, sweeps."""

import gc
import json
import sys
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageSequence

from sfvq_jax.images import render_images
from sfvq_jax.interpret import Direction, DirectionRecord, edit_latents
from sfvq_jax.io import sweeps
from sfvq_jax.views import edit_files, write_edits

H, W, L, D = 30, 20, 2, 4


@flax.struct.dataclass
class Stripes:
    """Colour by layer 0, brightness by layer 1."""

    channels: int = flax.struct.field(pytree_node=False, default=3)
    latent_dim: ClassVar[int] = D
    num_layers: ClassVar[int] = L

    def sample(self, key, n, *, label=None, truncation=None):
        return jax.random.normal(key, (n, D))

    def render(self, latents):
        codes = latents if latents.ndim == 3 else jnp.stack([latents, latents], 1)
        colour = jnp.tanh(codes[:, 0, : self.channels])[:, None, None]
        ramp = jnp.linspace(-1, 1, W)[None, None, :, None] * jnp.ones((1, H, 1, 1))
        return jnp.clip(
            0.6 * colour + 0.4 * ramp + 0.2 * codes[:, 1, 3][:, None, None, None], -1, 1
        )


MODEL = Stripes()
Z = np.random.default_rng(0).normal(size=(3, D)).astype(np.float32)
FIRST = DirectionRecord(Direction(jnp.eye(D)[0], (0, 0), 0.5), "more red", "stripes")
SECOND = DirectionRecord(Direction(jnp.eye(D)[3], (1, 1), 2.0), "brighter", "stripes")
STRENGTHS = [-2.0, 0.0, 1.0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of three latents, moved along two directions at once, with sweeps."""
    folder = tmp_path_factory.mktemp("edits") / "edited"
    write_edits(
        folder, MODEL, Z, [FIRST, SECOND], STRENGTHS, weights=[1.0, -0.5], sweep=["gif", "webp"],
        frames=5, about={"why": "a test"},
    )  # fmt: skip
    return folder


def manifest(folder):
    return json.loads((folder / "edits.json").read_text())


def test_every_image_is_a_png_of_its_own_size_and_its_latent_beside_it(folder):
    files, latents = manifest(folder)["files"], np.load(folder / "latents.npy")
    assert latents.shape == (9, L, D)
    assert latents.dtype == np.float32
    pairs = jnp.asarray([[s, -0.5 * s] for s in STRENGTHS], jnp.float32)
    expected = edit_latents(jnp.asarray(Z), [FIRST.direction, SECOND.direction], pairs, L)
    assert_allclose(latents, expected.reshape(9, L, D), rtol=1e-6)
    assert len(files) == 9
    for file, latent in zip(files, latents, strict=True):
        image = np.asarray(Image.open(folder / file["name"]))
        assert_array_equal(image, render_images(MODEL, latent[None])[0])
    assert {str(p.relative_to(folder)) for p in folder.glob("images/*/*")} == {
        file["name"] for file in files
    }


def test_the_manifest_tells_strengths_and_lengths(folder):
    content = manifest(folder)
    assert content["about"] == {"why": "a test"}
    assert content["image_shape"] == [H, W, 3]
    assert content["rows"] == ["row 0", "row 1", "row 2"]
    assert [d["unit"] for d in content["directions"]] == [0.5, 2.0]
    first = content["files"][0]
    assert first["name"] == "images/row-0/0_-2sd.png"
    assert (first["row"], first["strength"]) == (0, -2.0)
    assert first["lengths"] == [-2.0 * 0.5, -2.0 * -0.5 * 2.0]
    assert content["files"][1]["name"].endswith("1_unedited.png")
    assert content["files"][1]["lengths"] == [0, 0]


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_a_sweep_goes_there_and_back_between_the_extremes(folder, kind):
    entry = next(s for s in manifest(folder)["sweeps"] if s["name"] == f"sweeps/row-1.{kind}")
    assert_allclose(entry["strengths"], [-2, -1.25, -0.5, 0.25, 1])
    with Image.open(folder / entry["name"]) as sweep:
        assert sweep.info["loop"] == 0
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(sweep)]
    assert len(frames) == 8
    factor = 9  # to 256 pixels or more
    assert frames[0].shape == (H * factor, W * factor, 3)
    ends = [np.asarray(Image.open(folder / f"images/row-1/{n}")) for n in
            ("0_-2sd.png", "2_+1sd.png")]  # fmt: skip
    for frame, image in zip((frames[0], frames[4]), ends, strict=True):
        centre = frame[factor // 2 :: factor, factor // 2 :: factor].astype(int)
        assert abs(centre - image).mean() < 6  # 256 colours, or lossy
    assert_allclose(frames[7].astype(int), frames[1], atol=40)
    assert abs(frames[4].astype(int) - frames[0]).mean() > 20


@pytest.mark.filterwarnings("ignore:os.fork")  # of the reader
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_mp4_is_written_where_its_package_is(tmp_path):
    pytest.importorskip("imageio_ffmpeg", reason="mp4 takes imageio-ffmpeg, of the extra [video]")
    write_edits(tmp_path / "e", MODEL, Z[:1], FIRST, STRENGTHS, sweep=["mp4"], frames=6)
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(tmp_path / "e/sweeps/row-0.mp4"))
    assert next(reader)["size"] == (W * 9, H * 9)
    assert len(list(reader)) == 10  # there and back
    gc.collect()  # the package leaves pipes to be closed, which is told here and nowhere else


def test_mp4_without_its_package_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ValueError, match=r"pip install 'sfvq-jax\[video\]', or choose gif or webp"):
        write_edits(tmp_path / "e", MODEL, Z, FIRST, STRENGTHS, sweep=["mp4"])
    assert list(tmp_path.iterdir()) == []


def test_the_overview_is_as_large_as_asked_and_of_the_first_rows_only(tmp_path, monkeypatch):
    monkeypatch.setattr(edit_files, "MOST_DRAWN", 2)
    sizes = []
    for side in (40, 160):
        write_edits(tmp_path / "e", MODEL, Z, FIRST, STRENGTHS, side=side, overwrite=side > 40)
        with Image.open(tmp_path / "e/overview.png") as image:
            sizes.append(image.size)
    assert sizes[1][0] > 3 * 160
    assert 2 * 240 < sizes[1][1] < 2 * 240 + 150  # 160 wide, 240 high
    assert sizes[0][1] < sizes[1][1] / 2


@pytest.mark.parametrize("channels", [1, 4])
def test_gray_and_transparent_images_are_written_as_such(tmp_path, channels):
    write_edits(tmp_path / "e", Stripes(channels), Z[:1], FIRST, STRENGTHS, sweep=["gif"], frames=2)
    with Image.open(tmp_path / "e/images/row-0/1_unedited.png") as image:
        assert image.mode == {1: "L", 4: "RGBA"}[channels]
    assert (tmp_path / "e/sweeps/row-0.gif").stat().st_size > 100


def test_one_code_a_layer_is_edited_again(folder, tmp_path):
    codes = np.load(folder / "latents.npy")[[1, 4]]  # unedited
    write_edits(tmp_path / "e", MODEL, codes, SECOND, [1.0], rows=["a b", "ä"])
    assert (tmp_path / "e/images/a-b/0_+1sd.png").exists()
    moved = np.load(tmp_path / "e/latents.npy") - codes
    assert_allclose(moved, np.broadcast_to(2 * np.eye(L)[1][:, None] * np.eye(D)[3], (2, L, D)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"latents": Z[:, :3]}, r"shape \(1, 3\); these directions move \[N, 4\]"),
        ({"latents": Z[:0]}, "no latents"),
        ({"strengths": []}, "one finite number or more"),
        ({"strengths": [np.nan]}, "one finite number or more"),
        ({"weights": [1, 2]}, "1 directions and 2 weights"),
        ({"rows": ["a", "a", "b"]}, "'a' is there twice"),
        ({"rows": ["a"]}, "1 names of 3 latents"),
        ({"side": 2}, "at least 8 pixels"),
        ({"side": 20_000}, "choose a smaller side"),
        ({"sweep": ["avi"]}, "there are gif, webp, mp4"),
        ({"sweep": ["gif"], "frames": 1}, "two frames or more"),
        ({"sweep": ["gif"], "strengths": [1.0]}, "two strengths"),
    ],
)
def test_what_does_not_go_together_is_told_and_nothing_written(tmp_path, change, said):
    arguments = {"latents": Z, "records": FIRST, "strengths": STRENGTHS} | change
    with pytest.raises(ValueError, match=said):
        write_edits(tmp_path / "e", MODEL, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_another_kind_of_folder_is_never_replaced(folder, tmp_path):
    with pytest.raises(FileExistsError, match="exists already"):
        write_edits(folder, MODEL, Z, FIRST, STRENGTHS)
    (tmp_path / "diary.txt").write_text("precious")
    with pytest.raises(FileExistsError, match=r"holds no edits\.json"):
        write_edits(tmp_path, MODEL, Z, FIRST, STRENGTHS, overwrite=True)


def test_large_images_are_not_enlarged():
    frame = sweeps._frame(np.zeros((256, 300, 3), np.uint8))
    assert frame.size == (300, 256)


def test_the_weight_of_a_single_direction_is_part_of_its_strength(tmp_path):
    write_edits(tmp_path / "e", MODEL, Z[:1], FIRST, [2.0], weights=[0.5])
    (file,) = manifest(tmp_path / "e")["files"]
    assert (file["strength"], file["lengths"]) == (1.0, [0.5])
    assert file["name"].endswith("0_+1sd.png")
