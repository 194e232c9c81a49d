"""The best codebook for samples whose places on the curve are fixed: one tridiagonal system.

With sample x_n at fraction t_n of line j_n and of weight w_n, the codewords that minimise

    1/W Σ w_n |x_n - (1 - t_n) c_{j_n} - t_n c_{j_n + 1}|²  +  μ/K Σ |c_{j+1} - c_j|²,    W = Σ w_n

solve A c = b, where A couples only neighbours. All that A and b need are sums over samples, so
tiles, devices and hosts add theirs. The second term is the length penalty: without it the curve
wins on distortion by long jumps outside the data, and its order means nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sfvq_jax.curve import Curve

Array = jax.Array

TILE = 1024  # samples whose part of the sums is one matrix product
ACCELERATOR_TILE = 2**15
PRODUCT_CODEWORDS = 256  # beyond them, adding row by row is cheaper than a product with zeros
ELIMINATED = 1024  # rows of a system, at most, that an accelerator solves row by row
PULL = 1e-4  # weight of the present codeword, in shares of an even load a codeword


class NormalSums(NamedTuple):
    """Sums over samples; those of two sets of samples are added entry by entry.

    Together K·D + 2K numbers, which is what devices exchange in a round.

    Attributes:
      diagonal: Σ w (1-t)² over the samples of the line that starts at a codeword and Σ w t² over
        those of the line that ends there, [K].
      coupling: Σ w t (1-t) over the samples of each line, [K - 1], and last Σ w |x - point|², [K].
      moment: Σ w (1-t) (x - o) and Σ w t (x - o) likewise, [K, D], about an origin o.
    """

    diagonal: Array
    coupling: Array
    moment: Array

    @property
    def weight(self) -> Array:
        """Σ w, a scalar: (1-t)² + 2t(1-t) + t² is 1."""
        return self.diagonal.sum() + 2 * self.coupling[:-1].sum()


def zero_sums(curve: Curve) -> NormalSums:
    """The sums over no samples."""
    zero = jnp.zeros_like(curve.codewords)
    return NormalSums(zero[:, 0], zero[:, 0], zero)


def add_samples(
    sums: NormalSums,
    x: Array,
    weight: Array,
    line: Array,
    fraction: Array,
    squared_distance: Array,
    origin: Array,
) -> NormalSums:
    """Adds samples to the sums.

    Args:
      sums: of K codewords of width D.
      x: samples, [N, D].
      weight: of each, [N]; 0 leaves it out.
      line: that each is assigned to, [N].
      fraction: of that line, [N].
      squared_distance: from that point, [N].
      origin: o, [D]; the same for all that is added. Near the data, it saves the digits of data
        that lies far from zero.
    """
    k = sums.diagonal.shape[0]
    start, stop = weight * (1 - fraction), weight * fraction
    diagonal = sums.diagonal.at[line].add(start * (1 - fraction)).at[line + 1].add(stop * fraction)
    coupling = sums.coupling.at[line].add(start * fraction)
    coupling = coupling.at[-1].add(jnp.sum(weight * squared_distance))
    add = _add_by_product if k <= PRODUCT_CODEWORDS else _add_by_row
    return NormalSums(diagonal, coupling, add(sums.moment, x, line, start, stop, origin))


def _add_by_row(
    moment: Array, x: Array, line: Array, start: Array, stop: Array, origin: Array
) -> Array:
    x = x - origin[None]
    return moment.at[line].add(start[:, None] * x).at[line + 1].add(stop[:, None] * x)


def _add_by_product(
    moment: Array, x: Array, line: Array, start: Array, stop: Array, origin: Array
) -> Array:
    index = jnp.arange(moment.shape[0], dtype=line.dtype)[:, None]
    n = x.shape[0]
    rows = min(TILE if jax.default_backend() == "cpu" else ACCELERATOR_TILE, n)

    def add_tile(i: Array, moment: Array) -> Array:
        # the last tile reaches back over samples of the one before, which then count nothing
        first = jnp.minimum(i * rows, n - rows)
        tile_x, tile_line, tile_start, tile_stop = (
            lax.dynamic_slice_in_dim(array, first, rows) for array in (x, line, start, stop)
        )
        new = (first + jnp.arange(rows) >= i * rows).astype(x.dtype)
        share = jnp.where(index == tile_line[None], (new * tile_start)[None], 0)
        share += jnp.where(index == tile_line[None] + 1, (new * tile_stop)[None], 0)
        return moment + jnp.matmul(share, tile_x - origin[None], precision="highest")

    return lax.fori_loop(0, -(-n // rows), add_tile, moment)


def solve(sums: NormalSums, curve: Curve, length_penalty: float | Array, origin: Array) -> Curve:
    """The codewords that minimise the objective above.

    Codewords that no sample reaches stay where they are but for the length penalty.

    Args:
      sums: over at least one sample of weight above 0.
      curve: the present one, of the same K.
      length_penalty: μ >= 0, without a unit.
      origin: o of the sums.
    """
    k = curve.num_codewords
    load = sums.weight / k
    neighbours = jnp.full(k, 2.0).at[0].set(1).at[-1].set(1)
    diagonal = sums.diagonal + load * (length_penalty * neighbours + PULL)
    off = sums.coupling[:-1] - load * length_penalty
    present = curve.codewords - origin[None]
    right = sums.moment + PULL * load * present
    return Curve(solve_tridiagonal(diagonal, off, right) + origin[None])


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


def objective(sums: NormalSums, curve: Curve, length_penalty: float | Array) -> Array:
    """The objective at the curve that the samples were assigned with, a dimension; a scalar."""
    error = sums.coupling[-1] / (sums.weight * curve.latent_dim)
    return error + length_term(curve, length_penalty)


@jax.jit
def length_term(curve: Curve, length_penalty: float | Array) -> Array:
    """μ/K Σ |c_{j+1} - c_j|², a dimension; a scalar."""
    return length_penalty * jnp.sum(jnp.diff(curve.codewords, axis=0) ** 2) / curve.codewords.size
