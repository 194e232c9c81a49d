"""What a comparison comes to: a row a method, over all seeds.

Seeds are independent, the attributes of one seed are not: all intervals and tests are over seeds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from sfvq_jax.interpret.comparison.measures import Edit, Order, Recognition
from sfvq_jax.interpret.intervals import Interval, holm, interval, share_over_seeds
from sfvq_jax.short import short_repr

Place = tuple[int, str]  # seed and attribute

RECOGNITIONS = {"recognition": "accuracy", "recognition_equal": "accuracy_equal"}
MEANS = ("dependency", "content", "correlation", "strength")  # of `Edit`


class Comparison(NamedTuple):
    """Measurements of `compare`; `summary` and `order_summary` make tables of them."""

    edits: list[Edit]
    recognitions: list[Recognition]
    orders: list[Order]
    settings: Mapping[str, Any]

    __repr__ = short_repr

    def to_json(self) -> dict[str, Any]:
        """Both tables and all entries, as JSON values."""
        tables = {"summary": summary(self), "order": order_summary(self)}
        return _jsonable({"settings": self.settings} | tables | self._asdict())


class Gap(NamedTuple):
    """Difference of a method from the first method, paired over seeds.

    Attributes:
      mean, low, high: mean of the seeds' differences and its 95 % interval (Student's t).
      p: p-value of the paired t test of no difference, adjusted by Holm's method for the number of
        methods that are compared with the first.
    """

    mean: float
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        return f"{Interval(*self[:3])} (p {self.p:.2g})"


class MethodSummary(NamedTuple):
    """Summary of a method over all seeds: means and 95 % intervals.

    Intervals of shares (`reached`, both kinds of recognition, `agree`) are Wilson's, with an
    effective number of trials that depends on how much seeds differ. The others are Student's t of
    the seeds' means.

    Attributes:
      method: name of the method.
      directions: number of directions that it chooses among, for each range of layers.
      reached: share of the attributes that change as wanted on fresh latents, within the limits of
        their directions.
      failed: mean number of attributes per seed that change as wanted on the latents that chose the
        direction, but not on fresh ones within its limits.
      recognition, recognition_equal: accuracies of `Recognition`.
      recognised: number of directions that are told apart there.
      shared: mean number of attributes per seed that both this method and the first one reach.
      dependency, content, correlation, agree, strength: see `Edit`, over these attributes; None if
        fewer than two seeds have any, or without features.
      dependency_gap, content_gap, correlation_gap, strength_gap: difference from the first method,
        over the same attributes; None for the first.
    """

    method: str
    directions: int
    reached: Interval
    failed: float
    recognition: Interval
    recognition_equal: Interval
    recognised: int
    shared: float
    dependency: Interval | None
    content: Interval | None
    correlation: Interval | None
    agree: Interval | None
    strength: Interval | None
    dependency_gap: Gap | None
    content_gap: Gap | None
    correlation_gap: Gap | None
    strength_gap: Gap | None


def summary(comparison: Comparison) -> list[MethodSummary]:
    """Summarises a comparison: a row for each method, in the given order.

    >>> from sfvq_jax.interpret import Comparison, summary
    >>> from sfvq_jax.interpret.comparison.measures import Edit, Recognition
    >>> edits, told_apart = [], []
    >>> for name in ("SFVQ", "random"):  # as `compare` measures them
    ...     for seed in (0, 1):
    ...         edits.append(Edit(name, seed, "smile", (0, 7), reached=name == "SFVQ"))
    ...         told_apart.append(Recognition(name, seed, 63, 16, 0.9, 0.8, step=1.0))
    >>> rows = summary(Comparison(edits, told_apart, [], {"seeds": 2}))
    >>> [(row.method, row.reached.mean, row.recognition.mean) for row in rows]
    [('SFVQ', 1.0, 0.9), ('random', 0.0, 0.9)]
    """
    names = list(dict.fromkeys(edit.method for edit in comparison.edits))
    of_method = {
        name: {(e.seed, e.attribute): e for e in comparison.edits if e.method == name}
        for name in names
    }
    first = of_method[names[0]]
    gaps = {field: _gaps(of_method, field) for field in MEANS}
    seeds = comparison.settings["seeds"]
    rows = []
    for name, own in of_method.items():
        recognitions = [r for r in comparison.recognitions if r.method == name]
        both = [own[place] for place in _both_reach(own, first)]
        edits = list(own.values())
        reached = _seed_means(edits, [e.reached for e in edits])
        agree = _seed_means(both, [e.agree for e in both])
        over_seeds: dict[str, Any] = {
            field: _over_seeds(both, [getattr(e, field) for e in both]) for field in MEANS
        } | {f"{field}_gap": of_field.get(name) for field, of_field in gaps.items()}
        rows.append(
            MethodSummary(
                method=name,
                directions=recognitions[0].directions,
                reached=share_over_seeds(reached, len(edits)),
                failed=sum(e.reached_where_chosen and not e.reached for e in edits) / seeds,
                # pairs of one direction may all be told apart or none, so they count as one trial
                **{
                    name: share_over_seeds(
                        np.array([getattr(r, field) for r in recognitions]),
                        sum(r.recognised for r in recognitions),
                    )
                    for name, field in RECOGNITIONS.items()
                },
                recognised=recognitions[0].recognised,
                shared=len(both) / seeds,
                # and so do the latents of one edit
                agree=share_over_seeds(agree, len(both)) if len(agree) > 1 else None,
                **over_seeds,
            )
        )
    return rows


def _both_reach(own: Mapping[Place, Edit], first: Mapping[Place, Edit]) -> list[Place]:
    return [p for p, e in own.items() if None not in (e.dependency, first[p].dependency)]


def _gaps(of_method: Mapping[str, Mapping[Place, Edit]], field: str) -> dict[str, Gap]:
    """Of all methods but the first that reach something that it reaches, in two seeds or more."""
    (_, first), *others = of_method.items()
    means = {}
    for name, own in others:
        both = _both_reach(own, first)
        values = [_gap(getattr(own[p], field), getattr(first[p], field)) for p in both]
        of_seeds = _seed_means([own[p] for p in both], values)
        if len(of_seeds) > 1:
            means[name] = of_seeds
    adjusted = holm(np.array([_p_of_no_gap(of_seeds) for of_seeds in means.values()]))
    return {
        name: Gap(*interval(of_seeds), float(p))
        for (name, of_seeds), p in zip(means.items(), adjusted, strict=True)
    }


def _p_of_no_gap(values: np.ndarray) -> float:
    """Of Student's t test that the mean is 0, of values [S]."""
    if np.ptp(values) == 0:
        return float(values[0] == 0)
    error = values.std(ddof=1) / len(values) ** 0.5
    return float(2 * scipy.stats.t.sf(abs(values.mean()) / error, len(values) - 1))


