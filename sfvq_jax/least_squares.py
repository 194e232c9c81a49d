"""The best codebook for samples whose places on the curve are fixed: one tridiagonal system.

With sample x_n at fraction t_n of line j_n and of weight w_n, the codewords that minimise

    1/W Σ w_n |x_n - (1 - t_n) c_{j_n} - t_n c_{j_n + 1}|²  +  μ/K Σ φ(|c_{j+1} - c_j|),   W = Σ w_n

solve A c = b, where A couples only neighbours. All that A and b need are sums over samples, so
tiles, devices and hosts add theirs.

The second term is the length penalty: without it the curve wins on distortion by long jumps outside
the data, and its order means nothing. φ(s) is s² up to a step of m and 2 m s - m² beyond (Huber,
1964), m the harmonic mean of the steps weighted by Σ t (1 - t), that is by the lines that hold
samples inside. Equal steps cost what s² asks. A bridge over a gap costs its length, however many
codewords it has: with s² alone a gap is the cheaper the more codewords fill it, and half of them
end in the gaps. The mean is harmonic because around a cluster that has noise in many dimensions a
bridge holds some samples inside its ends: the arithmetic mean grows with these bridges, whose pull
then takes the second codeword out of each cluster. Within a
round m is frozen, and φ is replaced by the parabola m/max(s_j, m) s² through the present step, that
is nowhere below it but for a constant, so that A stays tridiagonal.
"""

from typing import Any, NamedTuple, Self

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sfvq_jax.curve import Curve, curve_length, line_lengths, wide
from sfvq_jax.dither import nearest_dithered
from sfvq_jax.divided import mean_of_rows, own_sums, with_next
from sfvq_jax.projection import Projection, check_precision, nearest_part, project
from sfvq_jax.solver import Info, Solver, check_settings, is_number
from sfvq_jax.sums import by_line, on_each

Array = jax.Array

ELIMINATED = 1024  # rows of a system, at most, that an accelerator solves row by row
PULL = 1e-4  # weight of the present codeword, in shares of an even load a codeword
EARLY_CODEWORDS = 16  # of the stages in which the penalty is greater, at least
MOST = 1e10  # of μ, and of what it is multiplied by
LEAST_STEP = 1e-6  # share of the longest line that each line counts with at least
LEAST_USE = 1e-6  # share of an even load that each line's step counts with at least


class NormalSums(NamedTuple):
    """Sums over samples; those of two sets of samples are added entry by entry.

    Attributes:
      diagonal: Σ w (1-t)² over the samples of the line that starts at a codeword and Σ w t² over
        those of the line that ends there, [K].
      coupling: Σ w t (1-t) over the samples of each line; the last is 0, [K].
      moment: Σ w (1-t) (x - o) and Σ w t (x - o) likewise, [K, D], about the codewords' mean o: it
        saves the digits of data that lies far from zero.
      load: Σ w over the samples nearest to a codeword along the curve, [K].
      error: Σ w |x - point|², [].
    """

    diagonal: Array
    coupling: Array
    moment: Array
    load: Array
    error: Array


