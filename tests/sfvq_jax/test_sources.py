"""Where latents come from: arrays, functions and models, all drawn from in the same way."""

import os
import re
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
    LeastSquares,
    SamplerSource,
    fit,
)
from sfvq_jax.rows.arrays import MAX_PADDING, _random_rows, bucket
from sfvq_jax.rows.samplers import partial
from sfvq_jax.rows.source import check_latents
from sfvq_jax.sources import as_source


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


@flax.struct.dataclass
class Layered:
    """As modules of Equinox are: a function is a leaf."""

    layers: Any
    latent_dim: int = flax.struct.field(pytree_node=False, default=3)
    num_layers: int = flax.struct.field(pytree_node=False, default=1)

    def sample(self, key, n, *, label=None, truncation=None):
        scale, activation = self.layers
        return activation(scale * gaussian(key, n))

    def render(self, latents):
        return jnp.zeros((len(latents), 8, 8, 1))


class TestArrays:
    rows = np.arange(1, 9, dtype=np.float32)[:, None] * np.float32([1, 10])

    def test_draws_are_rows_each_about_as_often(self, getkey):
        draws, weight = as_source(self.rows).read(getkey(), 0, 8000)
        counts = np.bincount(np.asarray(draws[:, 0]).astype(int), minlength=9)[1:]
        assert_array_equal(draws[:, 1], 10 * draws[:, 0])
        assert_array_equal(weight, np.ones(8000))
        assert counts.sum() == 8000
        assert (np.abs(counts - 1000) < 5 * np.sqrt(1000)).all()

    @pytest.mark.parametrize("n", [1, 1000, 2**16 + 1, 2**31 - 1])
    def test_drawn_numbers_are_all_below_n(self, n, getkey):
        key = getkey()
        bits = np.asarray(jax.random.bits(key, (1000,), "uint32"))
        assert_array_equal(_random_rows(key, 1000, n), bits.astype(np.uint64) * n >> 32)

    @pytest.mark.parametrize("kind", [as_source, HostSource])
    def test_masked_entries_are_told_and_not_taken_for_numbers(self, kind):
        x = np.ma.masked_array(np.ones((9, 2)), mask=np.arange(18).reshape(9, 2) == 7)
        with pytest.raises(ValueError, match=r"has masked entries: take the rows that have none"):
            kind(x)
        assert kind(x[~x.mask.any(1)].data).num_latents == 8

    def test_more_can_be_drawn_than_there_are(self, getkey):
        assert as_source(self.rows).read(getkey(), 0, 100).x.shape == (100, 2)

    @pytest.mark.parametrize("dtype", [np.float16, np.float64, jnp.bfloat16])
    @pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
    def test_every_floating_point_type_becomes_float32(self, dtype, kind):
        latents, weight = as_source(kind(self.rows.astype(dtype))).whole()
        assert latents.dtype == weight.dtype == np.float32
        assert_allclose(latents[weight > 0], self.rows)

    def test_arrays_of_about_as_many_rows_need_no_new_program(self, getkey):
        draw = jax.jit(lambda source, key: source.read(key, 0, 4))
        for scale, n in ((1, 999), (2, 1000), (3, 1001)):
            draw(as_source(np.full((n, 2), scale, np.float32)), getkey())
        assert draw._cache_size() == 1

    def test_padding_is_at_most_an_eighth_and_some_thousands_of_rows(self):
        sizes = np.concatenate([np.arange(1, 3000), [10**5, 10**6 + 1, 10**8]])
        padded = np.array([bucket(int(n)) for n in sizes])
        assert (padded >= sizes).all()
        assert (padded - sizes <= np.minimum(1 + sizes / 8, MAX_PADDING)).all()
        assert len(np.unique(padded[:2999])) < 80

    def test_rows_of_their_weights_come_with_them(self, getkey):
        weights = np.arange(8.0)
        source = as_source(self.rows, weights)
        x, weight = source.read(getkey(), 0, 100)
        assert_array_equal(weight, x[:, 0] - 1)
        assert_array_equal(source.whole().weight[:8], weights)

    @pytest.mark.parametrize("bad", [np.ones(7), np.ones((8, 1)), np.full(8, np.nan), -np.ones(8)])
    def test_weights_that_are_none_are_named(self, bad):
        with pytest.raises(ValueError, match="the weights of the array"):
            as_source(self.rows, bad)

    def test_what_is_held_out_has_no_weight_and_the_rest_keeps_its_own(self, getkey):
        key = getkey()
        source = as_source(self.rows, np.arange(1.0, 9))
        held = np.unique(source.read(key, 0, 3).x[:, 0]).astype(int) - 1
        expected = np.arange(1.0, 9)
        expected[held] = 0
        assert_array_equal(source.held_out(key, 3).whole().weight[:8], expected)


