"""Solvers as sums: what holds for each of them, and one of a user's own."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import Adam, Curve, Info, LeastSquares, Solver, encode, fit_array, solver
from sfvq_jax.curve import padded
from sfvq_jax.projection import project
from sfvq_jax.solver import round_steps, steps
from sfvq_jax.sums import by_line, by_row

step = jax.jit(solver.step, static_argnames="axis")


@flax.struct.dataclass
class BatchSOM(Solver):
    """A one-dimensional self-organising map by Kohonen's batch rule: a user's own solver."""

    radius: Any = 1.0

    def statistics(self, curve, drawn, x, weight):
        place = project(curve, x)
        nearest = jnp.rint(place.position).astype(jnp.int32)
        moment = by_row(nearest, weight, x, len(curve.codewords))
        load = jnp.zeros_like(moment[:, 0]).at[nearest].add(weight)
        return moment, load, jnp.sum(weight * place.squared_distance)

    def update(self, curve, state, sums):
        moment, load, error = sums
        index = jnp.arange(len(load), dtype=moment.dtype)
        kernel = jnp.exp(-((index[:, None] - index[None]) ** 2) / (2 * self.radius**2))
        distortion = error / (load.sum() * moment.shape[1])
        new = Curve(kernel @ moment / (kernel @ load)[:, None], curve.size)
        return new, state, Info(distortion, distortion, load)


SOLVERS = {
    "least squares": LeastSquares(),
    "dithered least squares": LeastSquares(dithered=True),
    "Adam": Adam(learning_rate=1e-2, batch_size=64, samples=256),
    "somebody else's": BatchSOM(),
}


def gaussian(n=504, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def start(k=8):
    return Curve(jnp.asarray(gaussian(k, seed=1)))


def mesh_of(devices):
    return jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


@pytest.mark.parametrize("name", SOLVERS)
class TestEverySolver:
    def test_its_statistics_are_additive_over_samples(self, name, getkey):
        one, curve, x, key = SOLVERS[name], start(), gaussian(), getkey()
        weight = np.random.default_rng(0).uniform(0, 2, 504).astype(np.float32)
        drawn = one.draw(curve, key)
        whole = one.statistics(curve, drawn, x, weight)
        parts = [
            one.statistics(curve, drawn, x[part], weight[part])
            for part in (slice(0, 100), slice(100, 101), slice(101, None))
        ]
        for total, *each in zip(*map(jax.tree.leaves, (whole, *parts)), strict=True):
            assert_allclose(sum(each), total, rtol=1e-4, atol=1e-3)

    def test_rows_of_no_weight_are_not_there(self, name, getkey):
        one, curve, x, key = SOLVERS[name], start(), gaussian(), getkey()
        absent = np.arange(504) % 2 == 0
        x[absent] *= 100
        some, _, info = step(one, curve, one.init(curve), key, x[~absent])
        others, _, its_info = step(one, curve, one.init(curve), key, x, np.float32(~absent))
        assert_allclose(others.codewords, some.codewords, atol=1e-4)
        for leaf, other in zip(info, its_info, strict=True):
            assert_allclose(leaf, other, rtol=1e-4)

    def test_rows_beyond_the_size_change_nothing(self, name, getkey):
        one, x, key = SOLVERS[name], gaussian(), getkey()
        small, large = start(5), padded(start(5), 8)
        alone, _, info = step(one, small, one.init(small), key, x)
        within, _, its_info = step(one, large, one.init(large), key, x)
        if name != "somebody else's":  # whose kernel reaches over the end
            assert_allclose(within.codewords[:5], alone.codewords, atol=1e-5)
        assert_array_equal(within.codewords[5:], np.repeat(within.codewords[4:5], 3, 0))
        assert_allclose(its_info.distortion, info.distortion, rtol=1e-5)
        assert_allclose(its_info.load[:5], info.load, rtol=1e-5)

    @pytest.mark.parametrize("devices", [1, 2, 8])
    def test_shard_map_steps_as_one_device_does(self, name, devices, getkey):
        one, curve, x, key = SOLVERS[name], start(), gaussian(), getkey()
        sharded = jax.shard_map(
            lambda *arguments: solver.step(one, *arguments, axis="data"),
            mesh=mesh_of(devices),
            in_specs=(P(), P(), P(), P("data"), P("data")),
            out_specs=P(),
        )
        weight = np.float32(np.arange(504) < 480)
        state = one.init(curve)
        found = jax.jit(sharded)(curve, state, key, x, weight)
        alone = step(one, curve, state, key, x, weight)
        for leaf, other in zip(*map(jax.tree.leaves, (found, alone)), strict=True):
            assert_allclose(leaf, other, rtol=1e-4, atol=1e-5)

    def test_pmap_steps_as_one_device_does(self, name, getkey):
        one, curve, x, key = SOLVERS[name], start(), gaussian(), getkey()
        state = one.init(curve)
        mapped = jax.pmap(
            lambda *arguments: solver.step(one, *arguments, axis="data"),
            axis_name="data",
            in_axes=(None, None, None, 0, 0),
        )
        weight = np.ones(504, np.float32)
        found = mapped(curve, state, key, x.reshape(8, 63, 3), weight.reshape(8, 63))
        alone = step(one, curve, state, key, x, weight)
        for leaf, other in zip(*map(jax.tree.leaves, (found, alone)), strict=True):
            assert_allclose(leaf[0], other, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
    def test_half_precision_is_computed_in_float32(self, name, dtype, getkey):
        if name == "somebody else's":
            pytest.skip("it does not promise that")
        one, x, key = SOLVERS[name], jnp.asarray(gaussian()).astype(dtype), getkey()
        curve = Curve(start().codewords.astype(dtype))
        new, _, info = step(one, curve, one.init(curve), key, x)
        wide = Curve(curve.codewords.astype(np.float32))
        expected, _, its_info = step(one, wide, one.init(wide), key, x.astype(np.float32))
        assert new.codewords.dtype == dtype
        assert_allclose(new.codewords, expected.codewords.astype(dtype))
        assert_allclose(info.distortion, its_info.distortion, rtol=1e-6)

    def test_double_precision_works(self, name):
        with jax.enable_x64(True):
            one, curve = SOLVERS[name], Curve(jnp.asarray(np.float64(gaussian(8, seed=1))))
            key, x = jax.random.key(0), jnp.asarray(np.float64(gaussian()))
            new, _, info = solver.step(one, curve, one.init(curve), key, x)
            assert new.codewords.dtype == info.distortion.dtype == np.float64

    def test_vmap_over_curves_steps_each(self, name, getkey):
        one, x, key = SOLVERS[name], gaussian(), getkey()
        codewords = jnp.stack([start().codewords, 2 * start().codewords])

        def of_curve(codewords):
            curve = Curve(codewords)
            return solver.step(one, curve, one.init(curve), key, x)[0].codewords

        found = jax.jit(jax.vmap(of_curve))(codewords)
        assert_allclose(found[1], jax.jit(of_curve)(codewords[1]), atol=1e-5)


class TestYourOwn:
    def test_a_solver_in_two_methods_fits_a_curve(self, getkey):
        x = gaussian(1000, 2)
        curve, info = fit_array(getkey(), x, bits=4, solver=BatchSOM())
        assert info.final[-1] < 0.5 * info.final[0]
        assert curve.codewords.shape == (16, 2)
        assert np.isfinite(encode(curve, x)).all()

    def test_what_it_does_not_say_has_a_default(self):
        own = BatchSOM()
        assert (own.rounds, own.batch, own.moves, own.penalty(start(), ())) == (20, None, (), 0)
        assert own.anneal(3, 8) is own


class TestWords:
    curve, x = start(), gaussian()

    @pytest.mark.parametrize("bad", ["adam", None, LeastSquares, start()])
    def test_what_is_no_solver_is_told(self, bad):
        with pytest.raises(TypeError, match="LeastSquares"):
            solver.step(bad, self.curve, (), jax.random.key(0), self.x)

    @pytest.mark.parametrize("name", SOLVERS)
    def test_samples_that_do_not_go_with_the_curve_are_told(self, name):
        one = SOLVERS[name]

        def stepped(curve, x, weight=None):
            solver.step(one, curve, one.init(self.curve), jax.random.key(0), x, weight)

        with pytest.raises(TypeError, match="curve is a list"):
            stepped(self.curve.codewords.tolist(), self.x)
        with pytest.raises(TypeError, match="x is a list"):
            stepped(self.curve, self.x.tolist())
        for x in (self.x[:, :2], self.x[0]):
            with pytest.raises(ValueError, match=r"projects samples of shape \[N, 3\]"):
                stepped(self.curve, x)
        with pytest.raises(ValueError, match="x has no rows"):
            stepped(self.curve, self.x[:0])
        for shape in ((), (1,), (504, 1), (503,)):
            with pytest.raises(ValueError, match=r"expected one a sample, \(504,\)"):
                stepped(self.curve, self.x, np.ones(shape, np.float32))

    @pytest.mark.parametrize(
        "settings",
        [
            {"rounds": 0},
            {"rounds": 1.0},
            {"batch": 0, "samples": 9},
            {"batch": 2.5, "samples": 9},
            {"samples": None, "batch": 4},
            {"samples": 3, "batch": 4},
            {"moves": ["reseed"]},
            {"subdivision": "by_half"},
        ],
    )
    def test_settings_of_ones_own_solver_are_checked_too(self, settings):
        class Own(BatchSOM):
            pass

        for name, value in settings.items():
            setattr(Own, name, value)
        with pytest.raises(ValueError, match=next(iter(settings))):
            fit_array(jax.random.key(0), self.x, bits=3, solver=Own())

    @pytest.mark.parametrize("value", ["0.1", None, 1j, (0.1,)])
    def test_what_is_no_number_is_told_by_its_name(self, value):
        for one, name in ((BatchSOM(value), "radius"), (Adam(decay=value), "decay")):
            with pytest.raises(TypeError, match=f"{name} is .*; expected a number"):
                fit_array(jax.random.key(0), self.x, bits=3, solver=one)

    @pytest.mark.parametrize("bad", [np.array(-1.0), jnp.array(jnp.nan), jnp.float16(0)])
    def test_numbers_in_arrays_are_checked_too(self, bad):
        with pytest.raises(ValueError, match="learning_rate must be a positive number"):
            Adam(learning_rate=bad)


class TestSteps:
    def test_they_are_single_steps_one_after_another(self, getkey):
        one, curve, x, key = SOLVERS["Adam"], start(), gaussian(96), getkey()
        state, infos = one.init(curve), []
        many, its_state, info = steps(one, curve, state, key, x, np.ones(96, np.float32), 3)
        for i, of_step in enumerate(jax.random.split(key, 3)):
            batch = x.reshape(32, 3, 3)[:, i]  # batch-major
            curve, state, single = step(one, curve, state, of_step, batch)
            infos.append(single)
        assert_allclose(many.codewords, curve.codewords, atol=1e-6)
        assert int(its_state.count) == 3
        assert_allclose(info.objective, np.mean([i.objective for i in infos]), rtol=1e-5)
        assert_allclose(info.load, np.sum([i.load for i in infos], 0), rtol=1e-5)

    @pytest.mark.parametrize(
        ("samples", "blocks"), [(64, (1, 1)), (2**18, (64, 64)), (4224, (2, 33))]
    )
    def test_a_round_is_so_many_blocks_of_so_many_steps(self, samples, blocks):
        assert round_steps(Adam(samples=samples)) == blocks
        assert round_steps(Adam(samples=np.int64(samples))) == blocks


class TestSums:
    @pytest.mark.parametrize("rows", [4, 300])
    @pytest.mark.parametrize("n", [1, 1023, 2050])
    def test_by_line_adds_to_both_ends(self, rows, n):
        random = np.random.default_rng(0)
        line = random.integers(0, rows - 1, n).astype(np.int32)
        one, other = random.uniform(size=(2, n)).astype(np.float32)
        x = gaussian(n)
        expected = np.zeros((rows, 3))
        np.add.at(expected, line, one[:, None] * x)
        np.add.at(expected, line + 1, other[:, None] * x)
        origin = np.float32([5, 6, 7])
        found, of_columns = by_line(line, one, other, x + origin, rows, origin=origin, columns=x)
        assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
        expected = np.zeros((rows, 3))
        np.add.at(expected, line, x)
        assert_allclose(of_columns, expected, rtol=1e-4, atol=1e-3)
