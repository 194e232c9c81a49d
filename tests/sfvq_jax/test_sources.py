"""Where latents come from: arrays, functions and models, all drawn from in the same way."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import (
    ArraySource,
    HostSource,
    IteratorSource,
    LatentModel,
    SamplerSource,
    fit,
)
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


class TestHost:
    rows = np.arange(5000, dtype=np.float32)[:, None] * np.float32([1, 10])

    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / "latents.npy"
        np.save(path, self.rows.astype(np.float64))
        return path

    @pytest.mark.parametrize("kind", ["path", "string", "mapped", "array"])
    def test_a_file_or_what_is_like_an_array_is_read_in_order(self, kind, file):
        source = {
            "path": lambda: as_source(file),
            "string": lambda: as_source(str(file)),
            "mapped": lambda: as_source(np.load(file, mmap_mode="r")),
            "array": lambda: HostSource(self.rows),
        }[kind]()
        assert isinstance(source, HostSource)
        assert (source.num_latents, source.latent_dim) == (5000, 2)
        for start, count in ((0, 10), (4000, 1000), (17, 0)):
            latents = source.read(None, start, count)
            assert latents.dtype == np.float32
            assert_array_equal(latents, self.rows[start : start + count])

    @pytest.mark.parametrize("n", [1, 2, 999, 1000, 1001, 5000])
    def test_a_random_order_has_each_row_once_a_pass_but_for_a_thousandth(self, n, getkey):
        source = HostSource(self.rows[:n])
        for key in (getkey(), getkey()):
            numbers = source.read(key, 0, n)[:, 0]
            assert len(numbers) == n
            assert len(np.unique(numbers)) >= 0.998 * n

    def test_the_order_depends_on_the_key_and_changes_from_pass_to_pass(self, getkey):
        source, key = HostSource(self.rows), getkey()
        first = source.read(key, 0, 5000)
        assert_array_equal(source.read(key, 0, 5000), first)
        assert (source.read(getkey(), 0, 5000) != first).mean() > 0.5
        assert (source.read(key, 5000, 5000) != first).mean() > 0.5

    def test_any_part_of_a_random_order_is_the_same_however_it_is_read(self, getkey):
        source, key = HostSource(self.rows), getkey()
        whole = source.read(key, 0, 12000)
        for start, count in ((0, 1), (3, 10), (4990, 30), (11999, 1), (8000, 0)):
            assert_array_equal(source.read(key, start, count), whole[start : start + count])

    def test_a_short_stretch_of_a_random_order_is_spread_over_all_rows(self, getkey):
        numbers = np.sort(HostSource(self.rows).read(getkey(), 0, 500)[:, 0])
        assert np.diff(numbers).max() < 0.02 * 5000

    def test_many_small_files_of_one_fit_stay_closed(self, file):
        opened = []

        def open_file():
            opened.append(np.load(file, mmap_mode="r"))
            return opened[-1]

        source = HostSource(open_file)
        source.read(None, 0, 10)
        assert len(opened) == 2

    def test_what_is_no_file_of_latents_is_named(self, tmp_path):
        path = tmp_path / "latents.npy"
        with pytest.raises(FileNotFoundError, match="there is no file"):
            as_source(path)
        path.write_bytes(b"no array")
        with pytest.raises(ValueError, match=r"latents\.npy is no \.npy of numbers"):
            as_source(path)
        np.save(path, np.ones((4, 2), int))
        with pytest.raises(ValueError, match="of type int64; expected floating point"):
            as_source(path)
        np.save(path, np.ones(4))
        with pytest.raises(ValueError, match=r"shape \(4,\); expected \[N, D\]"):
            as_source(path)

    def test_a_truncated_file_is_named(self, file):
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(ValueError, match="or a damaged one"):
            as_source(file)

    def test_rows_that_are_not_finite_are_named_when_they_are_read(self):
        rows = self.rows.copy()
        rows[4321] = np.nan
        source = HostSource(rows)
        source.read(None, 0, 4000)
        with pytest.raises(ValueError, match=r"latents 4000 to 5000 .* first in row 321"):
            source.read(None, 4000, 1000)


class TestIterators:
    rows = np.arange(10, dtype=np.float32)[:, None] * np.float32([1, 10])

    @pytest.fixture(params=["list", "function"])
    def source(self, request):
        blocks = [self.rows[:3], self.rows[3:3], self.rows[3:9].astype(np.float16), self.rows[9:]]
        return IteratorSource(blocks if request.param == "list" else lambda: iter(blocks))

    def test_give_their_rows_in_order_whatever_the_blocks(self, source):
        assert source.latent_dim == 2
        for start, count in ((0, 4), (4, 2), (6, 4)):
            assert_array_equal(source.read(None, start, count), self.rows[start : start + count])

    def test_may_be_read_from_an_earlier_row_again_or_from_a_later_one(self, source):
        for start, count in ((5, 2), (0, 3), (8, 1), (2, 2)):
            assert_array_equal(source.read(None, start, count), self.rows[start : start + count])

    def test_fall_short_at_the_end_of_a_pass(self, source):
        assert_array_equal(source.read(None, 7, 10), self.rows[7:])
        assert source.read(None, 10, 10).shape == (0, 2)

    def test_begin_again_where_no_end_is_asked_for(self, source, getkey):
        latents = source.read(getkey(), 7, 25)
        assert_array_equal(latents, np.tile(self.rows, (4, 1))[7:32])

    def test_that_can_be_read_only_once_are_refused(self):
        with pytest.raises(TypeError, match="pass a function that gives a fresh one"):
            IteratorSource(iter([self.rows]))

    @pytest.mark.parametrize("bad", [np.ones(4), np.full((2, 2), np.nan), np.ones((2, 2), int)])
    def test_bad_blocks_are_named(self, bad):
        with pytest.raises(ValueError, match="a block of the iterator"):
            IteratorSource([bad])

    def test_blocks_of_another_width_are_named(self):
        source = IteratorSource([self.rows, np.ones((2, 3))])
        with pytest.raises(ValueError, match=r"shape \(2, 3\); .* width 2"):
            source.read(None, 0, 12)

    def test_no_blocks_are_named(self):
        with pytest.raises(ValueError, match="gives no blocks"):
            IteratorSource([])


class TestOwnSource:
    def test_a_class_of_four_names_is_a_source(self, getkey):
        class Database:
            latent_dim, num_latents, on_device = 2, 300, False

            def read(self, key, start, count):
                numbers = np.arange(start, start + count) % self.num_latents
                return np.stack([np.sin(numbers), np.cos(numbers)], 1)

        source = Database()
        assert as_source(source) is source
        assert fit(getkey(), source, bits=2).history.distortion[-1] < 0.1


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
