"""`fit_array`: what it fits, that it is pure, and what it compiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.cluster import KMeans

from sfvq_jax import Adam, Curve, LeastSquares, codebook_quality, decode, distortion, fit_array

KEY = jax.random.key(0)
QUICK = LeastSquares(rounds=12, moves=("reseed",))


def gaussian(n=1000, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def clusters(distance, n, d=16, seed=0):
    """Ten clusters of four dimensions each, as far from each other as is said."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(10, d)) * distance / d**0.5
    bases = random.normal(size=(10, 4, d)) / d**0.5
    which = random.integers(0, 10, n)
    inside = np.einsum("nr,nrd->nd", random.normal(size=(n, 4)), bases[which])
    return (centres[which] + inside).astype(np.float32)


def loads(codewords, x):
    distance = ((x[:, None] - np.asarray(codewords)[None]) ** 2).sum(2)
    return np.bincount(distance.argmin(1), minlength=len(codewords))


def objective(curve, x, solver):
    return float(distortion(curve, x) + solver.penalty(curve, solver.init(curve)))


def mesh_of(devices):
    return jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


class Compiles:
    """Counts the programs that XLA compiles within a `with`."""

    def __enter__(self):
        self.programs = 0
        jax.monitoring.register_event_duration_secs_listener(self._count)
        return self

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self._count)

    def _count(self, name, seconds, **_):
        self.programs += name == "/jax/core/compile/backend_compile_duration"


class TestClusters:
    @pytest.mark.parametrize("distance", [20.0, 4.0])
    def test_no_codeword_is_dead_and_the_distortion_is_near_that_of_k_means(self, distance):
        x = clusters(distance, 4096 + 2048)
        x, fresh = x[:4096], x[4096:]
        curve, info = fit_array(KEY, x, bits=6)
        assert loads(curve.codewords, x).min() > 0
        assert int(info.dead[-1]) == 0
        means = KMeans(64, n_init=1, random_state=0).fit(x).cluster_centers_
        nearest = ((fresh[:, None] - means[None]) ** 2).sum(2).min(1).mean() / 16
        assert distortion(curve, fresh) < 1.06 * nearest
        assert codebook_quality(curve).neighbour_share > 0.85

    @pytest.mark.parametrize(("clusters", "d", "noise"), [(20, 32, 1.0), (15, 16, 0.3)])
    def test_none_is_dead_where_clusters_have_noise_in_all_dimensions(self, clusters, d, noise):
        """There a bridge holds samples inside its ends, and must not count for much."""
        centres = 2 * gaussian(clusters, d, seed=7)
        x = centres[np.arange(4096) % clusters] + noise * gaussian(4096, d)
        curve, info = fit_array(KEY, x, bits=5)
        assert int(info.dead[-1]) == 0
        means = KMeans(32, n_init=1, random_state=0).fit(x).cluster_centers_
        nearest = ((x[:, None] - means[None]) ** 2).sum(2).min(1).mean() / d
        assert distortion(curve, x) < 1.02 * nearest

    def test_along_a_published_codebook_it_is_no_worse_than_the_published_one(self, shared):
        book = np.load(shared / "data/published_sfvq/CIFAR10-10.npy").astype(np.float32)
        noise = 0.5 * np.linalg.norm(np.diff(book, axis=0), axis=1).mean() / 512**0.5
        random = np.random.default_rng(0)
        position = random.uniform(0, 1023, 2**14).astype(np.float32)
        points = decode(Curve(jnp.asarray(book)), position)
        x = points + noise.astype(np.float32) * gaussian(2**14, 512, seed=1)
        curve, info = fit_array(KEY, x[: 3 * 2**12], bits=4)
        assert distortion(curve, x[3 * 2**12 :]) <= 0.01505
        assert int(info.dead[-1]) == 0


