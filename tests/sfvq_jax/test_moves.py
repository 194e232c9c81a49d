"""Moves against plain NumPy: dead codewords, and shorter orders."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import Curve, curve_length, moves
from sfvq_jax.curve import padded, tied

reseed, reorder = jax.jit(moves.reseed), jax.jit(moves.reorder)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ones(n):
    return np.ones(n, np.float32)


def cell_loads(codewords, x):
    nearest = ((x[:, None] - np.asarray(codewords)[None]) ** 2).sum(2).argmin(1)
    return np.bincount(nearest, minlength=len(codewords))


def line_data(n=2000):
    """Samples along [0, 10] with little noise."""
    random = np.random.default_rng(0)
    x = np.stack([random.uniform(0, 10, n), 0.01 * random.normal(size=n)], 1)
    return x.astype(np.float32)


class TestReseed:
    codewords = jnp.array([[1.0, 0.0], [3.0, 0.0], [3.0, 40.0], [5.0, 0.0], [9.0, 0.0]])

    def test_a_dead_codeword_becomes_half_of_the_cell_of_the_greatest_variance(self):
        found, worthwhile = reseed(Curve(self.codewords), line_data(), ones(2000))
        assert worthwhile
        # the cell of 9 goes from 7 to 10: halves at 8.5 ± √(2/π · 9/12)
        half = np.sqrt(2 / np.pi * 9 / 12)
        expected = [[1, 0], [3, 0], [5, 0], [8.5 - half, 0], [8.5 + half, 0]]
        assert_allclose(found.codewords, expected, atol=0.06)

    def test_no_codeword_is_dead_afterwards(self):
        x, codewords = normal(3000, 6), normal(16, 6, seed=1)
        codewords[[0, 5, 6, 15]] += 30
        found = reseed(Curve(jnp.asarray(codewords)), x, ones(3000)).curve
        found = np.asarray(found.codewords)
        assert cell_loads(codewords, x)[[0, 5, 6, 15]].sum() == 0
        assert cell_loads(found, x).min() > 0
        living = np.delete(codewords, [0, 5, 6, 15], 0)
        places = [np.flatnonzero((found == row).all(1)) for row in living]
        order = [place[0] for place in places if len(place)]
        assert len(order) == 8  # the other four became two each
        assert order == sorted(order)

    def test_a_curve_without_dead_codewords_is_not_worth_it(self):
        codewords = jnp.delete(self.codewords, 2, axis=0)
        found, worthwhile = reseed(Curve(codewords), line_data(), ones(2000))
        assert not worthwhile
        assert_array_equal(found.codewords, codewords)

    def test_rows_beyond_the_size_are_neither_dead_nor_alive(self):
        alone = reseed(Curve(self.codewords), line_data(), ones(2000)).curve.codewords
        found = reseed(padded(Curve(self.codewords), 12), line_data(), ones(2000)).curve
        assert_allclose(found.codewords[:5], alone, atol=1e-5)
        assert_array_equal(found.codewords[5:], np.repeat(found.codewords[4:5], 7, 0))

    def test_samples_of_no_weight_are_not_there(self):
        x = line_data()
        weight = np.float32(x[:, 0] < 6)
        one = reseed(Curve(self.codewords), x, weight).curve.codewords
        other = reseed(Curve(self.codewords), x[weight > 0], ones(int(weight.sum()))).curve
        assert_allclose(one, other.codewords, atol=1e-4)

    def test_fewer_cells_to_split_than_dead_codewords_leave_the_last_repeated(self):
        x = np.float32([[0, 0], [0, 0], [1, 0]])
        curve = Curve(jnp.array([[0.0, 0.0], [9.0, 9.0], [1.0, 0.0], [8.0, 9.0]]))
        found, worthwhile = reseed(curve, x, ones(3))
        assert not worthwhile
        assert np.isfinite(found.codewords).all()

    def test_shards_split_the_same_cells(self):
        x = line_data()
        mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        sharded = jax.shard_map(
            lambda curve, x, weight: moves.reseed(curve, x, weight, "data"),
            mesh=mesh,
            in_specs=(P(), P("data"), P("data")),
            out_specs=P(),
        )
        found = jax.jit(sharded)(Curve(self.codewords), x, ones(2000))
        alone = reseed(Curve(self.codewords), x, ones(2000))
        assert_allclose(found.curve.codewords, alone.curve.codewords, atol=1e-4)


def path_length(codewords):
    return np.linalg.norm(np.diff(np.float64(codewords), axis=0), axis=1).sum()


@pytest.mark.parametrize("move", [moves.reseed, lambda curve, *_: moves.reorder(curve)])
def test_moves_keep_double_precision(move):
    with jax.enable_x64(True):
        curve = Curve(jnp.asarray(np.float64(normal(8, 3))))
        found = move(curve, np.float64(normal(200, 3)), np.ones(200)).curve
        assert found.codewords.dtype == np.float64


class TestReorder:
    @pytest.mark.parametrize("seed", range(4))
    def test_of_seven_codewords_it_comes_close_to_the_shortest_order(self, seed):
        codewords = normal(7, 2, seed=seed)
        orders = itertools.permutations(range(7))
        shortest = min(path_length(codewords[list(order)]) for order in orders)
        found = reorder(padded(Curve(jnp.asarray(codewords)), 16)).curve
        assert path_length(found.codewords[:7]) < 1.1 * shortest
        assert set(map(tuple, np.asarray(found.codewords[:7]))) == set(map(tuple, codewords))
        assert_array_equal(found.codewords[7:], np.repeat(found.codewords[6:7], 9, 0))

    @pytest.mark.parametrize("stretch", [slice(4, 20), slice(0, 9), slice(25, 32)])
    def test_a_reversed_stretch_is_turned_again(self, stretch):
        codewords = np.stack([np.arange(32.0), np.zeros(32)], 1).astype(np.float32)
        shuffled = codewords.copy()
        shuffled[stretch] = shuffled[stretch][::-1]
        found, worthwhile = reorder(Curve(jnp.asarray(shuffled)))
        assert worthwhile
        assert_array_equal(found.codewords, codewords)

    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_a_misplaced_piece_is_put_back(self, number):
        codewords = np.stack([np.arange(32.0), np.zeros(32)], 1).astype(np.float32)
        order = [i for i in range(32) if not 10 <= i < 10 + number]
        order[20:20] = range(10, 10 + number)
        found = reorder(Curve(jnp.asarray(codewords[order]))).curve.codewords
        assert_array_equal(found, codewords)

    def test_no_change_of_a_whole_order_is_left_undone(self):
        codewords = np.asarray(reorder(Curve(jnp.asarray(normal(24, 3)))).curve.codewords)
        length = path_length(codewords)
        for i, j in itertools.combinations(range(25), 2):
            turned = np.concatenate([codewords[:i], codewords[i:j][::-1], codewords[j:]])
            assert path_length(turned) > length - 1e-4
            rest = np.concatenate([codewords[:i], codewords[j:]])
            if j - i <= 3:
                for k in range(len(rest) + 1):
                    moved = np.concatenate([rest[:k], codewords[i:j], rest[k:]])
                    assert path_length(moved) > length - 1e-4

    def test_an_order_that_is_short_already_is_not_worth_it(self):
        codewords = jnp.stack([jnp.arange(16.0), jnp.zeros(16)], 1)
        found, worthwhile = reorder(tied(codewords, 16))
        assert not worthwhile
        assert curve_length(found) == 15

    def test_more_than_64_codewords_stay_as_they_are(self):
        curve = Curve(jnp.asarray(normal(65, 2)))
        found, worthwhile = reorder(curve)
        assert not worthwhile
        assert_array_equal(found.codewords, curve.codewords)
