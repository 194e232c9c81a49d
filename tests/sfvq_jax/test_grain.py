"""Data sets of Grain: random access is rows, iteration goes on where it was."""

import itertools

import grain
import jax
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sfvq_jax import HostSource, LeastSquares, fit
from sfvq_jax.io.checkpoints import Stopped
from sfvq_jax.rows.grain import RecordRows
from sfvq_jax.rows.iterators import IteratorSource
from sfvq_jax.sources import as_source

N, D = 12_000, 4
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
KEY = jax.random.key(0)
RECORDS = grain.MapDataset.source(X)
BLOCKS = LeastSquares(rounds=2, tolerance=0, samples=6000, block=1000, moves=())


class TestRandomAccess:
    @pytest.mark.parametrize("records", ["latents", "blocks"])
    def test_records_are_rows(self, records):
        rows = RecordRows(RECORDS if records == "latents" else RECORDS.batch(70))
        assert rows.shape == (N, D)
        assert rows.dtype == np.float32
        assert rows.chunk == (1 if records == "latents" else 70)
        found = rows.read([(N - 90, N), (3, 3), (60, 220), (5, 6)])
        assert_array_equal(found, np.concatenate([X[N - 90 :], X[60:220], X[5:6]]))
        assert rows.read([]).shape == (0, D)

    def test_the_order_is_that_of_the_data_set(self):
        shuffled = RECORDS.shuffle(seed=3)
        assert_array_equal(RecordRows(shuffled).read([(7, 9)]), [shuffled[7], shuffled[8]])

    def test_each_record_is_made_once_a_read(self):
        made = []
        rows = RecordRows(RECORDS.batch(100).map(lambda x: made.append(1) or x))
        made.clear()
        rows.read([(10, 20), (150, 260), (30, 40)])
        assert len(made) == 3

    @pytest.mark.parametrize(
        ("dataset", "what"),
        [
            (RECORDS.repeat(), r"no end: leave \.repeat\(\) out"),
            (RECORDS.slice(slice(0, 0)), "has no records"),
            (RECORDS.filter(lambda x: False), r"record 0 .* left out by a filter.*to_iter_dataset"),
            (RECORDS.map(lambda x: {"z": x}), r"record 0 .* has z; expected latents \[D\]"),
            (RECORDS.map(lambda x: x[None, None]), r"record 0 .* has shape \(1, 1, 4\)"),
        ],
    )
    def test_what_has_no_rows_says_so(self, dataset, what):
        with pytest.raises(ValueError, match=what):
            RecordRows(dataset)

    def test_records_that_differ_are_named(self):
        rows = RecordRows(RECORDS.map_with_index(lambda i, x: x[: 3 if i == 8 else 4]))
        with pytest.raises(ValueError, match=r"record 8 .* float32\[1, 3\]; expected .*\[1, 4\]"):
            rows.read([(0, 10)])

    def test_a_fit_is_that_of_the_array(self):
        expected = fit(KEY, HostSource(X), bits=2, solver=BLOCKS)
        found = fit(KEY, RECORDS, bits=2, solver=BLOCKS)
        assert_array_equal(found.curve.codewords, expected.curve.codewords)


class TestIteration:
    few = grain.MapDataset.source(X[:600])

    @pytest.mark.parametrize("records", ["latents", "blocks"])
    def test_records_come_in_their_order(self, records):
        dataset = self.few.to_iter_dataset()
        source = as_source(dataset if records == "latents" else dataset.batch(70))
        assert isinstance(source, IteratorSource)
        assert_array_equal(source.read(None, 250, 300).x, X[250:550])
        assert_array_equal(source.read(KEY, 580, 40).x, np.concatenate([X[580:600], X[:20]]))

    def test_records_that_are_no_latents_are_named(self):
        with pytest.raises(ValueError, match=r"a record of the grain.IterDataset has z; expected"):
            as_source(self.few.map(lambda x: {"z": x}).to_iter_dataset())

    @pytest.mark.parametrize("at", [0, 1, 69, 70, 300, 599, 600, 605])
    def test_a_bookmark_leads_to_what_came_next(self, at):
        dataset = self.few.to_iter_dataset().batch(70)
        source, other = as_source(dataset), as_source(dataset)
        source.read(KEY, 0, at)
        other.go_to(source.bookmark())
        expected = np.tile(X[:600], (2, 1))[at : at + 150]
        assert_array_equal(other.read(KEY, at, 150).x, expected)
        assert_array_equal(other.read(KEY, 3, 5).x, X[3:8])

    def test_an_interrupted_fit_goes_on_and_reads_little_again(self, tmp_path):
        made = []
        records = grain.MapDataset.source(np.split(X, 40)).map(lambda x: made.append(len(x)) or x)
        dataset = records.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
        undisturbed = fit(KEY, dataset, bits=2, solver=BLOCKS)
        whole, asked = sum(made), itertools.count(1)
        settings = {"bits": 2, "solver": BLOCKS, "checkpoint": tmp_path / "states"}
        with pytest.raises(Stopped):
            fit(KEY, dataset, stop=lambda: next(asked) == 9, **settings)
        made.clear()
        resumed = fit(KEY, dataset, **settings)
        assert_array_equal(resumed.curve.codewords, undisturbed.curve.codewords)
        assert sum(made) <= whole - 9000 + 2000
