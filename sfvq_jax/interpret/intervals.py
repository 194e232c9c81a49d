"""What is measured, with how sure that is."""

from typing import NamedTuple

import numpy as np
import scipy.stats

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean or a share, and its confidence interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        above, below = self.high - self.mean, self.mean - self.low
        if abs(above - below) > 5e-4:  # of a share
            return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"
        return f"{self.mean:.3f}{f' ± {above:.3f}' if above > 0 else ''}"


def interval(values: np.ndarray, comparisons: int = 1) -> Interval:
    """Of the mean of values [N], N >= 2, that are independent (Student's t).

    Args:
      values: [N].
      comparisons: of so many intervals all hold their mean in 95 % of cases (Bonferroni).
    """
    n, mean = len(values), float(values.mean())
    tail = scipy.stats.t.ppf(1 - _tail(comparisons), n - 1)
    half = float(tail * values.std(ddof=1) / n**0.5)
    return Interval(mean, mean - half, mean + half)


def share(count: int, n: int, comparisons: int = 1) -> Interval:
    """Of a share, of which `count` of `n` independent trials tell (Wilson, 1927, the score's).

    Args:
      count: of the trials that succeeded.
      n: of all trials; without any, the interval is that from 0 to 1.
      comparisons: as of `interval`.
    """
    if n == 0:
        return Interval(float("nan"), 0.0, 1.0)
    z, p = float(scipy.stats.norm.ppf(1 - _tail(comparisons))), count / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5 / (1 + z**2 / n)
    # rounding leaves no end on the wrong side
    return Interval(p, min(max(centre - half, 0.0), p), max(min(centre + half, 1.0), p))


def _tail(comparisons: int) -> float:
    return (1 - CONFIDENCE) / (2 * comparisons)
