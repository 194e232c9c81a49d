"""Where latents come from: an array, or a sampler that runs on the device."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.latent_model import LatentModel

Array = jax.Array


@runtime_checkable
class Source(Protocol):
    """Draws latents inside compiled programs: a pytree with a pure `draw`."""

    def draw(self, key: Array, n: int) -> Array:
        """n latents, [n, D] float32."""
        ...


@flax.struct.dataclass
class ArraySource:
    """Rows of an array, drawn with replacement.

    Attributes:
      latents: [N, D] float32.
    """

    latents: Array

    def draw(self, key: Array, n: int) -> Array:
        return self.latents[jax.random.randint(key, (n,), 0, self.latents.shape[0])]


@flax.struct.dataclass
class SamplerSource:
    """A function (key, n) -> [n, D], a generator's mapping network, say."""

    sampler: Callable[[Array, int], Array]  # a jax.tree_util.Partial: its arguments are leaves

    def draw(self, key: Array, n: int) -> Array:
        return self.sampler(key, n)


def as_source(source: Any) -> Source:
    """An array [N, D], a `LatentModel` or a function (key, n) -> [n, D] as a source.

    A source stays what it is.

    Raises:
      ValueError: an array of another rank, of no floating point type, or with NaN or infinity.
      TypeError: none of these.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, jax.tree_util.Partial):
        return SamplerSource(source)
    if isinstance(source, np.ndarray | jax.Array):
        return ArraySource(_checked(source))
    if isinstance(source, LatentModel):
        model_is_pytree = not jax.tree_util.all_leaves([source])
        if model_is_pytree:
            return SamplerSource(jax.tree_util.Partial(type(source).sample, source))
        return SamplerSource(jax.tree_util.Partial(source.sample))
    if callable(source):
        return SamplerSource(jax.tree_util.Partial(source))
    raise TypeError(
        f"source is a {type(source).__name__}; expected an array [N, D], a LatentModel with"
        " `sample` and `render`, or a function (key, n) -> [n, D]"
    )


def check_latents(latents: Array | np.ndarray, name: str) -> None:
    """Raises ValueError unless latents are [N, D], of floating point type and finite."""
    if latents.ndim != 2 or latents.shape[1] == 0:
        raise ValueError(f"{name} has shape {latents.shape}; expected [N, D], a row a latent")
    if not jnp.issubdtype(latents.dtype, jnp.floating):
        raise ValueError(f"{name} is of type {latents.dtype}; expected floating point numbers")
    bad = np.flatnonzero(~np.isfinite(np.asarray(latents)).all(1))
    if bad.size:
        raise ValueError(
            f"{name} has NaN or infinity in {bad.size} of {latents.shape[0]} rows, the first in row"
            f" {bad[0]}: remove these rows"
        )


def _checked(array: Array | np.ndarray) -> Array:
    check_latents(array, "the array of latents")
    return jnp.asarray(array, jnp.float32)
