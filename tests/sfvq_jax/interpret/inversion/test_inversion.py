"""Images that come back as latents, of a model whose factors are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from sfvq_jax import Curve, limited_memory
from sfvq_jax.interpret.inversion import ImageDistance, invert
from sfvq_jax.interpret.inversion.likeness import psnr, scales
from sfvq_jax.interpret.inversion.optimising import Whitened

D, L, SIDE = 4, 2, 16
KEY = jax.random.key(0)


class Spots:
    """A spot that the first factor moves by layer 0, and the second makes larger by layer 1."""

    latent_dim, num_layers = D, L

    def sample(self, key, n, *, label=None, truncation=None):
        scale = jnp.array([[1.0, 2.0, 1.0, 0.0]])  # the last dimension has nothing
        return 3.0 + jax.random.normal(key, (n, D)) * scale

    def render(self, latents):
        codes = latents if latents.ndim == 3 else jnp.stack([latents] * L, 1)
        right, larger = codes[:, 0, 0] - 3, codes[:, 1, 1] / 2 - 1.5
        centre, radius = 0.4 * jnp.tanh(right / 2), 0.5 + 0.2 * jnp.tanh(larger / 2)
        grid = jnp.linspace(-1, 1, SIDE)
        x = grid[None, None, :] - centre[:, None, None]
        r = jnp.sqrt(x**2 + grid[None, :, None] ** 2 + 1e-4)
        return jnp.tanh((radius[:, None, None] - r) / 0.2)[..., None]

    def encode(self, images):
        return jnp.full((len(images), D), 3.0)


MODEL = Spots()
LATENTS = MODEL.sample(jax.random.key(1), 5)
IMAGES = np.asarray(MODEL.render(LATENTS))


@pytest.fixture(scope="module")
def found():
    return invert(KEY, MODEL, IMAGES, pull=1e-4, steps=80)


class TestInvert:
    def test_images_come_back_with_their_factors(self, found):
        assert found.latents.shape == (5, D)
        assert found.psnr.min() > 30
        assert_allclose(found.latents[:, :2], LATENTS[:, :2], atol=0.5)
        assert_allclose(found.latents[:, 2], 3, atol=0.5)  # which no pixel tells: near the mean
        assert_allclose(found.latents[:, 3], 3, atol=1e-5)  # in which no latent differs

    def test_the_objective_never_grows_and_begins_at_the_mean(self, found):
        assert found.objective.shape == (5, 81)
        assert (np.diff(found.objective, axis=1) <= 0).all()
        distance = jax.jit(ImageDistance.among(MODEL.render(MODEL.sample(KEY, 512))).__call__)
        mean = MODEL.render(jnp.full((1, D), 3.0))
        unlike = ((distance(mean) - distance(jnp.asarray(IMAGES))) ** 2).sum(1)
        assert_allclose(found.objective[:, 0], unlike, rtol=0.2)

    def test_uint8_and_less_memory_give_the_same(self, found):
        pixels = np.round(IMAGES * 127.5 + 127.5).astype(np.uint8)
        with limited_memory(1):
            again = invert(KEY, MODEL, pixels[:2], pull=1e-4, steps=80)
        assert_allclose(again.latents, found.latents[:2], atol=0.1)

    def test_codes_of_each_layer_are_found(self):
        codes = jnp.stack([LATENTS, LATENTS[::-1]], 1)
        images = MODEL.render(codes)
        found = invert(KEY, MODEL, images, layers=True, pull=1e-4, steps=80)
        assert found.latents.shape == (5, L, D)
        assert_allclose(found.latents[:, 0, 0], codes[:, 0, 0], atol=0.5)
        assert_allclose(found.latents[:, 1, 1], codes[:, 1, 1], atol=0.8)

    def test_a_stronger_pull_stays_nearer_and_is_less_like(self, found):
        pulled = invert(KEY, MODEL, IMAGES, pull=1.0, steps=80)
        assert (pulled.psnr < found.psnr).all()
        far, near = (np.linalg.norm(one.latents - 3, axis=1).mean() for one in (found, pulled))
        assert near < 0.9 * far

    def test_a_curve_is_a_nearer_start(self, found):
        curve = Curve(LATENTS)
        begun = invert(KEY, MODEL, IMAGES, start=curve, steps=1).objective[:, 0]
        assert begun.max() < 0.1
        assert begun.mean() < 0.1 * found.objective[:, 0].mean()

    def test_an_encoder_and_latents_start(self, found):
        for start in ("encoder", jnp.full((5, D), 3.0)):
            begun = invert(KEY, MODEL, IMAGES, start=start, pull=1e-4, steps=1)
            assert_allclose(begun.objective[:, 0], found.objective[:, 0], rtol=0.05)

    def test_it_ends_where_nothing_is_gained(self):
        told = []
        invert(
            KEY, MODEL, IMAGES, steps=100, learning_rate=1e-9,
            on_step=lambda done, of: told.append((done, of)),
        )  # fmt: skip
        assert told[-1] == (20, 100)

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"images": IMAGES[:, :8]}, "images have shape"),
            ({"start": "middle"}, 'expected "mean", "encoder", a curve or latents'),
            ({"start": jnp.zeros((2, D))}, "5 images start from latents of shape"),
            ({"start": jnp.zeros((5, L, D))}, "ask for layers=True"),
            ({"start": Curve(jnp.zeros((4, 3)))}, "the curve has 3 dimensions"),
            ({"steps": 0}, "steps is 0"),
            ({"pull": -1.0}, "pull -1"),
        ],
    )
    def test_what_is_wrong_is_told(self, change, told):
        with pytest.raises(ValueError, match=told):
            invert(KEY, MODEL, **{"images": IMAGES} | change)

    def test_without_an_encoder_that_is_told(self):
        class Blind(Spots):
            encode = property(lambda self: (_ for _ in ()).throw(AttributeError))

        with pytest.raises(ValueError, match="no encode"):
            invert(KEY, Blind(), IMAGES, start="encoder")

    def test_a_render_without_derivatives_is_told(self):
        class Called(Spots):
            def render(self, latents):
                image = jax.eval_shape(super().render, latents)
                return jax.pure_callback(lambda _: np.zeros(image.shape, "float32"), image, latents)

        with pytest.raises(ValueError, match="latents are found by derivatives, so the scorer"):
            invert(KEY, Called(), IMAGES)


class TestImageDistance:
    images = jax.random.uniform(KEY, (64, 16, 16, 3), minval=-1)

    def test_images_that_have_nothing_in_common_are_about_2_apart(self):
        points = ImageDistance.among(self.images)(self.images)
        apart = ((points[:32] - points[32:]) ** 2).sum(1)
        assert_allclose(apart.mean(), 2, rtol=0.1)

    def test_features_count_as_much_as_pixels(self):
        distance = ImageDistance.among(self.images, lambda x: x[:, :4, :4].reshape(len(x), -1))
        points = distance(self.images)
        assert_allclose(((points[:32] - points[32:]) ** 2).sum(1).mean(), 4, rtol=0.1)

    def test_finer_scales_are_left_out(self):
        distance = ImageDistance.among(self.images)
        assert distance(self.images).shape == (64, 3 * (256 + 64 + 16))
        assert distance.at_most(8)(self.images).shape == (64, 3 * (64 + 16))

    def test_scales_are_averages_of_squares(self):
        found = scales(self.images)
        assert [scale.shape[1] for scale in found] == [16, 8, 4]
        assert_allclose(found[2][0, 0, 0], self.images[0, :4, :4].mean((0, 1)), rtol=1e-5)

    def test_psnr_is_its_formula(self):
        noise = np.full((1, 2, 2, 1), 0.2, np.float32)
        assert_allclose(psnr(noise, np.zeros_like(noise)), 20, rtol=1e-5)


def test_whitened_coordinates_do_not_correlate_and_come_back():
    latents = MODEL.sample(KEY, 4096)
    space = Whitened.of(latents)
    coordinates = space.coordinates(latents)
    assert coordinates.shape == (4096, 3)
    assert_allclose(np.cov(coordinates, rowvar=False), np.eye(3), atol=1e-3)
    assert_allclose(space.latents(coordinates), latents, atol=1e-4)
