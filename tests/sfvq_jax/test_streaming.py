"""`partial_fit`: the sums it keeps, what it forgets, and that one pass is worth many."""

from dataclasses import replace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import (
    Adam,
    Curve,
    LeastSquares,
    distortion,
    partial_fit,
    start_stream,
    step,
)
from sfvq_jax.least_squares import mean_step, normal_sums, solve, sums_at
from sfvq_jax.projection import project
from sfvq_jax.streaming import KNOWN, _moved
from tests.sfvq_jax.test_fit_array import Compiles, mesh_of

KEY = jax.random.key(0)
BLOCK, D = 256, 3
ALL = jnp.ones(BLOCK)
one = jax.jit(partial_fit)  # of one shape in all tests, so that it compiles once
round_ = jax.jit(lambda curve, m, x, weight: step(LeastSquares(), curve, m, KEY, x, weight))
first = jax.jit(lambda x: start_stream(KEY, x, bits=4))


def blocks(number=64, seed=0, shift=0.0):
    x = np.random.default_rng(seed).normal(size=(number, BLOCK, D)) * [3.0, 2.0, 1.0] + shift
    return jnp.asarray(x, jnp.float32)


def run(stream, blocks):
    """The stream after all blocks, and what each told."""
    told = []
    for block in blocks:
        stream, info = one(stream, (block, ALL))
        told.append(info)
    return stream, jax.tree.map(lambda *parts: np.array(parts), *told)


def of_curve(seed=2, **options: Any):
    return start_stream(KEY, Curve(blocks(1, seed=seed)[0, :16]), **options)


@pytest.fixture(scope="module")
def learnt():
    """A stream of 16 codewords after 64 blocks, and what each block told."""
    x = blocks()
    return run(first(x[0]), x)


class TestOnePass:
    def test_leaves_little_to_gain_for_rounds_over_all(self, learnt):
        x = blocks().reshape(-1, D)
        curve, m = Curve(learnt[0].curve.codewords), learnt[0].step
        infos = []
        for _ in range(20):
            curve, m, info = round_(curve, m, x, jnp.ones(len(x)))
            infos.append(info)
        assert infos[0].objective < 1.02 * infos[-1].objective

    def test_doubles_as_samples_come(self, learnt):
        _, info = learnt
        sizes = np.asarray(info.codewords)
        assert_array_equal(sizes, np.sort(sizes))
        assert_array_equal(np.unique(sizes), [4, 8, 16])
        # 32 samples a codeword are seen before: a block with 4, and one with 8
        assert_array_equal(np.argmax(sizes[:, None] == [4, 8, 16], 0), [0, 1, 2])
        assert int(info.dead[-1]) == 0

    def test_blocks_tell_the_distortion_of_what_was_not_seen(self, learnt):
        fresh = blocks(1, seed=1)[0]
        _, info = one(learnt[0], (fresh, ALL))
        assert_allclose(info.distortion, distortion(learnt[0].curve, fresh), rtol=1e-5)
        assert float(info.weight) == BLOCK

    def test_the_curve_moves_with_the_data(self, learnt):
        """The sums stay about the curve's mean, which moves from block to block."""
        found = []
        for shift in (0.0, 100.0):
            stream = of_curve()
            curve = Curve(stream.curve.codewords + shift, stream.curve.size)
            found.append(run(replace(stream, curve=curve), blocks(4, shift=shift))[0].curve)
        assert_allclose(found[1].codewords, found[0].codewords + 100, atol=1e-3)


class TestSums:
    def test_the_first_block_is_a_round(self):
        x, stream = blocks(), of_curve(trust=0.0)
        weight = (jnp.arange(len(x) * BLOCK) < BLOCK).astype(jnp.float32)
        curve = Curve(stream.curve.codewords)
        expected, _, _ = round_(curve, stream.step, x.reshape(-1, D), weight)
        found, _ = one(stream, (x[0], ALL))
        assert_allclose(found.curve.codewords, expected.codewords, atol=1e-5)

    def test_what_is_old_counts_less(self):
        """By the formula: the total weight of the samples that the sums hold."""
        half_life = 500.0
        stream = of_curve(half_life=half_life, trust=10.0)
        load, since = 160.0, 160.0
        for block in blocks(5):
            stream, _ = one(stream, (block, ALL))
            load *= (since / (since + BLOCK)) ** 2 * 0.5 ** (BLOCK / half_life)
            load, since = load + BLOCK, since + BLOCK
            assert_allclose(stream.sums.load.sum(), load, rtol=1e-5)

    def test_a_start_that_is_trusted_is_the_solution_of_its_sums(self, learnt):
        curve = learnt[0].curve
        sums = sums_at(curve, jnp.full(16, 64.0), 0.2)
        again = solve(sums, curve, 0.2, mean_step(curve, sums))
        assert_allclose(again.codewords, curve.codewords, atol=1e-4)

    def test_rows_that_were_reseeded_take_their_sums_along(self):
        """Of five codewords the second is taken out and the last one split."""
        was, halved = jnp.array([0, 2, 3, 4, 4]), jnp.array([False, False, False, True, True])

        @jax.jit
        def of(x):
            old = Curve(jnp.arange(10.0).reshape(5, 2))
            sums = normal_sums(old, x, jnp.ones(40), project(old, x))
            new = Curve(old.codewords[was] + 0.1)
            shift = old.codewords.mean(0) - new.codewords.mean(0)
            return sums, _moved(sums, old, new, was, halved), shift

        x = np.arange(10).reshape(5, 2).repeat(8, 0) + np.random.default_rng(0).normal(size=(40, 2))
        sums, moved, shift = jax.tree.map(np.array, of(jnp.asarray(x, jnp.float32)))
        kept = np.array([0, 2, 3, 4])
        mass = (sums.diagonal + sums.coupling + np.roll(sums.coupling, 1))[kept]
        found = moved.diagonal + moved.coupling + np.roll(moved.coupling, 1)
        assert_allclose(found, [*mass[:3], mass[3] / 2, mass[3] / 2], rtol=1e-5)
        assert_allclose(moved.load.sum(), sums.load[kept].sum(), rtol=1e-6)
        # only the third and fourth are neighbours still
        assert_allclose(moved.coupling, [0, sums.coupling[2], 0, 0, 0], atol=1e-6)
        expected = sums.moment[3] + mass[2] * shift
        assert_allclose(moved.moment[2], expected, atol=1e-4)


