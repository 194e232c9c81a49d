"""What a source of latents is, and what it may be asked."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.short import short_repr

Array = jax.Array

LARGEST = 1e17  # float32 does not know the sums of squares of larger numbers


class Block(NamedTuple):
    """Samples [B, D] float32, and their weights, [B] float32: a row of weight 0 is not there."""

    x: Any
    weight: Any

    __repr__ = short_repr


class Far(NamedTuple):
    """Few rows that together have most of the squared distance of all from their middle.

    Attributes:
      rows: their numbers, the farthest first.
      share: of the sum over all rows.
    """

    rows: list[int]
    share: float


@runtime_checkable
class Readable(Protocol):
    """The four names that every source must have.

    Attributes:
      latent_dim: D.
      num_latents: N, or None if they have no end.
      on_device: whether `read` is pure JAX code that fits call inside their compiled programs. The
        source is then a pytree, `start` may be traced, and the latents never visit the host.
        Otherwise fits call `read` on the host, ahead of the device, in a thread of its own.
    """

    @property
    def latent_dim(self) -> int: ...

    @property
    def num_latents(self) -> int | None: ...

    @property
    def on_device(self) -> bool: ...

    def read(self, key: Array | None, start: Any, count: int) -> Any:
        """Reads latents [count, D] from number `start` on, in the order of `key`.

        A key names a random order, with or without replacement. None is the order of storage, in
        which a finite source gives each latent once. The same arguments give the same latents. In
        a fit of several processes, each process asks for its own numbers.

        Returns:
          The latents, or a pair of latents and their weights [count].
        """
        ...


class Source:
    """Base class of sources, with defaults for all that a fit may ask.

    Attributes:
      per_process: whether each process has its own latents, with its own numbers, whose end is
        known only after reading.
      name: name of the latents in messages.
      scale: factor applied to the result of `read` on the devices; None for 1.
      stamp: text that changes when the latents are written again; "" if there is none.
    """

    latent_dim: Any
    num_latents: Any
    on_device: bool = False
    per_process: bool = False
    name: Any = "the source"
    scale: Any = None
    stamp: Any = ""

    def read(self, key: Array | None, start: Any, count: int) -> Any:
        """See `Readable.read`; latents may have any dtype that the devices know."""
        raise NotImplementedError

    def scattered(self, count: int) -> "Source":
        """The same source, with the first `count` latents of a random order from many places."""
        return self

    def whole(self) -> Block | None:
        """All rows at once, with padding, if they lie on the devices; otherwise None."""
        return None

    def held_out(self, key: Array, count: int) -> "Source | None":
        """The same source with weight 0 for the latents `read(key, 0, count)` of `scattered`.

        None if these latents cannot be told from others.
        """
        return None

    def mapped(
        self, function: Callable[[Array], Array], key: Array, samples: int
    ) -> "Source | None":
        """The same source, or one as good, with all its latents mapped at once, [N, D] -> [N, r].

        None if they are too many, or are read again each time: then each block is mapped.

        Args:
          function: the map, for any number of latents; a jax.tree_util.Partial.
          key: PRNG key for draws.
          samples: number of samples in a round.
        """
        return None

    def placed(self, mesh: Any) -> "Source":
        """The same source with its arrays on a mesh (`devices.data_mesh`)."""
        return self

    def look_through(self) -> Far | None:
        """Checks each row once, if there are rows; in a fit all processes do so together.

        Returns:
          Rows that are far from all others, if there are any.

        Raises:
          ValueError: some rows cannot be fitted; the message names them.
        """
        return None

    def numbers(self, key: Array, count: int) -> np.ndarray | None:
        """Numbers of the rows in `read(key, 0, count)` of `scattered`, [count]; None if unknown."""
        return None

    def bookmark(self) -> Any:
        """The place where the last `read` ended, as a JSON value; checkpoints keep it.

        None if the number of the next latent is enough to continue.
        """
        return None

    def go_to(self, bookmark: Any) -> None:
        """Continues with the latents after a bookmark."""

    def check_unchanged(self) -> None:
        """Raises ValueError if the source is known to have changed since it was opened."""


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


def in_float32(x: Any, scale: Any) -> Any:
    """Latents as they are stored, in float32 and multiplied by the source's scale."""
    x = x.astype(np.float32)
    return x if scale is None else x * scale