class TestSamplers:
    @pytest.mark.parametrize(
        "source",
        [gaussian, PlainModel(), PytreeModel(jnp.array(1.0))],
        ids=["function", "model", "pytree model"],
    )
    def test_functions_and_models_give_what_they_draw(self, getkey, source):
        key = getkey()
        draws = jax.jit(lambda source: source.read(key, 7, 5))(as_source(source))
        assert_array_equal(draws.x, gaussian(jax.random.fold_in(key, 7), 5))

    def test_a_models_parameters_are_no_constants_of_the_program(self, getkey):
        draw = jax.jit(lambda source, key: source.read(key, 0, 4))
        key = getkey()
        once, twice = (draw(as_source(PytreeModel(jnp.array(scale))), key) for scale in (1.0, 2.0))
        assert draw._cache_size() == 1
        assert_array_equal(2 * once.x, twice.x)

    def test_a_partials_arguments_are_no_constants_of_the_program(self, getkey):
        def scaled(scale, key, n):
            return scale * jax.random.normal(key, (n, 2))

        draw = jax.jit(lambda source, key: source.read(key, 0, 4))
        for scale in (1.0, 2.0):
            source = as_source(jax.tree_util.Partial(scaled, jnp.float32(scale)))
            key = jax.random.key(0)
            expected = scale * jax.random.normal(jax.random.fold_in(key, 0), (4, 2))
            assert_allclose(draw(source, key).x, expected, rtol=1e-6)
        assert draw._cache_size() == 1

    def test_the_same_function_needs_no_new_program(self, getkey):
        draw = jax.jit(lambda source, key: source.read(key, 0, 4))
        for _ in range(3):
            draw(as_source(gaussian), getkey())
        assert draw._cache_size() == 1

    def test_an_equal_function_that_is_made_anew_needs_no_new_program(self, getkey):
        draw = jax.jit(lambda source, key: source.read(key, 0, 4))
        for _ in range(3):
            draw(as_source(lambda key, n: 2 * jax.random.normal(key, (n, 3))), getkey())
        assert draw._cache_size() == 1

    def test_functions_that_reach_other_values_are_not_equal(self):
        def scaled(scale):
            return lambda key, n: scale * gaussian(key, n)

        assert partial(scaled(2.0)).func == partial(scaled(2.0)).func
        assert partial(scaled(2.0)).func != partial(scaled(3.0)).func
        assert partial(scaled(2.0)).func != partial(scaled(2)).func
        # an array may be changed in place
        array = np.ones(3, np.float32)
        assert partial(scaled(array)).func != partial(scaled(array)).func

    def test_a_functions_global_that_is_bound_anew_is_seen(self):
        world = {"jax": jax, "scale": 1.0}
        make = "made = lambda key, n: scale * jax.random.normal(key, (n, 3))"
        made = []
        for scale in (1.0, 1.0, 2.0):
            world["scale"] = scale
            exec(make, world)
            made.append(partial(world["made"]).func)
        assert made[0] == made[1] != made[2]
        # also where a function that is called is what reaches it
        helper = "helper = lambda key, n: scale * jax.random.normal(key, (n, 3))"
        made = []
        for scale in (1.0, 1.0, 2.0):
            world["scale"] = scale
            if not made:
                exec(helper, world)
            exec("made = lambda key, n: 2 * helper(key, n)", world)
            made.append(partial(world["made"]).func)
        assert made[0] == made[1] != made[2]

    def test_a_sampler_may_give_weights(self, getkey):
        def weighted(key, n):
            x = gaussian(key, n)
            return x, jnp.abs(x[:, 0])

        x, weight = as_source(weighted).read(getkey(), 0, 5)
        assert_array_equal(weight, np.abs(x[:, 0]))

    def test_a_model_with_functions_among_its_leaves_is_drawn_from(self, getkey):
        source = as_source(Layered((jnp.array(2.0), jnp.tanh)))
        key = getkey()
        draws = jax.jit(lambda source: source.read(key, 0, 5))(source)
        expected = jnp.tanh(2 * gaussian(jax.random.fold_in(key, 0), 5))
        assert_allclose(draws.x, expected, rtol=1e-6)

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
            latents, weight = source.read(None, start, count)
            assert latents.dtype == np.float32
            assert_array_equal(latents, self.rows[start : start + count])
            assert_array_equal(weight, np.ones(count))

    def test_bfloat16_is_read_from_arrays_and_files(self, tmp_path):
        rows = jnp.asarray(self.rows[:100], jnp.bfloat16)
        np.save(tmp_path / "x.npy", rows)
        for source in (HostSource(np.asarray(rows)), as_source(tmp_path / "x.npy")):
            assert_array_equal(source.read(None, 0, 100).x, np.asarray(rows, np.float32))

    def test_weights_are_read_with_their_rows(self, file, tmp_path, getkey):
        np.save(tmp_path / "w.npy", np.arange(5000.0))
        source = as_source(file, tmp_path / "w.npy")
        for key in (None, getkey()):
            x, weight = source.read(key, 0, 300)
            assert_array_equal(weight, x[:, 0])

    def test_what_is_held_out_has_no_weight_in_any_order(self, getkey):
        key, source = getkey(), HostSource(self.rows)
        held = np.unique(source.scattered(200).read(key, 0, 200).x[:, 0])
        rest = source.held_out(key, 200)
        for order in (None, getkey()):
            x, weight = rest.read(order, 0, 5000)
            assert_array_equal(weight == 0, np.isin(x[:, 0], held))

    @pytest.mark.parametrize("n", [1, 2, 999, 1000, 1001, 5000])
    def test_a_random_order_has_each_row_once_a_pass_but_for_a_thousandth(self, n, getkey):
        source = HostSource(self.rows[:n])
        for key in (getkey(), getkey()):
            numbers = source.read(key, 0, n).x[:, 0]
            assert len(numbers) == n
            assert len(np.unique(numbers)) >= 0.998 * n

    def test_the_order_depends_on_the_key_and_changes_from_pass_to_pass(self, getkey):
        source, key = HostSource(self.rows), getkey()
        first = source.read(key, 0, 5000).x
        assert_array_equal(source.read(key, 0, 5000).x, first)
        assert (source.read(getkey(), 0, 5000).x != first).mean() > 0.5
        assert (source.read(key, 5000, 5000).x != first).mean() > 0.5

    def test_any_part_of_a_random_order_is_the_same_however_it_is_read(self, getkey):
        source, key = HostSource(self.rows), getkey()
        whole = source.read(key, 0, 12000).x
        for start, count in ((0, 1), (3, 10), (4990, 30), (11999, 1), (8000, 0)):
            assert_array_equal(source.read(key, start, count).x, whole[start : start + count])

    def test_a_short_stretch_of_a_random_order_is_spread_over_all_rows(self, getkey):
        numbers = np.sort(HostSource(self.rows).read(getkey(), 0, 500).x[:, 0])
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
        np.savez(tmp_path / "two.npz", a=np.ones(3), b=np.ones((4, 2)))
        with pytest.raises(ValueError, match=r"archive of arrays \(a, b\), but .*\['b'\]"):
            as_source(tmp_path / "two.npz")
        np.save(path, np.ones((4, 2), int))
        with pytest.raises(ValueError, match="of type int64; expected floating point"):
            as_source(path)
        np.save(path, np.ones(4))
        with pytest.raises(ValueError, match=r"shape \(4,\); expected \[N, D\]"):
            as_source(path)

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("x.csv", r"np\.save\('latents\.npy', np\.loadtxt\('x\.csv', delimiter=','"),
            ("x.pt", r"np\.save\('latents\.npy', torch\.load\('x\.pt'"),
            ("x.feather", r"np\.save\('latents\.npy', pandas\.read_feather\('x\.feather'\)"),
            ("x.npz", r"x = np\.load\('x\.npz'\)\['w'\], of shape \(7, 1, 8\): take x\[:, 0\]"),
            ("x", "x is no .npy of numbers, or a damaged one; latents go in an .npy of floating"),
        ],
    )
    def test_other_files_say_how_an_npy_is_made_of_them(self, tmp_path, name, told):
        (tmp_path / name).write_bytes(b"1,2,3")
        if name == "x.npz":
            np.savez(tmp_path / name, w=np.ones((7, 1, 8)))
        with pytest.raises(ValueError, match=told):
            as_source(tmp_path / name)

    def test_codes_of_all_layers_say_how_one_is_made_of_them(self, tmp_path):
        np.save(tmp_path / "w.npy", np.ones((5, 18, 8)))
        for source in (tmp_path / "w.npy", np.ones((5, 18, 8))):
            with pytest.raises(ValueError, match=r"\(5, 18, 8\); expected \[N, D\].*x\.mean\(1\)"):
                as_source(source)

    @pytest.mark.parametrize(
        "change",
        [
            lambda path: os.truncate(path, 4000),
            lambda path: os.truncate(path, 0),
            lambda path: np.save(path, np.ones((5000, 2))),
            lambda path: np.save(path, np.ones((50, 2))),
            lambda path: path.write_bytes(path.read_bytes() + b"more"),
            lambda path: path.unlink(),
        ],
        ids=["cut", "emptied", "rewritten", "replaced by fewer", "appended to", "removed"],
    )
    @pytest.mark.parametrize("mapped", [False, True])
    def test_a_file_that_changes_is_found_at_the_next_read(self, file, change, mapped):
        source = as_source(np.load(file, mmap_mode="r") if mapped else file)
        source.read(None, 0, 10)
        source.check_unchanged()
        os.utime(file, (1, 1))
        source = as_source(np.load(file, mmap_mode="r") if mapped else file)
        change(file)
        with pytest.raises(ValueError, match=r"latents\.npy changed while it was read"):
            source.read(None, 0, 10)
        with pytest.raises(ValueError, match=r"latents\.npy changed while it was read"):
            source.check_unchanged()

    def test_columns_first_big_endian_and_parts_of_maps_are_read_as_they_are(self, tmp_path):
        for i, rows in enumerate((np.asfortranarray(self.rows), self.rows.astype(">f4"))):
            np.save(tmp_path / f"{i}.npy", rows)
            assert_array_equal(as_source(tmp_path / f"{i}.npy").read(None, 7, 9).x, self.rows[7:16])
        np.save(tmp_path / "x.npy", self.rows)
        part = np.load(tmp_path / "x.npy", mmap_mode="r")[100:200]
        assert_array_equal(as_source(part).read(None, 7, 9).x, self.rows[107:116])

    def test_a_truncated_file_is_named(self, file):
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(ValueError, match="has 80028 bytes, and its header says 80128"):
            as_source(file)

    @pytest.mark.parametrize("shape", ["(99, True)", "(-99, 2)"])
    def test_a_header_whose_sizes_are_none_is_named(self, shape, tmp_path):
        path = tmp_path / "x.npy"
        np.save(path, np.ones((99, 2), np.float32))
        data = path.read_bytes()
        path.write_bytes(data.replace(b"(99, 2), }".ljust(14), f"{shape}, }}".ljust(14).encode()))
        with pytest.raises(ValueError, match=rf"a damaged one \(its shape is {re.escape(shape)}\)"):
            as_source(path)

    def test_rows_that_are_not_finite_are_named_by_their_place_in_the_file(self, tmp_path, getkey):
        rows = self.rows.copy()
        rows[4321] = np.nan
        np.save(tmp_path / "x.npy", rows)
        source = as_source(tmp_path / "x.npy")
        source.read(None, 0, 4000)
        for order, start, count in ((None, 4000, 1000), (getkey(), 0, 5000)):
            with pytest.raises(ValueError, match=rf"in 1 of {count} rows, the first in row 4321:"):
                source.read(order, start, count)

    def test_numbers_beyond_float32_are_named(self):
        rows = self.rows.astype(np.float64)
        rows[17] = 1e300
        with pytest.raises(
            ValueError, match=r"beyond the range of float32 in 1 .*first in row 17:"
        ):
            HostSource(rows).read(None, 0, 100)
        with pytest.raises(
            ValueError, match=r"beyond the range of float32 in 1 .*first in row 17:"
        ):
            as_source(rows)

    @pytest.mark.parametrize("kind", ["file", "array", "mapped", "own"])
    @pytest.mark.parametrize(
        ("bad", "told"),
        [(np.nan, "has NaN or infinity in 2 of 5000 rows, the first in row 1234: remove"),
         (1e20, r"as large as 1e\+20, whose .* in 2 of 5000 rows, the first in row 1234: scale"),
         (1e300, "beyond the range of float32 in 2 of 5000 rows, the first in row 1234: scale")],
    )  # fmt: skip
    def test_bad_rows_of_the_whole_are_named_before_any_is_read(self, kind, bad, told, tmp_path):
        rows = self.rows.astype(np.float64)
        rows[[1234, 4999], 1] = bad
        path = tmp_path / "x.npy"
        np.save(path, rows)
        sources = {
            "file": lambda: as_source(path),
            "array": lambda: as_source(rows),
            "mapped": lambda: as_source(np.load(path, mmap_mode="r")),
            "own": lambda: HostSource(lambda: rows),
        }
        with pytest.raises(ValueError, match=told):
            sources[kind]().look_through()

    def test_bad_weights_are_named_by_their_row(self, file):
        weights = np.ones(5000)
        weights[4567] = -1
        with pytest.raises(ValueError, match=r"at least 0, but that of row 4567 is -1\.0"):
            as_source(file, weights).look_through()

    def test_few_rows_that_are_far_from_all_others_are_told(self, tmp_path):
        rows = np.random.default_rng(0).normal(size=(5000, 8)) + 100
        assert HostSource(rows).look_through() is None
        rows[[3000, 17], 2] = 3e4, 2e4
        for source in (HostSource(rows), as_source(rows)):
            far = source.look_through()
            assert far.rows == [3000, 17]
            assert far.share > 0.99
        weights = np.ones(5000)
        weights[[3000, 17]] = 0
        assert HostSource(rows, weights).look_through() is None


