"""Intervals hold what they say, one alone and many together."""

import math

import numpy as np
from numpy.testing import assert_allclose

from sfvq_jax.interpret.intervals import interval, share


def test_wilsons_interval_is_that_of_the_score():
    # the ends solve |count/n - p| = z √(p (1 - p) / n)
    for count, n in [(0, 10), (3, 10), (10, 10), (120, 400)]:
        found, z = share(count, n), 1.959964
        for p in (found.low, found.high):
            if 1e-6 < p < 1 - 1e-6:
                assert_allclose(abs(count / n - p), z * math.sqrt(p * (1 - p) / n), rtol=1e-4)
        assert found.low <= found.mean <= found.high
    assert (share(0, 10).low, share(10, 10).high) == (0, 1)


def test_an_interval_is_told_as_it_is():
    assert str(share(95, 100)) == "0.950 (0.888 to 0.978)"
    assert str(interval(np.array([1.0, 2.0, 3.0]))) == "2.000 ± 2.484"
    assert str(interval(np.array([1.0, 1.0]))) == "1.000"


def test_without_trials_nothing_is_known():
    nothing = share(0, 0)
    assert math.isnan(nothing.mean)
    assert (nothing.low, nothing.high) == (0, 1)


def test_many_intervals_hold_together_as_often_as_one():
    random, number = np.random.default_rng(0), 20
    together = alone = 0
    for _ in range(400):
        counts = random.binomial(100, 0.3, number)
        found = [share(int(count), 100, number) for count in counts]
        together += all(one.low <= 0.3 <= one.high for one in found)
        alone += all(one.low <= 0.3 <= one.high for one in (share(int(c), 100) for c in counts))
    assert together > 0.92 * 400
    assert alone < 0.6 * 400
    values = random.normal(size=50)
    assert interval(values, 20).high > interval(values).high > values.mean()
