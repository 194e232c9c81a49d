"""The projection against brute force over all lines in float64."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import Curve, LeastSquares, decode, distortion, dithered_loss, encode, project, solver
from sfvq_jax.curve import padded
from sfvq_jax.projection import PRECISIONS, _project, bucket_size, nearest_codeword

decode, distortion, dithered_loss = map(jax.jit, (decode, distortion, dithered_loss))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def uniform(*shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def nearest_on_curve(codewords, x):
    """Positions and squared distances of the nearest points, [N] each, line by line in float64."""
    codewords, x = (np.asarray(array, np.float64) for array in (codewords, x))
    distances, fractions = [], []
    for start, stop in itertools.pairwise(codewords):
        step = stop - start
        length = step @ step
        fraction = np.clip((x - start) @ step / length, 0, 1) if length else np.zeros(len(x))
        fractions.append(fraction)
        distances.append(((x - start - fraction[:, None] * step) ** 2).sum(1))
    line, sample = np.argmin(distances, 0), np.arange(len(x))
    return line + np.array(fractions)[line, sample], np.array(distances)[line, sample]


def check(codewords, x):
    """Holds `project` to the least distance there is, and what it returns to each other.

    The least distances come from float64 arithmetic on the same float32 numbers. What may be lost
    is rounding on the scale of the data about their own centre, wherever that lies.
    """
    curve = Curve(jnp.asarray(codewords))
    result = project(curve, x)
    line, fraction = np.asarray(result.line), np.float64(result.fraction)
    assert result.line.shape == result.fraction.shape == result.squared_distance.shape == (len(x),)
    assert line.dtype == np.int32
    assert ((line >= 0) & (line < curve.num_lines)).all()
    assert ((fraction >= 0) & (fraction <= 1)).all()

    _, least = nearest_on_curve(codewords, x)
    centre = codewords.mean(0, dtype=np.float64)
    scale = max(((points - centre) ** 2).sum(1).max() for points in (codewords, x))
    tolerance = 2e-6 * least + 1e-7 * scale
    assert (np.abs(result.squared_distance - least) <= tolerance).all()
    start, stop = np.float64(codewords[line]), np.float64(codewords[line + 1])
    point = start + fraction[:, None] * (stop - start)
    assert (np.abs(((x - point) ** 2).sum(1) - least) <= tolerance).all()
    return result


# K, N and D; 512 lines are a block and 2048 samples are a tile
SHAPES = [
    (2, 1, 1),
    (2, 50, 3),
    (3, 7, 1),
    (5, 1, 512),
    (16, 2049, 64),
    (64, 300, 512),
    (513, 101, 3),
    (514, 2049, 3),
    (1025, 509, 16),
    (300, 4500, 4),
    (1400, 1024, 5),
]
CURVES = {
    "a random curve": normal(33, 16, seed=1),
    "a smooth curve": np.cumsum(normal(33, 16, seed=1), 0),
    "repeated codewords": np.repeat(normal(11, 16, seed=1), 3, axis=0),
    "repeated ends": np.repeat(normal(17, 16, seed=1), [9] + 15 * [1] + [9], axis=0),
    "all codewords equal": np.repeat(normal(1, 16, seed=1), 33, axis=0),
    "a closed curve": normal(32, 16, seed=1)[[*range(32), 0]],
    "there and back again": normal(17, 16, seed=1)[[*range(17), *range(15, -1, -1)]],
    "lines from very short to very long": normal(33, 16, seed=1)
    * np.logspace(-4, 3, 33, dtype=np.float32)[:, None],
    "lines whose squares float32 hardly holds": np.float32(1e-20) * normal(33, 16, seed=1),
}


class TestAgainstBruteForce:
    @pytest.mark.parametrize(("k", "n", "d"), SHAPES)
    def test_of_every_size(self, k, n, d):
        check(normal(k, d, seed=1), normal(n, d))

    @pytest.mark.parametrize("name", CURVES)
    def test_on_every_kind_of_curve(self, name):
        check(CURVES[name], normal(257, 16))

    @pytest.mark.parametrize("name", CURVES)
    @pytest.mark.parametrize("offset", [1e3, 1e4])
    def test_far_from_the_origin(self, name, offset):
        check(CURVES[name] + np.float32(offset), normal(257, 16) + np.float32(offset))

    @pytest.mark.parametrize("spread", [1e-6, 1e6])
    def test_at_any_scale(self, spread):
        check(np.float32(spread) * CURVES["a random curve"], np.float32(spread) * normal(257, 16))

    def test_positions_are_the_same_where_one_point_is_clearly_nearest(self):
        codewords, x = normal(16, 8, seed=1), normal(500, 8)
        position, _ = nearest_on_curve(codewords, x)
        other, worst = project(Curve(codewords), x).position, 1e-4
        same = np.abs(other - position) < worst
        assert same.mean() > 0.99
        if not same.all():  # the others are as near to within rounding
            check(codewords, x[~same])

    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
    def test_in_half_precision_every_line_of_a_block_is_told_apart(self, dtype):
        codewords = 16 * jnp.eye(513, dtype=dtype)
        result = project(Curve(codewords), codewords)
        assert_array_equal(result.position, np.arange(513))
        assert_array_equal(result.squared_distance, np.zeros(513))

    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
    def test_half_precision_is_computed_in_float32(self, dtype):
        # squared distances beyond what float16 holds
        codewords, x = (jnp.asarray(100 * a).astype(dtype) for a in (normal(9, 16), normal(50, 16)))
        result = project(Curve(codewords), x)
        expected = project(Curve(codewords.astype(np.float32)), x.astype(np.float32))
        for one, other in zip(result, expected, strict=True):
            assert_array_equal(one, other)
        assert result.fraction.dtype == result.squared_distance.dtype == np.float32
        assert result.squared_distance.max() > 2**16

    def test_a_sample_that_is_no_number_has_no_distance_and_harms_no_other(self):
        codewords, x = normal(300, 4, seed=1), normal(50, 4)
        expected = project(Curve(jnp.asarray(codewords)), x)
        x[7, 2] = np.nan
        result = project(Curve(jnp.asarray(codewords)), x)
        assert np.isnan(result.squared_distance[7])
        others = np.arange(50) != 7
        for one, other in zip(result, expected, strict=True):
            assert_array_equal(one[others], other[others])

    @pytest.mark.parametrize("book", ["CIFAR10-8", "AFHQ-8"])
    def test_on_published_codebooks(self, shared, book):
        codewords = np.load(shared / f"data/published_sfvq/{book}.npy").astype(np.float32)
        position = np.float32(255) * uniform(300)
        x = decode(Curve(codewords), position) + np.float32(0.1) * normal(300, 512)
        check(codewords, np.asarray(x))


class TestRows:
    @pytest.mark.parametrize(
        ("size", "rows"), [(2, 64), (33, 64), (64, 64), (258, 512), (300, 1024)]
    )
    def test_those_beyond_the_size_are_never_chosen(self, size, rows):
        codewords, x = normal(size, 4, seed=1), normal(300, 4)
        alone = project(Curve(jnp.asarray(codewords)), x)
        found = jax.jit(project)(padded(Curve(jnp.asarray(codewords)), rows), x)
        assert (found.line < size - 1).all()
        assert_allclose(found.squared_distance, alone.squared_distance, rtol=1e-5, atol=1e-6)

    def test_one_program_serves_all_sizes(self):
        program = jax.jit(lambda curve, x: project(curve, x))
        for size in (2, 40, 300):
            program(padded(Curve(jnp.asarray(normal(size, 3))), 512), normal(10, 3))
        assert program._cache_size() == 1

    def test_gradients_reach_the_codewords_and_not_the_rows_beyond(self):
        codewords, x = jnp.asarray(normal(16, 3)), normal(40, 3)

        def total(codewords):
            return project(Curve(codewords, jnp.int32(9)), x).squared_distance.sum()

        def of_nine(codewords):
            return project(Curve(codewords), x).squared_distance.sum()

        gradient = jax.jit(jax.grad(total))(codewords)
        assert_allclose(gradient[:9], jax.grad(of_nine)(codewords[:9]), atol=1e-4)
        assert_array_equal(gradient[9:], np.zeros((7, 3)))


class TestNearestCodeword:
    @pytest.mark.parametrize("rows", [40, 64])
    @pytest.mark.parametrize("offset", [0, 1e3])
    def test_it_is_that_of_brute_force(self, rows, offset):
        codewords, x = normal(40, 8, seed=1), normal(2100, 8)
        nearest = ((np.float64(x)[:, None] - codewords) ** 2).sum(2).argmin(1)
        curve = padded(Curve(jnp.asarray(codewords + np.float32(offset))), rows)
        found = jax.jit(nearest_codeword)(curve, x + np.float32(offset))
        assert (found == nearest).mean() > 0.999


@pytest.mark.parametrize("precision", PRECISIONS)
class TestPrecision:
    def test_lower_precision_may_choose_another_line_that_is_about_as_near(self, precision):
        codewords, x = normal(64, 128, seed=1), normal(300, 128)
        least = nearest_on_curve(codewords, x)[1]
        line, fraction, found = project(Curve(jnp.asarray(codewords)), x, precision=precision)
        # a product of bfloat16s is off by at most 2**-8 of |x| |c|
        assert (found <= least + 2**-6 * (x**2).sum(1)).all()
        # whatever the line, what is told of it is exact
        start, stop = np.float64(codewords[line]), np.float64(codewords[line + 1])
        point = start + np.asarray(fraction)[:, None] * (stop - start)
        assert_allclose(found, ((x - point) ** 2).sum(1), rtol=1e-5)

    def test_a_round_of_least_squares_at_any_precision_is_about_the_same(self, precision):
        curve, x = Curve(jnp.asarray(normal(16, 32, seed=1))), normal(500, 32)
        step, key = jax.jit(solver.step), jax.random.key(0)
        exact, other = (
            step(one, curve, one.init(curve), key, x)[0].codewords
            for one in (LeastSquares(), LeastSquares(precision=precision))
        )
        assert_allclose(other, exact, atol=0.05)


def test_a_precision_that_is_none_is_refused():
    with pytest.raises(ValueError, match="precision is 'float32'; expected one of highest, tf32"):
        project(Curve(jnp.asarray(normal(5, 3))), normal(2, 3), precision="float32")


@pytest.mark.parametrize(
    ("swap", "message"),
    [
        (lambda curve, x: (x, curve), "curve is a ndarray; expected a Curve"),
        (lambda curve, x: (SimpleNamespace(curve=curve), x), "pass its .curve"),
        (lambda curve, x: (curve, x.tolist()), "x is a list; expected an array .N, 3., such as"),
        (lambda curve, x: ("c.npz", x), r"pass sfvq_jax\.load_curve\('c\.npz'\)\.curve"),
        (lambda curve, x: (curve, "x.npy"), r"such as np\.load\('x\.npy'\)"),
        (lambda curve, x: (curve, curve), r"x is a Curve; expected an array .*x\.codewords"),
    ],
)
def test_what_is_no_curve_or_no_array_is_told(swap, message):
    with pytest.raises(TypeError, match=message):
        project(*swap(Curve(jnp.asarray(normal(5, 3))), normal(2, 3)))


class TestOnTheCurve:
    @pytest.mark.parametrize("offset", [0, 1e3])
    def test_a_codeword_is_its_own_nearest_point(self, offset):
        codewords = normal(33, 16) + np.float32(offset)
        result = check(codewords, codewords)
        assert_allclose(result.position, np.arange(33), atol=1e-4)
        assert_allclose(result.squared_distance, np.zeros(33), atol=1e-6)

    def test_a_point_of_the_curve_is_its_own_nearest_point(self):
        codewords, position = normal(33, 16), np.float32(32) * uniform(257)
        result = project(Curve(codewords), decode(Curve(codewords), position))
        assert_allclose(result.position, position, atol=1e-4)
        assert_allclose(result.squared_distance, np.zeros(257), atol=1e-8)

    def test_encode_is_the_pair_of_decode(self):
        curve, position = Curve(jnp.asarray(normal(33, 16))), np.float32(32) * uniform(100)
        assert_allclose(encode(curve, decode(curve, position)), position, atol=1e-4)

    def test_one_codeword_is_no_curve(self):
        with pytest.raises(ValueError, match="K >= 2"):
            project(Curve(normal(1, 4)), normal(3, 4))

    @pytest.mark.parametrize("k", [3, 258])
    def test_beyond_the_ends_the_ends_are_nearest(self, k):
        codewords = normal(k, 16, seed=1)
        codewords[[0, -1]] *= 5
        x = [np.float32(1.3) * codewords[i] + normal(100, 16) for i in (0, -1)]
        result = check(codewords, np.concatenate(x))
        # no line after the last, which fills up the last block, is ever chosen
        assert_array_equal(result.line, [0] * 100 + [k - 2] * 100)
        assert_array_equal(result.fraction, [0] * 100 + [1] * 100)


class TestInvariances:
    codewords = normal(33, 16, seed=1)
    x = normal(257, 16)

    def position(self, codewords, x):
        return np.asarray(project(Curve(jnp.asarray(codewords)), x).position)

    def agree(self, one, other):
        """All but samples that are as near to two places."""
        return np.mean(np.abs(one - other) < 1e-3) > 0.99

    def test_shifting_both_changes_nothing(self):
        shifted = self.position(self.codewords + np.float32(7), self.x + np.float32(7))
        assert self.agree(shifted, self.position(self.codewords, self.x))

    def test_rotating_both_changes_nothing(self):
        rotation = np.linalg.qr(normal(16, 16, seed=2))[0]
        rotated = self.position(self.codewords @ rotation, self.x @ rotation)
        assert self.agree(rotated, self.position(self.codewords, self.x))

    def test_scaling_both_changes_nothing(self):
        assert_array_equal(
            self.position(8 * self.codewords, 8 * self.x), self.position(self.codewords, self.x)
        )

    def test_reversing_the_curve_reverses_the_positions(self):
        backwards = self.position(self.codewords[::-1], self.x)
        assert self.agree(32 - backwards, self.position(self.codewords, self.x))

    def test_samples_do_not_know_of_each_other(self):
        alone = [self.position(self.codewords, x[None])[0] for x in self.x[:9]]
        assert_allclose(self.position(self.codewords, self.x)[:9], alone, rtol=1e-6)


class TestGradients:
    def gradient(self, codewords, x):
        def total(curve, x):
            return project(curve, x).squared_distance.sum()

        by_curve, by_x = jax.grad(total, (0, 1))(Curve(jnp.asarray(codewords)), x)
        return np.asarray(by_curve.codewords), np.asarray(by_x)

    @pytest.mark.parametrize("name", ["a random curve", "repeated codewords", "repeated ends"])
    def test_by_samples_it_points_away_from_the_curve(self, name):
        curve, x = Curve(jnp.asarray(CURVES[name])), normal(257, 16)
        _, by_x = self.gradient(curve.codewords, x)
        point = decode(curve, project(curve, x).position)
        assert_allclose(by_x, 2 * (x - point), atol=1e-3)

    def test_by_codewords_it_is_that_of_finite_differences(self):
        codewords, x, h = np.float64(normal(6, 3, seed=1)), normal(40, 3), 1e-6
        by_codewords, _ = self.gradient(np.float32(codewords), x)
        differences = np.zeros_like(codewords)
        for index in np.ndindex(*codewords.shape):
            moved = [codewords.copy(), codewords.copy()]
            moved[0][index] += h
            moved[1][index] -= h
            up, down = (nearest_on_curve(c, x)[1].sum() for c in moved)
            differences[index] = (up - down) / (2 * h)
        assert_allclose(by_codewords, differences, atol=1e-3)

    def test_they_are_finite_where_codewords_and_samples_coincide(self):
        codewords = CURVES["repeated codewords"]
        assert all(np.isfinite(g).all() for g in self.gradient(codewords, codewords))


class TestMemoryAndPrograms:
    k, d = 256, 64

    def temporary_bytes(self, n):
        curve = Curve(jax.ShapeDtypeStruct((self.k, self.d), np.float32))
        x = jax.ShapeDtypeStruct((n, self.d), np.float32)
        return jax.jit(project).lower(curve, x).compile().memory_analysis().temp_size_in_bytes

    def test_differences_of_all_samples_to_all_codewords_are_never_made(self):
        input_bytes = 4 * 2**16 * self.d
        tile_bytes = 4 * 2048 * self.k
        # one [N, K, D] would be 256 times the input, one [N, K] four times
        assert self.temporary_bytes(2**16) < 3.5 * input_bytes + 8 * tile_bytes

    def test_memory_beyond_input_and_result_does_not_grow_with_the_samples(self):
        assert self.temporary_bytes(2**16) < 1.1 * self.temporary_bytes(2**14)

    def test_no_samples_give_empty_results(self):
        projection = project(Curve(jnp.asarray(normal(5, 3))), np.zeros((0, 3), np.float32))
        assert projection.line.shape == projection.squared_distance.shape == (0,)

    def test_sizes_in_a_bucket_share_a_program(self):
        curve = Curve(jnp.asarray(normal(5, 3)))
        before = _project._cache_size()
        for n in (899, 1000, 1024):
            project(curve, normal(n, 3))
        assert _project._cache_size() == before + 1

    @pytest.mark.parametrize(("n", "copied"), [(1000, True), (1024, False), (5 * 2**10, False)])
    def test_samples_that_fill_a_bucket_are_not_copied(self, n, copied):
        program = jax.make_jaxpr(project)(Curve(normal(5, 3)), normal(n, 3))
        assert ("_pad" in [equation.params.get("name") for equation in program.eqns]) == copied

    def test_buckets_are_few_and_close(self):
        sizes = [bucket_size(n) for n in range(1, 5000)]
        assert all(n <= size <= 1.25 * n for n, size in enumerate(sizes, 1))
        assert len(set(sizes)) < 50

    def test_jit_and_vmap_over_curves_give_each(self):
        codewords, x = normal(3, 9, 4), normal(50, 4)
        results = jax.jit(jax.vmap(project, (0, None)))(Curve(codewords), x)
        for i in range(3):
            _, least = nearest_on_curve(codewords[i], x)
            assert_allclose(results.squared_distance[i], least, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("k", [9, 300])
    def test_shard_map_and_pmap_give_the_same_as_one_device(self, k):
        mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        replicated, rows = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("data")
        sharded = jax.shard_map(project, mesh=mesh, in_specs=(replicated, rows), out_specs=rows)
        mapped = jax.pmap(project, in_axes=(None, 0))
        curve, x = Curve(jnp.asarray(normal(k, 4, seed=1))), normal(800, 4)
        alone = project(curve, x)
        for results in (jax.jit(sharded)(curve, x), mapped(curve, x.reshape(8, 100, 4))):
            assert_allclose(results.position.reshape(-1), alone.position, rtol=1e-6, atol=1e-5)
            assert_allclose(results.squared_distance.reshape(-1), alone.squared_distance, rtol=1e-5)

    @pytest.mark.parametrize("shape", [(3,), (5, 4), (2, 5, 3)])
    def test_samples_of_another_width_are_refused(self, shape):
        with pytest.raises(ValueError, match=r"samples of shape \[N, 3\]"):
            project(Curve(normal(5, 3)), normal(*shape))


class TestBesideOtherQuantisers:
    """What is nearest on the curve is nearer than what the other ways find."""

    def exact_and_shortcut(self, codewords, x):
        _, shortcut = lines_at_nearest_codeword(codewords, x)
        return np.asarray(project(Curve(jnp.asarray(codewords)), x).squared_distance), shortcut

    def test_the_two_lines_at_the_nearest_codeword_are_not_enough(self):
        exact, shortcut = self.exact_and_shortcut(normal(64, 8, seed=1), normal(1000, 8))
        assert (exact <= shortcut * (1 + 1e-4)).all()
        assert (exact < 0.9 * shortcut).mean() > 0.1

    def test_nor_on_a_published_codebook(self, shared):
        codewords, other = (
            np.load(shared / f"data/published_sfvq/AFHQ-{bits}.npy").astype(np.float32)
            for bits in (8, 7)
        )
        x = np.asarray(decode(Curve(other), np.float32(127) * uniform(300)))
        exact, shortcut = self.exact_and_shortcut(codewords, x)
        assert (exact <= shortcut * (1 + 1e-4)).all()
        assert (exact < 0.99 * shortcut).mean() > 0.1

    def test_a_long_line_may_pass_nearer_than_any_codeword(self):
        codewords = np.float32([[-10, 0], [10, 0], [10, 3], [0, 3]])
        exact, shortcut = self.exact_and_shortcut(codewords, np.float32([[0, 1]]))
        assert_array_equal(exact, [1])
        assert_array_equal(shortcut, [4])

    def test_distortion_is_the_mean_over_samples_and_dimensions(self):
        codewords, x = normal(9, 4, seed=1), normal(100, 4)
        _, least = nearest_on_curve(codewords, x)
        assert_allclose(distortion(Curve(codewords), x), least.mean() / 4, rtol=1e-5)

    def test_the_distortion_of_no_samples_is_refused(self):
        with pytest.raises(ValueError, match="x has no rows"):
            distortion(Curve(jnp.asarray(normal(9, 4))), np.zeros((0, 4), np.float32))

    def test_no_dither_comes_below_the_distortion(self):
        curve, x = Curve(jnp.asarray(normal(16, 4, seed=1))), normal(200, 4)
        dithered = [dithered_loss(curve, x, uniform(15, seed=seed)) for seed in range(20)]
        assert min(dithered) > distortion(curve, x)


def lines_at_nearest_codeword(codewords, x):
    """The published example's inference: only the two lines that touch the nearest codeword."""
    codewords, x = (np.asarray(array, np.float64) for array in (codewords, x))
    nearest = ((x[:, None] - codewords) ** 2).sum(2).argmin(1)
    nearest = np.clip(nearest, 1, len(codewords) - 2)
    lines = np.stack([nearest - 1, nearest])
    start, step = codewords[lines], codewords[lines + 1] - codewords[lines]
    fraction = np.clip(((x - start) * step).sum(2) / (step**2).sum(2), 0, 1)
    distance = ((x - start - fraction[..., None] * step) ** 2).sum(2)
    better, sample = distance.argmin(0), np.arange(len(x))
    return (lines + fraction)[better, sample], distance[better, sample]
