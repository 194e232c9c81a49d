"""The convolution that both generators are made of, in the form that is fastest where it runs."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array

# From so many channels and pixels on, the products outweigh the additions that save half of them.
_WINOGRAD_CHANNELS, _WINOGRAD_PIXELS = 256, 256


def conv(x: Array, kernel: Array, precision: str = "highest") -> Array:
    """Stride-1 convolution with zero padding to the same size (no flip: cross-correlation).

    Args:
      x: features, [N, H, W, I].
      kernel: [k, k, I, O], k odd, in the dtype of x.
      precision: of the products, as JAX names it.

    Returns:
      [N, H, W, O]. On a CPU wide 3x3 kernels are applied by `winograd_conv`, which rounds
      otherwise: float32 results differ by some 1e-6 of the largest.
    """
    size, _, *channels = kernel.shape
    if size == 1:
        return jnp.matmul(x, kernel[0, 0], precision=precision)
    n, height, width, _ = x.shape
    direct = functools.partial(_direct_conv, precision=precision)
    fits = size == 3 and height % 2 == width % 2 == 0 and x.dtype == jnp.float32
    if fits and min(channels) >= _WINOGRAD_CHANNELS and n * height * width >= _WINOGRAD_PIXELS:
        return lax.platform_dependent(x, kernel, cpu=winograd_conv, default=direct)
    return direct(x, kernel)


def winograd_conv(x: Array, kernel: Array) -> Array:
    """3x3 convolution of even height and width with 16 products in place of 36.

    Every 2x2 pixels of the output come from 4x4 of the input by F(2x2, 3x3) of Lavin & Gray, "Fast
    Algorithms for Convolutional Neural Networks" (CVPR 2016): Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A, the middle
    summed over channels as 16 matrix products.
    """
    n, height, width, in_features = x.shape
    half = (n, height // 2, width // 2)
    kernels = [_times_g(*[kernel[i, j] for i in range(3)]) for j in range(3)]
    kernels = [_times_g(*column) for column in zip(*kernels, strict=True)]
    x = jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    products = []
    for rows, row_kernels in zip(
        _times_b(*[x[:, i : i + height - 1 : 2] for i in range(4)]), kernels, strict=True
    ):
        tiles = _times_b(*[rows[:, :, j : j + width - 1 : 2] for j in range(4)])
        products.append(
            [
                jnp.matmul(tile.reshape(-1, in_features), k, precision="highest").reshape(*half, -1)
                for tile, k in zip(tiles, row_kernels, strict=True)
            ]
        )
    columns = [_times_a(*column) for column in zip(*products, strict=True)]
    pixels = [jnp.stack(_times_a(*row), 3) for row in zip(*columns, strict=True)]
    return jnp.stack(pixels, 2).reshape(n, height, width, -1)


def _direct_conv(x: Array, kernel: Array, precision: str) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


def _times_g(a: Array, b: Array, c: Array) -> tuple[Array, ...]:
    return a, (a + b + c) / 2, (a - b + c) / 2, c


def _times_b(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, ...]:
    return a - c, b + c, c - b, b - d


def _times_a(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, ...]:
    return a + b + c, b - c - d