class TestIterators:
    rows = np.arange(10, dtype=np.float32)[:, None] * np.float32([1, 10])

    @pytest.fixture(params=["list", "function"])
    def source(self, request):
        blocks = [self.rows[:3], self.rows[3:3], self.rows[3:9].astype(np.float16), self.rows[9:]]
        return IteratorSource(blocks if request.param == "list" else lambda: iter(blocks))

    def test_give_their_rows_in_order_whatever_the_blocks(self, source):
        assert source.latent_dim == 2
        for start, count in ((0, 4), (4, 2), (6, 4)):
            assert_array_equal(source.read(None, start, count).x, self.rows[start : start + count])

    def test_may_be_read_from_an_earlier_row_again_or_from_a_later_one(self, source):
        for start, count in ((5, 2), (0, 3), (8, 1), (2, 2)):
            assert_array_equal(source.read(None, start, count).x, self.rows[start : start + count])

    def test_fall_short_at_the_end_of_a_pass(self, source):
        assert_array_equal(source.read(None, 7, 10).x, self.rows[7:])
        assert source.read(None, 10, 10).x.shape == (0, 2)

    def test_begin_again_where_no_end_is_asked_for(self, source, getkey):
        latents = source.read(getkey(), 7, 25).x
        assert_array_equal(latents, np.tile(self.rows, (4, 1))[7:32])

    def test_that_can_be_read_only_once_are_refused(self):
        with pytest.raises(TypeError, match="pass a function that gives a fresh one"):
            IteratorSource(iter([self.rows]))

    @pytest.mark.parametrize("bad", [np.ones(4), np.full((2, 2), np.nan), np.ones((2, 2), int)])
    def test_bad_blocks_are_named(self, bad):
        with pytest.raises(ValueError, match="block 0 of the iterator"):
            IteratorSource([bad])

    def test_blocks_of_another_width_are_named(self):
        source = IteratorSource([self.rows, np.ones((2, 3))])
        with pytest.raises(ValueError, match=r"shape \(2, 3\); .* width 2"):
            source.read(None, 0, 12)

    def test_blocks_may_have_weights(self):
        source = IteratorSource([(self.rows[:4], np.arange(4.0)), (self.rows[4:], np.ones(6))])
        assert_array_equal(source.read(None, 2, 4).weight, [2, 3, 1, 1])

    @pytest.mark.parametrize("samples", [None, "all"])
    @pytest.mark.parametrize("number", [30, 3000])
    def test_a_function_that_gives_the_same_iterator_again_is_named(self, getkey, samples, number):
        blocks = iter([self.rows] * number)
        solver = LeastSquares(samples=samples, rounds=2)
        with pytest.raises(
            ValueError, match="no blocks the second time: pass a function that make"
        ):
            fit(getkey(), IteratorSource(lambda: blocks), bits=2, solver=solver)

    def test_no_blocks_are_named(self):
        with pytest.raises(ValueError, match="gives no blocks"):
            IteratorSource([])


