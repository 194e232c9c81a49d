"""SFVQ: the lines of a curve, or all pairs of its codewords.

Letters: D dimensions, K codewords.
"""

import dataclasses

import jax
import numpy as np

from sfvq_jax.curve import Curve
from sfvq_jax.fit import DEFAULT_SOLVER, fit
from sfvq_jax.interpret.comparison.methods.method import Fitted, in_all_ranges
from sfvq_jax.interpret.geometry import unit_rows
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.solver import Solver

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class SFVQ:
    """Directions along the lines of a curve (Vali & Bäckström, TMLR 2025, arXiv 2410.20573).

    Attributes:
      bits: bits of the curve, which has 2**bits codewords.
      solver: solver of `sfvq_jax.fit`.

    >>> from sfvq_jax import LeastSquares
    >>> from sfvq_jax.interpret import SFVQ
    >>> method = SFVQ(bits=4, solver=LeastSquares(length_penalty=0.4))  # then `method.fit`
    >>> method.name, method.bits
    ('SFVQ', 4)
    """

    bits: int = 6
    solver: Solver = DEFAULT_SOLVER

    name = "SFVQ"

    def fit(self, key: Array, model: LatentModel) -> Fitted:
        return along_lines(fit(key, model, bits=self.bits, solver=self.solver).curve, model)


def along_lines(curve: Curve, model: LatentModel) -> Fitted:
    """The lines of a curve."""
    vectors = unit_rows(np.diff(np.asarray(curve.codewords, np.float64), axis=0))
    return Fitted(in_all_ranges(vectors, model.num_layers), curve)


def curve_pairs(curve: Curve) -> Array:
    """Unit vectors [K (K - 1) / 2, D] from each codeword to every later one."""
    codewords = np.asarray(curve.codewords, np.float64)
    start, stop = np.triu_indices(len(codewords), 1)
    return unit_rows(codewords[stop] - codewords[start])