class TestDrift:
    def test_a_half_life_follows_and_no_codeword_is_left_behind(self, learnt):
        fresh = blocks(16, seed=3, shift=40.0).reshape(-1, D)
        found = {}
        for half_life in (1000.0, np.inf):
            stream = replace(learnt[0], half_life=jnp.float32(half_life))
            stream, info = run(stream, blocks(64, seed=4, shift=40.0))
            found[half_life] = float(distortion(stream.curve, fresh))
            dead = int(info.dead[-1])
            assert dead == 0 or half_life == np.inf
        settled, _ = run(first(fresh[:BLOCK]), blocks(64, shift=40.0))
        assert found[1000.0] < 1.1 * distortion(settled.curve, fresh)
        assert found[1000.0] < 0.9 * found[np.inf]

    def test_none_is_dead_before_enough_is_known(self):
        far = Curve(1e3 * blocks(1, seed=2)[0, :16])  # one codeword takes all samples
        few = (blocks(1)[0], (jnp.arange(BLOCK) < 16 * KNOWN - 1).astype(jnp.float32))
        for block, expected in ((few, 0), ((blocks(1)[0], ALL), 15)):
            _, info = one(start_stream(KEY, far, trust=0.0), block)
            assert info.dead == expected


class TestBlocks:
    def test_a_padded_one_is_the_same_and_compiles_nothing(self, learnt):
        x = blocks(1, seed=5)[0]
        short = x.at[200:].set(1e6), (jnp.arange(BLOCK) < 200).astype(jnp.float32)
        fresh = of_curve()
        with Compiles() as compiled:
            found, info = one(learnt[0], short)
            one(fresh, short)
        assert compiled.programs == 0
        assert float(info.weight) == 200
        expected, _ = one(learnt[0], (x.at[200:].set(0), short[1]))
        assert_allclose(found.curve.codewords, expected.curve.codewords, atol=1e-4)

    def test_one_of_no_weight_changes_nothing(self, learnt):
        found, info = one(learnt[0], (blocks(1)[0], jnp.zeros(BLOCK)))
        jax.tree.map(assert_array_equal, replace(found, key=None), replace(learnt[0], key=None))
        assert np.isnan(info.distortion)

    def test_rows_that_are_no_numbers_are_left_out_and_told(self, learnt):
        x = blocks(1)[0].at[3, 1].set(jnp.nan).at[7, 0].set(jnp.inf)
        found, info = one(learnt[0], (x, ALL))
        assert int(info.left_out) == 2
        weight = jnp.ones(BLOCK).at[jnp.array([3, 7])].set(0)
        expected, _ = one(learnt[0], (blocks(1)[0], weight))
        assert_array_equal(found.curve.codewords, expected.curve.codewords)

    def test_divided_over_devices_they_lead_to_the_same_curve(self, learnt):
        """And a scan is a loop."""
        x = blocks()
        spread = jax.shard_map(
            lambda stream, blocks: lax.scan(
                lambda stream, block: partial_fit(stream, block, "data"), stream, blocks
            ),
            mesh=mesh_of(4),
            in_specs=(P(), (P(None, "data"), P(None, "data"))),
            out_specs=P(),
        )
        found, info = jax.jit(spread)(first(x[0]), (x, jnp.ones((64, BLOCK))))
        assert_allclose(found.curve.codewords, learnt[0].curve.codewords, atol=5e-3)
        assert_allclose(info.distortion, learnt[1].distortion, rtol=1e-2)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda x: start_stream(KEY, x), ValueError, "bits is missing; a block"),
        (lambda x: start_stream(KEY, Curve(x), bits=1), ValueError, "bits is 1"),
        (lambda x: start_stream(KEY, x, bits=3, half_life=0), ValueError, "half_life is 0; expec"),
        (
            lambda x: start_stream(KEY, x, bits=3, solver=cast(Any, Adam())),
            TypeError,
            "solver is Adam",
        ),
        (lambda x: start_stream(KEY, Curve(x), bits=3), ValueError, "256 codewords, more than the"),
        (lambda x: start_stream(KEY, "x.npy", bits=3), TypeError, "the block is a str"),
        (lambda x: start_stream(cast(Any, 0), x, bits=3), TypeError, "key"),
        (
            lambda x: partial_fit(cast(Any, Curve(x)), x),
            TypeError,
            "stream is a Curve; expected what",
        ),
        (lambda x: partial_fit(of_curve(), x[:, :2]), ValueError, "shape"),
        (lambda x: partial_fit(of_curve(), (x, x[:9, 0])), ValueError, "weights have shape"),
        (lambda x: partial_fit(of_curve(), x[:0]), ValueError, "no rows"),
        (lambda x: partial_fit(of_curve(), x.astype(jnp.int32)), TypeError, "int32; expected flo"),
    ],
)
def test_what_is_refused(call: Any, error, said):
    with pytest.raises(error, match=said):
        call(blocks(1)[0])
