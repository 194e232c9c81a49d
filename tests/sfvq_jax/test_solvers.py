"""Solvers by themselves: their settings, their plans, one step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from sfvq_jax import Adam, Curve, LeastSquares, distortion, dithered_loss
from sfvq_jax.solvers import MIN_SAMPLES


def gaussian(n=500, d=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def start(k=8):
    return Curve(jnp.asarray(gaussian(k, seed=1)))


class TestLeastSquares:
    @pytest.mark.parametrize(
        "settings",
        [
            {"length_penalty": -0.1},
            {"length_penalty": float("nan")},
            {"tolerance": -1.0},
            {"rounds": 0},
            {"block": 0},
            {"samples": 0},
            {"samples": "some"},
        ],
    )
    def test_settings_that_make_no_stage_are_refused(self, settings):
        with pytest.raises(ValueError, match=next(iter(settings))):
            LeastSquares(**settings)

    def test_a_round_is_a_pass_over_few_latents_and_a_part_of_many(self):
        few, many = (LeastSquares().plan(64, 8, n) for n in (1000, 10**9))
        assert few.whole
        assert few.blocks * few.block_samples >= 1000
        assert not many.whole
        assert many.blocks * many.block_samples == MIN_SAMPLES

    def test_a_round_grows_with_the_codewords(self):
        plan = LeastSquares().plan(4096, 8, None)
        assert plan.blocks * plan.block_samples == 1024 * 4096

    @pytest.mark.parametrize("n", [1, 999, 1000, 1001, 12345])
    def test_a_pass_holds_every_latent_in_blocks_of_the_size_that_is_set(self, n):
        plan = LeastSquares(samples="all", block=1000).plan(4, 8, n)
        assert plan.whole
        assert plan.block_samples <= 1000
        assert plan.blocks * plan.block_samples >= n > (plan.blocks - 1) * plan.block_samples

    @pytest.mark.parametrize("samples", [1, 999, 1001, 123456])
    def test_a_part_has_at_least_the_samples_that_are_asked_for(self, samples):
        plan = LeastSquares(samples=samples, block=1000).plan(4, 8, None)
        assert samples <= plan.blocks * plan.block_samples < samples + plan.blocks

    def test_blocks_of_wide_latents_are_shorter(self):
        assert LeastSquares().plan(4, 2**15, None).block_samples == 2**9

    def test_steps_lower_the_objective_and_the_distortion(self):
        x, curve, solver = gaussian(), start(), LeastSquares()
        step = jax.jit(solver.step)
        before, losses = float(distortion(curve, x)), []
        for _ in range(8):
            curve, loss = step(curve, x)
            losses.append(float(loss))
        assert (np.diff(losses) < 0).all()
        assert distortion(curve, x) < 0.7 * before

    def test_a_greater_penalty_gives_a_shorter_curve_of_higher_distortion(self):
        x, lengths, errors = gaussian(2000), [], []
        for penalty in (0.01, 0.1, 1.0):
            curve, step = start(), jax.jit(LeastSquares(length_penalty=penalty).step)
            for _ in range(10):
                curve, _ = step(curve, x)
            lengths.append(float(jnp.linalg.norm(jnp.diff(curve.codewords, axis=0), axis=1).sum()))
            errors.append(float(distortion(curve, x)))
        assert lengths == sorted(lengths, reverse=True)
        assert errors == sorted(errors)

    def test_a_dithered_step_assigns_as_the_dithered_loss_does(self, getkey):
        x, curve, key = gaussian(), start(), getkey()
        fractions = jax.random.uniform(key, (7,))
        _, loss = LeastSquares(length_penalty=0.0, dithered=True).step(curve, x, key=key)
        assert_allclose(loss, dithered_loss(curve, x, fractions), rtol=1e-5)

    def test_a_dithered_step_without_a_key_is_refused(self):
        with pytest.raises(ValueError, match="a dithered step needs a key"):
            LeastSquares(dithered=True).step(start(), gaussian())

    def test_a_stage_ends_when_a_round_gains_little(self):
        solver = LeastSquares(tolerance=0.01)
        assert not solver.converged(1.0, 0.98)
        assert solver.converged(1.0, 0.995)
        assert solver.converged(1.0, 1.1)

    def test_steps_can_be_vmapped_over_penalties(self):
        x, curve = gaussian(), start()

        def step(penalty):
            return LeastSquares(length_penalty=penalty).step(curve, x)[0].codewords

        many = jax.vmap(lambda x: LeastSquares().step(curve, x)[0].codewords)(jnp.stack([x, 2 * x]))
        assert_allclose(many[0], step(LeastSquares().length_penalty), rtol=1e-4, atol=1e-4)


class TestAdam:
    def test_a_step_follows_the_gradient_of_the_dithered_loss(self, getkey):
        solver, x = Adam(learning_rate=1e-2), gaussian()
        fractions = jax.random.uniform(getkey(), (7,))
        state = solver.init(start())
        after = solver.step(state, x, fractions)
        loss, gradient = jax.value_and_grad(dithered_loss)(start(), x, fractions)
        assert_allclose(after.loss, loss, rtol=1e-6)
        moved = after.curve.codewords - state.curve.codewords
        assert_allclose(moved, -1e-2 * jnp.sign(gradient.codewords), atol=1e-4)

    def test_weights_leave_samples_out(self, getkey):
        solver, x = Adam(), gaussian()
        fractions, weight = jax.random.uniform(getkey(), (7,)), np.ones(500, np.float32)
        weight[300:] = 0
        some = solver.step(solver.init(start()), x[:300], fractions)
        others = solver.step(solver.init(start()), x, fractions, weight)
        assert_allclose(others.loss, some.loss, rtol=1e-5)
        assert_allclose(others.curve.codewords, some.curve.codewords, atol=1e-6)
