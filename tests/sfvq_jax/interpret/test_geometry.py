"""Nearest points and means, against brute force and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.cluster import KMeans

from sfvq_jax.interpret.geometry import kmeans, nearest

D = 8


def points(n):
    """Of no even spread."""
    return jax.random.normal(jax.random.key(0), (n, D)) * jnp.arange(1.0, D + 1)[None]


class TestNearest:
    @pytest.mark.parametrize(("m", "n", "offset"), [(1, 5, 0), (70, 300, 0), (300, 700, 1000)])
    def test_is_that_of_brute_force(self, m, n, offset):
        random = np.random.default_rng(m)
        points, x = (random.normal(size=(s, D)).astype(np.float32) + offset for s in (m, n))
        point, distance = nearest(jnp.asarray(points, jnp.float32), jnp.asarray(x, jnp.float32))
        expected = np.linalg.norm(np.float64(x)[:, None] - np.float64(points)[None], axis=2)
        assert_array_equal(point, expected.argmin(1))
        assert_allclose(distance, expected.min(1), rtol=1e-5)

    def test_a_sample_that_is_a_point_is_at_distance_0(self):
        x = points(300)
        assert_array_equal(nearest(x[:70], x).distance[:70], np.zeros(70))


class TestKmeans:
    @pytest.mark.parametrize("k", [4, 40])
    def test_is_about_as_good_as_scikit_learns(self, k):
        x = np.asarray(points(1000)) + 100
        means = kmeans(np.random.default_rng(0), x, k)
        inertia = np.linalg.norm(x[:, None] - means[None], axis=2).min(1) @ np.ones(1000)
        other = KMeans(k, n_init=1, random_state=0).fit(x).cluster_centers_
        assert inertia < 1.1 * np.linalg.norm(x[:, None] - other[None], axis=2).min(1).sum()

    def test_as_many_means_as_samples_that_repeat_end_too(self):
        x = np.repeat(np.float32([[0, 0], [1, 0]]), 4, 0)
        means = kmeans(np.random.default_rng(0), x, 8)
        assert means.shape == (8, 2)
        assert np.isfinite(means).all()