class TestInfo:
    def test_it_tells_each_round_and_the_end_of_each_stage(self):
        x = gaussian()
        curve, info = fit_array(KEY, x, bits=4, solver=QUICK)
        assert info.objective.shape == info.distortion.shape == (3, 2, 12)
        assert_array_equal(np.isfinite(info.objective).sum(2), info.rounds)
        assert (info.objective[:, 0, 0] > info.distortion[:, 0, 0]).all()
        assert_allclose(info.final[-1], distortion(curve, x), rtol=1e-5)
        assert int(info.dead[-1]) == (loads(curve.codewords, x) == 0).sum()
        assert 1 < info.lines[-1] <= 15
        assert (np.diff(info.final) < 0).all()

    def test_a_stage_that_had_too_few_rounds_is_not_converged(self):
        x = gaussian()
        _, few = fit_array(KEY, x, bits=3, solver=LeastSquares(rounds=2, tolerance=1e-6, moves=()))
        _, enough = fit_array(
            KEY, x, bits=3, solver=LeastSquares(rounds=80, tolerance=1e-3, moves=())
        )
        assert not few.converged.any()
        assert enough.converged.all()

    def test_dead_codewords_are_counted(self):
        x = np.repeat(gaussian(5, 2), 20, axis=0)  # five points for eight codewords
        _, info = fit_array(KEY, x, bits=3, solver=QUICK)
        assert int(info.dead[-1]) >= 3


class TestPurity:
    x = gaussian(960)

    def test_vmap_over_penalties_is_one_by_one(self):
        penalties = np.float32([0.05, 0.4])

        def of_penalty(penalty):
            solver = QUICK.replace(length_penalty=penalty)
            return fit_array(KEY, self.x, bits=3, solver=solver)[0]

        many = jax.jit(jax.vmap(of_penalty))(penalties)
        for codewords, penalty in zip(many.codewords, penalties, strict=True):
            solver = LeastSquares(length_penalty=penalty)
            one, other = of_penalty(penalty), Curve(codewords)
            assert_allclose(
                objective(other, self.x, solver), objective(one, self.x, solver), rtol=1e-3
            )
        lengths = np.linalg.norm(np.diff(many.codewords, axis=1), axis=2).sum(1)
        assert lengths[0] > 1.2 * lengths[1]

    def test_vmap_over_keys_and_data_fits_each(self):
        keys, xs = jax.random.split(KEY), jnp.stack([self.x, 2 * self.x])

        def fitted(key, x):
            return fit_array(key, x, bits=3, solver=QUICK)[0]

        many = jax.jit(jax.vmap(fitted))(keys, xs)
        for i in range(2):
            one, other = fitted(keys[i], xs[i]), Curve(many.codewords[i])
            assert_allclose(distortion(other, xs[i]), distortion(one, xs[i]), rtol=1e-2)

    @pytest.mark.parametrize(
        ("solver", "bits"),
        [(QUICK, 3), (Adam(1e-2, samples=512, epochs=2), 2)],
        ids=["least squares", "Adam"],
    )
    def test_shards_and_pmap_fit_the_same_curve(self, solver, bits):
        alone, _ = fit_array(KEY, self.x, bits=bits, solver=solver)
        expected = objective(alone, self.x, QUICK)

        def fitted(key, x):
            return fit_array(key, x, bits=bits, solver=solver, axis="data")[0].codewords

        found = [
            jax.jit(jax.shard_map(
                fitted, mesh=mesh_of(devices), in_specs=(P(), P("data")), out_specs=P()
            ))(KEY, self.x)
            for devices in (2, 8)
        ]  # fmt: skip
        mapped = jax.pmap(fitted, axis_name="data", in_axes=(None, 0))
        found.append(mapped(KEY, self.x.reshape(8, 120, 3))[0])
        for codewords in found:
            assert_allclose(
                objective(Curve(jnp.asarray(codewords)), self.x, QUICK), expected, rtol=1e-3
            )
            assert_allclose(codewords, alone.codewords, atol=0.02)

    def test_samples_of_no_weight_are_not_there(self):
        x = np.concatenate([self.x, 100 + self.x])
        weights = np.float32(np.arange(1920) < 960)
        for solver, bits in ((QUICK, 3), (Adam(1e-2, samples=512, epochs=1), 2)):
            some, _ = fit_array(KEY, self.x, bits=bits, solver=solver)
            others, _ = fit_array(KEY, x, bits=bits, solver=solver, weights=weights)
            assert_allclose(others.codewords, some.codewords, atol=2e-3)

    def test_a_greater_weight_draws_the_curve(self):
        weights = np.where(self.x[:, 0] > 0, 9, 1).astype(np.float32)
        curve, _ = fit_array(KEY, self.x, bits=3, solver=QUICK, weights=weights)
        assert (curve.codewords[:, 0] > 0).sum() >= 5

    def test_the_same_key_gives_the_same_curve_and_another_another(self):
        one, again, other = (
            fit_array(jax.random.key(seed), self.x, bits=4, solver=QUICK)[0].codewords
            for seed in (0, 0, 1)
        )
        assert_array_equal(one, again)
        assert np.abs(one - other).max() > 1e-2

    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
    def test_half_precision_is_fitted_in_float32(self, dtype):
        x = jnp.asarray(self.x).astype(dtype)
        half, _ = fit_array(KEY, x, bits=3, solver=QUICK)
        single, _ = fit_array(KEY, x.astype(np.float32), bits=3, solver=QUICK)
        assert_array_equal(half.codewords, single.codewords)

    @pytest.mark.parametrize("solver", [QUICK, LeastSquares(rounds=4, dithered=True, moves=())])
    def test_double_precision_is_kept(self, solver):
        with jax.enable_x64(True):
            curve, _ = fit_array(jax.random.key(0), np.float64(self.x), bits=2, solver=solver)
            assert curve.codewords.dtype == np.float64


