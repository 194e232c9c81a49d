"""How well codes tell known factors apart: DCI, MIG and the FactorVAE score.

Letters: N samples, D codes, F factors, V votes, L samples a vote.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.metrics import mutual_info_score

TREES, DEPTHS = 10, (6, 12)  # of the forests; their depth is chosen on samples of its own
BINS = 20  # of a code, for mutual information


class DCI(NamedTuple):
    """After Eastwood & Williams (ICLR 2018, §2), with random forests.

    Attributes:
      disentanglement: 1 where every code matters to one factor only: the mean over codes of 1 - the
        entropy, to base F, of its importances over factors, weighted by importance.
      completeness: 1 where one code tells a factor: 1 - the entropy, to base D, of the importances
        of codes for it, the mean over factors.
      error: of the prediction, the mean over factors; 0 is all, and 1 what is known without codes.
        The root of the mean square ÷ that of the factor's deviations; of classes the share that is
        wrong ÷ that of always saying the most frequent. (The paper's informativeness.)
      errors: of each factor, [F].
      importances: of codes for factors, [D, F]; each factor's sum to 1.
    """

    disentanglement: float
    completeness: float
    error: float
    errors: np.ndarray
    importances: np.ndarray


def dci(
    codes: np.ndarray, factors: np.ndarray, *, classes: Sequence[int] = (), seed: int = 0
) -> DCI:
    """Of codes [N, D] and factors [N, F]: half are learned from, a quarter chooses depths.

    Args:
      codes: [N, D].
      factors: [N, F] numbers.
      classes: columns of `factors` without order, for a classifier.
      seed: of the forests; the same seed gives the same trees.
    """
    fit, choose, rest = np.split(np.arange(len(codes)), [len(codes) // 2, len(codes) * 3 // 4])
    importances, errors = [], []
    for column in range(factors.shape[1]):
        target = factors[:, column]
        forest_of = RandomForestClassifier if column in classes else RandomForestRegressor
        forests = [
            forest_of(TREES, max_depth=depth, random_state=seed).fit(codes[fit], target[fit])
            for depth in DEPTHS
        ]
        forest = max(forests, key=lambda forest: forest.score(codes[choose], target[choose]))
        told = forest.predict(codes[rest])
        if column in classes:
            values, counts = np.unique(target[fit], return_counts=True)
            wrong, plain = (told != target[rest]), (values[counts.argmax()] != target[rest])
            errors.append(wrong.mean() / plain.mean())
        else:
            spread = np.square(target[rest] - target[fit].mean()).mean()
            errors.append((np.square(told - target[rest]).mean() / spread) ** 0.5)
        importances.append(forest.feature_importances_)
    matrix = np.array(importances).T
    return DCI(
        _weighted(1 - _entropy(matrix), matrix.sum(1)),
        float((1 - _entropy(matrix.T)).mean()),
        float(np.mean(errors)),
        np.array(errors),
        matrix,
    )


def mig(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """The mutual information gap of each factor, [F] (Chen et al., NeurIPS 2018, eq. 6).

    How much more the best code tells of a factor than the second best one, ÷ the factor's entropy;
    their mean is the MIG. The paper takes the encoder's density q(z|x). Codes that are numbers are
    cut into 20 bins of equal width, as Locatello et al. (ICML 2019, appendix C) do.

    Args:
      codes: [N, D], D >= 2.
      factors: [N, F] with few values each.
    """
    edges = [np.linspace(code.min(), code.max(), BINS + 1)[1:-1] for code in codes.T]
    binned = [np.digitize(code, edge) for code, edge in zip(codes.T, edges, strict=True)]
    gaps = []
    for factor in factors.T:
        shared = sorted(mutual_info_score(factor, code) for code in binned)
        gaps.append((shared[-1] - shared[-2]) / mutual_info_score(factor, factor))
    return np.array(gaps)


def factor_vae_score(votes: np.ndarray, fixed: np.ndarray, deviations: np.ndarray) -> float:
    """The share of votes that a majority vote gets right (Kim & Mnih, ICML 2018, §4).

    In each vote one factor is the same in all samples. The code whose variance there is the least,
    ÷ its variance over all samples, tells which: the factor that was most often fixed where this
    code was the least. By chance about 1 ÷ F.

    Args:
      votes: codes [V, L, D].
      fixed: number of the factor that is the same, [V].
      deviations: of codes over all samples, [D]; those of 0 do not vote.
    """
    kept = deviations > 0
    least = (votes[..., kept].var(1) / deviations[kept] ** 2).argmin(1)
    counts = np.zeros((kept.sum(), fixed.max() + 1), int)
    np.add.at(counts, (least, fixed), 1)
    return float(counts.max(1).sum() / len(fixed))


def _entropy(importances: np.ndarray) -> np.ndarray:
    """Of each row of [A, B], as shares, to base B; 0 of rows of zeros."""
    shares = importances / np.maximum(importances.sum(1, keepdims=True), 1e-12)
    logs = np.log(np.maximum(shares, 1e-12))
    return -(shares * logs).sum(1) / np.log(importances.shape[1])


def _weighted(values: np.ndarray, weights: np.ndarray) -> float:
    return float((values * weights).sum() / weights.sum())