@flax.struct.dataclass
class LeastSquares(Solver):
    """Fit by projection and least squares in turn, as in k-means, with a penalty on length.

    A round assigns samples to the curve (equation 2 of docs/explanation/equations.md) and replaces
    the codewords by the best ones for that assignment (equation 8), which lowers the objective of
    equation 5. Half precision is computed in float32.

    Attributes:
      length_penalty: μ, without a unit. A larger one gives a shorter, better ordered curve of
        higher distortion; docs/results/tradeoff.md shows how much on five kinds of data.
      tolerance: a stage ends when a round lowers the objective by less than this share.
      early: factor on μ in stages of 16 codewords or more before the last one. A coarse curve that
        was smooth keeps more of its order when it is refined. 1 turns this off. Curves of fewer
        codewords would lose more than they gain.
      rounds: largest number of rounds in a stage.
      samples: samples in a round, each time a new part of the source; "all" is a pass over a finite
        source. None means 1024 for each codeword, at least 65,536, at most all.
      dithered: assign samples to one random point on each line, as the published recipe does,
        and not to the nearest point of the curve.
      block: samples that all devices together read and project at once; None means 64 MiB of them,
        at most 65,536. Draws of a sampler depend on it.
      precision: precision of the products that choose each sample's line; see `project`.
      moves: moves after the rounds of a stage; see `Solver`.

    >>> import jax
    >>> from sfvq_jax import LeastSquares
    >>> solver = LeastSquares(length_penalty=0.4, rounds=20)  # fit(key, latents, solver=solver)
    >>> jax.tree.leaves(solver)  # the numbers that `jax.vmap` may go over
    [0.4, 0.0001, 8.0]
    """

    length_penalty: Any = 0.2
    tolerance: Any = 1e-4
    early: Any = 8.0
    rounds: int = flax.struct.field(pytree_node=False, default=40)
    samples: int | str | None = flax.struct.field(pytree_node=False, default=None)
    dithered: bool = flax.struct.field(pytree_node=False, default=False)
    block: int | None = flax.struct.field(pytree_node=False, default=None)
    precision: str = flax.struct.field(pytree_node=False, default="highest")
    moves: tuple[str, ...] = flax.struct.field(
        pytree_node=False, default=("reseed", "reseed", "reorder")
    )

    def __post_init__(self) -> None:
        for name, most in (("length_penalty", MOST), ("tolerance", jnp.inf), ("early", MOST)):
            value = getattr(self, name)
            if isinstance(value, str) or (is_number(value) and not 0 <= value <= most):
                raise ValueError(
                    f"{name} is {value!r}; expected a number, at least 0 and at most {most:g}"
                )
        if isinstance(self.moves, list):  # which would do all the same, but it has no hash
            object.__setattr__(self, "moves", tuple(self.moves))
        if not isinstance(self.dithered, bool | np.bool_):
            raise ValueError(f"dithered is {self.dithered!r}; expected True or False")
        check_settings(self)
        check_precision(self.precision)

    def init(self, curve: Curve) -> Array:
        """m, the step up to which the penalty is quadratic, [], as long as no samples are seen."""
        length = curve_length(curve)
        return length / jnp.asarray(curve.num_lines, length.dtype)

    def statistics(
        self, curve: Curve, drawn: Array, x: Array, weight: Array, curve_axis: str | None = None
    ) -> NormalSums:
        codewords = wide(curve.codewords)
        curve, x = Curve(codewords, curve.size), jnp.asarray(x, codewords.dtype)
        weight = jnp.asarray(weight, codewords.dtype)
        if curve_axis is not None:
            return self._statistics_of_part(curve, drawn, x, weight, curve_axis)
        if self.dithered:
            fractions = jax.random.uniform(drawn, (len(codewords) - 1,), codewords.dtype)
            return normal_sums(curve, x, weight, nearest_dithered(curve, x, fractions))
        return normal_sums(curve, x, weight, project(curve, x, precision=self.precision))

    def _statistics_of_part(
        self, curve: Curve, drawn: Array, x: Array, weight: Array, axis: str
    ) -> NormalSums:
        part, x, rows = with_next(curve, axis), on_each(axis, x), len(curve.codewords)
        if self.dithered:
            # those of the whole curve, of which each shard takes its own
            whole = jax.random.uniform(drawn, (rows * lax.axis_size(axis) - 1,), x.dtype)
            first = lax.axis_index(axis) * rows
            fractions = lax.dynamic_slice_in_dim(jnp.pad(whole, (0, 1)), first, rows)
            place = nearest_dithered(part, x, fractions)
        else:
            place = project(part, x, precision=self.precision)
        mine, _ = nearest_part(part, place, axis)
        origin = mean_of_rows(curve.codewords, axis)[0]
        return own_sums(normal_sums(part, x, jnp.where(mine, weight, 0), place, origin), axis)

    def update(self, curve: Curve, state: Array, sums: NormalSums) -> tuple[Curve, Array, Info]:
        weight = sums.load.sum()
        some = weight > 0  # samples that have no weight move nothing
        m = jnp.where(some, mean_step(curve, sums), state)
        distortion = sums.error / (jnp.where(some, weight, 1) * curve.latent_dim)
        info = Info(distortion + self.penalty(curve, m), distortion, sums.load)
        present = wide(curve.codewords)
        new = solve(sums, Curve(present, curve.size), self.length_penalty, m)
        codewords = jnp.where(some, new.codewords, present)
        return Curve(codewords.astype(curve.codewords.dtype), curve.size), m, info

    def penalty(self, curve: Curve, state: Array) -> Array:
        """μ/K Σ φ(|c_{j+1} - c_j|), a dimension, with the m of the state."""
        m, length = state, line_lengths(curve)
        cost = jnp.where(length < m, length**2, 2 * m * length - m**2)
        cost = jnp.where(length > 0, cost, 0).sum()
        count = jnp.asarray(curve.num_codewords, cost.dtype) * curve.latent_dim
        return jnp.asarray(self.length_penalty, cost.dtype) * cost / count

    def anneal(self, stages_left: Array | int, size: Array | int) -> Self:
        if isinstance(stages_left, int):  # on the host, where nothing is to be compiled for it
            factor = self.early if stages_left > 0 and size >= EARLY_CODEWORDS else 1.0
        else:
            early = (stages_left > 0) & (jnp.asarray(size) >= EARLY_CODEWORDS)
            factor = jnp.where(early, self.early, 1.0)
        return self.replace(length_penalty=self.length_penalty * factor)  # pyright: ignore


