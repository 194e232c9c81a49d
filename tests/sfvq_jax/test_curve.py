"""The curve by itself: decoding, measuring, starting, subdividing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import Curve, curve, curve_length, line_lengths

decode, subdivide, initial_curve = map(
    jax.jit, (curve.decode, curve.subdivide, curve.initial_curve)
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_curve(k, d):
    return Curve(jnp.asarray(normal(k, d, seed=1)))


def random_rotation(d):
    return np.linalg.qr(normal(d, d, seed=2))[0]


def interpolated(codewords, position):
    """`decode` in NumPy: one dimension at a time."""
    columns = np.asarray(codewords, np.float64).T
    return np.stack([np.interp(position, np.arange(len(codewords)), c) for c in columns], -1)


def principal_deviation(x):
    """Standard deviation of latents along their first principal axis."""
    return np.sqrt(np.linalg.eigvalsh(np.cov(x.T))[-1])


class TestDecode:
    @pytest.mark.parametrize("k", [2, 9])
    def test_whole_positions_are_codewords(self, k):
        curve = random_curve(k, 5)
        assert_array_equal(decode(curve, np.arange(k)), curve.codewords)

    @pytest.mark.parametrize("shape", [(), (7,), (2, 3), (0,)])
    def test_positions_of_any_shape_are_interpolated_linearly(self, shape):
        curve = random_curve(9, 4)
        position = np.random.default_rng(0).uniform(0, 8, shape)
        assert_allclose(decode(curve, position), interpolated(curve.codewords, position), atol=1e-5)

    @pytest.mark.parametrize("below", [-0.0, -1e-6, -3.7, -np.inf])
    def test_positions_before_the_start_are_the_first_codeword(self, below):
        curve = random_curve(4, 3)
        assert_array_equal(decode(curve, below), curve.codewords[0])

    @pytest.mark.parametrize("above", [3.0, 3.001, 1e20, np.inf])
    def test_positions_beyond_the_end_are_the_last_codeword(self, above):
        curve = random_curve(4, 3)
        assert_array_equal(decode(curve, above), curve.codewords[-1])

    def test_the_gradient_by_position_is_the_step_of_the_line(self):
        curve = random_curve(6, 3)
        gradient = jax.jit(jax.vmap(jax.jacobian(decode, argnums=1), (None, 0)))
        steps = np.diff(curve.codewords, axis=0)
        assert_allclose(gradient(curve, np.array([0.3, 1.5, 4.9])), steps[[0, 1, 4]], rtol=1e-5)

    def test_the_gradient_by_codewords_is_the_share_of_each_end(self):
        gradient = jax.jit(jax.grad(lambda curve: decode(curve, 1.25).sum()))(random_curve(4, 3))
        assert_array_equal(gradient.codewords, np.repeat([[0], [0.75], [0.25], [0]], 3, axis=1))

    def test_vmap_over_curves_decodes_each(self):
        codewords = normal(5, 8, 3)
        position = np.random.default_rng(0).uniform(0, 7, (5, 11))
        each = [interpolated(c, p) for c, p in zip(codewords, position, strict=True)]
        assert_allclose(jax.jit(jax.vmap(decode))(Curve(codewords), position), each, atol=1e-5)


class TestLengths:
    def test_lengths_are_those_of_numpy(self):
        curve = random_curve(33, 7)
        lengths = np.linalg.norm(np.diff(np.float64(curve.codewords), axis=0), axis=1)
        assert_allclose(line_lengths(curve), lengths, rtol=1e-5)
        assert_allclose(curve_length(curve), lengths.sum(), rtol=1e-5)

    def test_a_repeated_codeword_is_a_line_of_no_length(self):
        curve = Curve(jnp.array([[1.0, 2.0], [1.0, 2.0], [4.0, 6.0]]))
        assert_array_equal(line_lengths(curve), [0, 5])
        gradient = jax.grad(curve_length)(curve).codewords
        assert_allclose(gradient, [[0, 0], [-0.6, -0.8], [0.6, 0.8]], rtol=1e-6)


class TestInitialCurve:
    @pytest.mark.parametrize("n", [400, 403])
    def test_off_centre_data_start_at_the_means_of_their_norm_quartiles(self, n):
        x = normal(n, 8) + np.float32(10) * np.eye(8, dtype=np.float32)[:1]
        ordered = np.array(sorted(np.float64(x), key=np.linalg.norm))
        means = ordered[: n - n % 4].reshape(4, n // 4, 8).mean(1)
        assert_allclose(initial_curve(x).codewords, means, atol=1e-4)

    @pytest.mark.parametrize("d", [2, 16, 128])
    @pytest.mark.parametrize("offset", [0.0, 0.05])
    def test_isotropic_data_around_the_origin_start_along_an_axis(self, d, offset):
        x = normal(2**12, d) + np.float32(offset)
        # a Gaussian's quarters have means -1.27, -0.32, 0.32, 1.27: a length of 2.5 deviations
        assert 2 < curve_length(initial_curve(x)) / principal_deviation(x) < 5

    @pytest.mark.parametrize("d", [2, 16, 128])
    @pytest.mark.parametrize("cap", [False, True])
    def test_data_of_equal_norms_start_along_an_axis(self, d, cap):
        x = normal(2**12, d) + np.float32(3 * cap) * np.eye(d, dtype=np.float32)[:1]
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        assert 2 < curve_length(initial_curve(x)) / principal_deviation(x) < 5

    def test_stretched_data_start_along_their_long_axis(self):
        x = normal(2**12, 8) * np.float32([1, 1, 1, 5, 1, 1, 1, 1])
        steps = np.diff(initial_curve(x).codewords[:, 3])
        assert (np.abs(steps) > 3).all()
        assert abs(np.sign(steps).sum()) == 3

    def test_rotated_data_start_at_the_rotated_curve(self):
        x = normal(2**12, 8) + np.float32(10) * np.eye(8, dtype=np.float32)[:1]
        rotation = random_rotation(8)
        expected = initial_curve(x).codewords @ rotation
        assert_allclose(initial_curve(x @ rotation).codewords, expected, atol=2e-2)

    def test_rotated_centred_data_start_at_the_rotated_curve_or_its_reverse(self):
        x = normal(2**12, 8) * np.float32([1, 1, 1, 5, 1, 1, 1, 1])
        rotation = random_rotation(8)
        rotated = np.asarray(initial_curve(x @ rotation).codewords)
        expected = np.asarray(initial_curve(x).codewords) @ rotation
        assert min(abs(rotated - expected).max(), abs(rotated - expected[::-1]).max()) < 2e-2

    @pytest.mark.parametrize("shape", [(3, 2), (0, 2), (8,), (8, 2, 1)])
    def test_too_few_latents_or_another_rank_are_refused(self, shape):
        with pytest.raises(ValueError, match=r"expected \[N, D\] with N >= 4"):
            initial_curve(np.ones(shape, np.float32))


class TestSubdivide:
    @pytest.mark.parametrize(
        "positions",
        [
            [0, 0.01, 1, 1.01, 1.99, 2, 2.99, 3],
            [0, 0.01, 1, 1.01, 2, 2.01, 3, 3.01, 3.99, 4, 4.99, 5, 5.99, 6, 6.99, 7],
        ],
    )
    def test_the_published_positions_are_decoded(self, positions):
        curve = random_curve(len(positions) // 2, 5)
        expected = interpolated(curve.codewords, positions)
        assert_allclose(subdivide(curve).codewords, expected, atol=1e-5)

    @pytest.mark.parametrize("k", [2, 5, 64])
    def test_ends_and_length_stay(self, k):
        curve = random_curve(k, 6)
        finer = subdivide(curve)
        assert finer.codewords.shape == (2 * k, 6)
        assert_array_equal(finer.codewords[0], curve.codewords[0])
        assert_array_equal(finer.codewords[-1], curve.codewords[-1])
        assert_allclose(curve_length(finer), curve_length(curve), rtol=1e-4)

    def test_reversing_before_or_after_is_the_same(self):
        curve = random_curve(8, 3)
        backwards = subdivide(Curve(curve.codewords[::-1])).codewords[::-1]
        assert_allclose(backwards, subdivide(curve).codewords, atol=1e-5)

    def test_vmap_over_curves_subdivides_each(self):
        codewords = normal(3, 4, 2)
        positions = [0, 0.01, 1, 1.01, 1.99, 2, 2.99, 3]
        each = [interpolated(c, positions) for c in codewords]
        assert_allclose(jax.jit(jax.vmap(subdivide))(Curve(codewords)).codewords, each, atol=1e-5)
