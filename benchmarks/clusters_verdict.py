"""What `benchmarks.clusters` concludes from its fits: the old front, and what was reached."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import scipy.stats
from scipy.interpolate import PchipInterpolator

Row = dict[str, Any]
Values = list[dict[str, float]]  # of the seeds, in order

CLUSTERED = ("BigGAN linear", "moderate clusters", "far clusters", "noisy clusters")
FRONT_DATA = ("W", "CIFAR10-10", "AFHQ-8", "Gaussian")
VERDICT_BITS = 6
RATIO = "distortion ÷ the front's"
CONTINUITY = {"": 0.885, ", μ 0.3": 0.92, ", μ 0.4": 0.95}  # on W


class Estimate(NamedTuple):
    """A mean over seeds and half of its 95 % interval, None of one seed."""

    mean: float
    margin: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        n = len(values)
        if n == 1:
            return cls(float(values[0]), None)
        margin = scipy.stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5
        return cls(float(np.mean(values)), float(margin))

    @classmethod
    def read(cls, value: Any) -> Any:
        """As it comes from JSON; other values stay what they are."""
        return cls(*value) if isinstance(value, list) else value

    def __str__(self) -> str:
        return f"{self.mean:.4g}" + (f" ± {self.margin:.2g}" if self.margin else "")


def beside_front(values: Mapping[str, Values], old: str, new: str) -> list[Row]:
    """The new fits' distortion ÷ that of the old front at equal step.

    The front goes through the means of the old fits by a monotone cubic in the logarithm of the
    step. Seeds whose step it does not reach are left out.
    """
    front = [
        tuple(np.mean([(one["step"], one["distortion"]) for one in found], 0))
        for method, found in values.items()
        if method.startswith(old)
    ]
    rows = []
    for method, found in values.items():
        if not method.startswith(new):
            continue
        row: Row = {
            "method": method,
            "step": Estimate.of([one["step"] for one in found]),
            "distortion": Estimate.of([one["distortion"] for one in found]),
        }
        levels = [at_step(front, one["step"]) for one in found]
        reached = [
            (one["distortion"], level)
            for one, level in zip(found, levels, strict=True)
            if level is not None
        ]
        row["seeds"] = f"{len(reached)} of {len(found)}"
        if reached:
            row["the front's"] = Estimate.of([level for _, level in reached])
            row[RATIO] = Estimate.of([own / level for own, level in reached])
        rows.append(row)
    return rows


def at_step(front: Sequence[tuple[float, float]], step: float) -> float | None:
    """The distortion of a front of (step, distortion) at a step; None beyond its ends."""
    steps, distortions = np.array(sorted(front)).T
    steps, first = np.unique(steps, return_index=True)
    if len(steps) < 2 or not steps[0] <= step <= steps[-1]:
        return None
    return float(PchipInterpolator(np.log(steps), distortions[first])(np.log(step)))


def acceptance(
    fits: Sequence[Row], front: Sequence[Row], old: str, new: str, k_means: str
) -> list[Row]:
    """What the new default was to reach, what it reaches, and whether that is enough."""

    def fit(data: str, method: str, bits: int = VERDICT_BITS) -> Row | None:
        return _row(fits, data, bits, method)

    rows = []
    for data in CLUSTERED:
        own = fit(data, new)
        figure = own and own["dead"].mean
        before = fit(data, old)
        rows.append(
            {
                "what": f"{data}: dead of {2**VERDICT_BITS}",
                "old": before and before["dead"].mean,
                "new": figure,
                "wanted": "0",
                "verdict": _verdict(figure, lambda figure: figure == 0),
            }
        )
    base, before, own = (fit("far clusters", m) for m in (f"{k_means}, ordered", old, new))
    figure = own and base and own["distortion"].mean / base["distortion"].mean
    rows.append(
        {
            "what": "far clusters: distortion ÷ that of k-means, ordered",
            "old": before and base and before["distortion"].mean / base["distortion"].mean,
            "new": figure,
            "wanted": "≤ 1.06",
            "verdict": _verdict(figure, lambda figure: figure <= 1.06),
        }
    )
    for data in FRONT_DATA:
        own = _row(front, data, VERDICT_BITS, new)
        ratio = own and own.get(RATIO)
        figure = ratio and ratio.mean
        rows.append(
            {
                "what": f"{data}: distortion ÷ the old front's at equal step",
                "new": figure,
                "wanted": "≤ 1.01",
                "verdict": _verdict(figure, lambda figure: figure <= 1.01),
            }
        )
    rows += [_beside_book(fits, bits, old, new) for bits in (4, 6)]
    for penalty, wanted in CONTINUITY.items():
        own, before = fit("W", new + penalty), fit("W", old + penalty)
        figure = own and own["continuity"].mean
        rows.append(
            {
                "what": f"W: continuity{penalty or ', μ 0.2'}",
                "old": before and before["continuity"].mean,
                "new": figure,
                "wanted": f"≥ {wanted:g}",
                "verdict": _verdict(figure, lambda figure, wanted=wanted: figure >= wanted),
            }
        )
    return rows


def _beside_book(fits: Sequence[Row], bits: int, old: str, new: str) -> Row:
    """Of the new fits whose distortion is at most the published codebook's, the shortest; where
    there is none, the one of the least distortion."""
    of_data = [row for row in fits if (row["data"], row["bits"]) == ("CIFAR10-10", bits)]
    book = _row(of_data, "CIFAR10-10", bits, "published")
    own = [row for row in of_data if row["method"].startswith(new)]
    result: Row = {"what": f"CIFAR10-10, {bits} bits: distortion at step"}
    if book is None or not own:
        return result | {"verdict": _verdict(None, bool)}
    most = book["distortion"].mean
    enough = [row for row in own if row["distortion"].mean <= most]
    best = (
        min(enough, key=lambda row: row["step"].mean)
        if enough
        else min(own, key=lambda row: row["distortion"].mean)
    )
    before = _row(of_data, "CIFAR10-10", bits, old)

    def at(row: Row) -> str:
        return f"{row['distortion'].mean:.5f} at {row['step'].mean:.2f}"

    return {
        "what": f"CIFAR10-10, {bits} bits: distortion at step ({best['method']})",
        "old": before and at(before),
        "new": at(best),
        "wanted": f"≤ {most:.5f} at < {book['step'].mean:.2f}",
        "verdict": _verdict(
            best, lambda row: bool(enough) and row["step"].mean < book["step"].mean
        ),
    }


def _row(rows: Sequence[Row], data: str, bits: int, method: str) -> Row | None:
    wanted = (data, bits, method)
    found = [row for row in rows if (row["data"], row["bits"], row["method"]) == wanted]
    return found[0] if found else None


def _verdict(figure: Any, holds) -> str:
    if figure is None:
        return "not measured"
    return "met" if holds(figure) else "not met"
