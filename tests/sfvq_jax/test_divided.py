"""A curve that is divided over devices is the curve of one, at a share of its memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import Adam, Curve, LeastSquares, data_mesh, fit, project
from sfvq_jax.curve import tied
from sfvq_jax.devices import by_columns, by_rows, curve_spec, parts, place_curve
from sfvq_jax.moves import reorder
from sfvq_jax.projection import nearest_codeword
from sfvq_jax.rounds import sum_shapes, update_by_sums, zero_sums
from sfvq_jax.subdivision import subdivide
from tests.sfvq_jax.test_rounds import collectives

K, D = 64, 8
MESHES = {"4x2": 2, "2x4": 4, "1x8": 8}  # parts of the samples x of the curve


def mesh_of(name):
    return data_mesh(jax.devices()[:8], curve=MESHES[name])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ring(share):
    """Points of a closed curve in eight dimensions."""
    angle = 2 * np.pi * share[:, None] * np.arange(1, 5)
    both = np.concatenate([np.cos(angle), np.sin(angle)], 1)
    return (both / np.tile(np.arange(1, 5), 2)).astype(np.float32)


def divided(function, mesh, curve):
    """A function of a curve by rows and of samples that are divided along the other axis."""
    samples = PartitionSpec("data")
    return jax.jit(
        jax.shard_map(
            functools.partial(function, curve_axis="curve"),
            mesh=mesh,
            in_specs=(curve_spec(curve, mesh), samples),
            out_specs=samples,
        )
    )


class TestProjection:
    def test_each_part_searches_its_lines_and_the_nearest_wins(self):
        x, curve = normal(256, D, seed=1), tied(jnp.asarray(normal(K, D)), K)
        on_points, on_codewords = (
            divided(function, mesh_of("2x4"), curve) for function in (project, nearest_codeword)
        )
        # the last codeword within a part, at its end, in the first one, and none beyond it
        for size in (37, 33, 32, 3, K):
            curve = tied(jnp.asarray(normal(K, D)), size)
            expected, found = project(curve, x), on_points(curve, x)
            assert_allclose(found.position, expected.position, atol=1e-4)
            assert_allclose(found.squared_distance, expected.squared_distance, rtol=1e-5)
            assert_array_equal(on_codewords(curve, x), nearest_codeword(curve, x))

    def test_of_lines_as_near_the_lowest_wins(self):
        """A curve that goes to and fro between two points, so that every line is as near."""
        codewords = np.zeros((K, D), np.float32)
        codewords[1::2, 0] = 4
        x = np.zeros((256, D), np.float32)
        x[:, 0] = np.tile([1, -1, 2, 5], 64)
        curve = tied(jnp.asarray(codewords), K)
        place = divided(project, mesh_of("2x4"), curve)(curve, x)
        assert_array_equal(place.position[:4], [0.25, 0, 0.5, 1])
        assert_array_equal(place.position, project(curve, x).position)
        near = divided(nearest_codeword, mesh_of("2x4"), curve)(curve, x)
        assert_array_equal(near[:4], [0, 0, 0, 1])

    def test_gradients_reach_the_codewords_of_every_part(self):
        curve, x = Curve(jnp.asarray(normal(K, D))), normal(256, D, seed=1)

        def gradients(project):
            def error(curve, x):
                return project(curve, x).squared_distance.sum()

            return jax.jit(jax.grad(error, (0, 1)))(curve, x)

        found, expected = gradients(divided(project, mesh_of("2x4"), curve)), gradients(project)
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert_allclose(one, other, rtol=1e-4, atol=1e-4)


class TestSums:
    def test_every_codeword_gets_the_sums_of_its_samples_once(self):
        """Of points that are drawn, too: each part of the curve draws its own of them."""
        mesh, x = mesh_of("1x8"), 3 * normal(500, D, seed=1) + 20
        curve, weight = tied(jnp.asarray(normal(K, D) + 20), 50), jnp.ones(500)
        key, solver = jax.random.key(0), LeastSquares(dithered=True)

        def of_part(curve):
            return solver.statistics(curve, key, x, weight, "curve")

        expected = jax.jit(solver.statistics)(curve, key, x, weight)
        spec = curve_spec(curve, mesh)
        specs = jax.tree.map(
            lambda leaf: PartitionSpec("curve") if leaf.ndim else PartitionSpec(), expected
        )
        found = jax.jit(jax.shard_map(of_part, mesh=mesh, in_specs=(spec,), out_specs=specs))(curve)
        for name, value in expected._asdict().items():
            assert_allclose(getattr(found, name), value, rtol=1e-4, atol=1e-3, err_msg=name)


class TestMoves:
    @pytest.mark.parametrize("move", [lambda curve: reorder(curve).curve, subdivide])
    def test_by_columns_are_those_of_one_device(self, move):
        mesh, curve = mesh_of("2x4"), Curve(jnp.asarray(normal(K // 2, D)))

        @jax.jit
        def moved(curve):
            return by_rows(move(by_columns(curve, mesh)), mesh)

        found = moved(place_curve(curve, mesh))
        assert_allclose(found.codewords, jax.jit(move)(curve).codewords, atol=1e-6)


class TestRounds:
    k, d = 256, 64

    @pytest.mark.parametrize("name", ["2x4", "1x8"])
    def test_a_device_holds_and_sends_its_share(self, name):
        """All tables of codewords, three of which change from rows to columns or back."""
        mesh = mesh_of(name)
        curve = Curve(jnp.asarray(normal(self.k, self.d)), jnp.int32(self.k))
        solver = LeastSquares()
        state = solver.init(curve)
        sums = zero_sums(mesh, solver, sum_shapes(solver, curve, state, parts(mesh)))
        curve = place_curve(curve, mesh)
        table = self.k * self.d // MESHES[name]
        assert curve.codewords.addressable_shards[0].data.size == table
        assert sums.moment.addressable_shards[0].data.size == table
        program = update_by_sums.lower(mesh, solver, curve, state, sums).compile()
        crossing = collectives(program.as_text())
        assert crossing["all-to-all"] == 3 * table
        assert crossing["all-gather"] == 3 * self.k  # beside the tables, and none in a loop
        reduced = table + 3 * self.k // MESHES[name] if parts(mesh) > 1 else 0
        assert reduced < crossing["all-reduce"] < reduced + 9 * self.k
        memory = program.memory_analysis()
        assert memory.argument_size_in_bytes < 4 * 2.2 * table
        assert memory.temp_size_in_bytes < 4 * 9 * table

    def test_which_solvers_and_meshes_cannot(self):
        x = normal(500, D)
        with pytest.raises(ValueError, match="Adam needs the whole curve on every device: give a"):
            fit(jax.random.key(0), x, bits=2, solver=Adam(), mesh=mesh_of("4x2"))
        with pytest.raises(ValueError, match='"curve" of the mesh has 3 devices; expected a power'):
            fit(jax.random.key(0), x, bits=2, mesh=data_mesh(jax.devices()[:6], curve=3))
        with pytest.raises(ValueError, match="curve is 3; expected a number that divides the 8"):
            data_mesh(jax.devices()[:8], curve=3)


class TestFit:
    """Of a curve that is subdivided, and of which dead codewords are reseeded."""

    @staticmethod
    @functools.cache
    def fitted(name):
        random = np.random.default_rng(0)
        x = ring(random.uniform(size=1003)) + normal(1003, D) / 50
        start = ring(np.linspace(0, 0.95, K // 2))
        start[[5, 6, 20]] += 5
        moves = []
        result = fit(
            jax.random.key(0),
            x,
            bits=6,
            start=Curve(jnp.asarray(start)),
            # without a penalty nothing moves dead codewords but a reseed
            solver=LeastSquares(rounds=2, length_penalty=0.0, moves=("reseed",)),
            mesh=data_mesh(jax.devices()[:1]) if name == "1x1" else mesh_of(name),
            on_report=lambda report: moves.append(report.move),
        )
        return result, moves

    @pytest.mark.parametrize("name", MESHES)
    def test_is_the_same_curve_on_any_mesh(self, name):
        (one, _), (other, moves) = self.fitted("1x1"), self.fitted(name)
        assert "reseed" in moves
        assert len(one.history.codewords) == 6  # two rounds of the reseeded curve, which stayed
        assert_array_equal(other.history.codewords, [32, 32, 32, 32, 64, 64])
        assert_allclose(other.curve.codewords, one.curve.codewords, atol=1e-4)
        assert_allclose(other.history.objective, one.history.objective, rtol=1e-3)
        assert other.curve.codewords.devices() == {jax.devices()[0]}
