"""Is this a good map: on curves whose faults are known, and against brute force."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.distance import cdist

from sfvq_jax import Curve, LatentModel, decode
from sfvq_jax.interpret.attributes.scorer import Scorer
from sfvq_jax.interpret.geometry import kmeans
from sfvq_jax.interpret.map.health import OUTLIER_QUANTILE, map_quality
from sfvq_jax.interpret.map.two_sets import two_sets
from sfvq_jax.interpret.map.verdicts import report
from sfvq_jax.quality import class_runs_by_chance

K, D, SAMPLES = 32, 8, 1024
KEY = jax.random.key(0)
ANGLES = np.linspace(0.05, 1.5 * np.pi - 0.05, K)
ORDERING = {
    "step ÷ mean distance",
    "nearest is a neighbour",
    "trustworthiness",
    "continuity",
    "length ÷ 2-opt",
}


def at(angle):
    return jnp.pad(2 * jnp.stack([jnp.cos(angle), jnp.sin(angle)], 1), ((0, 0), (0, D - 2)))


def arc(key, n):
    """Points near three quarters of a circle of radius 2."""
    angle, noise = jax.random.split(key)
    angle = jax.random.uniform(angle, (n,), maxval=1.5 * jnp.pi)
    return at(angle) + 0.1 * jax.random.normal(noise, (n, D))


class Wheel:
    """Plain images, whose light is the angle of a latent or one of its other coordinates."""

    latent_dim, num_layers = D, 1

    def __init__(self, coordinate=None, side=8):
        self.coordinate, self.side = coordinate, side

    def sample(self, key, n, *, label=None, truncation=None):
        return arc(key, n)

    def render(self, latents):
        if self.coordinate is None:
            light = jnp.arctan2(latents[:, 1], latents[:, 0]) % (2 * jnp.pi) / jnp.pi - 1
        else:
            light = 10 * latents[:, self.coordinate]
        return jnp.broadcast_to(light[:, None, None, None], (len(latents), self.side, 4, 1))


CENTRES = np.float32([-0.8, -0.4, 0.0, 0.4])  # of four classes of light
SHADES = Scorer.of(lambda images: -jnp.abs(images[:, 0, 0] - CENTRES[None]), list("abcd"))


def codewords(name):
    random, ordered = np.random.default_rng(1), np.array(at(jnp.asarray(ANGLES, jnp.float32)))
    if name == "shuffled":
        return random.permutation(ordered)
    if name == "moved away":
        ordered[[5, 20, 31]] += 50
    if name == "k-means":
        return kmeans(random, np.asarray(arc(jax.random.key(9), 4096)), K)
    return ordered


@functools.cache
def measured(name):
    curve = Curve(jnp.asarray(codewords(name)))
    return map_quality(KEY, curve, arc, model=Wheel(), scorer=SHADES, samples=SAMPLES)


def verdicts(quality):
    return {finding.measure: finding.good for finding in report(quality)}


def text(quality, measure):
    return next(finding.verdict for finding in report(quality) if finding.measure == measure)


class TestVerdicts:
    def test_a_well_ordered_curve_is_good_in_everything(self):
        found = verdicts(measured("ordered"))
        assert len(found) == 18
        assert all(found.values())

    def test_a_random_order_is_bad_and_its_codewords_are_as_good_as_before(self):
        ordered, shuffled = measured("ordered"), measured("shuffled")
        found = verdicts(shuffled)
        bad = {measure for measure, good in found.items() if good is False}
        # the classes of few codewords make some runs by chance
        assert bad | {"class runs", "image step"} == ORDERING | {
            "inside, worst stretches",
            "class runs",
            "image step",
        }
        assert not found["class runs"]
        assert not found["image step"]
        assert_allclose(shuffled.codeword_distortion, ordered.codeword_distortion, rtol=1e-6)
        assert (shuffled.dead, shuffled.outliers) == (0, 0)
        assert shuffled.inside > ordered.inside
        assert shuffled.inside_tail > 3 * ordered.inside_tail
        # which codewords a class uses has nothing to do with their order
        assert_allclose(shuffled.class_distance, ordered.class_distance, rtol=1e-6)

    def test_codewords_that_were_moved_away_are_counted_dead_and_outliers(self):
        quality = measured("moved away")
        assert (quality.dead, quality.outliers) == (3, 3)
        assert text(quality, "dead codewords").startswith("3 codewords are dead: no latent")
        assert text(quality, "outlier codewords").startswith("3 codewords are outside")
        found = verdicts(quality)
        assert not found["dead codewords"]
        assert not found["outlier codewords"]
        assert not found["inside, worst stretches"]

    def test_means_of_k_means_are_well_placed_but_not_ordered(self):
        quality = measured("k-means")
        assert_allclose(quality.codeword_distortion_to_kmeans, 1, atol=0.1)
        found = verdicts(quality)
        assert found["codewords' distortion ÷ k-means"]
        assert found["dead codewords"]
        assert not any(found[measure] for measure in ORDERING)

    def test_a_curve_of_half_its_codewords_in_one_place_spends_them_unevenly(self):
        ordered = codewords("ordered")
        ordered[: K // 2] = ordered[0] + 0.01 * np.random.default_rng(0).normal(size=(K // 2, D))
        quality = map_quality(KEY, Curve(jnp.asarray(ordered)), arc, samples=SAMPLES)
        found = verdicts(quality)
        assert not found["use of codewords"]
        assert not found["distortion ÷ k-means"]

    def test_dead_codewords_are_no_fault_where_samples_are_few(self):
        few = measured("ordered")._replace(dead=1, samples_a_codeword=2.0)
        assert verdicts(few)["dead codewords"] is None
        assert text(few, "dead codewords").startswith("1 codeword is dead: no latent is nearest to")

    def test_between_good_and_bad_there_is_no_verdict(self):
        for value, good in ((0.1, True), (0.8, None), (0.95, False)):
            assert verdicts(measured("ordered")._replace(step_ratio=value))[
                "step ÷ mean distance"
            ] is good  # fmt: skip

    def test_classes_count_above_chance(self):
        for runs, good in ((0.9, True), (0.78, None), (0.7, False)):
            quality = measured("ordered")._replace(class_runs=runs, class_runs_by_chance=0.7)
            assert verdicts(quality)["class runs"] is good
        one_class = measured("ordered")._replace(class_runs=1.0, class_runs_by_chance=1.0)
        assert verdicts(one_class)["class runs"] is None

    def test_a_notebook_shows_them_as_a_table(self):
        quality = measured("ordered")
        html = quality._repr_html_()
        assert html.count("<tr>") == len(report(quality))
        assert "<td>dead codewords</td><td>0 of" in html

    def test_what_was_not_measured_is_left_out(self):
        curve = Curve(jnp.asarray(codewords("ordered")))
        quality = map_quality(KEY, curve, arc, samples=SAMPLES)
        assert quality.class_runs is quality.class_distance is quality.image_step is None
        left_out = set(verdicts(measured("ordered"))) - set(verdicts(quality))
        assert left_out == {
            "class runs",
            "purity",
            "distance of classes",
            "distance of the closest classes",
            "image step",
        }


class TestMapQuality:
    def test_is_that_of_brute_force(self):
        x, far = arc(jax.random.key(3), 2 * SAMPLES), codewords("ordered")
        far[[3, 11]] *= 3
        curve = Curve(jnp.asarray(far))
        quality = map_quality(KEY, curve, x, samples=SAMPLES)
        reference, fresh, *_ = two_sets(KEY, x, SAMPLES)
        to_codewords = cdist(fresh, far)
        assert_allclose(
            quality.codeword_distortion, (to_codewords.min(1) ** 2).mean() / D, rtol=1e-5
        )
        counts = np.bincount(to_codewords.argmin(1), minlength=K)
        assert quality.dead == (counts == 0).sum() > 0
        shares = counts[counts > 0] / SAMPLES
        spread = np.exp(-(shares * np.log(shares)).sum())
        assert_allclose(quality.codeword_use, spread / K, rtol=1e-5)
        of_fresh = cdist(fresh, reference).min(1)
        limit = np.quantile(of_fresh, OUTLIER_QUANTILE)
        outliers = (cdist(far, reference).min(1) > limit).sum()
        assert quality.outliers == outliers > 0
        # positions are random, and a grid of them has nearly the same quantiles
        points = decode(curve, jnp.linspace(0, K - 1, 3101))
        of_points = cdist(points, reference).min(1)
        assert_allclose(quality.inside, np.median(of_points) / np.median(of_fresh), rtol=0.1)
        tail = np.quantile(of_points, 0.95) / np.quantile(of_fresh, 0.95)
        assert_allclose(quality.inside_tail, tail, rtol=0.1)

    def test_a_curve_on_the_data_of_lines_has_no_distortion_but_its_codewords_have(self):
        curve = Curve(jnp.asarray(codewords("ordered")))
        positions = np.random.default_rng(0).uniform(0, K - 1, 2 * SAMPLES)
        quality = map_quality(KEY, curve, decode(curve, jnp.asarray(positions, jnp.float32)))
        assert quality.distortion < 1e-10
        # a uniform variable on [-1/2, 1/2] has variance 1/12
        step = 2 * np.sin((ANGLES[1] - ANGLES[0]) / 2) * 2
        assert_allclose(quality.codeword_distortion, step**2 / 12 / D, rtol=0.05)

    def test_the_same_key_gives_the_same_numbers(self):
        curve = Curve(jnp.asarray(codewords("shuffled")))
        again = map_quality(KEY, curve, arc, model=Wheel(), scorer=SHADES, samples=SAMPLES)
        assert again == measured("shuffled")
        other = map_quality(jax.random.key(1), curve, arc, samples=SAMPLES)
        assert other.distortion != again.distortion
        assert_allclose(other.distortion, again.distortion, rtol=0.05)

    def test_fewer_latents_than_codewords_are_not_compared_with_k_means(self):
        quality = map_quality(KEY, Curve(jnp.asarray(codewords("ordered"))), arc(KEY, 40))
        assert quality.samples == 20
        assert quality.kmeans_distortion is quality.distortion_to_kmeans is None

    def test_what_cannot_be_measured_is_refused(self):
        curve = Curve(jnp.asarray(codewords("ordered")))
        with pytest.raises(ValueError, match="three codewords"):
            map_quality(KEY, Curve(curve.codewords[:2]), arc)
        with pytest.raises(ValueError, match="pass the model"):
            map_quality(KEY, curve, arc, scorer=SHADES)
        with pytest.raises(ValueError, match="width 7, but the codewords of the curve 8"):
            map_quality(KEY, curve, np.ones((10, 7), np.float32))
        with pytest.raises(ValueError, match="source has 1 latents"):
            map_quality(KEY, curve, np.ones((1, 8), np.float32))


class TestImages:
    def test_the_wheel_satisfies_the_protocol(self):
        assert isinstance(Wheel(), LatentModel)

    def test_classes_of_sectors_come_in_one_run_each(self):
        quality = measured("ordered")
        assert quality.class_runs == (K - 1 - 3) / (K - 1)
        assert quality.class_distance > 0.95
        assert quality.purity > 0.95
        assert quality.least_class_distance > 0.8
        assert quality.class_distance_by_chance < 0.4

    def test_even_steps_of_light_are_a_known_share_of_all_pairs(self):
        # |i - j| is (K + 1) / 3 in the mean
        assert_allclose(measured("ordered").image_step, 3 / (K + 1), rtol=1e-4)

    def test_a_random_order_shows_in_runs_and_steps(self):
        quality = measured("shuffled")
        assert abs(quality.class_runs - quality.class_runs_by_chance) < 0.2
        assert_allclose(quality.image_step, 1, atol=0.3)

    def test_some_pairs_of_images_are_as_good_as_all(self, monkeypatch):
        curve = Curve(jnp.asarray(codewords("shuffled")))
        # the package's function hides the module of the same name
        monkeypatch.setitem(map_quality.__globals__, "ALL_PAIRS", 1)
        quality = map_quality(KEY, curve, arc, model=Wheel(), samples=SAMPLES)
        assert_allclose(quality.image_step, measured("shuffled").image_step, rtol=0.03)

    def test_large_images_are_compared_scaled_down(self):
        curve = Curve(jnp.asarray(codewords("ordered")))
        quality = map_quality(KEY, curve, arc, model=Wheel(side=100), samples=SAMPLES)
        assert_allclose(quality.image_step, measured("ordered").image_step, rtol=1e-4)

    def test_classes_that_have_nothing_to_do_with_the_curve_are_found_at_chance(self):
        curve = Curve(jnp.asarray(codewords("ordered")))
        model = Wheel(coordinate=5)
        quality = map_quality(KEY, curve, arc, model=model, scorer=SHADES, samples=SAMPLES)
        assert_allclose(quality.class_distance, quality.class_distance_by_chance, atol=0.03)
        found = verdicts(quality)
        assert found["distance of classes"] is False
        assert found["purity"] is False
        assert_allclose(quality.purity, quality.purity_by_chance, atol=0.03)
        assert found["distance of the closest classes"] is False

    def test_a_single_class_has_no_distances(self):
        curve = Curve(jnp.asarray(codewords("ordered")))
        one = Scorer.of(lambda images: images[:, 0, 0], ["the only one"])
        quality = map_quality(KEY, curve, arc, model=Wheel(), scorer=one, samples=SAMPLES)
        assert quality.class_runs == quality.class_runs_by_chance == 1
        assert quality.class_distance is None

    @pytest.mark.parametrize("texts", [False, True])
    @pytest.mark.parametrize("rows", [1500, 4 * SAMPLES])
    def test_labels_of_rows_say_what_a_scorer_says_of_their_images(self, rows, texts, tmp_path):
        """Of all rows of an array, and of some of a file."""
        x = np.asarray(arc(jax.random.key(5), rows))
        labels = np.asarray(SHADES(Wheel().render(x)).argmax(1))
        labels = np.array(list("dbca"))[labels] if texts else labels
        source = x
        if rows > 2 * SAMPLES:
            np.save(tmp_path / "x.npy", x)
            source = tmp_path / "x.npy"
        curve = Curve(jnp.asarray(codewords("ordered")))
        quality = map_quality(KEY, curve, source, labels=labels, samples=SAMPLES)
        assert quality.class_runs == measured("ordered").class_runs
        assert_allclose(quality.purity, measured("ordered").purity, atol=0.03)
        assert_allclose(quality.purity_by_chance, 1 / 4, atol=0.05)
        assert_allclose(quality.class_distance, measured("ordered").class_distance, atol=0.03)

    def test_labels_of_what_has_no_rows_or_beside_a_scorer_are_refused(self):
        curve = Curve(jnp.asarray(codewords("ordered")))
        with pytest.raises(ValueError, match="these latents have no numbers"):
            map_quality(KEY, curve, arc, labels=np.zeros(9, int))
        with pytest.raises(ValueError, match="there are 9 labels of 20 latents"):
            map_quality(KEY, curve, np.asarray(arc(KEY, 20)), labels=np.zeros(9, int))
        with pytest.raises(ValueError, match="leave one of them out"):
            map_quality(KEY, curve, arc, model=Wheel(), scorer=SHADES, labels=np.zeros(9, int))

    def test_class_runs_by_chance_are_the_mean_over_random_orders(self):
        random = np.random.default_rng(0)
        classes = random.integers(0, 3, 20)
        orders = random.permuted(np.tile(classes, (20_000, 1)), axis=1)
        mean = (orders[:, 1:] == orders[:, :-1]).mean()
        assert_allclose(class_runs_by_chance(classes), mean, atol=0.005)
