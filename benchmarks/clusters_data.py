"""What `benchmarks.clusters` fits: clusters and clouds, whose samples are drawn by seed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import ports
from benchmarks.labels import in_coordinates
from benchmarks.published import noisy_points
from benchmarks.tradeoff import GAUSSIAN_DIM, spiral
from ports.biggan import BigGAN
from sfvq_jax import Curve, LatentModel, load_curve

Array = jax.Array
Classes = Callable[[np.ndarray], np.ndarray]

FRESH = 2**14  # to measure with
DRAWN_AT_ONCE = 2**13
SAMPLES = {  # to fit to
    "BigGAN linear": 2**15,
    "moderate clusters": 2**14,
    "far clusters": 2**14,
    "noisy clusters": 2**15,
    "W": 2**16,
    "CIFAR10-10": 2**15,
    "AFHQ-8": 2**15,
    "Gaussian": 2**15,
    "spiral": 2**14,
    "digits": None,  # all
}
BOOKS = {"CIFAR10-10": ("CIFAR10", (4, 6, 8)), "AFHQ-8": ("AFHQ", (4, 6))}
CLUSTERS, CLUSTER_RANK, CLUSTER_DIM = 10, 8, 256
NOISY_CLUSTERS, NOISY_DIM = 40, 64


class Data(NamedTuple):
    """What is fitted.

    Attributes:
      samples: of a seed, [N, D].
      fresh: samples to measure with, [M, D].
      classes: of points, [K, D] -> [K], or None.
      books: published codebooks, by their bits.
    """

    samples: Callable[[int], Array]
    fresh: Array
    classes: Classes | None = None
    books: dict[int, Curve] = {}  # noqa: RUF012


def data_set(name: str, folder: Path | None, quick: bool = False) -> Data:
    """One of the kinds of data in SAMPLES."""
    if name == "digits":
        return digits()
    sampler, classes, books = sampler_of(name, folder)
    sample = jax.jit(sampler, static_argnums=1)
    count = SAMPLES[name] // (8 if quick else 1)

    def draw(seed: int, count: int) -> Array:
        """In pieces, since a model's latents are wider on the way."""
        keys = jax.random.split(jax.random.key(seed), -(-count // DRAWN_AT_ONCE))
        return jnp.concatenate([sample(key, DRAWN_AT_ONCE) for key in keys])[:count]

    return Data(lambda seed: draw(seed, count), draw(2**31 - 1, FRESH), classes, books)


def sampler_of(
    name: str, folder: Path | None
) -> tuple[Callable[[Array, int], Array], Classes | None, dict[int, Curve]]:
    """(key, n) -> [n, D], classes of points where there are any, published codebooks by bits."""
    if name in ("BigGAN linear", "W"):
        model = generator(name)
        return model.sample, pictured_classes(model), {}
    if name in BOOKS:
        assert folder is not None
        prefix, bits = BOOKS[name]
        books = {b: load_curve(folder / f"{prefix}-{b}.npy").curve for b in bits}
        return noisy_points(load_curve(folder / f"{name}.npy").curve), None, books
    samplers = {
        "moderate clusters": clusters(4.0),
        "far clusters": clusters(20.0),
        "noisy clusters": noisy_clusters,
        "Gaussian": lambda key, n: jax.random.normal(key, (n, GAUSSIAN_DIM)),
        "spiral": spiral,
    }
    return samplers[name], None, {}


def generator(name: str) -> LatentModel:
    if name == "W":
        return ports.load(ports.bundled("fashion_mnist"))  # type: ignore
    biggan = ports.load(ports.bundled("fashion_mnist_biggan"))
    assert isinstance(biggan, BigGAN)
    return in_coordinates(biggan.space("linear"))


def pictured_classes(model: LatentModel) -> Classes:
    """The bundled classifier's, of the pictures of latents."""
    judge: Any = ports.load(ports.bundled("fashion_mnist_classifier"))
    return lambda points: np.asarray(judge(model.render(jnp.asarray(points)))[0].argmax(1))


def noisy_clusters(key: Array, n: int) -> Array:
    """Forty Gaussian clusters with unit noise in all dimensions, as embeddings of classes are."""
    centres = 2 * np.random.default_rng(7).standard_normal((NOISY_CLUSTERS, NOISY_DIM))
    key, cluster_key = jax.random.split(key)
    which = jax.random.randint(cluster_key, (n,), 0, NOISY_CLUSTERS)
    return jnp.asarray(centres, jnp.float32)[which] + jax.random.normal(key, (n, NOISY_DIM))


def clusters(distance: float) -> Callable[[Array, int], Array]:
    """A sampler of ten flat Gaussian clusters in 256 dimensions, in coordinates of their span."""
    random = np.random.default_rng(0)
    shapes = (CLUSTERS, CLUSTER_DIM), (CLUSTERS * CLUSTER_RANK, CLUSTER_DIM)
    centres, axes = (random.standard_normal(shape) / CLUSTER_DIM**0.5 for shape in shapes)
    # rows of Rᵀ have the lengths and angles of the rows of what is decomposed
    frame = jnp.asarray(np.linalg.qr(np.concatenate([distance * centres, axes]).T)[1].T, "float32")

    def sample(key: Array, n: int) -> Array:
        key, cluster_key = jax.random.split(key)
        one_hot = jax.nn.one_hot(jax.random.randint(cluster_key, (n,), 0, CLUSTERS), CLUSTERS)
        along = one_hot[:, :, None] * jax.random.normal(key, (n, 1, CLUSTER_RANK))
        coefficients = jnp.concatenate([one_hot, along.reshape(n, -1)], 1)
        return jnp.matmul(coefficients, frame, precision="highest")

    return sample


def digits() -> Data:
    """Pictures of digits, [1797, 64]; points have the class of the nearest."""
    pictures, labels = load_digits(return_X_y=True)
    pictures = np.float32(pictures)

    def classes(points: np.ndarray) -> np.ndarray:
        return labels[[((pictures - point) ** 2).sum(1).argmin() for point in points]]

    return Data(lambda seed: jnp.asarray(pictures), jnp.asarray(pictures), classes)
