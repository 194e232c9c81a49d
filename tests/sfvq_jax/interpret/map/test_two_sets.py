"""Two sets of latents, of sources of every kind."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import HostSource, IteratorSource
from sfvq_jax.interpret.map.two_sets import two_sets

KEY, D = jax.random.key(0), 8


def normal(key, n):
    return jax.random.normal(key, (n, D))


class TestTwoSets:
    @pytest.mark.parametrize("kind", ["array", "file", "iterator"])
    @pytest.mark.parametrize("rows", [11, 400, 401, 3000])
    def test_of_a_finite_source_they_have_no_row_in_common(self, kind, rows, tmp_path):
        x = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
        np.save(tmp_path / "x.npy", x)
        source = {
            "array": x,
            "file": HostSource(tmp_path / "x.npy"),
            "iterator": IteratorSource(np.array_split(x, 3)),
        }[kind]
        found = two_sets(KEY, source, 200)
        sets = [np.asarray(found.reference), np.asarray(found.fresh)]
        if kind != "iterator":
            assert_array_equal(x[found.reference_rows], sets[0])
            assert_array_equal(x[found.fresh_rows], sets[1])
        assert len(sets[0]) == len(sets[1])
        assert len(sets[0]) >= min(200, rows // 2) * 0.6
        together = np.concatenate(sets)
        assert len(np.unique(together, axis=0)) == len(together)
        assert {row.tobytes() for row in together} <= {row.tobytes() for row in x}

    def test_rows_that_are_stored_in_order_are_mixed(self):
        x = np.arange(1000, dtype=np.float32)[:, None]
        one, other, *_ = two_sets(KEY, x, 500)
        assert_allclose([one.mean(), other.mean()], 499.5, atol=40)

    def test_of_a_sampler_they_are_of_the_size_that_is_asked_for(self):
        one, other, *rows = two_sets(KEY, normal, 100)
        assert rows == [None, None]
        assert one.shape == other.shape == (100, D)
