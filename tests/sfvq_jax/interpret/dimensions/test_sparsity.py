"""Measures of sparsity, on sizes for which they are known."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from sfvq_jax.interpret import (
    gini,
    hoyer,
    overlap,
)


class TestSparsity:
    def test_of_equal_sizes_is_zero_and_of_one_alone_is_greatest(self):
        equal, alone = np.full(8, 0.3), np.eye(8)[2]
        assert_allclose([gini(equal), hoyer(equal)], 0, atol=1e-12)
        assert_allclose([gini(alone), hoyer(alone)], [1 - 1 / 8, 1])

    def test_gini_is_half_the_mean_difference_by_the_mean(self, getkey):
        sizes = np.asarray(jax.random.uniform(getkey(), (3, 20)), np.float64)
        difference = np.abs(sizes[:, :, None] - sizes[:, None]).mean((1, 2))
        assert_allclose(gini(sizes), difference / (2 * sizes.mean(1)))

    def test_hoyer_does_not_see_scale_and_zeros_make_it_sparser(self):
        sizes = np.array([3.0, 1.0, 2.0])
        assert hoyer(5 * sizes) == pytest.approx(hoyer(sizes))
        assert hoyer(np.append(sizes, 0)) > hoyer(sizes)

    def test_overlap_is_what_both_have_by_what_either_has(self):
        assert overlap([1, 2, 3], np.array([2, 3, 4])) == 0.5
        assert overlap([1], [2]) == 0