def read_in_order(source: Source, start: int, count: int) -> np.ndarray:
    """Latents start … start + count - 1 on the host, [count, D] float32."""
    found = source.read(None, start, count)
    return in_float32(np.asarray(found[0] if isinstance(found, tuple) else found), source.scale)


def check_latents(latents: Any, name: str, numbers: Any = None) -> None:
    """Raises ValueError unless latents are [N, D], floating point, and small enough for float32.

    Args:
      latents: an array.
      name: what the message calls it.
      numbers: of its rows, as the user knows them, [N]; 0 … N - 1 by default.
    """
    check_shape(latents, name)
    if isinstance(latents, jax.Array) and not latents.is_fully_addressable:
        if not bool(jnp.isfinite(latents.astype(jnp.float32)).all()):
            raise ValueError(f"{name} has NaN or infinity: remove these rows")
        return
    faults = Faults(name)
    faults.look(np.asarray(latents), numbers)
    faults.check()


class Faults:
    """What is wrong in rows that are looked at part by part; `check` says it, the first row first.

    Attributes:
      found: of each kind, how many rows, the first of them, and how large its numbers are.
    """

    def __init__(self, name: str):
        self.name, self.rows = name, 0
        self.found: dict[str, list[float]] = {}

    def look(self, latents: np.ndarray, numbers: Any = None) -> None:
        """At rows [N, D] of these numbers; by default they go on from those seen before."""
        before, self.rows = self.rows, self.rows + len(latents)
        if _all_small(latents):
            return
        largest = _largest(latents)
        finite = np.isfinite(largest)
        for kind, bad in (("not finite", ~finite), ("large", finite & (largest > LARGEST))):
            rows = np.flatnonzero(bad)
            if not rows.size:
                continue
            of_rows = rows + before if numbers is None else np.asarray(numbers)[rows]
            first = int(of_rows.argmin())
            self.add({kind: [rows.size, int(of_rows[first]), float(largest[rows[first]])]})

    def add(self, found: dict[str, list[float]]) -> None:
        """What was found in other rows."""
        for kind, (count, row, size) in found.items():
            old = self.found.get(kind)
            first = [row, size] if old is None or row < old[1] else old[1:]
            self.found[kind] = [count + (0 if old is None else old[0]), *first]

    def check(self) -> None:
        """Raises ValueError where something was found."""
        if "not finite" in self.found:
            count, row, _ = self.found["not finite"]
            raise ValueError(
                f"{self.name} has NaN or infinity in {count} of {self.rows} rows, the first in row"
                f" {row}: remove these rows"
            )
        if "large" in self.found:
            count, row, size = self.found["large"]
            what = (
                "beyond the range of float32"
                if size > float(np.finfo(np.float32).max)
                else f"as large as {size:.2g}, whose squares float32 cannot add up"
            )
            raise ValueError(
                f"{self.name} has numbers {what} in {count} of {self.rows} rows, the first in row"
                f" {row}: scale them"
            )


def _all_small(latents: np.ndarray) -> bool:
    """Whether they are so by one product, which is fast; where not, some may be."""
    if latents.dtype.kind in "iu":
        return True
    if not latents.flags.c_contiguous:
        return False
    flat = latents.reshape(-1)
    if latents.dtype.itemsize == 2 and latents.dtype.isnative:  # the bits of larger are larger
        limit = min(LARGEST, float(jnp.finfo(latents.dtype).max))
        bits = np.asarray(limit).astype(latents.dtype).view(np.uint16)
        return flat.size == 0 or bool((flat.view(np.uint16) & 0x7FFF).max() <= bits)
    if latents.dtype != np.float32:
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.dot(flat, flat) < LARGEST**2)


