"""Trains the bundled BigGAN on Fashion-MNIST: 32x32, grayscale, one class asked for.

    python -m benchmarks.training.biggan DATA --seconds 3600  # starts, or goes on where it was
    python -m benchmarks.training.biggan DATA --export  # into ports/bundled/fashion_mnist_biggan

Adam sees weights of unit variance, as StyleGAN2's does, so that both are trained alike: weights are
multiplied by 1/sqrt(fan in) before use (equalised learning rate; Karras et al., 2018, §4.1) instead
of being divided by their spectral norm.
"""

import math

import jax
import jax.numpy as jnp

from benchmarks.training import gan
from benchmarks.training.discriminator import Discriminator
from ports.biggan import BigGANConfig, BlockConfig, init
from ports.biggan.network import GeneratorNetwork

CONFIG = BigGANConfig(
    z_dim=64,
    num_classes=10,
    embed_dim=32,
    blocks=(BlockConfig(128, 128, True), BlockConfig(128, 64, True), BlockConfig(64, 16, True)),
    bottleneck=False,
    hierarchy="full",
    img_channels=1,
)
STATISTICS_BATCHES = 50
STATISTICS_BATCH = 200


def initial(key: jax.Array) -> dict:
    variables = init(key, CONFIG).variables
    params = jax.tree.map(lambda w: w / _scale(w), variables["params"])
    return variables | {"params": params | {"embedding": variables["params"]["embedding"]}}


def generate(variables: dict, key: jax.Array, labels: jax.Array) -> jax.Array:
    """Images [N, 32, 32, 1] of random latents and labels [N]."""
    return _generate(_scaled(variables["params"]), key, labels)[0]


def finished(variables: dict) -> dict:
    """Weights multiplied once and for all, and the statistics of many batches."""
    params = _scaled(variables["params"])
    labels = jnp.arange(STATISTICS_BATCH) % CONFIG.num_classes
    keys = jax.random.split(jax.random.key(0), STATISTICS_BATCHES)
    batches = [jax.jit(_generate)(params, key, labels)[1] for key in keys]
    return {"params": params, "constants": _pooled(batches)}


def _generate(params: dict, key: jax.Array, labels: jax.Array) -> tuple[jax.Array, dict]:
    """Images normalised by the statistics of their batch, and these."""
    shape = (len(labels), CONFIG.num_zs)
    z = jax.random.normal(key, (len(labels), 1, CONFIG.z_dim))
    embeddings = params["embedding"]["weight"][labels][:, None]
    (images, _), sown = GeneratorNetwork(CONFIG).apply(
        {"params": params},
        jnp.broadcast_to(z, (*shape, CONFIG.z_dim)),
        jnp.broadcast_to(embeddings, (*shape, CONFIG.embed_dim)),
        None,
        mutable="statistics",
    )
    return images, sown["statistics"]


def _scaled(params: dict) -> dict:
    scaled = jax.tree.map(lambda w: w * _scale(w), params)
    return scaled | {"embedding": params["embedding"]}  # sees a single 1


def _scale(weight: jax.Array) -> float:
    """1/sqrt(fan in) of weights [..., in, out], 1 of biases and gains [out]."""
    return 1 / math.sqrt(math.prod(weight.shape[:-1]))


def _pooled(batches: list[dict]) -> dict:
    """Means and variances over all batches, [1, C] each."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)

    def pool(layer):
        if "mean" not in layer:
            return {name: pool(below) for name, below in layer.items()}
        (mean,), (var,) = layer["mean"], layer["var"]  # sown values come as tuples
        return {"mean": mean.mean(0)[None], "var": (var.mean(0) + mean.var(0))[None]}

    return pool(stacked)


RECIPE = gan.Recipe(
    architecture="biggan",
    bundled="fashion_mnist_biggan",
    config=CONFIG,
    initial=initial,
    generate=generate,
    finished=finished,
    discriminator=Discriminator((48, 96, 128), num_classes=CONFIG.num_classes, patch=2),
    class_weight=0.2,
)

if __name__ == "__main__":
    gan.main(RECIPE, __doc__.splitlines()[0])
