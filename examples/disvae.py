"""VAEs of faces, sprites and chairs from YannDubs/disentangling-vae, in Flax.

    git clone https://github.com/YannDubs/disentangling-vae
    export DISVAE=disentangling-vae/results
    sfvq-jax fit examples/disvae.py:VAE_celeba --bits 6 -o faces.npz
    sfvq-jax map examples/disvae.py:VAE_celeba faces.npz -o faces.png

Each folder of `results` with a model.pt of 64x64 pixels is a name here: VAE_celeba, btcvae_celeba,
VAE_dsprites, btcvae_dsprites, VAE_chairs and so on.
"""

import hashlib
import os
from pathlib import Path

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

import ports.containers


class Decoder(nn.Module):
    """Latents [N, D] -> images [N, 64, 64, C] in [-1, 1]."""

    channels: int

    @nn.compact
    def __call__(self, z):
        for name, width in (("lin1", 256), ("lin2", 256), ("lin3", 512)):
            z = nn.relu(nn.Dense(width, name=name)(z))
        x = z.reshape(-1, 32, 4, 4).transpose(0, 2, 3, 1)
        for name in ("convT_64", "convT1", "convT2"):
            x = nn.relu(_up(32, name)(x))
        return 2 * nn.sigmoid(_up(self.channels, "convT3")(x)) - 1


class Encoder(nn.Module):
    """Images [N, 64, 64, C] in [-1, 1] -> mean and log variance of their latents, [N, 2, D]."""

    latent_dim: int

    @nn.compact
    def __call__(self, images):
        x = (images + 1) / 2
        for name in ("conv1", "conv2", "conv3", "conv_64"):
            x = nn.relu(nn.Conv(32, (4, 4), 2, [(1, 1), (1, 1)], name=name)(x))
        x = x.transpose(0, 3, 1, 2).reshape(-1, 512)
        for name in ("lin1", "lin2"):
            x = nn.relu(nn.Dense(256, name=name)(x))
        x = nn.Dense(2 * self.latent_dim, name="mu_logvar_gen")(x)
        return x.reshape(-1, self.latent_dim, 2).swapaxes(1, 2)


def _up(features, name):
    return nn.ConvTranspose(features, (4, 4), (2, 2), transpose_kernel=True, name=name)


@flax.struct.dataclass
class DisVAE:
    """A `sfvq_jax.LatentModel`, with an encoder for `invert`."""

    params: dict
    latent_dim: int = flax.struct.field(pytree_node=False)
    channels: int = flax.struct.field(pytree_node=False)
    model_hash: str = flax.struct.field(pytree_node=False)

    num_layers, latent_space = 1, "disvae-z"

    def sample(self, key, n, *, label=None, truncation=None):
        scale = 1.0 if truncation is None else truncation
        return scale * jax.random.normal(key, (n, self.latent_dim))

    def render(self, latents):  # [N, D], or one code a layer, [N, 1, D]
        decoder = Decoder(self.channels)
        return decoder.apply(self.params["decoder"], latents.reshape(-1, self.latent_dim))

    def encode(self, images):
        return Encoder(self.latent_dim).apply(self.params["encoder"], images)[:, 0]


def load(file):
    """The VAE of a model.pt."""
    digest = hashlib.sha256()
    params = {"encoder": {"params": {}}, "decoder": {"params": {}}}
    for name, array in ports.containers.read(Path(file), digest).items():
        part, layer, kind = name.split(".")
        array = jnp.asarray(np.asarray(array, np.float32))
        if kind == "weight":  # [out, in], or [out, in, h, w], of transposed ones [in, out, h, w]
            kind, array = "kernel", array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)
        params[part]["params"].setdefault(layer, {})[kind] = array
    decoder = params["decoder"]["params"]
    latent_dim, channels = len(decoder["lin1"]["kernel"]), len(decoder["convT3"]["bias"])
    return DisVAE(params, latent_dim, channels, digest.hexdigest())


def __getattr__(name):
    file = Path(os.environ.get("DISVAE", "disentangling-vae/results")) / name / "model.pt"
    if name.startswith("_") or not file.is_file():
        raise AttributeError(f"{file}: there is no such file; DISVAE is the folder of results")
    return load(file)
