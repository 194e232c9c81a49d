"""What a fit under way is: where it is and its arrays, all that is needed to go on."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sfvq_jax.curve import Curve
from sfvq_jax.devices import curve_spec, everywhere, parts, shardings, sums_spec
from sfvq_jax.rounds import sum_shapes
from sfvq_jax.solver import Solver
from sfvq_jax.stage import stage_rows

Array = jax.Array


class At(NamedTuple):
    """Where a fit is, between two blocks: with the arrays of `Now`, all that is needed to go on."""

    stage: int = 0
    move: int = 0  # of the stage: 0 grows the curve, i is the solver's move i - 1
    begun: bool = False  # whether the curve is that which the move proposes
    round: int = 0  # of the move
    block: int = 0  # of the round: the next one
    read: int = 0  # latents so far
    distortion: float | None = None  # of the measuring samples after the round before
    converged: bool = False

    @property
    def reached(self) -> int:
        """The stage in whose rows the curve is: the one before, until the move has begun."""
        return self.stage if self.begun else self.stage - 1


class Now(NamedTuple):
    """The arrays of a fit between two blocks.

    Attributes:
      curve: in the rows of the stage.
      state: the solver's.
      sums: of the round so far, those of each part of the samples, [parts, …]; an `Info` of a
        solver that goes by batches.
      kept: curve and state from before a move, while its rounds go on; else None.
    """

    curve: Curve
    state: Any
    sums: Any
    kept: tuple[Curve, Any] | None


def shapes_of(
    at: At, solver: Solver, sizes: list[int], width: int, mesh: Mesh, saved_parts: int
) -> Now:
    """The shapes of a state that was saved, with shardings to restore it to.

    Args:
      at: where it was.
      solver: any stage's.
      sizes: codewords of each stage.
      width: of the codewords.
      mesh: to restore it to.
      saved_parts: of the samples, in the fit that saved it.

    Raises:
      ValueError: it has gone beyond the last stage.
    """
    if at.stage > len(sizes) or (at.begun and at.stage == len(sizes)):
        raise ValueError(
            f"it keeps a fit that has gone beyond {sizes[-1]} codewords: ask for as"
            " many bits as before, or more, or name another folder for it"
        )
    rows = stage_rows(solver, sizes[at.reached])
    codewords = jax.ShapeDtypeStruct((rows, width), jnp.float32)
    size = jax.ShapeDtypeStruct((), jnp.int32) if solver.batch is None else None
    curve = Curve(codewords, size)  # pyright: ignore[reportArgumentType]
    state = jax.eval_shape(solver.init, curve)
    sums = sum_shapes(solver, curve, state, saved_parts)
    whole = everywhere(mesh)
    of_sums = jax.tree.map(lambda leaf: whole, sums)
    if solver.batch is None and saved_parts == parts(mesh):
        of_sums = shardings(sums_spec(sums, mesh), mesh)
    placed = (
        _placed(curve, shardings(curve_spec(curve, mesh), mesh)),
        _placed(state, jax.tree.map(lambda leaf: whole, state)),
    )
    return Now(*placed, _placed(sums, of_sums), placed if at.begun and at.move else None)


def adopt(sums: Any, solver: Solver, mesh: Mesh) -> Any:
    """Sums of another number of parts on this mesh: the first one takes over all of them."""
    if solver.batch is not None:
        return sums

    def convert(leaf: Array) -> Array:
        if leaf.shape[0] == parts(mesh):
            return leaf
        empty = jnp.zeros((parts(mesh) - 1, *leaf.shape[1:]), leaf.dtype)
        return jnp.concatenate([leaf.sum(0, keepdims=True), empty])

    where = shardings(sums_spec(sums, mesh), mesh)
    return jax.jit(lambda sums: jax.tree.map(convert, sums), out_shardings=where)(sums)


def _placed(tree: Any, where: Any) -> Any:
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        tree,
        where,
    )
