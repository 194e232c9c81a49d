"""What lies in a model's distribution: its own images do, and what it never makes does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import ports
from sfvq_jax.images import render_images
from sfvq_jax.interpret import Inside, load_scorers, small_pixels

BANK, HELD_OUT, FRESH = 1024, 512, 400


@pytest.fixture(scope="module")
def images():
    model = ports.load(ports.bundled("fashion_mnist"))
    latents = model.sample(jax.random.key(0), BANK + HELD_OUT + FRESH)
    return np.asarray(render_images(model, latents, batch=64), np.float32) / 127.5 - 1


@pytest.fixture(scope="module")
def share_inside(images):
    scorers = load_scorers(ports.BUNDLED / "fashion_mnist_scorers.npz")
    kinds = [jax.jit(small_pixels), scorers.judge.features]

    def seen(some):
        return [np.asarray(kind(jnp.asarray(some, jnp.float32))) for kind in kinds]

    inside = Inside(seen(images[:BANK]), seen(images[BANK : BANK + HELD_OUT]))
    return lambda some: inside(seen(some)).mean()


def scribbles(n):
    random = np.random.default_rng(0)
    lines = np.zeros((n, 32, 32))
    for image in lines:
        for _ in range(random.integers(3, 9)):
            turns = np.cumsum(random.normal(0, 0.5, 30)) + random.uniform(0, 6)
            path = random.uniform(4, 28, 2)[:, None] + np.cumsum([np.cos(turns), np.sin(turns)], 1)
            image[tuple(np.clip(path, 0, 31).astype(int))] = random.uniform(0.5, 1)
    return 2 * ndimage.grey_dilation(lines, (1, 2, 2))[..., None] - 1


def test_few_of_its_own_images_are_false_alarms(images, share_inside):
    assert 0.91 < share_inside(images[-FRESH:]) < 0.99


@pytest.mark.parametrize(
    ("name", "most"),
    [("noise", 0.02), ("scribbles", 0.02), ("over-bright", 0.02), ("dim", 0.6), ("black", 0)],
)
def test_what_it_never_makes_is_outside(images, share_inside, name, most):
    own = images[-FRESH:]
    odd = {
        "noise": lambda: np.random.default_rng(0).uniform(-1, 1, own.shape),
        "scribbles": lambda: scribbles(200),
        "over-bright": lambda: np.clip(own + 0.5, -1, 1),
        "black": lambda: np.full_like(own[:4], -1),
        "dim": lambda: (own + 1) / 4 - 1,
    }
    assert share_inside(odd[name]()) <= most


def test_kinds_share_the_false_alarms():
    random = np.random.default_rng(0)
    kinds = [random.normal(size=(3000, 4)) for _ in range(3)]
    inside = Inside([k[:1000] for k in kinds], [k[1000:2000] for k in kinds])
    assert 0.92 < inside([k[2000:] for k in kinds]).mean() < 0.98
    far = [k[2000:].copy() for k in kinds]
    far[1] += 100  # by one kind alone
    assert not inside(far).any()


def test_a_bank_of_one_image_many_times_holds_that_alone():
    one = np.ones((8, 3), np.float32)
    inside = Inside([one], [one])
    assert inside([one]).all()
    assert not inside([one + 1]).any()
