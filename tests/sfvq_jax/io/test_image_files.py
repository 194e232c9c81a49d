"""Pictures of every kind: as a viewer shows them, or refused by name."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from sfvq_jax.io.image_files import entries, read_image, stacked

GRAY = np.linspace(0, 255, 48).astype(np.uint8).reshape(6, 8)
COLOUR = np.stack([GRAY, GRAY[::-1], 255 - GRAY], -1)
SIXTEEN = GRAY.astype(np.uint16) * 257


def written(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def test_gray_and_colour_are_read_as_they_are(tmp_path):
    np.testing.assert_array_equal(read_image(written(tmp_path / "g.png", GRAY)), GRAY[..., None])
    np.testing.assert_array_equal(
        read_image(written(tmp_path / "c.webp", COLOUR, lossless=True)), COLOUR
    )


@pytest.mark.parametrize("name", ["g.png", "g.tif"])
def test_sixteen_bits_become_eight(tmp_path, name):
    np.testing.assert_array_equal(read_image(written(tmp_path / name, SIXTEEN))[..., 0], GRAY)


def test_levels_of_other_depths_and_meanings(tmp_path):
    (tmp_path / "12.pgm").write_bytes(
        b"P5 8 6 4095\n" + (GRAY * 4095.0 / 255).astype(">u2").tobytes()
    )
    assert np.abs(read_image(tmp_path / "12.pgm")[..., 0] - np.float32(GRAY)).max() <= 1
    inverted = written(tmp_path / "i.tif", 65535 - SIXTEEN, tiffinfo={262: 0})
    np.testing.assert_array_equal(read_image(inverted)[..., 0], GRAY)
    bits = read_image(written(tmp_path / "1.png", GRAY > 127))
    np.testing.assert_array_equal(bits[..., 0], np.where(GRAY > 127, 255, 0))


def test_palettes_are_looked_up(tmp_path):
    few = COLOUR // 128 * 255
    Image.fromarray(few).quantize(8).save(tmp_path / "p.gif")
    np.testing.assert_array_equal(read_image(tmp_path / "p.gif"), few)
    Image.fromarray(np.dstack([GRAY] * 3)).quantize(64).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png"), GRAY[..., None])


def test_what_is_transparent_lies_over_white(tmp_path):
    half = np.where(np.arange(8) < 4, 0, 255).astype(np.uint8) + 0 * GRAY
    expected = np.where(half[..., None] > 0, COLOUR, 255)
    rgba = written(tmp_path / "rgba.png", np.dstack([COLOUR, half]))
    np.testing.assert_array_equal(read_image(rgba), expected)
    la = written(tmp_path / "la.png", np.dstack([GRAY, half]))
    np.testing.assert_array_equal(read_image(la)[..., 0], np.where(half > 0, GRAY, 255))
    black = written(tmp_path / "t.png", GRAY, transparency=0)
    assert read_image(black)[0, 0, 0] == 255
    sixteen = written(tmp_path / "t16.png", SIXTEEN, transparency=0)
    np.testing.assert_array_equal(read_image(sixteen)[0, :2, 0], [255, GRAY[0, 1]])


def test_cmyk_is_shown_in_rgb(tmp_path):
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "c.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "c.tif"), COLOUR)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "p.jpg", icc_profile=srgb)
    with pytest.raises(ValueError, match=r"p\.jpg is CMYK with a colour profile that cannot"):
        read_image(tmp_path / "p.jpg")  # which is one of RGB


@pytest.mark.parametrize("name", ["o.jpg", "o.png", "o.tif"])
def test_photos_are_turned_as_they_were_taken(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = written(tmp_path / name, np.kron(GRAY, np.ones((8, 8), np.uint8)), exif=exif)
    turned = np.kron(np.rot90(GRAY, -1), np.ones((8, 8)))
    assert np.abs(read_image(photo)[..., 0] - turned).max() <= 6


def large_png(side):
    """Of the given side by its header, and hardly any data."""

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def refused(path, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_what_viewers_show_differently_is_refused(tmp_path):
    refused(written(tmp_path / "f.tif", np.float32(GRAY)), "mode F")
    refused(written(tmp_path / "i.tif", np.int32(GRAY)), "mode I")
    lab = Image.frombytes("LAB", (8, 6), COLOUR.tobytes())
    lab.save(tmp_path / "lab.tif")
    refused(tmp_path / "lab.tif", "mode LAB")
    moving = written(
        tmp_path / "m.gif", GRAY, save_all=True, append_images=[Image.fromarray(255 - GRAY)]
    )
    refused(moving, "2 frames")


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_huge_images_are_refused_by_their_header(tmp_path, side):
    (tmp_path / "h.png").write_bytes(large_png(side))
    refused(tmp_path / "h.png", "more than 89,478,485 pixels")


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / "empty.png").touch()
    refused(tmp_path / "empty.png", "is empty")
    (tmp_path / "text.jpg").write_text("no picture")
    refused(tmp_path / "text.jpg", "is no image that can be read: expected one of PNG, JPEG")
    postscript = written(tmp_path / "eps.png", COLOUR, format="EPS")
    refused(postscript, "is no image that can be read")
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_image(tmp_path / "none.png")


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "bmp", "gif", "webp", "ppm"])
def test_half_of_a_file_is_told(tmp_path, ending):
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3)).astype(np.uint8)
    path = written(tmp_path / f"t.{ending}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, "is damaged")


def test_damaged_bytes_end_in_an_error_of_ours_or_in_an_image(tmp_path):
    random = np.random.default_rng(0)
    for ending in ("png", "jpg", "tif", "gif", "webp", "bmp", "ppm"):
        path = written(tmp_path / f"d.{ending}", COLOUR)
        content = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(40):
            damaged, message = content.copy(), str(path)
            damaged[random.integers(0, len(content), 3)] = random.integers(0, 256, 3)
            path.write_bytes(damaged.tobytes())
            try:
                read_image(path)
            except ValueError as error:
                message = str(error)
            assert str(path) in message


def test_what_systems_leave_in_folders_is_passed_over(tmp_path):
    for name in (".DS_Store", "._a.png", "Thumbs.db", "desktop.ini", "a.png"):
        (tmp_path / name).touch()
    for name in (".ipynb_checkpoints", "__MACOSX", "cat"):
        (tmp_path / name).mkdir()
    folders, files = entries(tmp_path)
    assert [path.name for path in folders] == ["cat"]
    assert [path.name for path in files] == ["a.png"]


def test_gray_images_beside_coloured_ones_get_three_channels():
    images = stacked([GRAY[..., None], COLOUR])
    np.testing.assert_array_equal(images[0], np.dstack([GRAY] * 3))
    assert stacked([GRAY[..., None]] * 2).shape == (2, 6, 8, 1)
