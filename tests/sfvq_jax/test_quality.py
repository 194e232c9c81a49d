"""Measures of a codebook: against brute force, scikit-learn and the published codebooks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import manifold

from sfvq_jax import (
    Curve,
    Projection,
    codebook_quality,
    distortion,
    line_lengths,
    project,
    same_class_share,
)
from sfvq_jax.curve import padded
from sfvq_jax.interpret import line_direction
from sfvq_jax.quality import (
    class_runs_by_chance,
    continuity,
    health,
    line_of,
    line_use,
    nearest_neighbour_order,
    pairwise_distances,
    perplexity,
    shorter_order,
    trustworthiness,
    two_opt,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def path_length(distances, order):
    return distances[order[:-1], order[1:]].sum()


class TestPublishedCodebooks:
    @pytest.mark.parametrize(
        ("book", "norm", "step", "step_ratio", "neighbour_share", "length_ratio", "trust"),
        [
            ("AFHQ-4", 14.4, 8.89, 0.700, 0.75, 1.05, 0.56),
            ("AFHQ-6", 15.1, 9.05, 0.650, 0.34, 1.11, 0.68),
            ("AFHQ-8", 15.5, 8.70, 0.584, 0.19, 1.12, 0.78),
            ("CIFAR10-4", 5.54, 4.21, 0.678, 0.94, 1.05, 0.74),
            ("CIFAR10-6", 5.67, 2.83, 0.453, 0.70, 1.05, 0.91),
            ("CIFAR10-8", 5.66, 2.85, 0.445, 0.38, 1.06, 0.94),
        ],
    )
    def test_have_the_known_measures(
        self, shared, book, norm, step, step_ratio, neighbour_share, length_ratio, trust
    ):
        codewords = np.load(shared / f"data/published_sfvq/{book}.npy")
        quality = codebook_quality(Curve(jnp.asarray(codewords, jnp.float32)))
        assert_allclose(quality.mean_norm, norm, atol=0.051 if norm > 10 else 0.0051)
        assert_allclose(quality.mean_step, step, atol=0.0051)
        assert_allclose(quality.step_ratio, step_ratio, atol=0.00051)
        assert_allclose(quality.neighbour_share, neighbour_share, atol=0.0051)
        # how much shorter 2-opt makes it depends on where it starts
        assert_allclose(quality.length_ratio, length_ratio, atol=0.02)
        assert_allclose(quality.trustworthiness, trust, atol=0.0051)

    @pytest.mark.parametrize(
        ("name", "sign", "bits", "line"),
        [
            ("age", -1, 5, 28),
            ("rotation", -1, 6, 56),
            ("eye_color", 1, 7, 71),
            ("body_color", 1, 8, 120),
        ],
    )
    def test_directions_are_lines_of_the_curve(self, shared, name, sign, bits, line):
        folder = shared / "data/published_sfvq"
        curve = Curve(jnp.asarray(np.load(folder / f"AFHQ-{bits}.npy"), jnp.float32))
        published = np.load(folder / f"dir-AFHQ-{name}.npy").ravel()
        assert_allclose(sign * line_direction(curve, line), published, atol=1e-6)


class TestCodebookQuality:
    def test_a_straight_line_is_perfectly_ordered(self):
        quality = codebook_quality(Curve(jnp.arange(32.0)[:, None] * jnp.ones((1, 3))))
        assert_allclose(quality.mean_step, 3**0.5, rtol=1e-5)
        assert quality.step_ratio < 0.1
        assert quality.neighbour_share == quality.trustworthiness == quality.continuity == 1
        assert_allclose(quality.length_ratio, 1)

    def test_a_random_order_is_none(self):
        quality = codebook_quality(Curve(jnp.asarray(normal(256, 64), jnp.float32)))
        assert_allclose(quality.step_ratio, 1, atol=0.02)
        assert_allclose([quality.trustworthiness, quality.continuity], 0.5, atol=0.05)
        assert quality.neighbour_share < 0.05
        assert quality.length_ratio > 1.1

    def test_rotating_and_shifting_changes_only_the_norm(self):
        codewords = np.cumsum(normal(32, 8), 0)
        moved = codewords @ np.linalg.qr(normal(8, 8, seed=1))[0] + 5
        curves = [Curve(jnp.asarray(c, jnp.float32)) for c in (codewords, moved)]
        one, other = map(codebook_quality, curves)
        assert_allclose(other[1:], one[1:], rtol=1e-4)

    def test_a_larger_codebook_is_as_well_ordered(self):
        codewords = jnp.asarray(np.cumsum(normal(32, 8), 0), jnp.float32)
        one, other = codebook_quality(Curve(codewords)), codebook_quality(Curve(4 * codewords))
        assert_allclose(other[:2], [4 * one.mean_norm, 4 * one.mean_step], rtol=1e-6)
        assert_allclose(other[2:], one[2:], rtol=1e-6)

    @pytest.mark.parametrize("k", [3, 4, 11])
    def test_few_codewords_are_enough(self, k):
        quality = codebook_quality(Curve(jnp.asarray(normal(k, 4), jnp.float32)))
        assert np.isfinite(quality).all()

    def test_of_too_many_codewords_for_2_opt_only_that_measure_is_missing(self, monkeypatch):
        curve = Curve(jnp.asarray(normal(17, 4), jnp.float32))
        all_measures = codebook_quality(curve)
        monkeypatch.setattr("sfvq_jax.quality.TWO_OPT_CODEWORDS", 16)
        assert codebook_quality(curve) == all_measures._replace(length_ratio=None)

    def test_its_step_is_that_of_the_lines(self):
        curve = Curve(jnp.asarray(normal(32, 8), jnp.float32))
        assert_allclose(codebook_quality(curve).mean_step, line_lengths(curve).mean(), rtol=1e-5)

    def test_distances_are_exact_far_from_the_origin(self):
        points = normal(20, 5)
        near, far = pairwise_distances(points), pairwise_distances(np.repeat(points, 2, 0) + 1e8)
        assert_allclose(far[::2, ::2], near, rtol=1e-6)
        assert_array_equal(np.diagonal(far, 1)[::2], np.zeros(20))

    def test_the_order_of_two_codewords_says_nothing(self):
        with pytest.raises(ValueError, match="three or more"):
            codebook_quality(Curve(jnp.ones((2, 3))))

    def test_nor_does_that_of_one_point_or_of_what_is_no_number(self):
        with pytest.raises(ValueError, match="all codewords are the same point"):
            codebook_quality(Curve(jnp.ones((5, 3))))
        for bad in (np.nan, np.inf):
            with pytest.raises(ValueError, match="have NaN or infinity"):
                codebook_quality(Curve(jnp.asarray(normal(5, 3)).at[2, 1].set(bad)))

    def test_some_codewords_at_one_point_are_measured(self):
        quality = codebook_quality(Curve(jnp.asarray(np.repeat(normal(2, 3), 4, 0), jnp.float32)))
        assert np.isfinite(quality).all()


class TestTrustworthiness:
    @pytest.mark.parametrize(("k", "neighbours"), [(8, 3), (32, 5), (100, 12)])
    @pytest.mark.parametrize("ordered", [True, False])
    def test_is_that_of_scikit_learn(self, k, neighbours, ordered):
        points = normal(k, 6, seed=k)
        points = np.cumsum(points, 0) if ordered else points
        index = np.arange(k)
        # a little convex: of two entries as far away in order, the earlier one is the nearer
        embedded = (index + 1e-6 * index**2)[:, None]
        expected = manifold.trustworthiness(points, embedded, n_neighbors=neighbours)
        assert_allclose(trustworthiness(pairwise_distances(points), neighbours), expected)


class TestContinuity:
    @pytest.mark.parametrize(("k", "neighbours"), [(8, 3), (32, 5), (100, 12)])
    @pytest.mark.parametrize("ordered", [True, False])
    def test_is_scikit_learns_trustworthiness_of_the_points_given_the_order(
        self, k, neighbours, ordered
    ):
        points = normal(k, 6, seed=k)
        points = np.cumsum(points, 0) if ordered else points
        index = np.arange(k)
        # a little convex: of two entries as far away in order, the earlier one is the nearer
        order = (index + 1e-6 * index**2)[:, None]
        expected = manifold.trustworthiness(order, points, n_neighbors=neighbours)
        assert_allclose(continuity(pairwise_distances(points), neighbours), expected)

    def test_an_almost_closed_circle_costs_continuity_but_little_trustworthiness(self):
        angle = np.linspace(0, 1.98 * np.pi, 64)
        distances = pairwise_distances(np.stack([np.cos(angle), np.sin(angle)], 1))
        lost_continuity = 1 - continuity(distances, 5)
        assert lost_continuity > 0.02
        assert 1 - trustworthiness(distances, 5) < lost_continuity / 10


class TestOrders:
    @pytest.mark.parametrize("seed", range(8))
    def test_two_opt_comes_close_to_the_best_of_all_orders(self, seed):
        distances = pairwise_distances(normal(8, 2, seed=seed))
        orders = np.array(list(itertools.permutations(range(8))))
        best = distances[orders[:, :-1], orders[:, 1:]].sum(1).min()
        found = path_length(distances, two_opt(distances, nearest_neighbour_order(distances)))
        assert best * (1 - 1e-12) <= found <= 1.15 * best

    @pytest.mark.parametrize(("k", "d"), [(2, 2), (8, 2), (40, 3)])
    def test_two_opt_ends_where_no_reversal_helps_and_never_above_its_start(self, k, d):
        distances = pairwise_distances(normal(k, d, seed=k))
        start = nearest_neighbour_order(distances)
        order = two_opt(distances, start)
        assert_array_equal(np.sort(order), np.arange(k))
        length = path_length(distances, order)
        assert length <= path_length(distances, start)
        for i, j in itertools.combinations(range(k + 1), 2):
            other = np.concatenate([order[:i], order[i:j][::-1], order[j:]])
            assert path_length(distances, other) >= length * (1 - 1e-9)

    def test_two_opt_removes_a_crossing(self):
        distances = pairwise_distances(np.array([[0, 0], [1, 1], [1, 0], [0, 1]]))
        order = two_opt(distances, np.arange(4))
        assert_allclose(path_length(distances, order), 3)

    def test_repeated_points_end_too(self):
        order = shorter_order(np.repeat(normal(5, 2), 4, axis=0))
        assert_array_equal(np.sort(order), np.arange(20))

    def test_one_point_or_what_is_no_number_ends_too(self):
        for distances in (np.zeros((6, 6)), np.full((6, 6), np.nan)):
            assert_array_equal(np.sort(two_opt(distances, np.arange(6))), np.arange(6))

    def test_nearest_neighbours_are_visited_first(self):
        distances = pairwise_distances(np.array([[0.0], [5.0], [1.0], [-7.0], [2.0]]))
        assert_array_equal(nearest_neighbour_order(distances), [0, 2, 4, 1, 3])


@pytest.mark.parametrize("neighbours", [0, 3, 7])
def test_neighbours_that_are_not_fewer_than_half_have_no_ranks(neighbours):
    for measure in (trustworthiness, continuity):
        with pytest.raises(ValueError, match="of 6 points expected 1 to less than half"):
            measure(pairwise_distances(normal(6, 2)), neighbours)


class TestUse:
    def test_line_use_counts_lines(self):
        line = np.random.default_rng(0).integers(0, 7, 1000)
        counts = np.bincount(line, minlength=9)
        place = Projection(jnp.asarray(line), jnp.full(1000, 0.5), jnp.zeros(1000))
        assert_allclose(line_use(place, 9), counts / 1000, atol=1e-5)

    def test_a_codeword_counts_for_the_line_that_it_begins_whichever_a_projection_names(self):
        line, fraction = jnp.array([1, 2, 0, 3]), jnp.array([1.0, 0.0, 0.0, 1.0])
        assert_array_equal(line_of(Projection(line, fraction, fraction), 4), [2, 2, 0, 3])

    def test_use_of_a_curve_and_of_its_double_shifted_by_rounding_is_the_same(self):
        """Samples beyond a sharp corner, where both lines are exactly as near."""
        codewords = np.float32([[0, 0], [1, 1], [2, 0], [3, 1], [4, 0]])
        x = np.float32([1, 1.5]) + np.float32(1e-2) * np.abs(normal(1000, 2)) * [0, 1]
        for seed in range(3):
            moved = codewords + np.float32(1e-6) * normal(5, 2, seed=seed)
            found = health(Curve(jnp.asarray(moved, jnp.float32)), jnp.asarray(x, jnp.float32))
            assert_array_equal(found.use, [0, 1000, 0, 0])

    def test_perplexity_counts_equally_used_lines(self):
        for m in (1, 3, 8):
            use = np.pad(np.full(m, 1 / m, np.float32), (0, 8 - m))
            assert_allclose(perplexity(jnp.asarray(use)), m, rtol=1e-6)

    def test_perplexity_is_least_for_one_line_and_greatest_for_equal_use(self):
        for seed in range(5):
            use = np.random.default_rng(seed).dirichlet(np.ones(16)).astype(np.float32)
            entropy = -(use * np.log(use)).sum()
            value = perplexity(jnp.asarray(use))
            assert 1 < value < 16
            assert_allclose(value, np.exp(entropy), rtol=1e-5)

    def test_class_runs_are_shares_of_equal_neighbours(self):
        assert same_class_share(np.array([0, 0, 0, 1, 1, 0])) == 3 / 5
        assert same_class_share(np.array([0, 1, 0, 1])) == 0
        assert same_class_share(np.array([2, 2])) == 1
        assert same_class_share([0, 0, 1]) == 0.5

    @pytest.mark.parametrize("classes", [[], [3], [[1, 2], [1, 2]]])
    def test_fewer_than_two_classes_have_no_runs(self, classes):
        for function in (same_class_share, class_runs_by_chance):
            with pytest.raises(ValueError, match=r"\[K\] with K >= 2"):
                function(np.array(classes))


class TestHealth:
    codewords = np.concatenate([normal(6, 3, seed=1), [[50, 50, 50]]]).astype(np.float32)
    x = normal(300, 3).astype(np.float32)

    def test_it_counts_nearest_codewords_and_lines(self):
        curve = Curve(jnp.asarray(self.codewords))
        nearest = ((self.x[:, None] - self.codewords) ** 2).sum(2).argmin(1)
        found = jax.jit(health)(curve, self.x)
        assert_array_equal(found.load, np.bincount(nearest, minlength=7))
        assert int(found.dead) == 1
        assert_allclose(found.use.sum(), 300)
        assert_allclose(found.distortion, distortion(curve, self.x), rtol=1e-5)

    def test_the_share_of_the_error_that_one_sample_has(self):
        curve, weight = Curve(jnp.asarray(self.codewords)), np.ones(300, np.float32)
        error = weight * np.asarray(project(curve, jnp.asarray(self.x)).squared_distance)
        found = health(curve, jnp.asarray(self.x), weight)
        assert_allclose(found.worst, error.max() / error.sum(), rtol=1e-5)
        on_it = health(curve, jnp.asarray(self.codewords))
        assert float(on_it.worst) <= 1

    def test_samples_of_no_weight_and_rows_beyond_the_size_are_not_there(self):
        weight = np.float32(np.arange(300) < 200)
        some = health(Curve(jnp.asarray(self.codewords)), self.x[:200])
        found = health(padded(Curve(jnp.asarray(self.codewords)), 16), self.x, weight)
        assert_array_equal(found.load[:7], some.load)
        assert_array_equal(found.load[7:], np.zeros(9))
        assert int(found.dead) == int(some.dead)
        assert_allclose(found.distortion, some.distortion, rtol=1e-5)

    @pytest.mark.parametrize("shape", [(1,), (), (300, 1), (299,)])
    def test_weights_of_another_shape_are_refused(self, shape):
        with pytest.raises(ValueError, match=r"expected one a sample, \(300,\)"):
            health(Curve(jnp.asarray(self.codewords)), self.x, np.ones(shape, np.float32))

    def test_no_samples_are_refused(self):
        with pytest.raises(ValueError, match="x has no rows"):
            health(Curve(jnp.asarray(self.codewords)), self.x[:0])
