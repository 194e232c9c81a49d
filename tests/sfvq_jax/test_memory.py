"""Batches are as large as memory allows, by what JAX keeps for derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sfvq_jax.images import batch_of
from sfvq_jax.interpret import Scorer, attribute_gradients
from sfvq_jax.memory import OF_KEPT, differentiable_rows, limited_memory, memory_limit

WIDTH, DEPTH = 64, 5


def deep(rows):
    """Of a row its derivative keeps about DEPTH rows."""
    for _ in range(DEPTH):
        rows = jnp.sin(rows)
    return rows.sum(1)


def test_the_limit_is_what_was_set_or_a_part_of_what_there_is():
    default = memory_limit()
    assert default > 2**28
    with limited_memory(1000):
        assert memory_limit() == 1000
        with limited_memory(None):
            assert memory_limit() == default
    assert memory_limit() == default
    with pytest.raises(ValueError, match="1 or more"), limited_memory(0):
        pass


@pytest.mark.parametrize(("rows", "expected"), [(0.5, 1), (1, 1), (3.2, 3), (7.9, 7), (50, 16)])
def test_as_many_rows_as_memory_has_room_for(rows, expected):
    with limited_memory(int(OF_KEPT * rows * 4 * WIDTH * DEPTH)):
        assert differentiable_rows(deep, (WIDTH,), 16) == expected


def test_what_does_not_grow_with_rows_counts_once():
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)), jnp.float32)
    with limited_memory(OF_KEPT * 4 * (WIDTH**2 + 3 * WIDTH)):
        rows = differentiable_rows(lambda x: jnp.sin(x @ matrix), (WIDTH,), 16)
    assert rows == 3


def test_a_function_that_cannot_be_traced_gets_what_it_asks_for():
    assert differentiable_rows(lambda x: np.asarray(x), (3,), 7) == 7


class Square:
    latent_dim, num_layers = 4, 1

    def __init__(self, side):
        self.image_shape = (side, side, 1)

    def sample(self, key, n, *, label=None, truncation=None):
        return jax.random.normal(key, (n, 4))

    def render(self, latents):
        value = latents.reshape(len(latents), 4).mean(1)
        return jnp.broadcast_to(
            jnp.tanh(value)[:, None, None, None], (len(value), *self.image_shape)
        )


@pytest.mark.parametrize(("side", "batch"), [(32, 32), (64, 32), (128, 16), (256, 4), (1024, 1)])
def test_a_cpu_renders_few_large_images_at_once(side, batch):
    assert batch_of(Square(side), 32) == batch


def test_little_memory_makes_small_batches():
    with limited_memory(2**20):
        assert 0 < batch_of(Square(16), 32) < 32
        assert batch_of(Square(256), 32) == 1


def test_gradients_are_the_same_with_little_memory():
    model, scorer = Square(16), Scorer.of(lambda images: images.mean((1, 2)), ["mean"])
    latents = model.sample(jax.random.key(0), 6)
    expected = attribute_gradients(model, scorer, latents)
    with limited_memory(6000):
        few = attribute_gradients(model, scorer, latents)
    np.testing.assert_allclose(few, expected, rtol=1e-6)
