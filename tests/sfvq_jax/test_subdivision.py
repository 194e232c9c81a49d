"""Starts and subdivisions: few codewords to start from, and more from those that there are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import Curve, curve_length, line_lengths, subdivision
from sfvq_jax.curve import padded, trimmed

subdivide, initial_curve, occurrence = map(
    jax.jit, (subdivision.subdivide, subdivision.initial_curve, subdivision.occurrence)
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_curve(k, d):
    return Curve(jnp.asarray(normal(k, d, seed=1)))


def random_rotation(d):
    return np.linalg.qr(normal(d, d, seed=2))[0]


def interpolated(codewords, position):
    """`decode` in NumPy: one dimension at a time."""
    columns = np.asarray(codewords, np.float64).T
    return np.stack([np.interp(position, np.arange(len(codewords)), c) for c in columns], -1)


def principal_deviation(x):
    """Standard deviation of latents along their first principal axis."""
    return np.sqrt(np.linalg.eigvalsh(np.cov(x.T))[-1])


class TestInitialCurve:
    def test_off_centre_data_start_at_the_means_of_their_norm_quartiles(self):
        x = normal(400, 8) + np.float32(10) * np.eye(8, dtype=np.float32)[:1]
        ordered = np.array(sorted(np.float64(x), key=np.linalg.norm))
        means = ordered.reshape(4, 100, 8).mean(1)
        assert_allclose(initial_curve(x).codewords, means, atol=1e-4)

    @pytest.mark.parametrize("d", [2, 16, 128])
    @pytest.mark.parametrize("offset", [0.0, 0.05])
    def test_isotropic_data_around_the_origin_start_along_an_axis(self, d, offset):
        x = normal(2**12, d) + np.float32(offset)
        # a Gaussian's quarters have means -1.27, -0.32, 0.32, 1.27: a length of 2.5 deviations
        assert 2 < curve_length(initial_curve(x)) / principal_deviation(x) < 5

    @pytest.mark.parametrize("d", [2, 16, 128])
    @pytest.mark.parametrize("cap", [False, True])
    def test_data_of_equal_norms_start_along_an_axis(self, d, cap):
        x = normal(2**12, d) + np.float32(3 * cap) * np.eye(d, dtype=np.float32)[:1]
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        assert 2 < curve_length(initial_curve(x)) / principal_deviation(x) < 5

    def test_stretched_data_start_along_their_long_axis(self):
        x = normal(2**12, 8) * np.float32([1, 1, 1, 5, 1, 1, 1, 1])
        steps = np.diff(initial_curve(x).codewords[:, 3])
        assert (np.abs(steps) > 3).all()
        assert abs(np.sign(steps).sum()) == 3

    def test_rotated_data_start_at_the_rotated_curve(self):
        x = normal(2**12, 8) + np.float32(10) * np.eye(8, dtype=np.float32)[:1]
        rotation = random_rotation(8)
        expected = initial_curve(x).codewords @ rotation
        assert_allclose(initial_curve(x @ rotation).codewords, expected, atol=2e-2)

    def test_rotated_centred_data_start_at_the_rotated_curve_or_its_reverse(self):
        x = normal(2**12, 8) * np.float32([1, 1, 1, 5, 1, 1, 1, 1])
        rotation = random_rotation(8)
        rotated = np.asarray(initial_curve(x @ rotation).codewords)
        expected = np.asarray(initial_curve(x).codewords) @ rotation
        assert min(abs(rotated - expected).max(), abs(rotated - expected[::-1]).max()) < 2e-2

    @pytest.mark.parametrize("shape", [(3, 2), (0, 2), (8,), (8, 2, 1)])
    def test_too_few_latents_or_another_rank_are_refused(self, shape):
        with pytest.raises(ValueError, match=r"shape \[N, D\] with N >= 4"):
            initial_curve(np.ones(shape, np.float32))

    def test_another_key_gives_another_start_as_good(self):
        x = normal(2**12, 8) * np.float32([1, 1, 1, 5, 1, 1, 1, 1])
        one, other, again = (initial_curve(x, None, jax.random.key(seed)) for seed in (0, 1, 0))
        assert_array_equal(one.codewords, again.codewords)
        assert np.abs(one.codewords - other.codewords).max() > 1e-3
        for start in (one, other):
            assert 2 < curve_length(start) / principal_deviation(x) < 5

    @pytest.mark.parametrize("offset", [0, 10])
    def test_samples_of_no_weight_are_not_there(self, offset):
        x = normal(400, 4) + np.float32(offset)
        absent = np.arange(400) % 3 == 0
        x[absent] *= 50
        key = jax.random.key(0)
        some = initial_curve(x[~absent], None, key).codewords
        assert_allclose(initial_curve(x, np.float32(~absent), key).codewords, some, atol=1e-4)

    @pytest.mark.parametrize("scale", [1e-35, 1e-20, 1e-10, 1e10, 1e19, 1e36])
    @pytest.mark.parametrize("offset", [0, 3])
    def test_any_unit_gives_the_same_start(self, scale, offset):
        """Also where squares are beyond float32."""
        x = normal(2**10, 4) * np.float32([3, 1, 1, 1]) / 4 + np.float32(offset)
        expected = initial_curve(x, None, jax.random.key(0)).codewords
        scale = np.float32(2.0 ** round(np.log2(scale)))
        found = initial_curve(x * scale, None, jax.random.key(0)).codewords
        # with older XLA a sample on the border of two groups changes over
        rtol = 1e-4 if jax.__version_info__ >= (0, 10, 2) else 5e-4
        assert_allclose(found / scale, expected, rtol=rtol, atol=1e-5)

    @pytest.mark.parametrize("offset", [1e3, 1e5, 1e6])
    def test_far_from_the_origin_means_keep_the_digits_of_the_samples(self, offset):
        x = np.float32(normal(2**16, 3) + offset)
        ordered = np.float64(x)[np.argsort(np.linalg.norm(np.float64(x), axis=1))]
        means = ordered.reshape(4, -1, 3).mean(1)
        error = np.abs(np.float64(initial_curve(x).codewords) - means).max()
        assert error <= 2 * np.spacing(np.float32(offset)) + 1e-4

    def test_the_size_of_weights_does_not_matter(self):
        x, weight = normal(400, 4), np.random.default_rng(0).uniform(size=400)
        expected = initial_curve(x, np.float32(weight)).codewords
        for scale in (1e-30, 1e30):
            found = initial_curve(x, np.float32(scale * weight)).codewords
            assert_allclose(found, expected, atol=1e-5)

    @pytest.mark.parametrize("shape", [(), (1,), (400, 1), (399,)])
    def test_weights_of_another_shape_are_refused(self, shape):
        with pytest.raises(ValueError, match=r"expected one a sample, \(400,\)"):
            initial_curve(normal(400, 4), np.ones(shape, np.float32))

    def test_a_list_is_told_what_is_expected(self):
        with pytest.raises(TypeError, match=r"x is a list; expected an array \[N, D\]"):
            subdivision.initial_curve(normal(8, 2).tolist())

    def test_wide_samples_need_no_matrix_of_their_width(self):
        x = jax.ShapeDtypeStruct((100, 50_000), np.float32)
        memory = jax.jit(curve_of_start).lower(x).compile().memory_analysis()
        assert memory.temp_size_in_bytes < 20 * 100 * 50_000 * 4  # 50,000² would be 100 times this


def curve_of_start(x):
    return subdivision.initial_curve(x)


def positions_of(codewords, x):
    """Nearest point's position of each sample, by brute force in float64."""
    codewords, x = np.float64(codewords), np.float64(x)
    step = np.diff(codewords, axis=0)
    offset = x[:, None] - codewords[None, :-1]
    t = np.clip((offset * step).sum(2) / (step**2).sum(1), 0, 1)
    line = ((offset - t[..., None] * step) ** 2).sum(2).argmin(1)
    return line + t[np.arange(len(x)), line]


