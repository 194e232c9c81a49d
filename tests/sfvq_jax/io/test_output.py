"""Files and folders are written whole or not at all, and never over others unasked."""

import functools
import os

import pytest

from sfvq_jax.io.output import UNFINISHED, check_free, new_file
from sfvq_jax.io.output import new_folder as new_folder_of_kind

new_folder = functools.partial(new_folder_of_kind, marker="part.txt")


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


def write_file(path, text, **options):
    with new_file(path, **options) as temporary:
        temporary.write_text(text)


def write_folder(path, text, **options):
    with new_folder(path, **options) as folder:
        (folder / "part.txt").write_text(text)


@pytest.fixture(params=["file", "folder"])
def kind(request):
    """How to write and to read either kind."""
    if request.param == "file":
        return write_file, lambda path: path.read_text()
    return write_folder, lambda path: (path / "part.txt").read_text()


def test_what_is_written_appears_at_the_end(tmp_path, kind):
    write, read = kind
    write(tmp_path / "out", "new")
    assert read(tmp_path / "out") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("new", [new_file, new_folder])
def test_nothing_appears_before(tmp_path, new):
    with pytest.raises(KeyboardInterrupt):
        interrupt(new(tmp_path / "out"), tmp_path / "out")
    assert names(tmp_path) == []


def interrupt(writing, path=None):
    """Is stopped half-way."""
    with writing as temporary:
        (temporary / "part.txt" if temporary.is_dir() else temporary).write_text("half")
        assert path is None or not path.exists()
        raise KeyboardInterrupt


def test_what_is_there_is_kept(tmp_path, kind):
    write, read = kind
    write(tmp_path / "out", "old")
    with pytest.raises(FileExistsError, match="out exists already"):
        write(tmp_path / "out", "new")
    assert read(tmp_path / "out") == "old"


def test_what_is_there_is_replaced_if_asked(tmp_path, kind):
    write, read = kind
    write(tmp_path / "out", "old")
    write(tmp_path / "out", "new", overwrite=True)
    assert read(tmp_path / "out") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_there_stays_if_the_new_one_fails(tmp_path, kind):
    write, read = kind
    write(tmp_path / "out", "old")
    new = new_folder if write is write_folder else new_file
    with pytest.raises(KeyboardInterrupt):
        interrupt(new(tmp_path / "out", overwrite=True))
    assert read(tmp_path / "out") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    write_folder(tmp_path / "out", "old")
    (tmp_path / "out" / "another.txt").write_text("old")
    write_folder(tmp_path / "out", "new", overwrite=True)
    assert names(tmp_path / "out") == ["part.txt"]


def test_an_interrupt_while_a_folder_is_replaced_leaves_the_old_one(tmp_path, monkeypatch):
    write_folder(tmp_path / "out", "old")
    replace = os.replace

    def interrupted(source, target):
        if source.name == "new":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "out", "new", overwrite=True)
    assert (tmp_path / "out" / "part.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_another_kind_is_never_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo.png").write_text("precious")
    with pytest.raises(FileExistsError, match=r"holds no part\.txt"):
        write_folder(tmp_path / "out", "new", overwrite=True)
    assert names(tmp_path) == ["out", "photo.png"]


def test_a_file_never_replaces_a_folder_nor_a_folder_a_file(tmp_path):
    write_folder(tmp_path / "folder", "old")
    write_file(tmp_path / "file", "old")
    with pytest.raises(IsADirectoryError, match="is a folder: name a file"):
        write_file(tmp_path / "folder", "new", overwrite=True)
    with pytest.raises(NotADirectoryError, match="is a file: name a folder"):
        write_folder(tmp_path / "file", "new", overwrite=True)
    assert names(tmp_path) == ["file", "folder", "part.txt"]


def test_a_missing_parent_is_named(tmp_path, kind):
    write, _ = kind
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write(tmp_path / "nowhere" / "out", "new")


def test_names_may_be_relative_strings(tmp_path, kind, monkeypatch):
    write, read = kind
    monkeypatch.chdir(tmp_path)
    write("out", "new")
    assert read(tmp_path / "out") == "new"


def test_the_check_can_be_made_before_the_work(tmp_path):
    check_free(tmp_path / "out")
    (tmp_path / "out").touch()
    check_free(tmp_path / "out", overwrite=True)
    with pytest.raises(FileExistsError, match="or pass overwrite=True"):
        check_free(tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        check_free(tmp_path / "nowhere" / "out")


def test_links_are_followed(tmp_path, kind):
    write, read = kind
    (tmp_path / "far").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "far" / "out")
    write(link, "new")
    write(link, "newer", overwrite=True)
    assert link.is_symlink()
    assert read(tmp_path / "far" / "out") == "newer"
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["out"]


def test_pipes_and_devices_are_never_replaced(tmp_path, kind):
    write, _ = kind
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null"):
        with pytest.raises(FileExistsError, match="is a device or a pipe"):
            write(path, "new", overwrite=True)


def test_what_a_killed_process_left_is_removed_by_the_next_and_no_living_ones(tmp_path):
    with new_file(tmp_path / "out") as living:
        left = living.parent.with_name(f".out.12345678{UNFINISHED}")
        left.mkdir()
        (left / "out").write_text("half")
        check_free(tmp_path / "out")
        assert not left.exists()
        living.write_text("new")
    assert names(tmp_path) == ["out"]


def test_what_another_process_wrote_meanwhile_is_kept(tmp_path):
    def write_second():
        with new_file(tmp_path / "out") as temporary:
            temporary.write_text("second")
            write_file(tmp_path / "out", "first")

    with pytest.raises(FileExistsError, match="meanwhile by another process"):
        write_second()
    assert (tmp_path / "out").read_text() == "first"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 2**60}, "takes 1,152,921,504,606,846,976 bytes, and its disk has"),
        ({"endings": (".npz",)}, r"does not end in \.npz"),
        ({"endings": (".png", ".pdf", ".svg")}, r"does not end in \.png, \.pdf or \.svg"),
    ],
)
def test_what_would_fail_after_the_work_is_told_before(options, message, tmp_path):
    with pytest.raises((OSError, ValueError), match=message):
        check_free(tmp_path / "out", **options)
    assert names(tmp_path) == []


def test_a_place_that_cannot_be_written_is_told_before_the_work():
    with pytest.raises(OSError, match="cannot be written in /proc"):
        check_free("/proc/out")
    with pytest.raises(OSError, match="File name too long"):
        check_free("n" * 256)


def test_a_full_disk_is_told_by_the_name_of_the_output(tmp_path):
    def write_much():
        with new_file(tmp_path / "out"), open("/dev/full", "w") as full:
            full.write("all of it")

    with pytest.raises(OSError, match="out cannot be written: the disk is full"):
        write_much()
    assert names(tmp_path) == []
