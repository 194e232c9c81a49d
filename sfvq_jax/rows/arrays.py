"""Arrays that lie on the devices."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax import lax
from jax.sharding import Mesh

from sfvq_jax.devices import divide, divided, parts, round_up
from sfvq_jax.rows.looking import look_through
from sfvq_jax.rows.source import Block, Far, Source, check_latents, check_weights
from sfvq_jax.short import short_repr

Array = jax.Array

BUCKETS = 8  # sizes of arrays between a power of two and the next
MAX_PADDING = 2**13  # rows


@flax.struct.dataclass
class ArraySource(Source):
    """Latents in an array on the devices; a random order draws rows with replacement.

    The array is padded to one of a few numbers of rows, so that arrays of similar size share
    compiled programs.

    Attributes:
      latents: the latents, [R, D] float32; rows from `num_latents` on are padding.
      weights: weight of each row, [R] float32; 0 for padding.
      num_latents: N.
    """

    latents: Any
    weights: Any
    num_latents: Any
    on_device = True

    __repr__ = short_repr

    @property
    def latent_dim(self) -> int:
        return self.latents.shape[1]

    def read(self, key: Array | None, start: Any, count: int) -> Block:
        if key is None:
            return jax.tree.map(
                lambda rows: lax.dynamic_slice_in_dim(rows, start, count), self.whole()
            )
        rows = self._draw(key, start, count)
        return Block(self.latents[rows], self.weights[rows])

    def whole(self) -> Block:
        return Block(self.latents, self.weights)

    def held_out(self, key: Array, count: int) -> "ArraySource":
        return ArraySource(self.latents, _without(self, key, count), self.num_latents)

    def mapped(self, function: Callable[[Array], Array], key: Array, samples: int) -> "ArraySource":
        return ArraySource(_mapped(function, self.latents), self.weights, self.num_latents)

    def placed(self, mesh: Mesh) -> "ArraySource":
        rest = -self.latents.shape[0] % parts(mesh)
        placed = self.whole()
        if isinstance(self.latents, np.ndarray):
            x, weight = np.pad(self.latents, ((0, rest), (0, 0))), np.pad(self.weights, (0, rest))
            placed = Block(divide(x, mesh), divide(weight, mesh))
        elif rest or not self.latents.sharding.is_equivalent_to(divided(mesh), 2):
            placed = jax.jit(
                lambda block: jax.tree.map(
                    lambda rows: jnp.pad(rows, [(0, rest), *[(0, 0)] * (rows.ndim - 1)]), block
                ),
                out_shardings=divided(mesh),
            )(placed)
        return ArraySource(placed.x, placed.weight, self.num_latents)

    def look_through(self) -> Far | None:
        n = self.num_latents
        if isinstance(self.latents, jax.Array) and not self.latents.is_fully_addressable:
            return None
        latents, weights = (np.asarray(rows)[:n] for rows in self.whole())

        def read(spans: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
            if len(spans) == 1:
                rows = slice(*spans[0])
            else:
                rows = np.concatenate([np.arange(*span) for span in spans])
            return latents[rows], weights[rows]

        return look_through("the array of latents", latents.shape, read, divided=False)

    def numbers(self, key: Array, count: int) -> np.ndarray:
        return np.asarray(self._draw(key, 0, count))

    def _draw(self, key: Array, start: Any, count: int) -> Array:
        return _random_rows(jax.random.fold_in(key, start), count, self.num_latents)


def _random_rows(key: Array, count: int, n: Any) -> Array:
    """Numbers below n, [count] int32: u n / 2³², rounded down, of 32 random bits u.

    In halves of 16 bits. `jax.random.randint` divides by n, which is slow where n is traced.
    """
    u, n = jax.random.bits(key, (count,), jnp.uint32), jnp.asarray(n, jnp.uint32)
    (u_high, u_low), (n_high, n_low) = ((number >> 16, number & 0xFFFF) for number in (u, n))
    middle = u_high * n_low + ((u_low * n_low) >> 16)  # nothing here exceeds 32 bits
    carry = (u_low * n_high + (middle & 0xFFFF)) >> 16
    return (u_high * n_high + (middle >> 16) + carry).astype(jnp.int32)


def array_source(latents: Any, weights: Any = None) -> ArraySource:
    """Of an array [N, D] of NumPy or JAX, which is checked.

    What is on the host stays there until it is `placed`; what is on an accelerator stays there.

    Args:
      weights: of each row, [N]; 1 by default.
    """
    if latents.dtype == np.dtype("V2"):  # what np.load makes of bfloat16
        latents = latents.view(ml_dtypes.bfloat16)
    check_latents(latents, "the array of latents")
    n = latents.shape[0]
    weights = np.ones(n, np.float32) if weights is None else np.asarray(weights, np.float32)
    check_weights(weights, n, "the array")
    rest = bucket(n) - n
    weights = np.pad(weights, (0, rest))
    if isinstance(latents, jax.Array) and not _on_host(latents):
        return ArraySource(_pad(latents, rest), jnp.asarray(weights), n)
    padded = np.zeros((n + rest, latents.shape[1]), np.float32)
    padded[:n] = np.asarray(latents)
    return ArraySource(padded, weights, n)


def bucket(n: int) -> int:
    """Rows that an array of n is padded to: at most an eighth more, and at most 8,192."""
    quantum = 1 << max(max(n - 1, 1).bit_length() - BUCKETS.bit_length(), 0)
    return round_up(max(n, 1), min(quantum, MAX_PADDING))


def _on_host(latents: jax.Array) -> bool:
    return latents.is_fully_addressable and all(
        device.platform == "cpu" for device in latents.devices()
    )


@functools.partial(jax.jit, static_argnames="rest")
def _pad(latents: Array, rest: int) -> Array:
    return jnp.pad(latents.astype(jnp.float32), ((0, rest), (0, 0)))


@jax.jit
def _mapped(function: Any, latents: Array) -> Array:
    return function(latents)


@functools.partial(jax.jit, static_argnames="count")
def _without(source: ArraySource, key: Array, count: int) -> Array:
    return source.weights.at[source._draw(key, 0, count)].set(0)
