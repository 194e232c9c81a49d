"""Trains a VAE on Fashion-MNIST, to show what the maps are like of a model that is no GAN.

    python -m benchmarks.training.vae DATA    # into runs/vae/vae.npz

The likelihood is Gaussian with the same deviation for all pixels, about the error that is reached
(Rybkin et al., 2021, "Simple and Effective VAE Training with Calibrated Decoders"). That is a
beta-VAE (Higgins et al., 2017) of squared error + beta · KL with beta = 2 · 0.2² = 0.08: crisp
enough to tell garments apart, without their patterns. Halfway between unlike garments, and where
the prior has mass but no image is encoded, it decodes to shapes that are no garments.
"""

import argparse
import math
import time
from pathlib import Path

import flax.linen as nn
import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax

import ports
from benchmarks.training.data import load_fashion_mnist, to_float
from ports.checkpoint import parameters_sha256
from sfvq_jax.io.output import check_free, new_file

Array = jax.Array

LATENT_DIM = 16
DEVIATION = 0.2  # of the likelihood, with pixels in [-1, 1]
BATCH = 128
STEPS = 4000
LEARNING_RATE = 2e-3  # at the start; it falls to 0 along a cosine
ENCODED = 1000  # images at once
SEED = 0


class Encoder(nn.Module):
    """Images [N, 32, 32, 1] in [-1, 1] -> means and log-variances [N, D]."""

    @nn.compact
    def __call__(self, images: Array) -> tuple[Array, Array]:
        n, h, w, _ = images.shape
        # squares of 2 x 2 pixels as channels: few wide convolutions are fast on CPU
        x = images.reshape(n, h // 2, 2, w // 2, 2).transpose(0, 1, 3, 2, 4)
        x = x.reshape(n, h // 2, w // 2, 4)
        for i, channels in enumerate((32, 64)):
            x = nn.relu(nn.Conv(channels, (3, 3), name=f"conv{i}")(x))
            n, h, w, c = x.shape
            x = x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))
        x = nn.relu(nn.Conv(64, (3, 3), name="conv2")(x))
        x = nn.relu(nn.Dense(128, name="dense")(x.reshape(n, -1)))
        return nn.Dense(LATENT_DIM, name="mean")(x), nn.Dense(LATENT_DIM, name="log_variance")(x)


class Decoder(nn.Module):
    """Latents [N, D] -> images [N, 32, 32, 1] in [-1, 1]."""

    @nn.compact
    def __call__(self, latents: Array) -> Array:
        n = latents.shape[0]
        x = nn.relu(nn.Dense(128, name="dense0")(latents))
        x = nn.relu(nn.Dense(4 * 4 * 64, name="dense1")(x)).reshape(n, 4, 4, 64)
        for i, channels in enumerate((64, 32)):
            # nearest neighbours, as a broadcast: transposed convolutions are slow on CPU
            x = x.repeat(2, 1).repeat(2, 2)
            x = nn.relu(nn.Conv(channels, (3, 3), name=f"conv{i}")(x))
        x = jnp.tanh(nn.Conv(4, (3, 3), name="conv2")(x))  # squares of 2 x 2 pixels as channels
        return x.reshape(n, 16, 16, 2, 2).transpose(0, 1, 3, 2, 4).reshape(n, 32, 32, 1)


@flax.struct.dataclass
class VAE:
    """A trained VAE: a `sfvq_jax.LatentModel` and a pytree.

    Attributes:
      params: {"encoder": …, "decoder": …}.
      means: of the encodings of the N training images, [N, D].
      log_variances: of the encodings, [N, D].
      model_hash: SHA-256 of the parameters.
    """

    params: dict
    means: Array
    log_variances: Array
    model_hash: str = flax.struct.field(pytree_node=False)

    latent_space = "vae-z"
    latent_dim = LATENT_DIM
    num_layers = 1

    def sample(
        self,
        key: Array,
        n: int,
        *,
        label: int | Array | None = None,
        truncation: float | None = None,
    ) -> Array:
        """Draws from the aggregate posterior, [n, D]: where the decoder has seen latents.

        A random training image's mean plus its deviation times noise. Not from the prior, which
        has mass where no image is encoded.

        Args:
          key: of the draw.
          n: how many.
          label: must be None: the model knows no classes.
          truncation: moves latents towards the mean of all encodings, 0 all the way.

        Raises:
          ValueError: a label.
        """
        if label is not None:
            raise ValueError("this VAE knows no classes: it takes no label")
        row_key, noise_key = jax.random.split(key)
        rows = jax.random.randint(row_key, (n,), 0, len(self.means))
        noise = jax.random.normal(noise_key, (n, LATENT_DIM))
        latents = self.means[rows] + jnp.exp(self.log_variances[rows] / 2) * noise
        if truncation is None:
            return latents
        centre = self.means.mean(0)[None]
        return centre + truncation * (latents - centre)

    @jax.jit
    def render(self, latents: Array) -> Array:
        """Images [N, 32, 32, 1], float32 in [-1, 1], of latents [N, D] or [N, 1, D]."""
        return _decode(self.params, latents.reshape(-1, LATENT_DIM))

    @jax.jit
    def encode(self, images: Array) -> tuple[Array, Array]:
        """Means and log-variances [N, D] of images [N, 32, 32, 1] in [-1, 1]."""
        return _encode(self.params, images)


