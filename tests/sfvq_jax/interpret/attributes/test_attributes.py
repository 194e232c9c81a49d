"""Attributes of images: statistics of drawn rectangles, classes, scorers put together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax
from numpy.testing import assert_allclose

from sfvq_jax.interpret import (
    OF_BACKGROUND,
    STATISTICS,
    Bench,
    Scorer,
    class_scorer,
    has_background,
    image_statistics,
    join,
    judging_statistics,
    statistics_of,
)
from sfvq_jax.interpret.directions import bench


def rectangle(top, bottom, left, right, value=1.0, size=40, channels=1):
    """One image [1, size, size, channels] of a rectangle on black."""
    image = np.full((1, size, size, channels), -1, np.float32)
    image[:, top:bottom, left:right] = value
    return jnp.asarray(image)


@pytest.fixture(params=[image_statistics, judging_statistics], ids=["finding", "judging"])
def statistic(request):
    """A function (image, name) -> score, by the one definition and by the other."""
    scorer = request.param()
    assert scorer.names == STATISTICS
    return lambda image, name: float(scorer(image)[0, scorer.index(name)])


class TestStatistics:
    image = rectangle(8, 32, 4, 16)

    def test_of_a_rectangle_are_its_geometry(self, statistic):
        assert_allclose(statistic(self.image, "area"), 24 * 12 / 1600, rtol=0.05)
        assert_allclose(statistic(self.image, "width"), 12 / 40, rtol=0.06)
        assert_allclose(statistic(self.image, "height"), 24 / 40, rtol=0.06)
        assert_allclose(statistic(self.image, "x position"), 2 * 10 / 40 - 1, atol=0.03)
        assert_allclose(statistic(self.image, "y position"), 0, atol=0.03)

    @pytest.mark.parametrize(
        ("name", "more"),
        [
            ("brightness", rectangle(8, 32, 4, 20)),
            ("contrast", rectangle(8, 32, 2, 30)),
            ("area", rectangle(8, 34, 4, 16)),
            ("x position", rectangle(8, 32, 5, 17)),
            ("y position", rectangle(7, 31, 4, 16)),
            ("width", rectangle(8, 32, 4, 17)),
            ("height", rectangle(8, 33, 4, 16)),
            ("symmetry", rectangle(8, 32, 12, 28)),
            ("edge energy", rectangle(8, 32, 4, 16).at[:, 12:16].set(-1)),
        ],
    )
    def test_rise_when_the_image_has_more_of_it(self, statistic, name, more):
        image = rectangle(8, 32, 4, 16, 0.5) if name == "contrast" else self.image
        assert statistic(more, name) > statistic(image, name)

    def test_do_not_depend_on_the_size_of_the_image(self, statistic):
        large = self.image.repeat(2, 1).repeat(2, 2)
        for name in STATISTICS:
            if name not in ("edge energy", "contrast"):
                assert_allclose(statistic(large, name), statistic(self.image, name), atol=0.03)

    def test_dark_things_on_white_have_the_same_geometry(self, statistic):
        for name in ("area", "width", "height", "x position", "y position", "symmetry"):
            assert_allclose(statistic(-self.image, name), statistic(self.image, name), atol=0.02)

    def test_an_even_image_has_none_and_nothing_is_nan(self, statistic):
        even = jnp.zeros((1, 16, 24, 3))
        assert_allclose(statistic(even, "area"), 0, atol=1e-3)
        assert np.isfinite([statistic(even, name) for name in STATISTICS]).all()

    def test_colour_counts_by_its_mean(self, statistic):
        colour = jnp.concatenate([self.image] * 3, -1)
        for name in STATISTICS:
            assert_allclose(statistic(colour, name), statistic(self.image, name), atol=1e-5)

    def test_those_that_find_have_derivatives_everywhere(self):
        scorer = image_statistics()
        for image in (self.image, jnp.full((1, 16, 16, 1), -1.0)):
            gradient = jax.jacobian(lambda image: scorer(image)[0])(image)
            assert jnp.isfinite(gradient).all()
            if image is self.image:
                assert (jnp.abs(gradient).max((1, 2, 3, 4)) > 0).all()

    def test_a_thing_that_reaches_the_border_leaves_the_background_as_it_is(self, statistic):
        touching, free = rectangle(8, 40, 4, 36), rectangle(7, 39, 4, 36)
        for name in ("area", "width", "height", "x position", "symmetry"):
            assert_allclose(statistic(touching, name), statistic(free, name), atol=0.03)

    def test_a_background_that_is_noisy_has_its_mean_grey(self, statistic):
        noise = 0.02 * jax.random.normal(jax.random.key(0), (1, 40, 40, 1))
        for name in ("area", "x position"):
            noisy = statistic(0.7 * self.image + noise, name)
            assert_allclose(noisy, statistic(self.image, name), rtol=0.2, atol=0.05)


class Drawer:
    """A model whose images are what a function draws of keys: a rectangle, or a texture."""

    latent_dim, num_layers = 4, 1

    def __init__(self, draw):
        self.render = jax.jit(lambda latents: jax.vmap(draw)(latents.reshape(-1, 4)))

    def sample(self, key, n, *, label=None, truncation=None):
        return jax.random.normal(key, (n, 4))


def texture(latent):
    """Waves whose amplitudes fall with their frequency, as in photographs."""
    key = jax.random.fold_in(jax.random.key(0), lax.bitcast_convert_type(latent[0], jnp.int32))
    u, v = (jnp.arange(-6.0, 7)[:, None, None, None], jnp.arange(1.0, 7)[None, :, None, None])
    place = jnp.linspace(0, 2 * jnp.pi, 32)
    waves = u * place[None, None, :, None] + v * place[None, None, None]
    phases = jax.random.uniform(key, (13, 6, 1, 1), maxval=2 * jnp.pi)
    image = (jnp.cos(waves + phases) / jnp.hypot(u, v)).sum((0, 1))
    return (0.5 * image / image.std())[..., None]


def box(latent):
    """A light rectangle of some width on dark grey."""
    place = jnp.linspace(-1, 1, 32)
    inside = jnp.abs(place) < 0.5 + 0.1 * jnp.tanh(latent[0])
    return jnp.where(inside[None] & inside[:, None], 0.8, -0.6)[..., None]


class TestBackground:
    def test_is_told_of_images(self):
        latents = Drawer(box).sample(jax.random.key(0), 32)
        assert has_background(Drawer(box).render(latents)).all()
        assert has_background(Drawer(texture).render(latents)).mean() < 0.1
        assert has_background(jnp.full((2, 16, 16, 3), 0.3)).all()
        faint = 0.1 * Drawer(texture).render(latents)  # all of it near the commonest grey
        assert has_background(faint).mean() < 0.5

    def test_statistics_that_need_one_are_left_out_of_a_model_without(self):
        of_boxes = statistics_of(jax.random.key(0), Drawer(box))
        assert of_boxes.find.names == of_boxes.judge.names == STATISTICS
        assert of_boxes.background == 1
        of_textures = statistics_of(jax.random.key(0), Drawer(texture))
        assert of_textures.find.names == of_textures.judge.names
        assert set(of_textures.find.names) == set(STATISTICS) - set(OF_BACKGROUND)
        assert of_textures.background < 0.1

    def test_scorers_know_which_of_their_columns_need_one(self):
        own = Scorer.of(lambda images: images[:, 0, :1, 0], ["width"])
        some = image_statistics().select(["brightness", "area"])
        assert some.of_background == ("area",)
        assert own.of_background == ()
        assert join(own, some).select(["width", "area"]).of_background == ("area",)

    def test_a_bench_warns_where_there_is_none(self, monkeypatch):
        monkeypatch.setattr(bench, "BANK", 32)
        monkeypatch.setattr(bench, "HELD_OUT", 32)
        area = image_statistics().select(["area"])
        with pytest.warns(UserWarning, match="^.% of this model's images .* there is no area; "):
            Bench(jax.random.key(0), Drawer(texture), area, area)
        Bench(jax.random.key(0), Drawer(box), area, area)


def logits(images):
    """Two classes: light on the left, light on the right."""
    half = images.shape[2] // 2
    return 40 * jnp.stack(
        [images[:, :, :half].mean((1, 2, 3)), images[:, :, half:].mean((1, 2, 3))], 1
    )


class TestClasses:
    scorer = class_scorer(logits, ["left", "right"])

    def test_scores_are_limited_log_odds(self):
        images = jnp.concatenate(
            [rectangle(0, 40, 0, w, v) for w in (3, 20, 40) for v in (-0.9, -0.6)]
        )
        probabilities = np.float64(jax.nn.softmax(logits(images)))
        odds = np.log(probabilities / (1 - probabilities))
        assert_allclose(self.scorer(images), 6 * np.tanh(odds / 6), atol=2e-3)

    def test_a_certain_class_is_finite_and_so_is_its_gradient(self):
        image = rectangle(0, 40, 0, 20)
        assert_allclose(self.scorer(image), [[6, -6]], atol=0.1)
        assert jnp.isfinite(jax.grad(lambda x: self.scorer(x).sum())(image)).all()


class ImageEncoder(nn.Module):
    """A CLIP's, tiny and random: patches, a layer, a projection."""

    @nn.compact
    def __call__(self, images):
        patches = nn.relu(nn.Conv(8, (8, 8), strides=8)(images))
        return nn.Dense(6)(patches.mean((1, 2)))


