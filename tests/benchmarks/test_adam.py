"""Both implementations that are timed beside each other do the same arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from sfvq_jax import Adam, Curve, dithered_loss, step

torch = pytest.importorskip("torch")
adam = pytest.importorskip("benchmarks.adam")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def uniform(*shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


@pytest.mark.parametrize(("k", "b", "d"), [(4, 64, 128), (33, 17, 3)])
def test_a_batch_gives_the_same_loss_and_gradient(k, b, d):
    codewords, x, fractions = normal(k, d, seed=1), normal(b, d), uniform(k - 1)
    loss, gradient = jax.jit(jax.value_and_grad(dithered_loss))(Curve(codewords), x, fractions)

    for loss_function in (adam.torch_loss, adam.torch_loss_by_product):
        parameter, _ = adam.torch_init(codewords, Adam())
        torch_loss = loss_function(parameter, torch.from_numpy(x), torch.from_numpy(fractions))
        torch_loss.backward()
        assert_allclose(loss, torch_loss.detach(), rtol=1e-6)
        assert_allclose(gradient.codewords, parameter.grad, atol=1e-7)


def test_steps_move_the_codewords_alike():
    solver, k, d = Adam(learning_rate=1e-2), 8, 16
    codewords, batches = normal(k, d, seed=1), normal(10, 64, d)

    parameter, optimiser = adam.torch_init(codewords, solver)
    curve = Curve(jnp.asarray(codewords))
    state, next_step = solver.init(curve), jax.jit(step)
    for key, batch in zip(jax.random.split(jax.random.key(0), 10), batches, strict=True):
        fractions = np.array(jax.random.uniform(key, (k - 1,)))  # as our step draws them
        adam.torch_step(parameter, optimiser, *map(torch.from_numpy, (batch, fractions)))
        curve, state, _ = next_step(solver, curve, state, key, batch)
        assert_allclose(curve.codewords, parameter.detach(), atol=1e-5)
    assert np.abs(curve.codewords - codewords).mean() > 5e-3


def test_stages_end_at_about_the_same_distortion():
    solver = Adam(samples=2**14, learning_rate=1e-2)
    data, start = normal(2**12, 2), Curve(jnp.asarray(normal(4, 2, seed=1)))
    ours, theirs = (
        adam.distortion(stage(start, data, solver), jnp.asarray(data))
        for stage in (adam.our_stage, adam.torch_stage)
    )
    assert_allclose(ours, theirs, rtol=0.05)