def _seed_means(edits: Sequence[Edit], values: Sequence[float | None]) -> np.ndarray:
    """Of values that belong to edits, the mean of each seed that has any, [S]."""
    by_seed: dict[int, list[float]] = {}
    for edit, value in zip(edits, values, strict=True):
        if value is not None:
            by_seed.setdefault(edit.seed, []).append(value)
    return np.array([np.mean(of_seed) for of_seed in by_seed.values()])


def _over_seeds(edits: Sequence[Edit], values: Sequence[float | None]) -> Interval | None:
    """Of the means of each seed; None for fewer than two seeds."""
    means = _seed_means(edits, values)
    return interval(means) if len(means) > 1 else None


def _gap(own: float | None, other: float | None) -> float | None:
    return None if own is None or other is None else own - other


def order_summary(comparison: Comparison) -> list[dict[str, Any]]:
    """Summarises the order of codewords of each method that fits a curve: an `Interval` by name.

    >>> from sfvq_jax.interpret import Comparison, order_summary
    >>> from sfvq_jax.interpret.comparison.measures import Order
    >>> orders = [  # as `compare` measures them
    ...     Order("SFVQ", seed, 0.25, neighbour_share=0.75, step_ratio=0.5, trustworthiness=0.9)
    ...     for seed in (0, 1)]
    >>> (row,) = order_summary(Comparison([], [], orders, {"seeds": 2}))
    >>> row["method"], row["step_ratio"].mean, row["class_runs"]
    ('SFVQ', 0.5, None)
    """
    rows = []
    for name in dict.fromkeys(order.method for order in comparison.orders):
        own = [order for order in comparison.orders if order.method == name]
        row: dict[str, Any] = {"method": name}
        for field in Order._fields[2:]:
            values = [getattr(order, field) for order in own]
            row[field] = None if None in values else interval(np.array(values))
        rows.append(row)
    return rows


def _jsonable(value: Any) -> Any:
    """Named tuples as mappings, however deep."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {name: _jsonable(part) for name, part in value.items()}
    return [_jsonable(part) for part in value] if isinstance(value, list) else value
