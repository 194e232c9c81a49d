"""Where latents come from: arrays, functions and models, all drawn from in the same way."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import ArraySource, HostSource, IteratorSource, LatentModel, SamplerSource
from sfvq_jax.sources import as_source, check_latents


def gaussian(key, n):
    return jax.random.normal(key, (n, 3))


class PlainModel:
    """A generator that is no pytree."""

    latent_dim, num_layers = 3, 1

    def sample(self, key, n, *, label=None, truncation=None):
        return gaussian(key, n)

    def render(self, latents):
        return jnp.zeros((len(latents), 8, 8, 1))


@flax.struct.dataclass
class PytreeModel:
    """A generator whose parameters are leaves."""

    scale: Any
    latent_dim: int = flax.struct.field(pytree_node=False, default=3)
    num_layers: int = flax.struct.field(pytree_node=False, default=1)

    def sample(self, key, n, *, label=None, truncation=None):
        return self.scale * gaussian(key, n)

    def render(self, latents):
        return jnp.zeros((len(latents), 8, 8, 1))


class TestArrays:
    rows = np.arange(1, 9, dtype=np.float32)[:, None] * np.float32([1, 10])

    def test_draws_are_rows_each_about_as_often(self, getkey):
        draws = as_source(self.rows).read(getkey(), 0, 8000)
        counts = np.bincount(np.asarray(draws[:, 0]).astype(int), minlength=9)[1:]
        assert_array_equal(draws[:, 1], 10 * draws[:, 0])
        assert counts.sum() == 8000
        assert (np.abs(counts - 1000) < 5 * np.sqrt(1000)).all()

    def test_more_can_be_drawn_than_there_are(self, getkey):
        assert as_source(self.rows).read(getkey(), 0, 100).shape == (100, 2)

    @pytest.mark.parametrize("dtype", [np.float16, np.float64, jnp.bfloat16])
    def test_every_floating_point_type_becomes_float32(self, dtype):
        latents = as_source(self.rows.astype(dtype)).latents
        assert latents.dtype == np.float32
        assert_allclose(latents, self.rows)

    def test_another_array_of_the_same_shape_needs_no_new_program(self, getkey):
        draw = jax.jit(lambda source, key: source.read(key, 0, 4))
        for scale in (1, 2, 3):
            draw(as_source(scale * self.rows), getkey())
        assert draw._cache_size() == 1


class TestSamplers:
    @pytest.mark.parametrize(
        "source",
        [gaussian, PlainModel(), PytreeModel(jnp.array(1.0))],
        ids=["function", "model", "pytree model"],
    )
    def test_functions_and_models_give_what_they_draw(self, getkey, source):
        key = getkey()
        draws = jax.jit(lambda source: source.read(key, 7, 5))(as_source(source))
        assert_array_equal(draws, gaussian(jax.random.fold_in(key, 7), 5))

    def test_a_models_parameters_are_no_constants_of_the_program(self, getkey):
        draw = jax.jit(lambda source, key: source.read(key, 0, 4))
        key = getkey()
        once, twice = (draw(as_source(PytreeModel(jnp.array(scale))), key) for scale in (1.0, 2.0))
        assert draw._cache_size() == 1
        assert_array_equal(2 * once, twice)

    def test_a_partials_arguments_are_no_constants_of_the_program(self, getkey):
        def scaled(scale, key, n):
            return scale * jax.random.normal(key, (n, 2))

        draw = jax.jit(lambda source, key: source.read(key, 0, 4))
        for scale in (1.0, 2.0):
            source = as_source(jax.tree_util.Partial(scaled, jnp.float32(scale)))
            key = jax.random.key(0)
            expected = scale * jax.random.normal(jax.random.fold_in(key, 0), (4, 2))
            assert_allclose(draw(source, key), expected, rtol=1e-6)
        assert draw._cache_size() == 1

    def test_the_same_function_needs_no_new_program(self, getkey):
        draw = jax.jit(lambda source, key: source.read(key, 0, 4))
        for _ in range(3):
            draw(as_source(gaussian), getkey())
        assert draw._cache_size() == 1

    def test_the_models_here_satisfy_the_protocol(self):
        assert isinstance(PlainModel(), LatentModel)
        assert isinstance(PytreeModel(jnp.array(1.0)), LatentModel)
        assert not isinstance(gaussian, LatentModel)


class TestErrors:
    @pytest.mark.parametrize(
        "source",
        [
            ArraySource(jnp.ones((2, 2)), 2),
            SamplerSource(jax.tree_util.Partial(gaussian), 3),
            HostSource(np.ones((2, 2))),
            IteratorSource([np.ones((2, 2))]),
        ],
    )
    def test_a_source_is_taken_as_it_is(self, source):
        assert as_source(source) is source

    @pytest.mark.parametrize("source", [None, [[1.0, 2.0]], 3.0])
    def test_anything_else_is_named(self, source):
        with pytest.raises(TypeError, match=f"source is a {type(source).__name__}; expected"):
            as_source(source)

    @pytest.mark.parametrize("shape", [(), (4,), (4, 0), (2, 3, 4)])
    def test_another_rank_is_named(self, shape):
        with pytest.raises(ValueError, match=r"has shape .* expected \[N, D\]"):
            as_source(np.ones(shape))

    @pytest.mark.parametrize("dtype", [np.int32, np.uint8, bool, complex, object])
    def test_another_type_is_named(self, dtype):
        with pytest.raises(ValueError, match=f"of type {np.dtype(dtype)}; expected floating point"):
            as_source(np.ones((4, 2), dtype))

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_rows_that_are_not_finite_are_counted_and_the_first_is_named(self, bad):
        latents = np.ones((6, 2))
        latents[[3, 5], 1] = bad
        with pytest.raises(ValueError, match="NaN or infinity in 2 of 6 rows, the first in row 3"):
            check_latents(latents, "it")
