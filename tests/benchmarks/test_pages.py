"""The pages of results hold what the results are, and each mark is read as it says."""

import json
import re

import pytest

from benchmarks import tables
from benchmarks.claims import CLAIMS
from benchmarks.pages import DOCS, README, claims, markdown, pages, stale
from benchmarks.report import RESULTS
from benchmarks.tables import cell

INDEX = DOCS / "results" / "index.md"


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.stem)
def test_page_is_as_the_results_are(path):
    assert stale(path) is None, "run python -m benchmarks.pages"


def test_an_altered_figure_is_seen(tmp_path):
    page = tmp_path / "results" / "fit.md"
    page.parent.mkdir()
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


@pytest.mark.parametrize("path", [README, INDEX], ids=lambda path: path.stem)
def test_each_link_to_a_claim_leads_to_a_row(path):
    links = re.findall(r"\]\(([^)#]+)#(claim-[^)]+)\)", path.read_text())
    assert len(links) >= 8
    for page, anchor in links:
        lines = (path.parent / page).read_text().splitlines()
        assert len([line for line in lines if f'<a id="{anchor}"></a>' in line]) == 1, anchor
        assert any(line.startswith('| <a id="') and f'"{anchor}"' in line for line in lines)


def test_every_claim_rests_on_a_row():
    assert all(any(claim.rows.values()) for claim in claims().values())


@pytest.fixture(scope="module")
def other_results(tmp_path_factory):
    """All results with other figures: those of every second row are larger, the others smaller."""
    folder = tmp_path_factory.mktemp("results")
    for path in RESULTS.rglob("*.json"):
        content = json.loads(path.read_text())
        for rows in [content["rows"]] if "rows" in content else content["tables"].values():
            for number, row in enumerate(rows):
                row |= {name: other(name, row[name], (0.4, 1.7)[number % 2]) for name in row}
        new = folder / path.relative_to(RESULTS)
        new.parent.mkdir(exist_ok=True)
        new.write_text(json.dumps(content))
    return folder


def other(column, value, factor):
    if column in ("bytes", "wrong", "other errors"):  # counted
        return value + 1
    if isinstance(value, str) and re.search(r"\d ± \d|\d to \d", value):
        return re.sub(r"\d[\d.]*", lambda found: str(factor * float(found[0])), value)
    if isinstance(value, list):
        return [other(column, each, factor) for each in value]
    return factor * value if isinstance(value, float) else value


@pytest.mark.parametrize("name", [name for name in CLAIMS if name != "plan"])  # it has no figure
def test_a_claim_fails_or_says_otherwise_by_other_results(name, other_results, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", other_results)
    try:
        said = CLAIMS[name]().answer
    except SystemExit as error:
        assert "the results no longer say" in str(error)  # noqa: PT017
    else:
        assert said != claims()[name].answer