class Waves:
    """A source of one's own in four names; NumPy or JAX, as the subclass says."""

    latent_dim, num_latents = 2, 300

    def read(self, key, start, count):
        numbers = self.np.arange(count) + start
        angle = (numbers % self.num_latents).astype(np.float32)
        return self.np.stack([self.np.sin(angle), self.np.cos(angle)], 1)


class Database(Waves):
    on_device, np = False, np


@jax.tree_util.register_static
class OnDevice(Waves):
    on_device, np = True, jnp


class TestOwnSource:
    @pytest.mark.parametrize("source", [Database(), OnDevice()], ids=["host", "device"])
    @pytest.mark.parametrize("block", [None, 128])
    def test_a_class_of_four_names_is_a_source(self, getkey, source, block):
        solver = LeastSquares(rounds=2, block=block)
        result = fit(getkey(), source, bits=2, solver=solver)
        assert result.history.distortion[-1] < 0.2
        assert_array_equal(result.history.samples[:2], [300, 600])
        assert result.measured_on == "all 300 latents, which were fitted"

    def test_passes_over_it_are_the_same_on_host_and_device(self, getkey):
        key, solver = getkey(), LeastSquares(rounds=2, block=128)
        curves = [fit(key, s, bits=2, solver=solver).curve for s in (Database(), OnDevice())]
        assert_allclose(curves[1].codewords, curves[0].codewords, atol=1e-4)

    def test_bad_latents_of_it_are_named_by_number(self):
        class Bad(Database):
            def read(self, key, start, count):
                return np.full((count, 2), np.nan)

        with pytest.raises(ValueError, match="what the source gives from number 7 on has NaN"):
            as_source(Bad()).read(None, 7, 3)

    def test_it_may_give_weights(self):
        class Weighted(Database):
            def read(self, key, start, count):
                return super().read(key, start, count), np.full(count, 2.0)

        assert_array_equal(as_source(Weighted()).read(None, 0, 3).weight, [2, 2, 2])


class TestErrors:
    def test_weights_of_what_has_no_rows_are_refused(self):
        with pytest.raises(TypeError, match="weights go with an array or a file; a function"):
            as_source(gaussian, np.ones(3))

    @pytest.mark.parametrize(
        "source",
        [
            ArraySource(jnp.ones((2, 2)), jnp.ones(2), 2),
            SamplerSource(jax.tree_util.Partial(gaussian), 3),
            HostSource(np.ones((2, 2))),
            IteratorSource([np.ones((2, 2))]),
        ],
    )
    def test_a_source_is_taken_as_it_is(self, source):
        assert as_source(source) is source

    @pytest.mark.parametrize("source", [None, [[1.0, 2.0]], 3.0])
    def test_anything_else_is_named(self, source):
        with pytest.raises(
            TypeError, match=f"source is a {type(source).__name__}; expected an array .*np.asarray"
        ):
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
