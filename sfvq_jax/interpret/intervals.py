"""What is measured, with how sure that is."""

import math
from typing import NamedTuple

import numpy as np
import scipy.stats

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean or a share with its confidence interval."""

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


def share_over_seeds(means: np.ndarray, trials: int) -> Interval:
    """Wilson's interval of a share, of what it is with each of S >= 2 seeds, [S].

    Where seeds differ by more than independent trials would, these count as fewer: as so many as
    have the variance that the mean has (Kish's design effect, with the correction of Korn &
    Graubard, 1998, for few seeds).
    """
    mean, s = float(means.mean()), len(means)
    t, normal = scipy.stats.t.ppf(1 - _tail(1), s - 1), scipy.stats.norm.ppf(1 - _tail(1))
    variance = float(means.var(ddof=1)) / s * (t / normal) ** 2
    worth = trials if variance == 0 else min(mean * (1 - mean) / variance, trials)
    n = max(int(worth), 1)
    count = round(mean * n, 6)  # no whole number; the interval holds those of both around it
    low, high = share(math.floor(count), n).low, share(math.ceil(count), n).high
    return Interval(mean, min(low, mean), max(high, mean))  # not beside it by rounding


def holm(p: np.ndarray) -> np.ndarray:
    """P-values of M tests [M], adjusted: that any is below .05 by chance has probability .05.

    By Holm (1979): the least is multiplied by M, the next by M - 1, …, and none falls below the one
    before it.
    """
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def _tail(comparisons: int) -> float:
    return (1 - CONFIDENCE) / (2 * comparisons)
