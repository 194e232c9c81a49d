"""What is measured, with how sure that is."""

from typing import NamedTuple

import numpy as np
import scipy.stats


class Interval(NamedTuple):
    """A mean and its 95 % confidence interval (Student's t)."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        half = f" ± {self.high - self.mean:.3f}" if self.high > self.low else ""
        return f"{self.mean:.3f}{half}"


def interval(values: np.ndarray) -> Interval:
    """Of values [N], N >= 2, that are independent."""
    n, mean = len(values), float(values.mean())
    half = float(scipy.stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5)
    return Interval(mean, mean - half, mean + half)
