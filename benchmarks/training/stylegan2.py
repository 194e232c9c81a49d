"""Trains the bundled StyleGAN2 on Fashion-MNIST: 32x32, grayscale, unconditional.

    python -m benchmarks.training.stylegan2 DATA --seconds 7200  # starts, or goes on where it was
    python -m benchmarks.training.stylegan2 DATA --export        # into ports/bundled/fashion_mnist

Losses, loop and discriminator are those of `gan.py`.
"""

import jax

from benchmarks.training import gan
from benchmarks.training.discriminator import Discriminator
from ports.stylegan2 import StyleGAN2, StyleGAN2Config, init

CONFIG = StyleGAN2Config(
    z_dim=64,
    c_dim=0,
    w_dim=64,
    img_resolution=32,
    img_channels=1,
    mapping_layers=4,
    embed_features=0,
    layer_features=64,
    channels=(128, 128, 64, 32),
)


def initial(key: jax.Array) -> dict:
    return init(key, CONFIG).variables


def generate(variables: dict, key: jax.Array, labels: jax.Array) -> jax.Array:
    """Images [N, 32, 32, 1] of as many latents as labels, which are not looked at."""
    z_key, noise_key = jax.random.split(key)
    model = StyleGAN2(variables, CONFIG)
    z = jax.random.normal(z_key, (len(labels), CONFIG.z_dim))
    return model.synthesis(model.mapping(z), "random", key=noise_key)


def finished(variables: dict) -> dict:
    """With the mean of W over 2**16 latents."""
    w_avg = StyleGAN2(variables, CONFIG).sample(jax.random.key(0), 2**16).mean(0)
    return variables | {"constants": variables["constants"] | {"mapping": {"w_avg": w_avg}}}


RECIPE = gan.Recipe(
    architecture="stylegan2",
    bundled="fashion_mnist",
    config=CONFIG,
    initial=initial,
    generate=generate,
    finished=finished,
    discriminator=Discriminator(CONFIG.channels[::-1]),
)

if __name__ == "__main__":
    gan.main(RECIPE, __doc__.splitlines()[0])
