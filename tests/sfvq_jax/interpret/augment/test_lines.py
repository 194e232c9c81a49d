"""New latents on the curve and around it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import Curve, decode, project
from sfvq_jax.interpret.augment.lines import positions_along, sample_around

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
