"""What a comparison comes to: a row a method, over all seeds."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sfvq_jax.interpret.comparison.measures import Edit, Order, Recognition
from sfvq_jax.interpret.intervals import Interval, interval
from sfvq_jax.short import short_repr


class Comparison(NamedTuple):
    """What `compare` measures, one entry each; `summary` and `order_summary` are its tables."""

    edits: list[Edit]
    recognitions: list[Recognition]
    orders: list[Order]
    settings: Mapping[str, Any]

    __repr__ = short_repr

    def to_json(self) -> dict[str, Any]:
        """Both tables and all entries, as JSON values."""
        tables = {"summary": summary(self), "order": order_summary(self)}
        return _jsonable({"settings": self.settings} | tables | self._asdict())


class MethodSummary(NamedTuple):
    """Of a method over all seeds: means and 95 % intervals over seeds of each seed's mean.

    Attributes:
      method: its name.
      directions: how many it chooses among, for each layer range.
      reached: share of the attributes that can be changed as wanted.
      recognition: accuracy of `Recognition`.
      dependency, content, correlation, agree, strength: of `Edit`, over the attributes that all
        methods reach with that seed; None where there are none, or no features.
      dependency_gap, content_gap, correlation_gap: what the method has more of than the first one,
        over the attributes that both reach with that seed; None for the first.
    """

    method: str
    directions: int
    reached: Interval
    recognition: Interval
    dependency: Interval | None
    content: Interval | None
    correlation: Interval | None
    agree: Interval | None
    strength: Interval | None
    dependency_gap: Interval | None
    content_gap: Interval | None
    correlation_gap: Interval | None


def summary(comparison: Comparison) -> list[MethodSummary]:
    """A row a method, in the order in which they were given."""
    names = list(dict.fromkeys(edit.method for edit in comparison.edits))
    of_method = {
        name: {(e.seed, e.attribute): e for e in comparison.edits if e.method == name}
        for name in names
    }
    common = _reached_by_all(comparison.edits)
    first = of_method[names[0]]
    rows = []
    for name, own in of_method.items():
        recognitions = [r for r in comparison.recognitions if r.method == name]
        reached = _over_seeds({place: e.strength is not None for place, e in own.items()})
        assert reached is not None  # there are two seeds or more
        means = {
            field: _over_seeds(
                {place: getattr(edit, field) for place, edit in own.items() if place in common}
            )
            for field in ("dependency", "content", "correlation", "agree", "strength")
        }
        both = [p for p, e in own.items() if None not in (e.dependency, first[p].dependency)]
        gaps = {
            f"{field}_gap": None
            if name == names[0]
            else _over_seeds(
                {p: _gap(getattr(own[p], field), getattr(first[p], field)) for p in both}
            )
            for field in ("dependency", "content", "correlation")
        }
        rows.append(
            MethodSummary(
                method=name,
                directions=recognitions[0].directions,
                reached=reached,
                recognition=interval(np.array([r.accuracy for r in recognitions])),
                **means,
                **gaps,
            )
        )
    return rows


def _over_seeds(values: Mapping[tuple[int, str], float | None]) -> Interval | None:
    """Of the means of each seed; None for fewer than two seeds."""
    by_seed: dict[int, list[float]] = {}
    for (seed, _), value in values.items():
        if value is not None:
            by_seed.setdefault(seed, []).append(value)
    if len(by_seed) < 2:
        return None
    return interval(np.array([np.mean(of_seed) for of_seed in by_seed.values()]))


def _gap(own: float | None, other: float | None) -> float | None:
    return None if own is None or other is None else own - other


def order_summary(comparison: Comparison) -> list[dict[str, Any]]:
    """A row a method that fits a curve: name -> `Interval` over seeds, None where not measured."""
    rows = []
    for name in dict.fromkeys(order.method for order in comparison.orders):
        own = [order for order in comparison.orders if order.method == name]
        row: dict[str, Any] = {"method": name}
        for field in Order._fields[2:]:
            values = [getattr(order, field) for order in own]
            row[field] = None if None in values else interval(np.array(values))
        rows.append(row)
    return rows


def shared_attributes(comparison: Comparison) -> float:
    """Mean number of attributes a seed that all methods reach, over which `summary` averages."""
    return len(_reached_by_all(comparison.edits)) / comparison.settings["seeds"]


def _jsonable(value: Any) -> Any:
    """Named tuples as mappings, however deep."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {name: _jsonable(part) for name, part in value.items()}
    return [_jsonable(part) for part in value] if isinstance(value, list) else value


def _reached_by_all(edits: Sequence[Edit]) -> set[tuple[int, str]]:
    """Seeds and attributes that no method fails at."""
    everything = {(edit.seed, edit.attribute) for edit in edits}
    return everything - {(e.seed, e.attribute) for e in edits if e.dependency is None}
