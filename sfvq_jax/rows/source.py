"""What a source of latents is, and what it may be asked."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

Array = jax.Array


class Block(NamedTuple):
    """Samples [B, D] float32, and their weights, [B] float32: a row of weight 0 is not there."""

    x: Any
    weight: Any


@runtime_checkable
class Readable(Protocol):
    """The least that a source is: four names.

    Attributes:
      latent_dim: D.
      num_latents: N, or None where there is no end of them.
      on_device: whether `read` is pure JAX code that fits call inside their compiled programs. The
        source is then a pytree, `start` may be traced, and the latents never visit the host.
        Otherwise fits call it on the host, ahead of the device, in a thread of its own.
    """

    @property
    def latent_dim(self) -> int: ...

    @property
    def num_latents(self) -> int | None: ...

    @property
    def on_device(self) -> bool: ...

    def read(self, key: Array | None, start: Any, count: int) -> Any:
        """Latents [count, D] from number `start` on, in the order that `key` names.

        A key names a random order, with or without replacement; None is the order of storage, in
        which a finite source gives each latent once. The same arguments give the same latents.
        Processes of one fit each ask for the numbers that are theirs.

        Returns:
          The latents, or a pair of them and their weights [count].
        """
        ...


class Source:
    """A source that says all that a fit may ask; what is not overridden holds for most.

    Attributes:
      per_process: whether each process has latents of its own, numbered by itself, whose end only
        reading tells.
    """

    latent_dim: Any
    num_latents: Any
    on_device: bool = False
    per_process: bool = False

    def read(self, key: Array | None, start: Any, count: int) -> Any:
        """As `Readable.read`."""
        raise NotImplementedError

    def whole(self) -> Block | None:
        """All rows at once, padding included, of what lies on the devices; else None."""
        return None

    def held_out(self, key: Array, count: int) -> "Source | None":
        """The same without the latents that `read(key, 0, count)` gives, which have weight 0.

        None where they cannot be told from others.
        """
        return None

    def mapped(
        self, function: Callable[[Array], Array], key: Array, samples: int
    ) -> "Source | None":
        """The same, or as good, with its latents mapped at once, [N, D] -> [N, r].

        None where they are too many, or are read anew each time: each block is mapped then.

        Args:
          function: the map, of any number of latents; a jax.tree_util.Partial.
          key: of draws.
          samples: that a round takes.
        """
        return None

    def placed(self, mesh: Any) -> "Source":
        """The same with its arrays on a mesh (`devices.data_mesh`)."""
        return self


def as_block(found: Any) -> Block:
    """What `Readable.read` gives, with weights; float32."""
    x, weight = found if isinstance(found, tuple) else (found, None)
    if isinstance(x, jax.Array):
        x = x.astype(jnp.float32)
        weight = jnp.ones_like(x[:, 0]) if weight is None else weight.astype(jnp.float32)
        return Block(x, weight)
    x = np.asarray(x, np.float32)
    weight = np.ones(len(x), np.float32) if weight is None else np.asarray(weight, np.float32)
    return Block(x, weight)


def check_latents(latents: Any, name: str) -> None:
    """Raises ValueError unless latents are [N, D], of floating point type and finite in float32."""
    check_shape(latents, name)
    if isinstance(latents, jax.Array) and not latents.is_fully_addressable:
        if not bool(jnp.isfinite(latents.astype(jnp.float32)).all()):
            raise ValueError(f"{name} has NaN or infinity: remove these rows")
        return
    bad = np.flatnonzero(~finite_rows(np.asarray(latents)))
    if bad.size:
        raise ValueError(
            f"{name} has NaN or infinity in {bad.size} of {latents.shape[0]} rows, the first in row"
            f" {bad[0]}: remove these rows"
        )


def check_shape(latents: Any, name: str) -> None:
    """Raises ValueError unless latents are [N, D], D > 0, and of floating point type."""
    if len(latents.shape) != 2 or latents.shape[1] == 0:
        raise ValueError(f"{name} has shape {latents.shape}; expected [N, D], a row a latent")
    if not jnp.issubdtype(latents.dtype, jnp.floating):
        raise ValueError(
            f"{name} is of type {latents.dtype}; expected floating point numbers, such as"
            " .astype(np.float32) makes"
        )


def check_weights(weights: np.ndarray, count: int, name: str) -> None:
    """Raises ValueError unless weights are [N], finite and at least 0."""
    if weights.shape != (count,):
        raise ValueError(f"the weights of {name} have shape {weights.shape}; expected ({count},)")
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError(f"the weights of {name} must be finite and at least 0")


def finite_rows(latents: np.ndarray) -> np.ndarray:
    """Which rows are finite in float32, [N] bool."""
    if latents.dtype == ml_dtypes.bfloat16:
        latents = latents.astype(np.float32)
    with np.errstate(over="ignore"):  # beyond float32 is infinite to us
        return np.all(np.isfinite(latents.astype(np.float32, copy=False)), axis=1)


def generator(key: Array, *numbers: int) -> np.random.Generator:
    """A NumPy generator of a key and numbers; compiles nothing."""
    return np.random.default_rng([*np.asarray(jax.random.key_data(key)).ravel().tolist(), *numbers])


def key_of(key: Array, *numbers: int) -> Array:
    """A key of a key and numbers, made on the host, where it compiles nothing."""
    words = np.asarray(jax.random.key_data(key))
    seed = np.random.SeedSequence([*words.ravel().tolist(), *numbers])
    new = seed.generate_state(words.size).astype(np.uint32).reshape(words.shape)
    return jax.random.wrap_key_data(jax.device_put(new), impl=jax.random.key_impl(key))