class TestStart:
    x = gaussian(960)

    def test_a_curve_goes_on_to_more_codewords(self):
        first, _ = fit_array(KEY, self.x, bits=3, solver=QUICK)
        more, info = fit_array(KEY, self.x, bits=4, solver=QUICK, start=first)
        assert info.final.shape == (2,)
        assert more.codewords.shape == (16, 3)
        assert distortion(more, self.x) < distortion(first, self.x)

    def test_of_the_same_size_it_is_refined_only(self):
        first, _ = fit_array(KEY, self.x, bits=3, solver=QUICK.replace(rounds=80))
        again, info = fit_array(KEY, self.x, bits=3, solver=QUICK.replace(rounds=80), start=first)
        assert info.rounds[0, 0] <= 3
        assert_allclose(again.codewords, first.codewords, atol=0.1)

    def test_a_function_may_give_it(self):
        def start(key, x, weight, axis):
            return Curve(x[:2])

        curve, info = fit_array(KEY, self.x, bits=3, solver=QUICK, start=start)
        assert info.final.shape == (3,)
        assert curve.codewords.shape == (8, 3)


class TestCompilation:
    def test_all_stages_are_one_program_and_other_numbers_need_none(self):
        x = gaussian(1000, 2)
        with Compiles() as first:
            fit_array(KEY, x, bits=4, solver=QUICK)
        with Compiles() as others:
            for solver in (
                QUICK.replace(length_penalty=0.5, tolerance=1e-3),
                QUICK.replace(length_penalty=0.1, early=1.0),
            ):
                fit_array(jax.random.key(3), gaussian(990, 2, seed=1), bits=4, solver=solver)
        assert first.programs <= 5
        assert others.programs == 0


class TestRefusals:
    @pytest.mark.parametrize(
        ("x", "options", "message"),
        [
            (np.zeros((0, 3), np.float32), {}, "N >= 4"),
            (np.zeros((3, 3), np.float32), {}, "N >= 4"),
            (np.zeros(8, np.float32), {}, r"\[N, D\]"),
            (np.zeros((8, 3), np.int32), {}, "floating point"),
            (gaussian(8), {"bits": 1}, "bits is 1"),
            (gaussian(8), {"weights": np.ones(7, np.float32)}, r"one a sample, \(8,\)"),
            (gaussian(8), {"weights": np.zeros(8, np.float32)}, "some above it"),
            (gaussian(8), {"weights": np.full(8, -1.0, np.float32)}, "at least 0"),
            (gaussian(8), {"start": Curve(jnp.ones((4, 2)))}, "codewords of width 2"),
            (gaussian(8), {"start": Curve(jnp.ones((16, 3)))}, "more than the 4"),
        ],
    )
    def test_what_cannot_be_fitted_is_told(self, x, options, message):
        with pytest.raises(ValueError, match=message):
            fit_array(KEY, x, **{"bits": 2} | options)
