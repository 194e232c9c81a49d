"""What tells latents from others, without all of them: hashes and sketches."""

import functools
import hashlib
from typing import Any

import jax
import numpy as np

from sfvq_jax.rows.source import Block, Source

MOST_FLOATS = 2**24  # of latents that are looked at as a whole
SOME_ROWS = 1024  # of more


def likeness(source: Source) -> Any:
    """What tells latents from others: a hash of many rows, or a sketch of some draws."""
    n, d = source.num_latents, source.latent_dim
    if n is None:
        key = jax.random.key(0)
        read = functools.partial(source.read, start=0, count=64)
        block = jax.jit(read)(key) if source.on_device else read(key)
        return np.nan_to_num(sketch(np.asarray(block.x), np.asarray(block.weight))).tolist()
    whole = source.whole()
    if whole is not None and isinstance(whole.x, jax.Array) and not whole.x.is_fully_addressable:
        return None  # one array of all processes
    rows = n if n * d <= MOST_FLOATS else SOME_ROWS
    step = max(1, rows // 64)
    starts = range(0, n, step) if rows == n else np.linspace(0, n - step, 64).astype(int).tolist()
    found = hashlib.sha256()
    for first in starts:
        last = min(first + step, n)
        block = (
            source.read(None, first, last - first)
            if whole is None
            else Block(whole.x[first:last], whole.weight[first:last])
        )
        for part in block:
            found.update(np.ascontiguousarray(part).tobytes())
    return _named(found)


def stamp_of(source: Source) -> str:
    """What changes when the latents are written anew, as a word; "" where nothing tells."""
    stamp = np.frombuffer(source.stamp.encode(), np.uint8)
    return hash_of(stamp) if len(stamp) else ""


def hash_of(array: np.ndarray) -> str:
    """Of an array, as a word of a message."""
    return _named(hashlib.sha256(np.ascontiguousarray(array).tobytes()))


def _named(found: Any) -> str:
    return f"of hash {found.hexdigest()[:8]}"


def sketch(latents: np.ndarray, weight: np.ndarray) -> list[float]:
    """A few random projections that change with any row, but little with a device's rounding."""
    random = np.random.default_rng(0)
    latents, weight = latents[weight > 0], weight[weight > 0] / weight.max()
    n, d = latents.shape
    rows = random.choice([-1.0, 1.0], (8, n)) / n**0.5
    columns = random.choice([-1.0, 1.0], (8, d)) / d**0.5
    size = np.log(np.mean(np.square(latents, dtype=np.float64)))
    centred = latents - latents.mean(0, dtype=np.float64)
    rows = rows * weight
    sketch = np.einsum("sn,nd,sd->s", rows, centred / centred.std(), columns, optimize=True)
    return [round(float(value), 6) for value in (size, *sketch)]
