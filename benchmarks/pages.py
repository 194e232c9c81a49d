"""Fills tables in docs and README from benchmarks/results, so that no figure in them is typed.

A page may have marks, and what stands between a mark and the next `<!-- end -->` is made anew:

    <!-- run NAME -->                                    what was run, where and when
    <!-- table NAME | TITLE | COLUMN=VALUE, … | COLUMN, … -->   a table, of these rows and columns,
                                                         in whose names ; stands for a comma
    <!-- claims -->                                      what `benchmarks.claims` claims

TITLE is the beginning of a table's title, or what a part of `benchmarks.accelerator` measured; rows
and columns are all where none are named. The row that a claim rests on gets an anchor, to which the
claim is linked. `--check` changes nothing, and fails where a page is old.
"""

import argparse
import functools
import itertools
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.claims import CLAIMS, Claim
from benchmarks.report import RESULTS, Row
from benchmarks.tables import cell, load, rows

README = RESULTS.parents[1] / "README.md"
DOCS = RESULTS.parents[1] / "docs"
MARK = re.compile(r"(<!-- (run|table|claims) ([^>]*?)-->\n).*?(<!-- end -->)", re.DOTALL)
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
    return [path for path in [README, *sorted(DOCS.rglob("*.md"))] if MARK.search(path.read_text())]


def stale(path: Path) -> str | None:
    """What a page should hold, if it is not that."""
    page = "/".join(path.with_suffix("").parts[-2:])
    anchors = {name: claim.rows[page] for name, claim in claims().items() if claim.rows.get(page)}

    def fill(found: re.Match[str]) -> str:
        start, kind, words, end = found.groups()
        match kind:
            case "run":
                return f"{start}{run(load(words.strip()))}\n{end}"
            case "table":
                return f"{start}{table(words, anchors)}{end}"
        return f"{start}{short_table(path) if path == README else claims_table(path)}{end}"

    text = path.read_text()
    new = MARK.sub(fill, text)
    if anchors:
        raise SystemExit(f"no table of {path.name} has the row of the claim {', '.join(anchors)}")
    return new if new != text else None


@functools.cache
def claims() -> Mapping[str, Claim]:
    """All, by their names."""
    return {name: make() for name, make in CLAIMS.items()}


def claims_table(path: Path) -> str:
    """The claims, each with links to its rows."""
    return markdown(
        [
            {
                "question": claim.question,
                "answer": claim.answer,
                "page": ", ".join(
                    f"[{Path(page).name.replace('_', ' ')}]({link(path, page, row and name)})"
                    for page, row in claim.rows.items()
                ),
            }
            for name, claim in claims().items()
        ],
        ("question", "answer", "page"),
    )


def short_table(path: Path) -> str:
    """The claims that README has, with links in their answers."""
    shown = {name: claim for name, claim in claims().items() if claim.readme}
    linked = re.compile(r"\]\(([^)#]+)#?([^)]*)\)")
    return markdown(
        [
            {
                "question": claim.question,
                "answer": linked.sub(
                    lambda found, name=name: f"]({link(path, found[1], found[2] or name)})",
                    claim.readme or "",
                ),
            }
            for name, claim in shown.items()
        ],
        ("question", "answer"),
    )


def link(path: Path, page: str, claim: str | None) -> str:
    """From a file to a page, or to the row of a claim there."""
    target = os.path.relpath(DOCS / f"{page}.md", path.parent)
    return f"{target}#{anchor(claim)}" if claim else target


def anchor(claim: str) -> str:
    return f"claim-{claim}"


def table(words: str, anchors: dict[str, Row | None]) -> str:
    """Rows of a table; takes out those anchors that it sets."""
    name, title, where, columns = [*map(str.strip, words.split("|")), "", "", ""][:4]
    found = rows(name, title, **dict(condition.split("=") for condition in listed(where)))
    named = listed(columns) or list(dict.fromkeys(key for row in found for key in row))
    marks = []
    for row in found:
        here = [claim for claim, wanted in anchors.items() if wanted == row]
        marks.append("".join(f'<a id="{anchor(claim)}"></a>' for claim in here))
        for claim in here:
            del anchors[claim]
    return markdown(found, named, marks)


def listed(text: str) -> list[str]:
    """What stands between commas, where ; stands for one."""
    return [piece.strip().replace(";", ",") for piece in text.split(",") if piece.strip()]


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


def markdown(rows: Sequence[Row], columns: Sequence[str], marks: Sequence[str] = ()) -> str:
    """A table; `marks` stand before its rows."""
    lines = [" | ".join(columns), " | ".join(["---"] * len(columns))]
    lines += [
        mark + " | ".join(cell(row.get(column)) for column in columns)
        for row, mark in itertools.zip_longest(rows, marks, fillvalue="")
    ]
    return "".join(f"| {line} |\n" for line in lines)


if __name__ == "__main__":
    main()
