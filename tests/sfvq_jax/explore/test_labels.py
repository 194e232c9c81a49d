"""Labels in a file, and the lines whose ends agree."""

import pytest

from sfvq_jax.io.label_file import (
    Label,
    Labels,
    agreeing_lines,
    check_labels,
    codeword_labels,
    load_labels,
    save_labels,
)

GOOD = {"start": 0, "stop": 1, "text": "x"}


def test_they_come_back(tmp_path):
    labels = Labels((Label(3, 3, "hat"), Label(4, 6.5, "blurred <b>", True)), "abc")
    save_labels(tmp_path / "c.labels.json", labels)
    assert load_labels(tmp_path / "c.labels.json", curve_sha256="abc", num_lines=7) == labels


def test_those_of_another_curve_are_refused(tmp_path):
    save_labels(tmp_path / "c.labels.json", Labels((Label(3, 3, "hat"),), "abc"))
    with pytest.raises(ValueError, match="labels another curve than this one"):
        load_labels(tmp_path / "c.labels.json", curve_sha256="other", num_lines=7)
    with pytest.raises(ValueError, match="the curve from 0 to 2"):
        load_labels(tmp_path / "c.labels.json", curve_sha256="abc", num_lines=2)


@pytest.mark.parametrize(
    "content",
    [
        "hat", [1], [{}], [GOOD] * 10_001, [GOOD | {"other": 1}], [GOOD | {"leave_out": 1}],
        [GOOD | {"stop": 9}], [GOOD | {"start": 2}], [GOOD | {"start": True}],
        [GOOD | {"start": float("nan")}], [GOOD | {"text": "x" * 101}], [GOOD | {"text": "a\nb"}],
        [GOOD | {"text": " "}], [GOOD | {"text": 1}],
    ],
)  # fmt: skip
def test_what_is_no_list_of_labels_is_refused(content):
    with pytest.raises(ValueError, match=r"label"):
        check_labels(content, 8)


def test_the_latest_label_of_a_codeword_counts():
    labels = [Label(0, 4, "boot"), Label(2, 2, "bag"), Label(3, 3, "odd", True)]
    assert codeword_labels(labels, 6) == ["boot", "boot", "bag", None, "boot", None]


def test_lines_agree_where_both_ends_do_and_nothing_is_left_out():
    labels = [Label(0, 3, "boot"), Label(4, 6, "bag"), Label(1.2, 1.4, "blurred", True)]
    assert agreeing_lines(labels, 6) == {"bag": [4, 5], "boot": [0, 2]}
    assert agreeing_lines([Label(k, k, "x") for k in (0, 1)], 6) == {"x": [0]}
