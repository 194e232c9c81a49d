"""Labels in a file, and the dataset that is drawn from lines whose ends agree."""

import jax
import numpy as np
import pytest

from sfvq_jax.interpret import labelled_places
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


def test_classes_and_lines_are_drawn_equally_often():
    lines = {"bag": [4, 5], "boot": [0], "hat": [7, 8, 9]}
    places = labelled_places(jax.random.key(0), lines, 300)
    assert places.names == ("bag", "boot", "hat")
    assert np.bincount(places.labels).tolist() == [100, 100, 100]
    line = places.positions.astype(int)
    for label, of_class in enumerate(lines.values()):
        counts = np.bincount(line[places.labels == label], minlength=10)
        assert np.flatnonzero(counts).tolist() == of_class
        assert np.ptp(counts[of_class]) <= 1
    again = labelled_places(jax.random.key(0), lines, 300)
    assert np.array_equal(again.positions, places.positions)


def test_no_lines_are_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match="label more of them"):
        labelled_places(jax.random.key(0), {}, 3)