def normal_sums(
    curve: Curve, x: Array, weight: Array, place: Projection, origin: Array | None = None
) -> NormalSums:
    """The sums over samples whose places on the curve are given.

    Args:
      curve: K codewords of width D.
      x: samples, [N, D].
      weight: of each, [N]; 0 leaves it out.
      place: line, fraction and squared distance of each, [N].
      origin: o, [D]; the mean of these codewords by default.
    """
    k, (line, t, squared_distance) = curve.codewords.shape[0], place
    start, stop = weight * (1 - t), weight * t
    nearer = jnp.where(t < 0.5, weight, 0), jnp.where(t < 0.5, 0, weight)
    # one pass over the samples adds up all that belongs to their lines
    columns = jnp.stack([start * (1 - t), stop * t, start * t, *nearer], 1)
    origin = curve.codewords.mean(0) if origin is None else origin
    moment, of_lines = by_line(line, start, stop, x, k, origin=origin, columns=columns)
    at_start, at_stop, coupling, near_start, near_stop = of_lines.T
    return NormalSums(
        diagonal=at_start + jnp.roll(at_stop, 1),
        coupling=coupling,
        moment=moment,
        load=near_start + jnp.roll(near_stop, 1),
        error=jnp.sum(weight * squared_distance),
    )


def mean_step(curve: Curve, sums: NormalSums) -> Array:
    """m: the harmonic mean step, by the samples inside the lines; a bridge hardly raises it."""
    k = jnp.asarray(curve.num_codewords, sums.load.dtype)
    use = sums.coupling[:-1] + LEAST_USE * sums.load.sum() / k
    use = jnp.where(_line_mask(curve), use, 0)
    length = line_lengths(curve)
    return use.sum() / jnp.sum(use / jnp.maximum(length, LEAST_STEP * length.max()))


def solve(sums: NormalSums, curve: Curve, length_penalty: Any, m: Array) -> Curve:
    """The codewords that minimise the parabola above.

    Codewords that no sample reaches stay where they are but for the length penalty.

    Args:
      sums: over at least one sample of weight above 0, assigned with `curve`.
      curve: the present one.
      length_penalty: μ.
      m: the step up to which the penalty is quadratic.
    """
    pull = PULL * _even_load(sums, curve)
    diagonal, off = _matrix(sums, curve, length_penalty, m)
    origin = curve.codewords.mean(0, keepdims=True)
    right = sums.moment + pull * (curve.codewords - origin)
    return Curve(solve_tridiagonal(diagonal + pull, off, right) + origin, curve.size)


