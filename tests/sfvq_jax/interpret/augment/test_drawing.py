"""New latents of wanted attributes, and of several classes."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import Curve, decode
from sfvq_jax.interpret.attributes.scorer import Scorer
from sfvq_jax.interpret.augment.attributes import sample_by_attribute
from sfvq_jax.interpret.augment.balance import sample_balanced
from sfvq_jax.interpret.augment.labelled import sample_labelled


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


SCORER = Scorer.of(place_and_light, ["right", "left", "light"], (0.0, 0.0, None))


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

    def test_what_is_relative_is_had_by_the_upper_quarter_of_the_model_s_images(self, along_x):
        key = jax.random.key(0)
        samples = sample_by_attribute(key, BLOBS, along_x, SCORER, "light", 100, **OPTIONS)
        real = np.asarray(SCORER(BLOBS.render(BLOBS.sample(jax.random.key(9), 4096))))[:, 2]
        assert_allclose(samples.thresholds, [np.quantile(real, 0.75)], atol=0.03)
        assert (samples.scores[:, 2] > samples.thresholds).all()
        assert samples.accepted < 0.9
        both = sample_by_attribute(
            key, BLOBS, along_x, SCORER, ["right", "light"], 20, **OPTIONS
        ).thresholds
        assert_allclose(both, [0, samples.thresholds[0]])

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
            sample(Scorer.of(fades, ["fading"], 0.0), "fading")
        assert set(images_seen) == {128}, "all batches are of one size"


class TestSampleBalanced:
    def test_gives_every_class_its_part_in_random_order(self, along_x):
        samples = sample_balanced(
            jax.random.key(0), BLOBS, along_x, SCORER, 101, names=["left", "right"], **OPTIONS
        )
        assert samples.labels is not None
        assert_array_equal(samples.thresholds, [0, 0])
        assert_array_equal(np.bincount(samples.labels), [51, 50])
        assert_array_equal(samples.labels, np.where(samples.scores[:, 1] > 0, 0, 1))
        assert 20 < (np.diff(samples.labels) != 0).sum() < 80
        assert_allclose(SCORER(BLOBS.render(samples.latents)), samples.scores, atol=1e-5)

    def test_fewer_samples_than_classes_leave_the_last_without(self, along_x):
        samples = sample_balanced(
            jax.random.key(0), BLOBS, along_x, SCORER, 1, names=["left", "right"], **OPTIONS
        )
        assert_array_equal(samples.labels, [0])


class TestSampleLabelled:
    LINES: ClassVar = {"bag": [2, 3], "boot": [0], "hat": [4, 5, 6]}

    def sample(self, along_x, **options):
        return sample_labelled(jax.random.key(0), BLOBS, along_x, self.LINES, 900, **options)

    def test_classes_and_lines_are_drawn_equally_often_and_uniformly(self, along_x):
        samples = self.sample(along_x)
        assert samples.names == ("bag", "boot", "hat")
        assert np.bincount(samples.labels).tolist() == [300, 300, 300]
        line, fraction = np.divmod(samples.positions, 1)
        for label, of_class in enumerate(self.LINES.values()):
            counts = np.bincount(line[samples.labels == label].astype(int), minlength=7)
            assert np.flatnonzero(counts).tolist() == of_class
            assert np.ptp(counts[of_class]) <= 1
        assert scipy.stats.kstest(fraction, "uniform").pvalue > 0.01
        assert 400 < (np.diff(samples.labels) != 0).sum() < 750, "in random order"

    def test_they_lie_on_the_curve_or_around_the_same_positions(self, along_x):
        on, around = self.sample(along_x), self.sample(along_x, noise=1.0)
        assert_array_equal(on.latents, decode(along_x, on.positions))
        assert_array_equal(on.positions, around.positions)
        assert_array_equal(on.labels, around.labels)
        real = np.asarray(BLOBS.sample(jax.random.key(9), 4096))
        assert_allclose(around.latents[:, 1:].std(0), real[:, 1:].std(0), rtol=0.15)

    def test_no_lines_are_an_error_that_says_what_to_do(self, along_x):
        with pytest.raises(ValueError, match="label more of them"):
            sample_labelled(jax.random.key(0), BLOBS, along_x, {}, 3)