class TestOccurrence:
    def test_groups_along_the_curve_hold_equally_many_and_give_their_means(self):
        x = np.sort(np.random.default_rng(0).exponential(size=(800, 1)).astype(np.float32), 0)
        curve = Curve(jnp.array([[0.0], [10.0], [20.0]]))
        found = occurrence(padded(curve, 8), 8, x, np.ones(800, np.float32))
        assert_allclose(found.codewords, x.reshape(8, 100).mean(1, keepdims=True), rtol=1e-4)

    def test_weights_count_as_so_many_samples(self):
        x, curve = normal(300, 3), padded(random_curve(4, 3), 8)
        twice = np.float32(1 + (np.arange(300) % 2))
        repeated = np.repeat(x, twice.astype(int), axis=0)
        one = occurrence(curve, 8, x, twice).codewords
        other = occurrence(curve, 8, repeated, np.ones(len(repeated), np.float32)).codewords
        # a sample that lies on the border of two groups is not divided
        assert_allclose(one, other, atol=0.15)

    def test_order_is_kept(self):
        x, curve = normal(2000, 3), padded(Curve(jnp.asarray(normal(4, 3, seed=1)) * 2), 8)
        found = np.asarray(occurrence(curve, 8, x, np.ones(2000, np.float32)).codewords)
        order = np.sort(positions_of(trimmed(curve).codewords, x)).reshape(8, 250).mean(1)
        assert (np.diff(order) >= 0).all()
        nearest = ((x[:, None] - found) ** 2).sum(2).argmin(1)
        assert np.bincount(nearest, minlength=8).min() > 0

    def test_samples_at_one_corner_go_by_their_coordinate_along_the_curve(self):
        random = np.random.default_rng(0)
        side = random.uniform(-1, 1, 400)
        # a sharp turn upwards: all these lie nearest to the corner at 0
        x = np.stack([side, -2 - random.uniform(size=400)], 1).astype(np.float32)
        curve = Curve(jnp.array([[-1.0, 3.0], [0.0, 0.0], [1.0, 3.0]]))
        found = occurrence(padded(curve, 4), 4, x, np.ones(400, np.float32)).codewords
        assert (np.diff(found[:, 0]) > 0.2).all()

    def test_more_codewords_than_samples_stay_on_the_old_curve(self):
        curve = padded(Curve(jnp.array([[0.0, 0.0], [8.0, 0.0]])), 8)
        x = np.float32([[1, 1], [4, 1], [6, 1], [7, 1]])
        found = np.asarray(occurrence(curve, 8, x, np.ones(4, np.float32)).codewords)
        assert np.isfinite(found).all()
        assert set(map(tuple, x)) <= set(map(tuple, found))

    def test_far_from_the_origin_means_keep_the_digits_of_the_samples(self):
        offset = 1e5
        x = np.sort(np.float32(normal(2**16, 1) + offset), 0)
        curve = Curve(jnp.array([[-9.0], [9.0]]) + offset)
        found = occurrence(padded(curve, 8), 8, x, np.ones(2**16, np.float32)).codewords
        means = np.float64(x).reshape(8, -1, 1).mean(1)
        assert_allclose(np.float64(found), means, rtol=0, atol=2 * np.spacing(np.float32(offset)))

    def test_shards_make_the_same_groups(self):
        curve, x = padded(random_curve(4, 3), 16), normal(800, 3)
        weight = np.float32(np.arange(800) < 750)
        alone = occurrence(curve, 16, x, weight)
        for devices in (2, 8):
            mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
            sharded = jax.shard_map(
                lambda curve, x, weight: subdivision.occurrence(curve, 16, x, weight, "data"),
                mesh=mesh,
                in_specs=(P(), P("data"), P("data")),
                out_specs=P(),
            )
            found = jax.jit(sharded)(curve, x, weight)
            assert_allclose(found.codewords, alone.codewords, atol=1e-5)