def sums_at(curve: Curve, load: Array, length_penalty: Any) -> NormalSums:
    """Sums of samples that a curve stands for, of weight `load` [K] at each codeword.

    Their moments are such that the curve itself is the solution, penalty included.
    """
    none, offset = jnp.zeros_like(load), curve.codewords - curve.codewords.mean(0, keepdims=True)
    sums = NormalSums(load, none, jnp.zeros_like(offset), load, none[0])
    diagonal, off = _matrix(sums, curve, length_penalty, mean_step(curve, sums))
    above, below = off[:, None] * offset[1:], off[:, None] * offset[:-1]
    moment = diagonal[:, None] * offset
    return sums._replace(moment=moment.at[:-1].add(above).at[1:].add(below))


def _matrix(sums: NormalSums, curve: Curve, length_penalty: Any, m: Array) -> tuple[Array, Array]:
    """Diagonal [K] and what is beside it, [K - 1]."""
    length = line_lengths(curve)
    bend = jnp.where(length > m, m / jnp.where(length > m, length, 1), 1)
    stiff = jnp.asarray(length_penalty, bend.dtype) * jnp.where(_line_mask(curve), bend, 0)
    stiff = _even_load(sums, curve) * stiff
    diagonal = sums.diagonal + jnp.pad(stiff, (0, 1)) + jnp.pad(stiff, (1, 0))
    return diagonal, sums.coupling[:-1] - stiff


def _even_load(sums: NormalSums, curve: Curve) -> Array:
    return sums.load.sum() / jnp.asarray(curve.num_codewords, sums.load.dtype)


def solve_tridiagonal(diagonal: Array, off: Array, right: Array) -> Array:
    """The solution [K, D] of a symmetric positive definite tridiagonal system.

    Args:
      diagonal: [K].
      off: beside it, [K - 1].
      right: D right sides, [K, D].
    """
    # LAPACK's solver, which JAX calls on a CPU, takes eight times as long for hundreds of right
    # sides, and wants them in an order of memory in which the sums before it are slow
    system = (diagonal, jnp.pad(off, (1, 0)), jnp.pad(off, (0, 1)), right)

    def default(diagonal: Array, below: Array, above: Array, right: Array) -> Array:
        if len(diagonal) <= ELIMINATED:
            # each launch of a GPU does several rows; its library takes 4 ms however few they are
            return _eliminate(diagonal, below, above, right, unroll=16)
        return lax.linalg.tridiagonal_solve(below, diagonal, above, right)

    return lax.platform_dependent(*system, cpu=_eliminate, default=default)


def _eliminate(diagonal: Array, below: Array, above: Array, right: Array, unroll: int = 1) -> Array:
    """Gaussian elimination without pivoting, row by row and back (Thomas' algorithm)."""

    def down(before: tuple[Array, Array], row: tuple[Array, ...]) -> tuple[tuple, tuple]:
        (ratio, solved), (pivot, below, above, right) = before, row
        pivot = pivot - below * ratio
        now = (above / pivot, (right - below * solved) / pivot)
        return now, now

    def up(after: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        ratio, solved = row
        solution = solved - ratio * after
        return solution, solution

    first = (jnp.zeros_like(above[0]), jnp.zeros_like(right[0]))
    _, rows = lax.scan(down, first, (diagonal, below, above, right), unroll=unroll)
    return lax.scan(up, jnp.zeros_like(right[0]), rows, reverse=True, unroll=unroll)[1]


def _line_mask(curve: Curve) -> Array:
    return jnp.arange(curve.codewords.shape[0] - 1, dtype=jnp.int32) < curve.num_lines
