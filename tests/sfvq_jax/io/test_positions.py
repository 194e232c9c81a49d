"""Positions of every latent of a file: right, in order, and gone on with after an interruption."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore as ts
import zarr
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import Curve, HostSource, IteratorSource, encode, project
from sfvq_jax.io import positions
from sfvq_jax.io.objects import read_object
from sfvq_jax.io.positions import write_positions
from sfvq_jax.io.store import open_store, store_spec
from sfvq_jax.sources import as_source

X = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)
CURVE = Curve(jnp.asarray(np.random.default_rng(1).normal(size=(20, 3)), jnp.float32))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(positions, "MAX_BLOCK", 130)


class Interrupt(Exception):
    pass


class Stopping:
    """Rows of X, that many blocks of them."""

    latent_dim, num_latents, on_device = 3, len(X), False

    def __init__(self, blocks):
        self.reads, self.blocks = [], blocks

    def read(self, key, start, count):
        if len(self.reads) > self.blocks:
            raise Interrupt
        self.reads.append((start, count))
        return X[start : start + count]


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path):
    """A folder, on a disk or of a bucket, as a path or URI."""
    if request.param == "disk":
        return str(tmp_path)
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}"


def stored(place):
    """The names of what is in a place, that of a folder as one."""
    return {key.partition(b"/")[0].decode() for key in open_store(f"{place}/").list().result()}


def loaded(path):
    """What was written, as NumPy's or zarr's own reader has it."""
    if "://" not in path:
        return np.load(path) if path.endswith(".npy") else zarr.open_array(path, mode="r")[:]
    if path.endswith(".npy"):
        return np.load(io.BytesIO(read_object(path) or b""))
    spec = {"driver": "zarr3", "kvstore": store_spec(f"{path}/")}
    return ts.open(spec).result().read().result()


@pytest.mark.parametrize("kind", ["array", "file", "host"])
def test_are_those_of_project_in_the_order_of_the_source(kind, tmp_path):
    np.save(tmp_path / "x.npy", X)
    source = {"array": X, "file": tmp_path / "x.npy", "host": HostSource(X)}[kind]
    done = []
    write_positions(tmp_path / "p.npy", CURVE, source, on_rows=done.append)
    stored = np.load(tmp_path / "p.npy", mmap_mode="r")
    assert stored.shape == (1000, 2)
    assert stored.dtype == np.float64
    position, squared_distance = stored.T
    assert_allclose(position, encode(CURVE, X), atol=1e-5)
    assert_allclose(squared_distance, project(CURVE, X).squared_distance, rtol=1e-5, atol=1e-6)
    assert sum(done) == 1000
    assert {path.name for path in tmp_path.iterdir()} == {"x.npy", "p.npy"}


def test_a_long_curve_keeps_the_digits_of_the_fraction(tmp_path):
    codewords = np.random.default_rng(2).normal(size=(2**14, 32)).astype(np.float32)
    at = np.array([16000.1234, 16001.4321])  # of which float32 knows three digits
    line, fraction = at.astype(int), (at % 1)[:, None]
    x = (1 - fraction) * codewords[line] + fraction * codewords[line + 1]
    write_positions(tmp_path / "p.npy", Curve(jnp.asarray(codewords)), x)
    assert_allclose(np.load(tmp_path / "p.npy")[:, 0], at, rtol=0, atol=1e-5)


@pytest.mark.parametrize("ending", ["npy", "zarr"])
def test_what_was_interrupted_goes_on_where_it_was(place, ending):
    path = f"{place}/p.{ending}"
    with pytest.raises(Interrupt):
        write_positions(path, CURVE, Stopping(4))
    assert stored(place) == {
        "p.zarr" if (ending, place[:2]) == ("zarr", "s3") else f"p.{ending}.part"
    }
    with pytest.raises((FileNotFoundError, ValueError, EOFError)):
        loaded(path)
    source = Stopping(99)
    write_positions(path, CURVE, source)
    # the first rows tell whose positions they are
    first = min(start for start, count in source.reads[1:])
    assert first > 0
    assert sum(count for _, count in source.reads[1:]) == 1000 - first
    found = project(CURVE, X)
    assert_array_equal(loaded(path)[:, 0], np.float64(found.line) + np.float64(found.fraction))
    assert_array_equal(loaded(path)[:, 1], found.squared_distance)
    assert stored(place) == {f"p.{ending}"}


@pytest.mark.parametrize("ending", ["npy", "zarr"])
def test_what_is_there_is_replaced_only_if_asked(place, ending):
    path = f"{place}/p.{ending}"
    write_positions(path, CURVE, X)
    with pytest.raises(FileExistsError, match=f"p.{ending} exists already: .*overwrite=True"):
        write_positions(path, CURVE, -X)
    assert_allclose(loaded(path)[:, 0], encode(CURVE, X), atol=1e-5)
    write_positions(path, CURVE, -X[:300], overwrite=True)
    assert_allclose(loaded(path)[:, 0], encode(CURVE, -X[:300]), atol=1e-5)
    assert stored(place) == {f"p.{ending}"}


def test_what_is_begun_of_another_curve_is_named(place):
    for ending in ("npy", "zarr"):
        path = f"{place}/p.{ending}"
        with pytest.raises(Interrupt):
            write_positions(path, CURVE, Stopping(4))
        for curve, x in ((Curve(CURVE.codewords[::-1]), X), (CURVE, X[:500]), (CURVE, X + 1)):
            with pytest.raises(
                ValueError, match=rf"p\.{ending}(\.part)? keeps the positions of oth"
            ):
                write_positions(path, curve, x)


def test_several_processes_write_each_their_own_rows(tmp_path, monkeypatch):
    """One after another here; nothing but their number and count tells them apart."""
    made = positions._Made(tmp_path / "p.npy")
    sources = [Stopping(99) for _ in range(3)]
    metadata = positions._prepare(made, CURVE, as_source(X), False)
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    for process, source in enumerate(sources):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        positions._fill(made, metadata, CURVE, as_source(source), None)
        if process < 2:
            with pytest.raises(ValueError, match=r"part lacks chunks that other processes have"):
                positions._finish(made, metadata, False)
    monkeypatch.undo()
    counts = [sum(count for _, count in source.reads) for source in sources]
    assert counts == [260, 390, 350]  # whole chunks, so that no two write the same
    positions._finish(made, metadata, False)
    assert_allclose(np.load(made.path)[:, 0], encode(CURVE, X), atol=1e-5)


def test_what_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "p.npy"
    with pytest.raises(ValueError, match="latents have width 2, but the codewords of the curve 3"):
        write_positions(path, CURVE, X[:, :2])
    for source in (IteratorSource([X]), lambda key, n: jax.random.normal(key, (n, 3))):
        with pytest.raises(ValueError, match="have no order and no end"):
            write_positions(path, CURVE, source)
    with pytest.raises(ValueError, match=r"p\.csv .* does not end in \.npy or \.zarr"):
        write_positions(tmp_path / "p.csv", CURVE, X)
    (tmp_path / "p.npy.part").mkdir()
    (tmp_path / "p.npy.part" / "diary.txt").write_text("precious")
    with pytest.raises(ValueError, match="or something else: delete it, or write elsewhere"):
        write_positions(path, CURVE, X)
    assert [entry.name for entry in tmp_path.rglob("*")] == ["p.npy.part", "diary.txt"]


def test_what_no_single_object_holds_goes_in_a_zarr(s3, monkeypatch):
    monkeypatch.setattr(positions, "LARGEST_PUT", 15_999)
    with pytest.raises(
        ValueError, match=r"p\.npy takes 16,000 bytes.* name s3://.*/p\.zarr, which"
    ):
        write_positions(f"{s3}/p.npy", CURVE, X)
