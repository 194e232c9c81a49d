"""New latents on the curve, around it, and of wanted attributes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import Curve, decode, project
from sfvq_jax.interpret.attributes import Scorer
from sfvq_jax.interpret.augmentation import (
    positions_along,
    sample_around,
    sample_balanced,
    sample_by_attribute,
)

CURVE = Curve(jnp.asarray(np.random.default_rng(0).normal(size=(9, 5)), jnp.float32))


class TestPositionsAlong:
    @pytest.mark.parametrize("count", [1, 2, 64])
    @pytest.mark.parametrize(("start", "stop"), [(0, 1), (7, 8), (2, 6), (0.5, 3.25), (0, 8)])
    def test_are_the_middles_of_equal_pieces(self, start, stop, count):
        edges = np.linspace(start, stop, count + 1)
        middles = (edges[:-1] + edges[1:]) / 2
        assert_allclose(positions_along(CURVE, start, stop, count), middles, rtol=1e-6)

    def test_lines_side_by_side_make_up_the_curve(self):
        lines = [positions_along(CURVE, line, line + 1, 10) for line in range(8)]
        assert_allclose(jnp.concatenate(lines), positions_along(CURVE, 0, 8, 80), rtol=1e-5)

    def test_no_stretch_and_no_sample_are_refused(self):
        with pytest.raises(ValueError, match="position 9 is outside 0-8"):
            positions_along(CURVE, 8, 9, 4)
        with pytest.raises(ValueError, match=r"position -0\.5 is outside 0-8"):
            positions_along(CURVE, -0.5, 3, 4)
        with pytest.raises(ValueError, match="from 3 to 3 is none"):
            positions_along(CURVE, 3, 3, 4)
        with pytest.raises(ValueError, match="count is 0"):
            positions_along(CURVE, 0, 1, 0)


def gaussian(seed, n):
    """A normal distribution, wider in some dimensions than in others."""
    deviations = np.float32([4, 3, 2, 1, 1, 1, 1, 1])
    return jax.random.normal(jax.random.key(seed), (n, 8)) * jnp.asarray(deviations)[None]


def noisy_arc(seed, n):
    """Half a circle of radius 5 in 8 dimensions, with noise."""
    angle_key, noise_key = jax.random.split(jax.random.key(seed))
    angle = jnp.pi * jax.random.uniform(angle_key, (n, 1))
    arc = 5 * jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], 1)
    return jnp.pad(arc, ((0, 0), (0, 6))) + 0.4 * jax.random.normal(noise_key, (n, 8))


def curve_in_plane(x, y):
    return Curve(jnp.pad(jnp.stack([x, y], 1), ((0, 0), (0, 6))))


ZIGZAG = curve_in_plane(jnp.linspace(-6.0, 6, 16), jnp.tile(jnp.array([-2.0, 2]), 8))
ARC = curve_in_plane(*(5 * f(jnp.linspace(0, jnp.pi, 16)) for f in (jnp.cos, jnp.sin)))


@pytest.fixture(params=[(gaussian, ZIGZAG), (noisy_arc, ARC)], ids=["gaussian", "arc"])
def distribution(request):
    """A way to draw latents, and a curve through them."""
    return request.param


def nearest(points, others):
    """Mean distance to the nearest of others."""
    points, others = np.float64(points), np.float64(others)
    squares = (points**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2 * points @ others.T
    return np.sqrt(np.maximum(squares, 0)).min(1).mean()


class TestSampleAround:
    def test_lies_among_real_latents_as_fresh_ones_do(self, distribution):
        draw, curve = distribution
        real, fresh, others = (draw(seed, 2048) for seed in (1, 2, 3))
        positions = project(curve, fresh).position
        new = sample_around(jax.random.key(4), curve, positions, real)
        for among in (real, others):  # new ones are no copies of those that they were made from
            assert_allclose(nearest(new, among), nearest(fresh, among), rtol=0.05)
        assert_allclose(nearest(others, new), nearest(others, fresh), rtol=0.05)
        # a direction of little spread next to one of much would not show in distances
        assert_allclose(np.std(new, 0), np.std(fresh, 0), rtol=0.08)
        assert_allclose(np.mean(new, 0), np.mean(fresh, 0), atol=0.12 * np.std(fresh))

    def test_without_noise_it_is_on_the_curve(self, distribution):
        draw, curve = distribution
        positions = positions_along(curve, 0, 15, 40)
        new = sample_around(jax.random.key(0), curve, positions, draw(1, 512), noise=0)
        assert_array_equal(new, decode(curve, positions))

    def test_half_the_noise_is_half_as_far_from_the_curve(self, distribution):
        draw, curve = distribution
        positions = positions_along(curve, 0, 15, 40)

        def offset(noise):
            new = sample_around(jax.random.key(0), curve, positions, draw(1, 512), noise=noise)
            return new - decode(curve, positions)

        assert_allclose(offset(0.5), offset(1.0) / 2, atol=1e-5)

    def test_projects_near_its_position(self, distribution):
        draw, curve = distribution
        positions = project(curve, draw(2, 1024)).position
        new = sample_around(jax.random.key(0), curve, positions, draw(1, 4096))
        away = np.abs(project(curve, new).position - positions)
        assert np.median(away) < 0.5  # of a line
        away = np.abs(project(curve, new).position - jnp.roll(positions, 1))
        assert np.median(away) > 2

    def test_the_same_key_gives_the_same_and_another_does_not(self):
        latents = jax.random.normal(jax.random.key(5), (100, 5))
        positions = positions_along(CURVE, 0, 8, 9)
        first, again, other = (
            np.asarray(sample_around(jax.random.key(seed), CURVE, positions, latents))
            for seed in (1, 1, 2)
        )
        assert_array_equal(first, again)
        assert (first != other).any(1).all()

    def test_moves_with_the_latents(self):
        """Shifting curve and latents shifts the new ones."""
        latents = jax.random.normal(jax.random.key(5), (100, 5))
        shifted = Curve(CURVE.codewords + 3)
        positions, key = positions_along(CURVE, 0, 8, 9), jax.random.key(1)
        new = sample_around(key, CURVE, positions, latents)
        assert_allclose(sample_around(key, shifted, positions, latents + 3), new + 3, atol=1e-4)

    def test_one_real_latent_lends_its_residual(self):
        latent = jnp.full((1, 5), 2.0)
        position = project(CURVE, latent).position
        new = sample_around(jax.random.key(0), CURVE, position, latent)
        assert_allclose(new, latent, rtol=1e-5)

    def test_bad_arguments_are_named(self):
        latents, at = jnp.zeros((10, 5)), jnp.zeros(3)
        with pytest.raises(ValueError, match=r"noise is 1\.5; expected 0"):
            sample_around(jax.random.key(0), CURVE, at, latents, noise=1.5)
        with pytest.raises(ValueError, match=r"samples of shape \[N, 5\]"):
            sample_around(jax.random.key(0), CURVE, at, latents[:, :4])
        with pytest.raises(ValueError, match="no real latents"):
            sample_around(jax.random.key(0), CURVE, at, latents[:0])


class Blobs:
    """A blob on 16 pixels, whose place and brightness are the first two of four latents."""

    latent_dim, num_layers = 4, 1

    def sample(self, key, n, *, label=None, truncation=None):
        return jax.random.normal(key, (n, 4)) * jnp.asarray([2.0, 1, 0.5, 0.5])[None]

    def render(self, latents):
        place = jnp.linspace(-4, 4, 16)[None]
        height = jax.nn.sigmoid(latents[:, 1:2])
        line = height * jnp.exp(-((latents[:, :1] - place) ** 2))
        return jnp.broadcast_to(line[:, None, :, None], (len(latents), 2, 16, 1)) * 2 - 1


def place_and_light(images):
    line = (images[:, 0, :, 0] + 1) / 2
    place = (line * jnp.linspace(-4, 4, 16)[None]).sum(1) / line.sum(1)
    return jnp.stack([place, -place, line.max(1)], 1)


BLOBS = Blobs()
SCORER = Scorer.of(place_and_light, ["right", "left", "light"])
OPTIONS = {"surveyed": 512, "batch": 128}


@pytest.fixture(scope="module")
def along_x():
    """A curve from left to right."""
    return Curve(jnp.pad(jnp.linspace(-4, 4, 8)[:, None], ((0, 0), (0, 3))))


class TestSampleByAttribute:
    def test_every_sample_has_the_attribute_and_the_scores_are_its_image_s(self, along_x):
        key = jax.random.key(0)
        samples = sample_by_attribute(key, BLOBS, along_x, SCORER, "right", 300, **OPTIONS)
        assert samples.latents.shape == (300, 4)
        assert samples.positions.shape == (300,)
        assert (samples.scores[:, 0] > 0).all()
        assert_allclose(SCORER(BLOBS.render(samples.latents)), samples.scores, atol=1e-5)
        assert 0.8 < samples.accepted <= 1
        again = sample_by_attribute(key, BLOBS, along_x, SCORER, "right", 300, **OPTIONS)
        assert_array_equal(samples.latents, again.latents)

    def test_the_samples_are_spread_as_real_latents_with_the_attribute(self, along_x):
        samples = sample_by_attribute(
            jax.random.key(0), BLOBS, along_x, SCORER, "right", 1000, surveyed=2048
        )
        real = np.asarray(BLOBS.sample(jax.random.key(9), 4096))
        real = real[real[:, 0] > 0]
        assert_allclose(samples.latents.mean(0), real.mean(0), atol=0.15)
        assert_allclose(samples.latents.std(0), real.std(0), rtol=0.12)

    def test_limits_are_in_the_score_s_unit(self, along_x):
        def scores(wanted, **limits):
            key = jax.random.key(0)
            return sample_by_attribute(
                key, BLOBS, along_x, SCORER, wanted, 50, **limits, **OPTIONS
            ).scores

        assert (scores("light", above=0.6)[:, 2] > 0.6).all()
        assert (scores("light", below=0.4)[:, 2] < 0.4).all()
        both = scores(["right", "light"], above=0.3, below=0.7)
        assert ((both[:, [0, 2]] > 0.3) & (both[:, [0, 2]] < 0.7)).all()

    def test_leaving_lines_out_keeps_to_the_others(self, along_x):
        options = OPTIONS | {"least_share": 0.9, "noise": 0.0}
        samples = sample_by_attribute(
            jax.random.key(0), BLOBS, along_x, SCORER, "right", 50, **options
        )
        assert samples.positions.min() >= 4  # line 3 is on both sides
        assert samples.accepted == 1

    def test_what_no_image_has_is_named_with_how_many_were_looked_at(self, along_x):
        def sample(scorer, wanted, **options):
            sample_by_attribute(
                jax.random.key(0), BLOBS, along_x, scorer, wanted, 50, **options, **OPTIONS
            )

        with pytest.raises(ValueError, match="0 of 512 latents surveyed have 'light'"):
            sample(SCORER, "light", above=2)
        with pytest.raises(ValueError, match="no attribute 'blue'"):
            sample(SCORER, "blue")
        images_seen = []

        def fades(images):
            """Had by the survey's images only."""
            images_seen.append(len(images))
            return np.full((len(images), 1), 1.0 if sum(images_seen) <= 512 else -1.0)

        with pytest.raises(ValueError, match="only 0 of 1024 images drawn have 'fading', as 512"):
            sample(Scorer.of(fades, ["fading"]), "fading")
        assert set(images_seen) == {128}, "all batches are of one size"


class TestSampleBalanced:
    def test_gives_every_class_its_part_in_random_order(self, along_x):
        samples = sample_balanced(
            jax.random.key(0), BLOBS, along_x, SCORER, 101, names=["left", "right"], **OPTIONS
        )
        assert samples.labels is not None
        assert_array_equal(np.bincount(samples.labels), [51, 50])
        assert_array_equal(samples.labels, np.where(samples.scores[:, 1] > 0, 0, 1))
        assert 20 < (np.diff(samples.labels) != 0).sum() < 80
        assert_allclose(SCORER(BLOBS.render(samples.latents)), samples.scores, atol=1e-5)

    def test_fewer_samples_than_classes_leave_the_last_without(self, along_x):
        samples = sample_balanced(
            jax.random.key(0), BLOBS, along_x, SCORER, 1, names=["left", "right"], **OPTIONS
        )
        assert_array_equal(samples.labels, [0])
