"""What a solver is: sums over samples, and an update of the curve by them.

A solver never sees a shard, a block or a file. Tiles, blocks, devices and hosts add their sums, so
streaming and sharding are the same plus sign; weights and padding are the same factor: a row of
weight 0 is not there. A whole solver of your own:

    @flax.struct.dataclass
    class OnlineMeans(Solver):
        rate: float = 0.5

        def statistics(self, curve, drawn, x, weight):
            nearest = jnp.rint(encode(curve, x)).astype(jnp.int32)
            ...
"""

import dataclasses
import operator
import reprlib
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from sfvq_jax.curve import Curve, tied
from sfvq_jax.moves import MOVES
from sfvq_jax.projection import check_some
from sfvq_jax.short import short_repr
from sfvq_jax.sums import on_each, sum_over, weights_of

Array = jax.Array

BLOCK_STEPS = 64  # updates whose samples are drawn at once
SUBDIVISIONS = ("occurrence", "published")


class Info(NamedTuple):
    """Report on one update: measures of the curve before it. The fit does not need them.

    Attributes:
      objective: objective of the solver per dimension, [].
      distortion: its part that is error, per dimension, [].
      load: weight of the samples nearest to each codeword along the curve, [K]; 0 means a dead
        codeword.
    """

    objective: Array
    distortion: Array
    load: Array

    __repr__ = short_repr


class Solver:
    """Base class of solvers: a pytree whose numbers are leaves, so that `vmap` can go over them.

    Each subclass is a `flax.struct.dataclass`. Fields that shape the program are static:
    `flax.struct.field(pytree_node=False)`.

    Attributes:
      rounds: largest number of rounds in a stage; static.
      tolerance: a stage ends when a round lowers the objective by less than this share of it.
      samples: samples in a round, each time a new part of the source; "all" is a pass over a finite
        source; None leaves it to `fit`. Static.
      batch: samples of one update; None means all of a round. Static.
      block: samples that are read at once; None leaves it to `fit`. Static.
      subdivision: how a curve grows from stage to stage: by "occurrence" of the samples along it,
        or as "published" (`sfvq_jax.subdivision`). Static.
      moves: moves that are tried after the rounds of a stage, one after another, each with its own
        rounds: "reseed", "reorder" (`sfvq_jax.moves`). Static.
    """

    rounds: int = 20
    tolerance: Any = 1e-4
    samples: int | str | None = None
    batch: int | None = None
    block: int | None = None
    subdivision: str = "occurrence"
    moves: tuple[str, ...] = ()

    def init(self, curve: Curve) -> Any:
        """The state at the start of a stage: a pytree that the updates carry beside the curve."""
        return ()

    def draw(self, curve: Curve, key: Array) -> Any:
        """The random numbers of an update, the same for all its samples; by default the key.

        If many updates run in a loop, their numbers are drawn before it.
        """
        return key

    def statistics(self, curve: Curve, drawn: Any, x: Array, weight: Array) -> Any:
        """Sums over samples x [N, D] of weight [N]; `drawn` is the result of `draw`."""
        raise NotImplementedError

    def update(self, curve: Curve, state: Any, sums: Any) -> tuple[Curve, Any, Info]:
        """The next curve and state, from the sums over all samples of an update."""
        raise NotImplementedError

    def penalty(self, curve: Curve, state: Any) -> Array | float:
        """The part of the objective that is not distortion, per dimension, by a state's terms.

        If these terms change from update to update, the state after the update of a curve measures
        another curve by the terms of the first.
        """
        return 0.0

    def anneal(self, stages_left: Array | int, size: Array | int) -> Self:
        """The solver of a stage with `size` codewords; both arguments may be traced."""
        return self


def step(
    solver: Solver,
    curve: Curve,
    state: Any,
    key: Array,
    x: Array,
    weight: Array | None = None,
    axis: str | None = None,
) -> tuple[Curve, Any, Info]:
    """Updates a curve once by samples in memory; pure, for `jit`, `vmap`, `shard_map` and `pmap`.

    Args:
      solver: any solver.
      curve: K codewords of width D; the same on all shards, as state and key are.
      state: state of the solver, at first `solver.init(curve)`.
      key: a PRNG key, a new one for each update.
      x: samples of this shard, [N, D].
      weight: weight of each sample, [N]; 0 leaves it out. 1 by default.
      axis: name of the axis over which the shards' sums are added.

    Returns:
      The next curve and state, and the `Info` of the curve before; the same on all shards.

    Raises:
      TypeError: an argument that is no solver, no curve or no array.
      ValueError: samples of another width, no samples, or weights of another shape.

    >>> from sfvq_jax import LeastSquares
    >>> x, curve = jnp.array([[0.0], [1.0], [5.0]]), Curve(jnp.array([[0.0], [4.0]]))
    >>> solver = LeastSquares(length_penalty=0.0)
    >>> curve, state, info = step(solver, curve, solver.init(curve), jax.random.key(0), x)
    >>> round(float(info.distortion), 4)  # two samples are on the line, one is 1 beyond its end
    0.3333
    """
    check_solver(solver)
    check_some(curve, x)
    weight = weights_of(x, weight)
    return _step(solver, curve, state, solver.draw(curve, key), x, weight, axis)


