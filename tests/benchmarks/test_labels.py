"""Images get the label that both ends of their line have."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose, assert_array_equal

from benchmarks import labels

OF_CODEWORDS = np.array([3, 3, 3, 0, 1, 1, 0, 0, 7])


def test_lines_whose_ends_agree_are_found():
    assert_array_equal(labels.agreeing_lines(OF_CODEWORDS), [0, 1, 4, 6])


@pytest.mark.parametrize("places_of", [labels.places_on_lines, labels.places_between])
def test_places_have_the_label_of_both_ends_and_classes_are_equally_many(places_of):
    places = places_of(np.random.default_rng(0), OF_CODEWORDS, 999)
    assert_array_equal(OF_CODEWORDS[places.ends], np.stack([places.labels] * 2, 1))
    assert_array_equal(np.unique(places.labels, return_counts=True), [[0, 1, 3], [333] * 3])


def test_places_on_lines_are_uniform_on_the_lines_of_a_class():
    places = labels.places_on_lines(np.random.default_rng(0), OF_CODEWORDS, 30_000)
    assert_array_equal(np.diff(places.ends), np.ones((30_000, 1)))
    position = (places.ends[:, 0] + places.fractions)[places.labels == 3]
    assert scipy.stats.kstest(position, "uniform", (0, 2)).pvalue > 0.01


def test_places_between_use_all_pairs_of_a_label():
    places = labels.places_between(np.random.default_rng(0), OF_CODEWORDS, 999)
    of_three = np.unique(places.ends[places.labels == 3], axis=0)
    assert_array_equal(of_three, [[0, 1], [0, 2], [1, 2]])


def test_points_lie_on_the_way_from_one_end_to_the_other():
    places = labels.Places(np.array([[0, 2], [1, 0]]), np.array([0.25, 0.5]), np.array([0, 0]))
    points = places.points(jnp.array([[0.0, 0.0], [2.0, 2.0], [4.0, 8.0]]))
    assert_allclose(points, [[1, 2], [1, 1]])


def test_labels_that_never_agree_are_an_error():
    with pytest.raises(ValueError, match="same label"):
        labels.places_on_lines(np.random.default_rng(0), np.array([0, 1, 0]), 5)