class TestOfText:
    network = ImageEncoder()
    words = ("a photo", "a smile", "a hat")

    def texts(self, texts):
        rows = jax.random.normal(jax.random.key(1), (3, 6))
        return 7 * rows[np.array([self.words.index(text) for text in texts])]

    def test_scores_are_logits_beside_the_neutral_text(self, getkey):
        images = jax.random.uniform(getkey(), (5, 16, 16, 3), minval=-1.0)
        params = self.network.init(getkey(), images)
        encode = jax.tree_util.Partial(self.network.apply, params)
        scorer = Scorer.of_text(encode, self.texts, self.words[1:])
        assert scorer.names == ("a smile", "a hat")
        assert scorer.thresholds == (None, None)
        image, text = np.float64(encode(images)), np.float64(self.texts(self.words))
        cosines = (image @ text.T) / np.linalg.norm(image, axis=1)[:, None]
        cosines /= np.linalg.norm(text, axis=1)
        expected = 100 * (cosines[:, 1:] - cosines[:, :1])
        assert_allclose(jax.jit(scorer)(images), expected, rtol=1e-4, atol=1e-3)
        gradient = jax.grad(lambda images: scorer(images).sum())(images)
        assert jnp.isfinite(gradient).all()
        assert (gradient != 0).any()

    def test_texts_that_are_not_encoded_one_a_row_are_told(self):
        with pytest.raises(ValueError, match=r"of 2 texts .* shape \(6,\); expected \[2, E\]"):
            Scorer.of_text(lambda images: images, lambda texts: np.zeros(6), ["a hat"])


