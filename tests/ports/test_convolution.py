"""Every form of the convolution is the same sum of products."""

import jax
import numpy as np
import pytest

from ports.convolution import conv, winograd_conv


def brute_force(x, kernel):
    """The definition, in float64."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    pad, (height, width) = kernel.shape[0] // 2, x.shape[1:3]
    x = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    return sum(
        x[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(len(kernel))
        for j in range(len(kernel))
    )


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (2, 5, 4, 3)])
def test_conv_is_the_sum_of_products_with_zeros_around(getkey, size, shape):
    x = jax.random.normal(getkey(), shape)
    kernel = jax.random.normal(getkey(), (size, size, shape[-1], 4))
    np.testing.assert_allclose(conv(x, kernel), brute_force(x, kernel), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 2, 2, 1), (3, 4, 6, 5)])
def test_winograds_form_is_the_same_sum(getkey, shape):
    x = jax.random.normal(getkey(), shape)
    kernel = jax.random.normal(getkey(), (3, 3, shape[-1], 7))
    np.testing.assert_allclose(winograd_conv(x, kernel), brute_force(x, kernel), atol=2e-5)


def test_wide_convolutions_take_that_form_on_a_cpu_and_keep_parity_and_gradients(getkey):
    x = jax.random.normal(getkey(), (1, 16, 16, 256))
    kernel = jax.random.normal(getkey(), (3, 3, 256, 256))
    wide, narrow = (
        jax.jit(conv).lower(x, k).compile().as_text() for k in (kernel, kernel[..., :255])
    )
    assert " convolution(" not in wide
    assert " convolution(" in narrow
    expected = brute_force(x, kernel)
    np.testing.assert_allclose(conv(x, kernel), expected, atol=1e-5 * np.abs(expected).max())
    # it is linear in x, so its gradient along x is the value
    value, gradient = jax.jit(jax.value_and_grad(lambda x: conv(x, kernel).sum()))(x)
    np.testing.assert_allclose((gradient * x).sum(), value, rtol=1e-3, atol=0.5)
