"""Data of low rank is fitted in its own coordinates.

The latents of some spaces fill few of their dimensions: a linear layer of a BigGAN's is 2,048 wide
and of rank 73. With an orthonormal basis of what they span, y = Bᵀx has the same norms and the same
distances, the best curve in y is the best curve in x, and c = B y undoes it exactly. The span goes
through the origin, so that a start that sorts by norm is the same too.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

MIN_DIM = 32  # of narrower latents nothing would be gained
FIRST_ROWS = 256  # that a basis is sought with; doubled where it does not hold for the others
MAX_ROWS = 2048
KNOWN = 1e-5  # singular values below this share of the largest are rounding
OUTSIDE = 1e-8  # share of the variance that a basis may leave out


@flax.struct.dataclass
class Span:
    """An orthonormal basis, or none: then nothing is changed.

    Attributes:
      basis: B, [D, r] float32, or None.
    """

    basis: Any = None

    @property
    def rank(self) -> int | None:
        """r, or None without a basis."""
        return None if self.basis is None else self.basis.shape[1]

    def enter(self, x: Any) -> Any:
        """Coordinates of points: [N, D] -> [N, r]."""
        return x if self.basis is None else _product(x, self.basis)

    def leave(self, y: Any) -> Any:
        """Points of coordinates: [N, r] -> [N, D]."""
        return y if self.basis is None else _product(y, self.basis.T)

    def on_host(self) -> "Span":
        """The same as an array of NumPy, for what is on no mesh."""
        return self if self.basis is None else Span(np.asarray(self.basis))

    def share_outside(self, x: Array, weight: Array) -> float:
        """Share of the variance of points [N, D] of weight [N] that lies outside of the span."""
        return 0.0 if self.basis is None else float(_share_outside(self.basis, x, weight))


def find_span(x: np.ndarray) -> Span:
    """The span of samples [N, D], where its rank is at most half of D; without a D×D matrix.

    A basis is found with few of them, and holds if hardly anything of the others lies outside.
    """
    n, d = x.shape
    if d < MIN_DIM or n < 2:
        return Span()
    mean = x.mean(0, dtype=np.float64)
    total = _square_sum(x - mean.astype(x.dtype))
    rows = FIRST_ROWS
    while True:
        # of rows that stand for a span of so many dimensions, half have to be to spare
        some = x[np.linspace(0, n - 1, min(rows, n)).astype(int)]
        basis = _basis(some - mean, mean)
        small = basis.shape[1] <= d // 2
        enough = n <= rows or basis.shape[1] <= 0.75 * len(some)
        if small and enough and _outside(x, basis) <= OUTSIDE * total:
            return Span(basis.astype(np.float32))
        if rows >= min(n, MAX_ROWS) or not small:
            return Span()
        rows *= 2


def _basis(centred: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """An orthonormal basis [D, r] of rows and their mean, by the Gram matrix of the lesser side."""
    gram = centred @ centred.T if len(centred) < len(mean) else centred.T @ centred
    values, vectors = np.linalg.eigh(gram)
    found = vectors[:, values > KNOWN**2 * max(values[-1], 0)]
    if len(centred) < len(mean):
        found = centred.T @ found
    # the mean last, since its direction may be among the others
    largest = np.linalg.norm(mean)
    rest = mean
    basis, _ = np.linalg.qr(found)
    for _ in range(2):
        rest = rest - basis @ (basis.T @ rest)
    size = np.linalg.norm(rest)
    if size > KNOWN * max(largest, 1e-30):
        basis = np.concatenate([basis, (rest / size)[:, None]], 1)
    return basis


def _outside(x: np.ndarray, basis: np.ndarray) -> float:
    basis = basis.astype(np.float32)
    return sum(
        _square_sum(part - (part @ basis) @ basis.T)
        for part in np.array_split(x, max(1, len(x) // 1024))
    )


def _square_sum(x: np.ndarray) -> float:
    return float(np.einsum("nd,nd->", x, x, dtype=np.float64))


@jax.jit
def _product(x: Array, matrix: Array) -> Array:
    return jnp.matmul(x, matrix, precision="highest")


@jax.jit
def _share_outside(basis: Array, x: Array, weight: Array) -> Array:
    mean = jnp.matmul(weight, x, precision="highest") / weight.sum()
    total = jnp.sum(weight * jnp.sum((x - mean[None]) ** 2, 1))
    rest = x - _product(_product(x, basis), basis.T)
    return jnp.sum(weight * jnp.sum(rest**2, 1)) / total
