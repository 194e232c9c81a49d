"""The published recipe: steps against plain formulas, settings, schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import Adam, Curve, dithered_loss, solver

step = jax.jit(solver.step)


def gaussian(n=500, d=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def start(k=8):
    return Curve(jnp.asarray(gaussian(k, seed=1)))


class TestSettings:
    @pytest.mark.parametrize(
        "settings",
        [
            {"learning_rate": 0.0},
            {"learning_rate": float("nan")},
            {"decay": -1.0},
            {"samples": None},
            {"samples": "all"},
            {"samples": 1.5e3},
            {"samples": 63},
            {"batch_size": 0},
            {"epochs": 0},
        ],
    )
    def test_those_that_make_no_stage_are_refused(self, settings):
        with pytest.raises(ValueError, match=next(iter(settings))):
            Adam(**settings)

    def test_shares_of_a_stage_may_be_a_list(self):
        assert hash(jax.tree.structure(Adam(decay_at=[0.5]))) is not None
        assert Adam(decay_at=[0.5]) == Adam(decay_at=(0.5,))

    def test_a_stage_has_all_its_epochs_and_no_moves(self):
        one = Adam(epochs=7)
        assert (one.rounds, one.batch, one.moves) == (7, 64, ())
        assert one.subdivision == "published"
        assert one.tolerance == -np.inf


class TestSteps:
    def test_they_are_those_of_optax_on_the_dithered_loss(self, getkey):
        one, x = Adam(learning_rate=1e-2, samples=640, epochs=1, decay_at=(0.2, 0.5)), gaussian(64)
        curve, state = start(), one.init(start())
        schedule = optax.piecewise_constant_schedule(1e-2, {2: 0.5, 5: 0.5})
        optimiser = optax.adam(schedule)
        theirs, its_state = curve.codewords, optimiser.init(curve.codewords)
        for _ in range(8):
            key = getkey()
            fractions = jax.random.uniform(key, (7,))
            loss, gradient = jax.value_and_grad(dithered_loss)(Curve(theirs), x, fractions)
            with jax.numpy_dtype_promotion("standard"):
                updates, its_state = optimiser.update(gradient.codewords, its_state)
            curve, state, info = step(one, curve, state, key, x)
            assert_allclose(info.objective, loss, rtol=1e-5)
            theirs = theirs + updates
            assert_allclose(curve.codewords, theirs, atol=2e-5)

    def test_a_batch_of_padding_moves_nothing(self, getkey):
        one, curve = Adam(), start()
        new, _, info = step(one, curve, one.init(curve), getkey(), gaussian(), np.zeros(500, "f"))
        assert_array_equal(new.codewords, curve.codewords)
        assert info.objective == 0

    def test_the_load_is_that_of_the_nearer_codeword_of_each_point(self, getkey):
        one, curve, x = Adam(), start(), gaussian()
        _, _, info = step(one, curve, one.init(curve), getkey(), x)
        assert_allclose(info.load.sum(), 500, rtol=1e-5)