def save_vae(path: str | Path, model: VAE, *, overwrite: bool = False) -> None:
    """Writes a VAE into one .npz; FileExistsError where there is a file and not `overwrite`."""
    tree = {"params": model.params, "means": model.means, "log_variances": model.log_variances}
    arrays = flax.traverse_util.flatten_dict(tree, sep="/")
    with new_file(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **jax.tree.map(np.asarray, arrays))


def load_vae(path: str | Path) -> VAE:
    """Reads what `save_vae` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        tree = flax.traverse_util.unflatten_dict(dict(stored), sep="/")
    digest = parameters_sha256(tree["params"])
    return VAE(**jax.tree.map(jnp.asarray, tree), model_hash=digest)


OPTIMISER = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, STEPS))


def train(images: np.ndarray) -> VAE:
    """Adam on uint8 images [N, 32, 32, 1].

    Steps are dispatched one by one because convolutions inside `lax.scan` crawl on CPU.
    """
    key = jax.random.key(SEED)
    params = {
        "encoder": Encoder().init(key, jnp.zeros((1, 32, 32, 1)))["params"],
        "decoder": Decoder().init(key, jnp.zeros((1, LATENT_DIM)))["params"],
    }
    state = OPTIMISER.init(params)
    rng = np.random.default_rng(SEED)
    start = time.monotonic()
    for step in range(STEPS):
        rows = rng.integers(0, len(images), BATCH)
        step_key = jax.random.fold_in(key, step)
        params, state, parts = _step(params, state, step_key, to_float(images[rows]))
        if step % 200 == 0:
            print(f"step {step} of {STEPS}: {_described(parts)}", flush=True)
    print(f"{time.monotonic() - start:.0f} s")
    encode = jax.jit(_encode)
    batches = range(0, len(images), ENCODED)
    encoded = [encode(params, to_float(images[i : i + ENCODED])) for i in batches]
    means, log_variances = (jnp.concatenate(parts) for parts in zip(*encoded, strict=True))
    digest = parameters_sha256(jax.tree.map(np.asarray, params))
    return VAE(params, means, log_variances, digest)


@jax.jit
def _step(params, state, key, images):
    def loss(params):
        parts = elbo_parts(params, key, images)
        return parts["KL"] - parts["log-likelihood"], parts

    gradient, parts = jax.grad(loss, has_aux=True)(params)
    updates, state = OPTIMISER.update(gradient, state)
    return optax.apply_updates(params, updates), state, parts


def elbo_parts(params: dict, key: Array, images: Array) -> dict[str, Array]:
    """Squared error a pixel; log-likelihood and KL in nats an image, their difference the ELBO."""
    means, log_variances = _encode(params, images)
    latents = means + jnp.exp(log_variances / 2) * jax.random.normal(key, means.shape)
    error = ((_decode(params, latents) - images) ** 2).mean()
    pixels = math.prod(images.shape[1:])
    constant = math.log(2 * math.pi * DEVIATION**2)
    divergence = (means**2 + jnp.exp(log_variances) - 1 - log_variances).sum(1).mean() / 2
    return {
        "squared error": error,
        "log-likelihood": -pixels / 2 * (error / DEVIATION**2 + constant),
        "KL": divergence,
    }


def _encode(params: dict, images: Array) -> tuple[Array, Array]:
    return Encoder().apply({"params": params["encoder"]}, images)


def _decode(params: dict, latents: Array) -> Array:
    return Decoder().apply({"params": params["decoder"]}, latents)


def judge(model: VAE, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """What is left of test images after encoding and decoding; of images as `elbo_parts`."""
    classifier = ports.load(ports.bundled("fashion_mnist_classifier"))
    assert isinstance(classifier, ports.Classifier)
    parts = jax.jit(elbo_parts)
    rows = []
    for i in range(0, len(images), ENCODED):
        x = to_float(images[i : i + ENCODED])
        reconstructed = model.render(model.encode(x)[0])
        before, after = (classifier(y)[0].argmax(1) for y in (x, reconstructed))
        rows.append(
            parts(model.params, jax.random.key(i), x)
            | {
                "squared error of the mean encoding": ((reconstructed - x) ** 2).mean(),
                "same class as before": (before == after).mean(),
                "right class before": (before == labels[i : i + ENCODED]).mean(),
                "right class": (after == labels[i : i + ENCODED]).mean(),
            }
        )
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _described(parts: dict) -> str:
    return ", ".join(f"{name} {float(value):.4g}" for name, value in parts.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--out", type=Path, default=Path("runs/vae/vae.npz"))
    parser.add_argument("--overwrite", action="store_true")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    check_free(arguments.out, overwrite=arguments.overwrite)
    images, _ = load_fashion_mnist(arguments.data, "train")
    model = train(images)
    save_vae(arguments.out, model, overwrite=arguments.overwrite)
    print(
        f"on test images: {_described(judge(model, *load_fashion_mnist(arguments.data, 'test')))}"
    )
    print(f"model hash {model.model_hash}")


if __name__ == "__main__":
    main()