def _step(
    solver: Solver, curve: Curve, state: Any, drawn: Any, x: Array, weight: Array, axis: str | None
) -> tuple[Curve, Any, Info]:
    sums = solver.statistics(on_each(axis, curve), drawn, x, weight)
    return update(solver, curve, state, sum_over(axis, sums))


def update(solver: Solver, curve: Curve, state: Any, sums: Any) -> tuple[Curve, Any, Info]:
    """`solver.update`, after which rows beyond the curve's size repeat the last codeword again."""
    new, state, info = solver.update(curve, state, sums)
    if curve.size is not None:
        new = Curve(tied(new.codewords, curve.size).codewords, curve.size)
    return new, state, info


def steps(
    solver: Solver,
    curve: Curve,
    state: Any,
    key: Array,
    x: Array,
    weight: Array,
    number: int,
    axis: str | None = None,
) -> tuple[Curve, Any, Info]:
    """So many updates one after another, each by its own part of the samples at hand.

    Args:
      x: [batch · number, D], batch-major, so that a shard's rows are its part of every batch.
      weight: [batch · number].
      number: of updates; the other arguments are those of `step`.

    Returns:
      The last curve and state; objective and distortion in their means, the load as a sum.
    """
    x = x.reshape(-1, number, x.shape[1])
    weight = weight.reshape(-1, number)
    drawn = jax.vmap(lambda key: solver.draw(curve, key))(jax.random.split(key, number))

    def one(i: Array, carry: tuple[Array, Any, Info]) -> tuple[Array, Any, Info]:
        codewords, state, total = carry
        batch, its_weight = (
            lax.dynamic_index_in_dim(array, i, 1, keepdims=False) for array in (x, weight)
        )
        now = Curve(codewords, curve.size)
        its_drawn = jax.tree.map(lambda leaf: leaf[i], drawn)
        new, state, info = _step(solver, now, state, its_drawn, batch, its_weight, axis)
        return new.codewords, state, jax.tree.map(jnp.add, total, info)

    # a first step outside the loop would be a second copy of the program
    shapes = jax.eval_shape(lambda: step(solver, curve, state, key, x[:, 0], weight[:, 0])[2])
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    codewords, state, total = lax.fori_loop(0, number, one, (curve.codewords, state, nothing))
    info = Info(total.objective / number, total.distortion / number, total.load)
    return Curve(codewords, curve.size), state, info


def round_steps(solver: Solver) -> tuple[int, int]:
    """Of a solver that goes by batches: blocks in a round, and updates in a block."""
    assert solver.batch is not None
    number = operator.index(solver.samples) // operator.index(solver.batch)  # pyright: ignore
    blocks = -(-number // BLOCK_STEPS)
    return blocks, -(-number // blocks)


def check_solver(solver: Any) -> None:
    """Raises TypeError for what is no solver, ValueError for settings that make no stage."""
    if isinstance(solver, type) and issubclass(solver, Solver):
        raise TypeError(
            f"solver is the class {solver.__name__}; pass one of it, solver={solver.__name__}()"
        )
    if not isinstance(solver, Solver):
        raise TypeError(
            f"solver is {reprlib.repr(solver)}; expected a solver, such as"
            " solver=sfvq_jax.LeastSquares() or solver=sfvq_jax.Adam()"
        )
    check_settings(solver)
    for field in dataclasses.fields(solver) if dataclasses.is_dataclass(solver) else ():
        value = getattr(solver, field.name)
        if isinstance(field.default, float) and not _is_real(value):
            raise TypeError(f"{field.name} is {value!r}; expected a number")


def check_settings(solver: Solver) -> None:
    """Raises ValueError for counts that are none, and for names that nothing has."""
    check_count("rounds", solver.rounds)
    for name in ("batch", "block"):
        if getattr(solver, name) is not None:
            check_count(name, getattr(solver, name))
    check_samples(solver.samples)
    if solver.batch is not None:
        check_count("samples", solver.samples)
        if int(solver.samples) < solver.batch:  # pyright: ignore
            raise ValueError(f"samples is {solver.samples}, less than a batch of {solver.batch}")
    if not isinstance(solver.moves, tuple) or not set(solver.moves) <= set(MOVES):
        raise ValueError(f"moves is {solver.moves!r}; expected a tuple of {', '.join(MOVES)}")
    if solver.subdivision not in SUBDIVISIONS:
        raise ValueError(
            f"subdivision is {solver.subdivision!r}; expected one of {', '.join(SUBDIVISIONS)}"
        )


def is_number(value: Any) -> bool:
    """Whether a leaf of a solver has a value that can be checked: no tracer, no placeholder."""
    if isinstance(value, np.ndarray | jax.Array):
        return not isinstance(value, Tracer) and value.shape == () and _is_real(value)
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    """Whether it is a number or an array of them, traced or not."""
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
    return isinstance(value, (int, float))


def check_count(name: str, value: Any) -> None:
    """Raises ValueError unless a setting is a whole number, 1 or more."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} is {value!r}; expected a whole number, 1 or more")


def check_samples(samples: Any) -> None:
    """Raises ValueError unless it is a number of samples, "all" or None."""
    if samples is None or (isinstance(samples, str) and samples == "all"):
        return
    if isinstance(samples, bool) or not isinstance(samples, (int, np.integer)):
        raise ValueError(f'samples is {samples!r}; expected a whole number, "all" or None')
    if samples < 1:
        raise ValueError(f"samples is {samples}; a round needs at least one")
