"""Functions that draw latents, inside the compiled programs of a fit."""

import functools
import types
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.rows.arrays import ArraySource
from sfvq_jax.rows.source import Block, Source, as_block
from sfvq_jax.short import short_repr

Array = jax.Array

SUPPLY = 2**17  # draws of a sampler in few dimensions, at least
SUPPLY_FLOATS = 2**26  # in them, at most: 256 MiB
MAX_BLOCK = 2**14  # drawn at once
BLOCK_FLOATS = 2**24


@flax.struct.dataclass
class SamplerSource(Source):
    """Latents from a function (key, n) -> [n, D], such as the mapping network of a generator.

    The function may also return a pair of latents and their weights [n].
    """

    sampler: Callable[[Array, int], Any]  # a jax.tree_util.Partial: its arguments are leaves
    latent_dim: int = flax.struct.field(pytree_node=False)
    num_latents = None
    on_device = True

    __repr__ = short_repr

    def read(self, key: Array | None, start: Any, count: int) -> Block:
        assert key is not None, "a sampler has no order of storage"
        block = as_block(self.sampler(jax.random.fold_in(key, start), count))
        if block.x.shape != (count, self.latent_dim) or block.weight.shape != (count,):
            raise ValueError(
                f"asked for {count} latents, the sampler drew an array of shape {block.x.shape}: a"
                " sampler (key, n) gives [n, D]"
            )
        return block

    def mapped(
        self, function: Callable[[Array], Array], key: Array, samples: int
    ) -> ArraySource | None:
        """A source that draws from mapped draws: `SUPPLY` of them, or those of a round if more.

        Mapped draws are small, so many of them fit in memory. To draw and map new ones in each
        round would take most of its time.
        """
        width = jax.eval_shape(function, jnp.zeros((1, self.latent_dim), jnp.float32)).shape[1]
        block = max(1, min(MAX_BLOCK, BLOCK_FLOATS // self.latent_dim))
        blocks = -(-max(SUPPLY, samples) // block)
        if blocks * block * width > SUPPLY_FLOATS:
            return None
        found = _supply(self, function, key, blocks, block)
        return ArraySource(found.x, found.weight, blocks * block)


def sampler_source(sampler: jax.tree_util.Partial) -> SamplerSource:
    """With D found by tracing a draw."""

    def draw() -> Any:
        found = sampler(jax.random.key(0), 4)
        return found[0] if isinstance(found, tuple) else found

    latents = jax.eval_shape(draw)
    if not isinstance(latents, jax.ShapeDtypeStruct) or len(latents.shape) != 2:
        shape = getattr(latents, "shape", type(latents).__name__)
        raise ValueError(
            f"what the source draws has shape {shape}; expected [N, D], a row a latent"
        )
    return SamplerSource(sampler, latents.shape[1])


def partial(function: Callable) -> jax.tree_util.Partial:
    """A function as a pytree; equal functions are equal, so that they share their programs.

    A lambda that is written in a loop is another object each time. Two are equal where their code
    is and all that it reaches outside (what it closes over, defaults, globals) is the same object.
    """
    values = _reached(function)
    return jax.tree_util.Partial(function if values is None else _Function(function, values))


class _Function:
    """A function that equals another of the same code that reaches the same values."""

    def __init__(self, function: types.FunctionType, values: tuple):
        self.function, self.values = function, values

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __hash__(self) -> int:
        return hash(self.function.__code__)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Function)
            and self.function.__code__ == other.function.__code__
            and len(self.values) == len(other.values)
            and all(
                one is another or (type(one) is type(another) and one == another)
                if isinstance(one, int | float | str)
                else one is another
                for one, another in zip(self.values, other.values, strict=True)
            )
        )


# what cannot change in place, so that its identity or value says all
_FIXED = (types.ModuleType, types.BuiltinFunctionType, type, int, float, str, type(None), jax.Array)
_LIBRARIES = ("jax", "numpy")  # whose functions reach nothing that changes


def _reached(function: Callable, seen: frozenset[int] = frozenset()) -> tuple | None:
    """All that a plain function reaches outside of itself; None where that may change unseen."""
    if not isinstance(function, types.FunctionType):
        return None
    names, codes = set(), [function.__code__]
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes.extend(value for value in code.co_consts if isinstance(value, types.CodeType))
    world = function.__globals__
    try:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # a cell that is still empty
        return None
    values = [
        *(world[name] for name in sorted(names) if name in world),
        *cells,
        *(function.__defaults__ or ()),
        *(function.__kwdefaults__ or {}).values(),
    ]
    found, seen = [], seen | {id(function)}
    for value in values:
        found.append(value)
        if isinstance(value, _FIXED) or id(value) in seen or _of_library(value):
            continue
        more = _reached(value, seen)
        if more is None:
            return None
        found.extend(more)
    return tuple(found)


def _of_library(value: Any) -> bool:
    module = getattr(value, "__module__", None) or ""
    return callable(value) and module.split(".")[0] in _LIBRARIES


@functools.partial(jax.jit, static_argnames=("blocks", "block"))
def _supply(source: SamplerSource, function: Any, key: Array, blocks: int, block: int) -> Block:
    def draw(i: Array) -> Block:
        x, weight = source.read(key, i * block, block)
        return Block(function(x), weight)

    found = jax.lax.map(draw, jnp.arange(blocks))
    return jax.tree.map(lambda rows: rows.reshape(-1, *rows.shape[2:]), found)


def check_differ(one: Array, other: Array) -> None:
    """Raises ValueError where draws by two keys are the same."""
    if np.array_equal(np.asarray(one), np.asarray(other)):
        raise ValueError(
            "two keys give the same latents, so the sampler does not draw by its key (NumPy's"
            " random numbers are frozen when it is compiled): draw with jax.random and the key, or"
            " give blocks that are made on the host, sfvq_jax.IteratorSource(function)"
        )
