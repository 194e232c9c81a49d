"""Classes as users name them: by their indices."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

Array = jax.Array


def class_indices(label: int | Array, n: int, num_classes: int) -> Array:
    """A class index for each of n samples, [n] int32, from one for all or one a sample.

    Raises:
      ValueError: no integers, of another shape, or of a class that there is not.
    """
    indices = label if isinstance(label, Array) else np.asarray(label)
    if indices.shape not in ((), (n,)) or not jnp.issubdtype(indices.dtype, jnp.integer):
        kind = f"{indices.dtype} of shape {indices.shape}" if indices.shape else label
        raise ValueError(
            f"label is {kind}; expected the index of a class, 0-{num_classes - 1}, or an array of"
            f" one a sample, [{n}]"
        )
    check_classes(indices, num_classes)
    return jnp.broadcast_to(jnp.asarray(indices, jnp.int32), (n,))


def check_classes(y: int | np.integer | Array | np.ndarray, num_classes: int) -> None:
    """Raises ValueError for a class that there is not; traced indices cannot be checked."""
    if isinstance(y, Tracer):
        return
    y = np.asarray(y)
    for outside in y[(y < 0) | (y >= num_classes)]:
        raise ValueError(
            f"class {outside} is outside 0-{num_classes - 1}, this generator's classes"
        )
