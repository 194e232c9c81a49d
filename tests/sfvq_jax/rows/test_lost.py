"""What is lost, damaged or changed is told in a sentence with its name, and never read as zeros."""

import os
import shutil
import warnings

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sfvq_jax import HostSource, LeastSquares, fit
from sfvq_jax.cli import main
from sfvq_jax.io import store
from sfvq_jax.rows.opening import open_rows

from .conftest import write_zarr


def cut(file):
    file.write_bytes(file.read_bytes()[:-5])


@pytest.mark.parametrize("damage", [os.remove, cut], ids=["missing", "truncated"])
@pytest.mark.parametrize(
    ("kind", "chunk"),
    [({"version": 2}, "5.0"), ({"version": 3}, "c/5/0"), ({"shard": 256}, "c/1/0")],
    ids=["zarr 2", "zarr 3", "sharded"],
)
def test_a_chunk_that_is_missing_or_truncated(tmp_path, x, kind, chunk, damage):
    path = write_zarr(tmp_path / "x.zarr", x, **kind)
    damage(path / chunk)
    rows = open_rows(path)
    assert_array_equal(rows.read([(0, 100), (700, 990)]), np.concatenate([x[:100], x[700:990]]))
    with pytest.raises(ValueError, match=r"x\.zarr: rows 310 to 399 cannot be read: ") as raised:
        rows.read([(0, 100), (310, 400)])
    assert "\n" not in str(raised.value)


def test_a_fit_ends_in_that_sentence(tmp_path, x, capsys):
    path = write_zarr(tmp_path / "x.zarr", x)
    os.remove(path / "c/5/0")
    assert main(["fit", str(path), "--bits", "2", "-o", str(tmp_path / "c.npz")]) == 2
    said = capsys.readouterr().err
    assert f"sfvq-jax fit: {path}: row 321 cannot be read: " in said
    assert not (tmp_path / "c.npz").exists()


@pytest.mark.parametrize("name", ["x.npy", "x.safetensors", "x.fbin"])
def test_a_file_that_is_shorter_than_its_header_says(containers, serve, tmp_path, name):
    shutil.copy(containers / name, tmp_path / name)
    os.truncate(tmp_path / name, 20_000)
    for place in (str(tmp_path), serve(tmp_path).address):
        with pytest.raises(ValueError, match=rf"{name} is damaged or not yet whole: .*its header"):
            open_rows(f"{place}/{name}")


class TestServers:
    @pytest.fixture
    def pages(self, containers, serve, monkeypatch):
        monkeypatch.setattr(store, "RETRIES", store.RETRIES | {"initial_delay": "10ms"})
        store.context.cache_clear()
        yield serve(containers)
        store.context.cache_clear()

    @pytest.mark.parametrize("page", ["x.npy", "x3.zarr/c/0/0"])
    def test_one_that_is_busy_is_asked_again_which_is_told(self, pages, x, page):
        name = page.split("/")[0]
        rows = open_rows(f"{pages.address}/{name}")
        pages.faults[page] = [503, 503]
        with pytest.warns(UserWarning, match=rf"{name}: the server was busy \(HTTP 503\)"):
            assert_array_equal(rows.read([(0, 9)]), x[:9])
        with warnings.catch_warnings(action="error"):
            rows.read([(0, 9)])

    def test_one_that_stays_busy_is_given_up(self, containers, serve, monkeypatch):
        retries = {"max_retries": 2, "initial_delay": "10ms", "max_delay": "20ms"}
        monkeypatch.setattr(store, "RETRIES", retries)
        store.context.cache_clear()
        pages = serve(containers)
        rows = open_rows(f"{pages.address}/x.npy")
        pages.faults["x.npy"] = [503] * 9
        with pytest.raises(ValueError, match=r"x\.npy: rows 3 to 8 cannot be read: the server did"):
            rows.read([(3, 9)])
        store.context.cache_clear()

    @pytest.mark.parametrize("page", ["x.npy", "x3.zarr/c/0/0"])
    @pytest.mark.parametrize(
        ("fault", "told"),
        [(403, "rows 3 to 8 cannot be read: access is denied: are the credentials right"),
         (404, "gone|is missing")],
    )  # fmt: skip
    def test_what_is_denied_or_gone(self, pages, page, fault, told):
        name = page.split("/")[0]
        rows = open_rows(f"{pages.address}/{name}")
        pages.faults[page] = [fault]
        with pytest.raises(ValueError, match=rf"{pages.address}/{name}.*({told})"):
            rows.read([(3, 9)])

    def test_what_is_denied_from_the_start(self, pages):
        for page in ("x.npy", "x3.zarr/zarr.json"):
            pages.faults[page] = [403]
            name = page.split("/")[0]
            with pytest.raises(ValueError, match=rf"{name} cannot be read: access is denied"):
                open_rows(f"{pages.address}/{name}")

    def test_an_answer_that_ends_early_is_asked_for_again(self, pages, x):
        rows = open_rows(f"{pages.address}/x.npy")
        pages.faults["x.npy"] = ["short"]
        assert_array_equal(rows.read([(0, 500)]), x[:500])


def test_an_object_that_is_written_anew_is_found_at_the_next_read(in_bucket, s3, x):
    bucket = store.open_store(f"{s3}/changing/")
    old, new = (
        store.open_store(in_bucket + "/").read(name).result().value
        for name in ("x.npy", "half.npy")
    )
    bucket.write("x.npy", old).result()
    bucket.write("y.npy", old).result()
    source, parts = HostSource(f"{s3}/changing/x.npy"), HostSource(f"{s3}/changing/")
    source.read(None, 0, 10)
    bucket.write("x.npy", old[:-1] + b"!").result()
    for one, call in ((source, "read"), (source, "check_unchanged"), (parts, "read")):
        with pytest.raises(ValueError, match=r"changing/x\.npy changed while it was read"):
            one.read(None, 0, 10) if call == "read" else one.check_unchanged()
    bucket.write("x.npy", new).result()


def test_an_array_whose_metadata_are_written_anew(tmp_path, x):
    path = write_zarr(tmp_path / "x.zarr", x)
    rows = open_rows(path)
    rows.check_unchanged()
    (path / "zarr.json").write_text((path / "zarr.json").read_text() + " ")
    with pytest.raises(ValueError, match=r"x\.zarr changed while it was read"):
        rows.check_unchanged()


def test_data_that_were_written_anew_since_the_checkpoint_are_told(tmp_path, x, getkey):
    """Where the rows that are compared differ, the fit is refused."""
    path, states, key = tmp_path / "x.npy", tmp_path / "states", getkey()
    np.save(path, x)
    solver = LeastSquares(rounds=2, samples="all", block=300)
    found = fit(key, path, bits=2, solver=solver, checkpoint=states)
    os.utime(path, (1, 1))
    with pytest.warns(UserWarning, match=r"x\.npy is written anew since .*states was begun"):
        again = fit(key, path, bits=2, solver=solver, checkpoint=states)
    assert_array_equal(again.curve.codewords, found.curve.codewords)
    np.save(path, x[::-1])
    with pytest.raises(ValueError, match="keeps another fit: its sketch of some latents"):
        fit(key, path, bits=2, solver=solver, checkpoint=states)