class TestSubdivide:
    @pytest.mark.parametrize(
        "positions",
        [
            [0, 0.01, 1, 1.01, 1.99, 2, 2.99, 3],
            [0, 0.01, 1, 1.01, 2, 2.01, 3, 3.01, 3.99, 4, 4.99, 5, 5.99, 6, 6.99, 7],
        ],
    )
    def test_the_published_positions_are_decoded(self, positions):
        curve = random_curve(len(positions) // 2, 5)
        expected = interpolated(curve.codewords, positions)
        assert_allclose(subdivide(curve).codewords, expected, atol=1e-5)

    @pytest.mark.parametrize("k", [2, 5, 64])
    def test_ends_and_length_stay(self, k):
        curve = random_curve(k, 6)
        finer = subdivide(curve)
        assert finer.codewords.shape == (2 * k, 6)
        assert_array_equal(finer.codewords[0], curve.codewords[0])
        assert_array_equal(finer.codewords[-1], curve.codewords[-1])
        assert_allclose(curve_length(finer), curve_length(curve), rtol=1e-4)

    def test_reversing_before_or_after_is_the_same(self):
        curve = random_curve(8, 3)
        backwards = subdivide(Curve(curve.codewords[::-1])).codewords[::-1]
        assert_allclose(backwards, subdivide(curve).codewords, atol=1e-5)

    def test_vmap_over_curves_subdivides_each(self):
        codewords = normal(3, 4, 2)
        positions = [0, 0.01, 1, 1.01, 1.99, 2, 2.99, 3]
        each = [interpolated(c, positions) for c in codewords]
        assert_allclose(jax.jit(jax.vmap(subdivide))(Curve(codewords)).codewords, each, atol=1e-5)

    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
    def test_half_precision_is_rounded_at_the_end_only(self, dtype):
        codewords = normal(64, 8)
        single = subdivide(Curve(jnp.asarray(codewords).astype(dtype).astype(np.float32)))
        half = subdivide(Curve(jnp.asarray(codewords).astype(dtype)))
        assert half.codewords.dtype == dtype
        assert_array_equal(half.codewords, single.codewords.astype(dtype))
        # positions in half precision would leave half of the lines without length
        assert (line_lengths(half) > 0).all()

    def test_a_traced_size_gives_the_same_in_the_rows_that_there_are(self):
        curve = random_curve(6, 3)
        found = jax.jit(subdivision.subdivide)(padded(curve, 16), 12)
        assert_allclose(found.codewords[:12], subdivide(curve).codewords, atol=1e-6)
        assert_array_equal(found.codewords[12:], np.repeat(found.codewords[11:12], 4, 0))

    @pytest.mark.parametrize("size", [0, -1, 1, 2.5, 17])
    def test_a_size_that_the_rows_do_not_hold_is_refused(self, size):
        with pytest.raises(ValueError, match="expected a whole number from 2 to 16"):
            subdivision.subdivide(padded(random_curve(6, 3), 16), size)


class TestResample:
    def test_codewords_are_means_of_equal_shares_in_order_whatever_their_number(self):
        x = np.linspace(0, 1, 1000, dtype=np.float32)[:, None] * np.float32([1, 2])
        curve = Curve(jnp.asarray(x[[0, 100, 400, 900, 999]]))
        for k in (2, 3, 8):
            found = subdivision.resample(curve, x, k).codewords
            expected = ((np.arange(k) + 0.5) / k)[:, None] * np.float32([1, 2])
            np.testing.assert_allclose(found, expected, atol=2e-3)

    def test_more_codewords_than_samples_are_refused(self):
        curve = Curve(jnp.zeros((2, 2)))
        with pytest.raises(ValueError, match="no more than the 3 samples"):
            subdivision.resample(curve, jnp.zeros((3, 2)), 4)