def _largest(latents: np.ndarray) -> np.ndarray:
    """The largest magnitude in each row, [N]; NaN where one is."""
    if latents.dtype.kind == "V":  # bfloat16 and its kin
        latents = latents.astype(np.float32)
    parts = np.array_split(latents, max(1, latents.size // 2**20))
    with np.errstate(over="ignore", invalid="ignore"):  # signalling NaN
        return np.concatenate([np.abs(part).max(axis=1) for part in parts]).astype(np.float64)


def check_shape(latents: Any, name: str, *, scaled: bool = False) -> None:
    """Raises ValueError unless latents are [N, D], D > 0, of floating point type and not masked.

    Args:
      latents: with shape and dtype.
      name: what the message calls them.
      scaled: whether they may be whole numbers of at most 16 bits.
    """
    shape = tuple(latents.shape)
    if np.ma.is_masked(latents):
        raise ValueError(
            f"{name} has masked entries: take the rows that have none, x[~x.mask.any(1)].data"
        )
    if len(shape) != 2 or shape[1] == 0:
        hint = shape_hint(shape)
        raise ValueError(
            f"{name} has shape {shape}; expected [N, D], a row a latent{hint[0] if hint else ''}"
        )
    dtype = np.dtype(latents.dtype)
    small = dtype.kind in "iu" and dtype.itemsize <= 2
    if jnp.issubdtype(dtype, jnp.floating) or (small and scaled):
        return
    hint = ", such as .astype(np.float32) makes"
    if small:
        hint = ", or of quantised latents what 1 stands for: HostSource(…, scale=), --scale"
    raise ValueError(f"{name} is of type {dtype}; expected floating point numbers{hint}")


def shape_hint(shape: tuple[int, ...]) -> tuple[str, str] | None:
    """How an array x of another shape becomes [N, D], in words and as code; None where unknown."""
    if len(shape) == 1 and shape[0] > 0:
        return ": of numbers, one a latent, take x[:, None]", "x[:, None]"
    if len(shape) == 3 and shape[1] == 1:
        return ": take x[:, 0]", "x[:, 0]"
    if len(shape) == 3:
        words = ": of codes of all layers (w+) take x[:, 0] where they are alike, else x.mean(1)"
        return words, "x.mean(1)"
    if len(shape) > 3:
        return ": flatten them by x.reshape(len(x), -1)", "x.reshape(len(x), -1)"
    return None


def check_weights(weights: np.ndarray, count: int, name: str, numbers: Any = None) -> None:
    """Raises ValueError unless weights are [N], finite and at least 0.

    Args:
      weights: of rows.
      count: N.
      name: of the rows.
      numbers: theirs, as the user knows them, [N]; 0 … N - 1 by default.
    """
    if weights.shape != (count,):
        raise ValueError(f"the weights of {name} have shape {weights.shape}; expected ({count},)")
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if bad.size:
        row = bad[0] if numbers is None else numbers[bad[0]]
        raise ValueError(
            f"the weights of {name} must be finite and at least 0, but that of row {row} is"
            f" {weights[bad[0]]}"
        )


def finite_rows(latents: np.ndarray) -> np.ndarray:
    """Which rows are finite, [N] bool."""
    return np.isfinite(_largest(latents))


def check_key(key: Any, call: str) -> None:
    """Raises TypeError for what is no PRNG key.

    Args:
      key: of `jax.random.key`, or two numbers as `jax.random.PRNGKey` makes them; may be traced.
      call: how the function that takes it is called.
    """
    if isinstance(key, jax.Array | np.ndarray):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
            return
        if key.dtype == np.uint32 and key.shape == (2,):
            return
    shape = f" of shape {key.shape}" if hasattr(key, "shape") else ""
    raise TypeError(
        f"key is a {type(key).__name__}{shape}; {call} takes a PRNG key first, such as"
        " jax.random.key(0)"
    )


def generator(key: Array, *numbers: int) -> np.random.Generator:
    """A NumPy generator of a key and numbers; compiles nothing."""
    return np.random.default_rng([*np.asarray(jax.random.key_data(key)).ravel().tolist(), *numbers])


def key_of(key: Array, *numbers: int) -> Array:
    """A key of a key and numbers, made on the host, where it compiles nothing."""
    words = np.asarray(jax.random.key_data(key))
    seed = np.random.SeedSequence([*words.ravel().tolist(), *numbers])
    new = seed.generate_state(words.size).astype(np.uint32).reshape(words.shape)
    return jax.random.wrap_key_data(jax.device_put(new), impl=jax.random.key_impl(key))
