"""What networks compute in, and the parameters that are cast for it, once."""

from typing import Any

import jax
import jax.numpy as jnp

DTYPES = ("float32", "bfloat16", "float16")


def check_dtype(dtype: Any, of_kernels: Any) -> jnp.dtype:
    """A dtype by its name or as such, for a model whose kernels are in `of_kernels` now.

    Raises:
      ValueError: another than those in `DTYPES`, or one that the kernels cannot be brought to.
    """
    try:
        dtype = jnp.dtype(dtype)
    except TypeError:
        raise ValueError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}") from None
    if dtype.name not in DTYPES:
        raise ValueError(f"dtype is {dtype.name}; expected one of {', '.join(DTYPES)}")
    kept = jnp.dtype(of_kernels)
    if kept not in (jnp.float32, dtype):
        raise ValueError(f"the kernels were cast to {kept.name} already: load the model anew")
    return dtype


def low_precision_kernel(kernel: jax.Array, dtype: Any) -> jax.Array:
    """A kernel [k, k, I, O] that will be demodulated, in a dtype of 16 bits or more.

    Numbers beyond 65504 overflow in float16; demodulation undoes any scale of an output's kernel,
    so that there its largest entry becomes 1/√(k·k·I), as upstream's code for float16 has it.
    """
    if kernel.dtype == dtype:
        return kernel
    if dtype == jnp.float16:
        fan_in = kernel.size // kernel.shape[3]
        kernel = kernel / (jnp.abs(kernel).max((0, 1, 2), keepdims=True) * fan_in**0.5)
    return kernel.astype(dtype)
