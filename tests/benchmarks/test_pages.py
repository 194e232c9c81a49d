"""The pages of results hold what the results are, and each mark is read as it says."""

import re

import pytest

from benchmarks.pages import DOCS, cell, markdown, pages, stale
from benchmarks.report import RESULTS


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.stem)
def test_page_is_as_the_results_are(path):
    assert stale(path) is None, "run python -m benchmarks.pages"


def test_an_altered_figure_is_seen(tmp_path):
    page = tmp_path / "fit.md"
    text = (DOCS / "results" / "fit.md").read_text()
    page.write_text(re.sub(r"\| (\d)", r"| 9\1", text, count=1))
    assert stale(page) == text


def test_every_result_is_on_a_page():
    text = "".join(path.read_text() for path in pages())
    names = {str(path.relative_to(RESULTS))[:-5] for path in RESULTS.rglob("*.json")}
    told = {name for name in names if re.search(rf"<!-- (run|table) {name}\b", text)}
    assert names - told == {"kill", "accelerator/programs"}  # long lists


def test_cells():
    row = {"a": 0.123456, "b": [12345.6, 0.0], "c": [1.5, 0.25], "d": None, "e": True, "f": 12345}
    assert markdown([row], [*row]).splitlines()[2] == (
        "| 0.1235 | 12,350 | 1.5 ± 0.25 | – | yes | 12,345 |"
    )
    assert cell("a|b") == "a\\|b"
