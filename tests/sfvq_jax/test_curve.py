"""The curve by itself: decoding, measuring, starting, subdividing."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import (
    Curve,
    codebook_quality,
    curve,
    curve_length,
    distortion,
    dithered_loss,
    line_lengths,
    project,
    subdivide,
)
from sfvq_jax.curve import padded, row_bucket, tied, trimmed

decode = jax.jit(curve.decode)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_curve(k, d):
    return Curve(jnp.asarray(normal(k, d, seed=1)))


def interpolated(codewords, position):
    """`decode` in NumPy: one dimension at a time."""
    columns = np.asarray(codewords, np.float64).T
    return np.stack([np.interp(position, np.arange(len(codewords)), c) for c in columns], -1)


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

    def test_rows_beyond_the_size_have_no_length(self):
        curve = tied(jnp.asarray(normal(9, 4)), 5)
        assert_array_equal(line_lengths(curve)[4:], np.zeros(4))
        assert_allclose(curve_length(curve), curve_length(trimmed(curve)), rtol=1e-6)


class TestRows:
    def test_tied_rows_repeat_the_last_codeword(self):
        codewords = jnp.asarray(normal(7, 3))
        curve = jax.jit(tied)(codewords, 4)
        assert_array_equal(curve.codewords[:4], codewords[:4])
        assert_array_equal(curve.codewords[4:], np.repeat(codewords[3:4], 3, 0))
        assert (int(curve.num_codewords), int(curve.num_lines)) == (4, 3)

    def test_padding_is_undone_by_trimming(self):
        curve = random_curve(5, 3)
        assert_array_equal(trimmed(padded(curve, 64)).codewords, curve.codewords)
        assert trimmed(curve) is curve

    def test_padding_does_not_change_the_points(self):
        curve, position = random_curve(5, 3), np.linspace(-1, 6, 50)
        assert_array_equal(decode(padded(curve, 16), position), decode(curve, position))

    @pytest.mark.parametrize(("size", "rows"), [(4, 64), (64, 64), (65, 128), (2**16, 2**16)])
    def test_small_curves_share_a_number_of_rows(self, size, rows):
        assert row_bucket(size) == rows

    @pytest.mark.parametrize("shape", [(1, 3), (0, 3), (3,), (2, 3, 4)])
    def test_fewer_than_two_codewords_are_no_curve(self, shape):
        with pytest.raises(ValueError, match="K >= 2"):
            curve.decode(Curve(jnp.ones(shape)), 0.5)
        with pytest.raises(ValueError, match="K >= 2"):
            curve_length(Curve(jnp.ones(shape)))


class TestWords:
    @pytest.mark.parametrize(
        "function",
        [
            lambda its: curve.decode(its, 0.5),
            line_lengths,
            curve_length,
            subdivide,
            codebook_quality,
            lambda its: project(its, normal(4, 3)),
            lambda its: distortion(its, normal(4, 3)),
            lambda its: dithered_loss(its, normal(4, 3), np.ones(4)),
        ],
    )
    def test_what_is_no_curve_is_told_by_its_name(self, function):
        result = SimpleNamespace(curve=random_curve(5, 3))
        with pytest.raises(TypeError, match=r"is a SimpleNamespace; expected .*: pass its \.curve"):
            function(result)
        for bad in (normal(5, 3), normal(5, 3).tolist(), "curve.npz", None):
            with pytest.raises(TypeError, match=f"curve is a {type(bad).__name__}; expected a Cur"):
                function(bad)
        with pytest.raises(TypeError, match=r"the codewords are a list; a curve has an array"):
            function(Curve(normal(5, 3).tolist()))

    def test_curves_are_equal_where_their_codewords_are(self):
        one = random_curve(5, 3)
        assert one == Curve(one.codewords + 0)
        assert one != Curve(one.codewords + 1)
        assert one != padded(one, 8)
        assert one != one.codewords.tolist()


class TestHalfPrecision:
    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
    def test_positions_keep_their_fractions(self, dtype):
        # in half precision itself there is nothing between 2048 and 2050
        curve = Curve(jnp.arange(4096, dtype=jnp.float32)[:, None].astype(dtype) / 4096)
        found = decode(curve, np.float32(3000.5))
        assert_allclose(np.float32(found), 3000.5 / 4096, rtol=2**-7)
        one = Curve(jnp.asarray([[0.0], [1.0]], dtype))
        assert found.dtype == dtype
        assert_array_equal(np.float32(decode(one, np.float32(0.375))), [0.375])

    def test_lengths_do_not_overflow(self):
        curve = Curve(jnp.array([[0.0, 0.0], [400.0, 300.0]], jnp.float16))
        assert_array_equal(curve_length(curve), 500)
