"""Positions of every latent of a file: right, in order, and gone on with after an interruption."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import Curve, HostSource, IteratorSource, encode, project
from sfvq_jax.io import positions
from sfvq_jax.io.positions import write_positions
from sfvq_jax.sources import as_source

X = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)
CURVE = Curve(jnp.asarray(np.random.default_rng(1).normal(size=(20, 3)), jnp.float32))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(positions, "MAX_BLOCK", 130)
    monkeypatch.setattr(positions, "NOTE_SECONDS", 0.0)


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


def test_what_was_interrupted_goes_on_where_it_was(tmp_path):
    path = tmp_path / "p.npy"
    with pytest.raises(Interrupt):
        write_positions(path, CURVE, Stopping(4))
    assert not path.exists()
    source = Stopping(99)
    write_positions(path, CURVE, source)
    # the first rows tell whose positions they are
    first = min(start for start, count in source.reads[1:])
    assert first > 0
    assert sum(count for _, count in source.reads[1:]) == 1000 - first
    write_positions(tmp_path / "whole.npy", CURVE, X)
    assert_array_equal(np.load(path), np.load(tmp_path / "whole.npy"))


def test_a_folder_of_another_curve_is_named(tmp_path):
    with pytest.raises(Interrupt):
        write_positions(tmp_path / "p.npy", CURVE, Stopping(4))
    for curve, x in ((Curve(CURVE.codewords[::-1]), X), (CURVE, X[:500]), (CURVE, X + 1)):
        with pytest.raises(ValueError, match=r"p\.npy\.part keeps the positions of other latents"):
            write_positions(tmp_path / "p.npy", curve, x)


def test_several_processes_write_each_their_own_rows(tmp_path, monkeypatch):
    """One after another here; nothing but their number and count tells them apart."""
    path, folder = tmp_path / "p.npy", tmp_path / "p.npy.part"
    sources = [Stopping(99) for _ in range(3)]
    positions._prepare(folder, path, CURVE, as_source(X), False)
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    for process, source in enumerate(sources):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        positions._fill(folder, CURVE, as_source(source), None)
    monkeypatch.undo()
    counts = [sum(count for _, count in source.reads) for source in sources]
    assert counts == [333, 333, 334]
    positions._finish(folder, path)
    assert_allclose(np.load(path)[:, 0], encode(CURVE, X), atol=1e-5)


def test_what_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "p.npy"
    with pytest.raises(ValueError, match="latents have width 2, but the codewords of the curve 3"):
        write_positions(path, CURVE, X[:, :2])
    for source in (IteratorSource([X]), lambda key, n: jax.random.normal(key, (n, 3))):
        with pytest.raises(ValueError, match="have no order and no end"):
            write_positions(path, CURVE, source)
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="or pass overwrite=True"):
        write_positions(path, CURVE, X)
    assert list(tmp_path.iterdir()) == [path]
    write_positions(path, CURVE, X, overwrite=True)
    assert np.load(path).shape == (1000, 2)
