"""The random order of rows: each once in a pass, whatever the lengths of parts and pieces."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sfvq_jax.rows.order import Order


def numbers(spans):
    return np.concatenate([np.zeros(0, int), *(np.arange(*span) for span in spans)])


@pytest.fixture(params=range(40))
def case(request):
    """An order of parts of any lengths, how many rows they have, and a start of each pass."""
    random = np.random.default_rng(request.param)
    lengths = random.integers(1, 60, random.integers(1, 6)).tolist()
    shifts = random.integers(0, 2**62, 4).tolist()
    return Order(lengths, int(random.integers(1, 30))), lengths, shifts.__getitem__, random


def test_a_pass_has_each_row_once_also_where_pieces_do_not_divide_them(case):
    order, lengths, shift, _ = case
    n = sum(lengths)
    passes = numbers(order.spans(shift, 0, 3 * n)).reshape(3, n)
    assert_array_equal(np.sort(passes, 1), np.tile(np.arange(n), (3, 1)))


def test_any_part_of_it_is_the_same_however_it_is_read(case):
    order, lengths, shift, random = case
    n = 3 * sum(lengths)
    whole = numbers(order.spans(shift, 0, n))
    for _ in range(5):
        start = int(random.integers(n))
        count = int(random.integers(n - start + 1))
        found = numbers(order.spans(shift, start, count))
        assert_array_equal(found, whole[start : start + count])


def test_pieces_lie_on_the_grid_of_their_part(case):
    order, lengths, shift, _ = case
    begins = np.cumsum([0, *lengths])
    for first, stop in order.spans(shift, 0, sum(lengths)):
        part = np.searchsorted(begins, first, "right") - 1
        assert (first - begins[part]) % order.piece == 0
        assert stop <= begins[part + 1]


def test_a_stretch_is_spread_over_all_rows_and_a_position_of_billions_costs_nothing():
    order = Order([10**9] * 5, 1024)
    found = order.spans(lambda turn: 12345, 3 * 10**9 + 17, 1024 * 200)
    first = np.sort([span[0] for span in found])
    assert len(found) == 201
    assert np.diff(first).max() < 2.7 * 5 * 10**9 / 200  # of three gaps at most, all alike
