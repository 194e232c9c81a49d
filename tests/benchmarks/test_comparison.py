import itertools
import json

import pytest

from benchmarks.comparison import kept_parts
from benchmarks.report import RESULTS
from sfvq_jax.interpret import Comparison


@pytest.fixture(scope="module")
def saved():
    return json.loads((RESULTS / "comparison_fashion_mnist.json").read_text())


def rounded(content):
    """JSON values to twelve digits: the last ones depend on the version of NumPy."""
    return json.loads(json.dumps(content), parse_float=lambda text: float(f"{float(text):.12g}"))


def test_what_is_kept_of_a_saved_comparison_gives_the_same_rows(saved):
    content = rounded(saved["settings"]["comparison"])
    parts = kept_parts(saved, "SeFa")
    entries = [list(itertools.chain.from_iterable(of)) for of in zip(*parts.values(), strict=True)]
    comparison = Comparison(*entries, content["settings"])
    kept = rounded(comparison.to_json())
    assert kept["edits"] == [row for row in content["edits"] if row["method"] != "SeFa"]
    rows = {row["method"]: row for row in content["summary"]}
    assert rows.keys() - {"SeFa"} == {row["method"] for row in kept["summary"]}
    for row in kept["summary"]:
        assert row["reached"] == rows[row["method"]]["reached"]
        assert row["content"] == rows[row["method"]]["content"]
    assert kept["order"] == content["order"]


def test_a_method_that_is_not_there_is_told(saved):
    with pytest.raises(SystemExit, match="no method 'SeFA'; there are SFVQ, "):
        kept_parts(saved, "SeFA")
