"""Results as they are read: the rows of their tables, and their figures as text.

A row maps names of columns to values. A value that has a 95 % interval is a pair of mean and half
its width, or the text "MEAN ± HALF" or "MEAN (LOW to HIGH)".
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.report import RESULTS, Row


def load(name: str) -> Mapping[str, Any]:
    """What benchmarks/results/NAME.json holds."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def rows(name: str, title: str, **where: Any) -> list[Row]:
    """The rows of a table of NAME that have these values, compared as text, in these columns."""
    found = [
        row
        for row in rows_of(load(name), title)
        if all(str(row.get(column)) == str(value) for column, value in where.items())
    ]
    if not found:
        raise SystemExit(f"no row of {name}, {title!r} has {where}")
    return found


def row(name: str, title: str, **where: Any) -> Row:
    """The one row that has them."""
    found = rows(name, title, **where)
    if len(found) > 1:
        raise SystemExit(f"{len(found)} rows of {name}, {title!r} have {where}")
    return found[0]


def rows_of(content: Mapping[str, Any], title: str) -> Sequence[Row]:
    """The rows of a table by the beginning of its title."""
    if "rows" in content:
        return pivoted(content, title)
    tables = content["tables"]
    if title in tables:
        return tables[title]
    found = [rows for name, rows in tables.items() if name.startswith(title)]
    if len(found) != 1:
        raise SystemExit(f"{len(found)} tables begin with {title!r}; there are {[*tables]}")
    return found[0]


def pivoted(content: Mapping[str, Any], title: str) -> Sequence[Row]:
    """The rows of a part of `benchmarks.accelerator`, laid out as the part says."""
    layout = next(
        layout
        for layout in content["tables"]
        if title in (*layout["values"], layout.get("where", {}).get("what"))
    )
    rows = [
        row
        for row in content["rows"]
        if "error" not in row and layout.get("where", {}).items() <= row.items()
    ]
    if "across" not in layout:
        names = [*layout["index"], *layout["values"]]
        return [{name: row.get(name) for name in names} for row in rows]
    found: dict[tuple, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: [row[name] for name in layout["index"]]):
        index = {name: row[name] for name in layout["index"]}
        line = found.setdefault(tuple(index.values()), index)
        line[" ".join(str(row[name]) for name in layout["across"])] = row[title]
    return list(found.values())


def cell(value: Any) -> str:
    """A value to four digits; a pair is a mean and half the width of its interval."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case [float(mean), float(half)]:
            return f"{number(mean)} ± {number(half, 2)}" if half > 1e-12 else number(mean)
        case float():
            return number(value)
        case int():
            return f"{value:,}"
    return str(value).replace("|", "\\|")


def number(value: float, digits: int = 4) -> str:
    if value == 0 or 1e-4 <= abs(value) < 1e7:
        rounded = float(f"{value:.{digits}g}")
        return f"{rounded:,.0f}" if rounded == int(rounded) else f"{rounded:,}"
    return f"{value:.{digits}g}"


def span(values: Iterable[float], digits: int = 2) -> str:
    """The least and the greatest."""
    ordered = sorted(values)
    low, high = number(ordered[0], digits), number(ordered[-1], digits)
    return low if low == high else f"{low} to {high}"


def per_cent(*shares: Any, decimals: int = 0) -> str:
    return together(f"{100 * mean(share):.{decimals}f}" for share in shares) + " %"


def together(texts: Iterable[str]) -> str:
    """One, two and three."""
    *first, last = texts
    return f"{', '.join(first)} and {last}" if first else last


def scientific(value: float) -> str:
    """To one digit: 7·10⁻⁵."""
    digit, exponent = f"{value:.0e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digit}·10{raised}"


def overlap(one: Any, other: Any) -> bool:
    """Whether two intervals do."""
    (_, low, high), (_, other_low, other_high) = interval(one), interval(other)
    return low <= other_high and other_low <= high


def mean(value: Any) -> float:
    return interval(value)[0]


def means(rows: Iterable[Row], column: str) -> list[float]:
    return [mean(row[column]) for row in rows]


def interval(value: Any) -> tuple[float, float, float]:
    """Mean, and the ends of its interval, which is the mean alone where there is none."""
    match value:
        case [middle, half]:
            return middle, middle - (half or 0), middle + (half or 0)
        case str():
            found = [float(text) for text in re.findall(r"-?\d[\d.]*(?:e[-+]?\d+)?", value)]
            if "±" in value:
                return interval(found[:2])
            return (found[0], found[1], found[2]) if " to " in value else (found[0],) * 3
    return (value,) * 3