class TestScorer:
    def test_joined_and_selected_columns_keep_their_names(self):
        both = join(image_statistics(), TestClasses.scorer)
        assert both.names == (*STATISTICS, "left", "right")
        part = both.select(["right", "area"])
        images = TestStatistics.image
        columns = [both.index("right"), both.index("area")]
        assert_allclose(part(images), both(images)[:, columns])
        assert part.names == ("right", "area")

    def test_thresholds_and_features_go_with_them(self):
        class Looks:
            def __call__(self, images):
                return images[:, 0, :2, 0]

            def features(self, images):
                return images[:, 0, :, 0]

        plain = Scorer.of(lambda images: images[:, 0, :1, 0], ["light"])
        looks = Scorer.of(jax.tree_util.Partial(Looks()), ["cat", "dog"], (0.0, 1.0))
        assert plain.thresholds == (None,)
        assert join(plain, looks).select(["dog", "light"]).thresholds == (1.0, None)
        assert class_scorer(lambda images: images[:, 0, :2, 0], ["a", "b"]).thresholds == (0, 0)
        assert plain.features is None
        with pytest.raises(ValueError, match="2 thresholds for 1 attributes"):
            Scorer.of(lambda images: images[:, 0, :1, 0], ["light"], (0.0, 1.0))

    def test_passes_through_jit_as_a_pytree(self):
        scorer = join(image_statistics(), TestClasses.scorer)
        images = TestStatistics.image
        jitted = jax.jit(lambda scorer, images: scorer(images))
        assert_allclose(jitted(scorer, images), scorer(images), rtol=1e-5, atol=1e-5)

    def test_names_are_checked(self):
        with pytest.raises(ValueError, match="different strings"):
            Scorer.of(logits, ["left", "left"])
        with pytest.raises(ValueError, match="different strings"):
            join(TestClasses.scorer, TestClasses.scorer)
        with pytest.raises(ValueError, match="no attribute 'up'; there are left, right"):
            TestClasses.scorer.index("up")

    def test_a_function_of_another_shape_is_told_what_was_expected(self):
        scorer = Scorer.of(lambda images: images.mean((1, 2, 3)), ["mean"])
        with pytest.raises(ValueError, match=r"expected \[1, 1\], a column for each of mean"):
            scorer(TestStatistics.image)
