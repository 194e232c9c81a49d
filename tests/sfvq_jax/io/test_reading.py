"""Files of anybody: what they say of themselves is checked before memory is taken for it."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from sfvq_jax.io.reading import DEEPEST, Arrays, NewerFormatError, check_format, parse_json, reading

GOOD = np.arange(6, dtype=np.float32).reshape(2, 3)


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def header(shape, descr="<f4"):
    stream = io.BytesIO()
    content = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, content)
    return stream.getvalue()


def archive(path, compression=zipfile.ZIP_DEFLATED, **entries):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(f"{name}.npy", content)
    return path


def read(path, **options):
    with reading(path, "test file") as file:
        return Arrays(file, alone="x").array("x", **options)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "<i8", "?", "<U3"])
def test_arrays_come_back_as_numpy_reads_them(tmp_path, dtype, order):
    array = np.asarray(GOOD.astype(dtype), order=order)
    for save in (np.save, lambda path, x: np.savez(path, x=x), None):
        if save is None:
            archive(tmp_path / "a", x=npy(array))
        else:
            with (tmp_path / "a").open("wb") as file:
                save(file, array)
        found = read(tmp_path / "a", kinds="fibU")
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def test_only_what_is_asked_for_is_read(tmp_path):
    path = archive(tmp_path / "a", x=npy(GOOD), padding=npy(np.zeros(2**25, np.uint8)))
    tracemalloc.start()
    np.testing.assert_array_equal(read(path), GOOD)
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "compression", "message"),
    [
        (npy(np.zeros(2**25, np.uint8)), zipfile.ZIP_DEFLATED, "would take 32 MiB"),
        (npy(np.zeros(2**25, np.uint8)), zipfile.ZIP_BZIP2, "another method than deflate"),
        (npy(np.zeros(2**25, np.uint8)), zipfile.ZIP_LZMA, "another method than deflate"),
        (header((2**40, 2**40)), zipfile.ZIP_STORED, "not as long as its header says"),
        (header((2**40,), "|V0"), zipfile.ZIP_STORED, "has shape"),
        (header((-1, 2)), zipfile.ZIP_STORED, "its shape is"),
        (header((2,), "|O"), zipfile.ZIP_STORED, "Python objects"),
        (
            b"\x93NUMPY\2\0\xff\xff\xff\xff" + b" " * 2**26,
            zipfile.ZIP_DEFLATED,
            "expected 4294967295 bytes",
        ),
        (npy(GOOD)[:-1], zipfile.ZIP_STORED, "not as long as its header says"),
        (b"", zipfile.ZIP_STORED, "EOF"),
        (npy(np.array("no")), zipfile.ZIP_STORED, "is of type <U2"),
    ],
)
def test_what_is_too_large_or_none_is_refused_before_it_is_read(
    tmp_path, content, compression, message
):
    path = archive(tmp_path / "a", compression, x=content)
    del content
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"a is no test file, or a damaged one .*{message}"):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_the_allowance_is_for_all_arrays_together(tmp_path):
    part = npy(np.zeros(2**23, np.uint8))
    path = archive(tmp_path / "a", a=part, b=part, c=part)
    with reading(path, "test file") as file:
        stored = Arrays(file)
        for name in "ab":
            stored.array(name)
        with pytest.raises(ValueError, match="array c would take"):
            stored.array("c")


def test_shapes_are_as_expected(tmp_path):
    path = archive(tmp_path / "a", x=npy(GOOD))
    assert read(path, shape=(None, 3)).shape == (2, 3)
    for shape in ((None,), (3, None), (2, 3, None), ()):
        with pytest.raises(ValueError, match=r"has shape \(2, 3\), expected"):
            read(path, shape=shape)


def test_two_arrays_of_a_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a", "w") as file:
        file.writestr("x.npy", npy(GOOD))
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("x.npy", npy(GOOD))
    with pytest.raises(ValueError, match="two arrays of the same name"):
        read(tmp_path / "a")


def test_reasons_are_short_and_on_one_line(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with (
        pytest.raises(ValueError, match="no test file, or a damaged one") as caught,
        reading(tmp_path / "a", "test file"),
    ):
        raise RuntimeError("\x1b[31mred\n" * 1000)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_formats_are_numbers_that_are_known():
    check_format(1, 2)
    with pytest.raises(NewerFormatError, match="has format 3; this version reads up to 2"):
        check_format(3, 2)
    for version in (0, -1, "1", 1.0, True, None):
        with pytest.raises(ValueError, match="format_version"):
            check_format(version, 2)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", '{"a": Infinity}', '{"a": -1e999}', '{"a": "\\ud800"}', "[" * 10**5, b"\xff"],
)
def test_json_is_an_object_that_can_be_written_again(text):
    with pytest.raises(ValueError, match=r"JSON|number|column|surrogates|nested|decode"):
        parse_json(text)


def test_json_is_little_nested():
    for depth, fits in ((DEEPEST - 1, True), (DEEPEST, False), (300, False)):
        text = '{"a": ' + "[" * depth + "]" * depth + "}"
        if fits:
            assert parse_json(text)
        else:
            with pytest.raises(ValueError, match="nested more than"):
                parse_json(text)
