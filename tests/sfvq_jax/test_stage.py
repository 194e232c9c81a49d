"""Stages by themselves: their sizes and rows, their rounds, what a move must reach to stay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sfvq_jax import Adam, Curve, LeastSquares
from sfvq_jax.curve import padded
from sfvq_jax.quality import health
from sfvq_jax.stage import better, propose, stage, stage_rows, stage_sizes


def gaussian(n=400, d=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


class TestSizes:
    def test_small_curves_share_rows_where_rounds_are_few(self):
        assert [stage_rows(LeastSquares(), size) for size in (4, 64, 128)] == [64, 64, 128]
        assert [stage_rows(Adam(), size) for size in (4, 64, 128)] == [4, 64, 128]

    def test_sizes_double_up_to_the_last(self):
        assert stage_sizes(4, 32) == [4, 8, 16, 32]
        assert stage_sizes(5, 16) == [5, 10, 16]
        assert stage_sizes(8, 8) == [8]

    def test_a_start_of_more_codewords_than_wanted_is_refused(self):
        with pytest.raises(ValueError, match="more than the 8"):
            stage_sizes(16, 8)


class TestRounds:
    def test_a_stage_ends_when_a_round_gains_little(self):
        x, curve = gaussian(), Curve(jnp.asarray(gaussian(8, seed=1)))
        solver = LeastSquares(tolerance=0.01)
        _, _, done = stage(solver, curve, jax.random.key(0), x, np.ones(400, np.float32))
        objective = np.asarray(done.objective)[: int(done.rounds)]
        assert done.converged
        assert 2 < done.rounds < 40
        assert np.isnan(done.objective[int(done.rounds) :]).all()
        assert (-np.diff(objective)[:-1] > 0.005 * objective[:-2]).all()

    def test_a_rise_is_not_convergence(self):
        x, curve = gaussian(40), Curve(jnp.asarray(gaussian(8, seed=1)))
        # few samples, drawn anew each round: half of the rounds rise
        solver = LeastSquares(samples=10, rounds=30, tolerance=0.0)
        _, _, done = stage(solver, curve, jax.random.key(0), x, np.ones(40, np.float32))
        assert (np.diff(done.objective) > 0).sum() > 5
        assert done.rounds == 30
        assert not done.converged

    def test_without_need_there_are_no_rounds(self):
        x, curve = gaussian(), Curve(jnp.asarray(gaussian(8, seed=1)))
        weight = np.ones(400, np.float32)
        new, _, done = stage(LeastSquares(), curve, jax.random.key(0), x, weight, active=False)
        assert done.rounds == 0
        assert_array_equal(new.codewords, curve.codewords)


class TestMoves:
    def test_a_move_that_frees_dead_codewords_at_no_higher_distortion_is_kept(self):
        x = gaussian(400, 2)
        old = Curve(
            jnp.asarray(np.concatenate([gaussian(6, 2, seed=1), [[30, 30], [40, 40]]]), "f")
        )
        solver = LeastSquares()
        state = solver.init(old)
        proposal = propose(solver, 1, old, 8, x, np.ones(400, np.float32))
        assert proposal.worthwhile
        pair, other = (old, health(old, x)), (proposal.curve, health(proposal.curve, x))
        assert better(solver, state, pair, other)
        assert not better(solver, state, other, pair)
        assert not better(solver, state, pair, pair)

    def test_one_program_proposes_all_of_them(self):
        x, solver = gaussian(), LeastSquares()
        program = jax.jit(propose)
        codewords = jnp.asarray(np.concatenate([gaussian(6, 2, seed=1), [[30, 30], [40, 40]]]), "f")
        curve, weight = padded(Curve(codewords), 16), np.ones(400, np.float32)
        grown = program(solver, 0, curve, 16, x, weight).curve
        same, reseeded, _, reordered = (
            program(solver, move, curve, 8, x, weight).curve for move in range(4)
        )
        assert program._cache_size() == 1
        assert len(np.unique(grown.codewords, axis=0)) == 16
        assert_array_equal(same.codewords, curve.codewords)
        assert np.abs(reseeded.codewords).max() < 10
        assert sorted(reordered.codewords[:8, 0]) == sorted(codewords[:, 0])
