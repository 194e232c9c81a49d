"""The dithered loss against plain NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import Curve, dither
from sfvq_jax.curve import padded

dithered_loss = jax.jit(dither.dithered_loss)
loss_and_gradient = jax.jit(jax.value_and_grad(dither.dithered_loss))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def uniform(*shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def plain_loss(codewords, x, fractions):
    codewords, x = (np.asarray(array, np.float64) for array in (codewords, x))
    weight = np.asarray(fractions, np.float64)[:, None]
    points = (1 - weight) * codewords[:-1] + weight * codewords[1:]
    squared = ((x[:, None] - points) ** 2).sum(2)
    return squared.min(1).mean() / x.shape[1]


def plain_gradient(codewords, x, fractions, h=1e-6):
    """Central differences of the plain loss."""
    codewords = np.asarray(codewords, np.float64)
    gradient = np.zeros_like(codewords)
    for index in np.ndindex(*codewords.shape):
        up, down = codewords.copy(), codewords.copy()
        up[index] += h
        down[index] -= h
        gradient[index] = (plain_loss(up, x, fractions) - plain_loss(down, x, fractions)) / (2 * h)
    return gradient


@pytest.mark.parametrize(("k", "b", "d"), [(2, 1, 1), (4, 64, 128), (33, 17, 3)])
@pytest.mark.parametrize("offset", [0, 1e3, 1e5])
def test_the_loss_is_that_of_numpy_however_far_from_the_origin(k, b, d, offset):
    offset = np.float32(offset)
    codewords, x, fractions = normal(k, d, seed=1) + offset, normal(b, d) + offset, uniform(k - 1)
    loss = dithered_loss(Curve(codewords), x, fractions)
    # what is left is the rounding of the codewords' mean
    assert_allclose(loss, plain_loss(codewords, x, fractions), rtol=2e-5 + 1e-8 * offset)


@pytest.mark.parametrize(("k", "b", "d"), [(2, 5, 1), (6, 40, 3)])
def test_the_gradient_is_that_of_finite_differences(k, b, d):
    codewords, x, fractions = normal(k, d, seed=1), normal(b, d), uniform(k - 1)
    loss, gradient = loss_and_gradient(Curve(codewords), x, fractions)
    assert_allclose(loss, plain_loss(codewords, x, fractions), rtol=1e-5)
    assert_allclose(gradient.codewords, plain_gradient(codewords, x, fractions), atol=1e-5)


def test_the_gradient_reaches_both_ends_of_the_nearest_line_by_their_shares():
    curve = Curve(jnp.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]))
    _, gradient = loss_and_gradient(curve, np.float32([[1.5, 1]]), np.float32([0.5, 0.25, 0.5]))
    # the point is (1.25, 0), the residual (0.25, 1), and the mean is over 2 numbers
    expected = -np.outer([0, 0.75, 0.25, 0], [0.25, 1])
    assert_allclose(gradient.codewords, expected)


def test_lines_that_nothing_falls_on_stay():
    curve = Curve(jnp.array([[0.0], [1.0], [100.0], [101.0]]))
    _, gradient = loss_and_gradient(curve, uniform(50, 1), np.float32([0.5, 0.5, 0.5]))
    assert_array_equal(gradient.codewords[2:], [[0], [0]])


def test_samples_on_their_points_cost_nothing():
    codewords, fractions = normal(9, 5), uniform(8)
    points = (1 - fractions)[:, None] * codewords[:-1] + fractions[:, None] * codewords[1:]
    loss, gradient = loss_and_gradient(Curve(codewords), points[::-1], fractions)
    assert_allclose(loss, 0, atol=1e-6)
    assert_allclose(gradient.codewords, np.zeros((9, 5)), atol=1e-6)


def test_the_order_of_the_batch_does_not_matter():
    codewords, x, fractions = normal(9, 5, seed=1), normal(64, 5), uniform(8)
    forwards, backwards = (dithered_loss(Curve(codewords), y, fractions) for y in (x, x[::-1]))
    assert_allclose(forwards, backwards, rtol=1e-6)


def test_reversing_the_curve_and_its_fractions_changes_nothing():
    codewords, x, fractions = normal(9, 5, seed=1), normal(64, 5), uniform(8)
    backwards = dithered_loss(Curve(codewords[::-1]), x, (1 - fractions)[::-1])
    assert_allclose(backwards, dithered_loss(Curve(codewords), x, fractions), rtol=1e-5)


def test_vmap_over_curves_gives_each():
    codewords, x, fractions = normal(3, 9, 5, seed=1), normal(64, 5), uniform(3, 8)
    losses = jax.vmap(dithered_loss, (0, None, 0))(Curve(codewords), x, fractions)
    each = [plain_loss(c, x, f) for c, f in zip(codewords, fractions, strict=True)]
    assert_allclose(losses, each, rtol=1e-5)


@pytest.mark.parametrize("size", [9, 5])
def test_the_sums_are_the_loss_and_its_gradient(size):
    curve = Curve(jnp.asarray(normal(size, 5, seed=1)))
    x, fractions, weight = normal(64, 5), uniform(8), uniform(64, seed=3)
    loss, gradient = loss_and_gradient(curve, x, fractions[: size - 1], weight)
    sums = jax.jit(dither.dithered_sums)(padded(curve, 9), x, fractions, weight)
    scale = weight.sum() * 5
    assert_allclose(sums.error / scale, loss, rtol=1e-5)
    assert_allclose(sums.gradient[:size] / scale, gradient.codewords, atol=1e-6)
    assert_array_equal(sums.gradient[size:], np.zeros((9 - size, 5)))
    assert_allclose(sums.load.sum(), weight.sum(), rtol=1e-5)


def test_the_nearest_points_are_those_of_the_loss():
    curve, x, fractions = Curve(jnp.asarray(normal(9, 5, seed=1))), normal(2100, 5), uniform(8)
    line, fraction, squared = jax.jit(dither.nearest_dithered)(curve, x, fractions)
    assert_array_equal(fraction, fractions[line])
    assert_allclose(squared.mean() / 5, dithered_loss(curve, x, fractions), rtol=1e-5)


@pytest.mark.parametrize("shape", [(7,), (9,), (8, 1), ()])
def test_fractions_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="8 lines, each of which takes one"):
        dither.dithered_loss(Curve(normal(9, 5)), normal(4, 5), np.zeros(shape, np.float32))


@pytest.mark.parametrize("shape", [(1,), (64, 1), (63,), ()])
def test_weights_of_another_shape_are_refused(shape):
    """They would be broadcast, and the mean divided by another sum."""
    with pytest.raises(ValueError, match=r"expected one a sample, \(64,\)"):
        dither.dithered_loss(
            Curve(normal(9, 5)), normal(64, 5), uniform(8), np.ones(shape, np.float32)
        )


def test_fractions_and_weights_may_be_lists_of_any_numbers():
    curve, x, fractions = Curve(jnp.asarray(normal(9, 5, seed=1))), normal(64, 5), uniform(8)
    loss = dither.dithered_loss(curve, x, fractions.tolist(), [2] * 64)
    assert_allclose(loss, dithered_loss(curve, x, fractions), rtol=1e-6)
    nearest = dither.nearest_dithered(curve, x, fractions.tolist())
    assert_array_equal(nearest.line, dither.nearest_dithered(curve, x, fractions).line)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    # squares of 1,000 and sums of 100,000 samples are beyond float16
    codewords, x = ((1000 * jnp.asarray(normal(n, 5, seed=n))).astype(dtype) for n in (9, 100_000))
    fractions = uniform(8)
    loss, gradient = loss_and_gradient(Curve(codewords), x, fractions.astype(dtype))
    wide = Curve(codewords.astype(np.float32))
    fractions = jnp.asarray(fractions.astype(dtype)).astype(np.float32)
    expected, its_gradient = loss_and_gradient(wide, x.astype(np.float32), fractions)
    assert_allclose(loss, expected, rtol=1e-6)
    assert gradient.codewords.dtype == dtype
    assert_allclose(gradient.codewords, its_gradient.codewords.astype(dtype))


def test_a_loss_of_no_samples_is_none():
    for function in (dither.dithered_loss, dither.nearest_dithered):
        with pytest.raises(ValueError, match="x has no rows"):
            function(Curve(jnp.asarray(normal(9, 5))), normal(0, 5), uniform(8))
