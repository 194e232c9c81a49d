"""Fills tables in docs from benchmarks/results, so that no figure in them is typed.

A page may have marks, and what stands between a mark and the next `<!-- end -->` is made anew:

    <!-- run NAME -->                                    what was run, where and when
    <!-- table NAME | TITLE | COLUMN=VALUE, … | COLUMN, … -->   a table, of these rows and columns,
                                                         in whose names ; stands for a comma

TITLE is the beginning of a table's title, or what a part of `benchmarks.accelerator` measured; rows
and columns are all where none are named. `--check` changes nothing, and fails where a page is old.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, Row

DOCS = RESULTS.parents[1] / "docs"
MARK = re.compile(r"(<!-- (run|table) ([^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)
UNNAMED = ("cpu", "cores", "driver", "XLA_FLAGS", "backend", "device", "jax device", "python")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="whether all pages are as they should")
    options = parser.parse_args()
    old = {path: text for path in pages() if (text := stale(path))}
    for path, text in old.items():
        print(f"{path.name} {'is not as the results are' if options.check else 'was filled'}")
        if not options.check:
            path.write_text(text)
    sys.exit(bool(options.check and old))


def pages() -> list[Path]:
    """Those that have marks."""
    return [path for path in sorted(DOCS.rglob("*.md")) if MARK.search(path.read_text())]


def stale(path: Path) -> str | None:
    """What a page should hold, if it is not that."""
    text = path.read_text()
    new = MARK.sub(lambda found: found[1] + block(found[2], found[3]) + found[4], text)
    return new if new != text else None


def block(kind: str, words: str) -> str:
    """What stands below a mark."""
    name, title, where, columns = [*map(str.strip, words.split("|")), "", "", ""][:4]
    content = json.loads((RESULTS / f"{name}.json").read_text())
    if kind == "run":
        return f"{run(content)}\n"
    wanted = dict(condition.split("=") for condition in listed(where))
    rows = [
        row
        for row in rows_of(content, title)
        if all(str(row.get(column)) == value for column, value in wanted.items())
    ]
    if not rows:
        raise SystemExit(f"no row of {name} is as in {words!r}")
    return markdown(
        rows, listed(columns) or list(dict.fromkeys(key for row in rows for key in row))
    )


def listed(text: str) -> list[str]:
    """What stands between commas, where ; stands for one."""
    return [piece.strip().replace(";", ",") for piece in text.split(",") if piece.strip()]


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


def run(content: Mapping[str, Any]) -> str:
    """Commit, machine and versions in a line."""
    machine = content["machine"]
    device = machine.get("device") if machine.get("backend") == "gpu" else None
    cores = f"{machine['cores']} of the cores of an {machine['cpu']}"
    packages = (f"{name} {value}" for name, value in machine.items() if name not in UNNAMED)
    settings = content.get("settings", {})
    commit = f"Commit {content['commit']}"
    if settings.get("again"):  # as benchmarks.comparison has it
        commit += f" for {settings['again']} and {settings['kept_of_commit']} for all else"
    facts = [
        commit,
        device or cores,
        f"Python {machine['python']}",
        *packages,
    ]
    return ", ".join(facts) + "."


def markdown(rows: Sequence[Row], columns: Sequence[str]) -> str:
    lines = [columns, ["---"] * len(columns)]
    lines += [[cell(row.get(column)) for column in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


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


if __name__ == "__main__":
    main()
