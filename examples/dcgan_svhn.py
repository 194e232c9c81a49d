"""The original DCGAN's generator of house numbers (Radford et al., 2016), from its Theano arrays.

git clone https://github.com/Newmu/dcgan_code
export DCGAN_SVHN=FOLDER  # where gen_01.npy to gen_10.npy are
sfvq-jax fit examples/dcgan_svhn.py:model --bits 6 -o numbers.npz
sfvq-jax map examples/dcgan_svhn.py:model numbers.npz -o numbers.png
"""

import hashlib
import os
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

EPSILON = 1e-8
FIXED = 512  # latents, whose statistics stand for those of the batch that an image was made in


@flax.struct.dataclass
class DCGAN:
    """A `sfvq_jax.LatentModel`; `layers` are kernel, scale and shift, the last a kernel alone.

    Nearly all latents of 100 dimensions lie about as far from the origin, and their means do not:
    codewords would all be the same gray. So `render` takes of each latent its place on the sphere.
    """

    layers: list
    model_hash: str = flax.struct.field(pytree_node=False)

    latent_dim, num_layers, latent_space = 100, 1, "dcgan-z-sphere"

    def sample(self, key, n, *, label=None, truncation=None):
        scale = 1.0 if truncation is None else truncation
        return scale * jax.random.normal(key, (n, self.latent_dim))

    def render(self, latents):  # [N, D], or one code a layer, [N, 1, D]
        x = on_sphere(latents.reshape(-1, self.latent_dim))
        for kernel, scale, shift in self.layers[:-1]:
            x = jax.nn.relu(linear(x, kernel) * scale + shift)
        return jnp.tanh(linear(x, self.layers[-1][0]))


def on_sphere(latents):
    lengths = jnp.linalg.norm(latents, axis=1, keepdims=True)
    return latents * latents.shape[1] ** 0.5 / jnp.maximum(lengths, 1e-6)


def linear(x, kernel):
    """A product, or a transposed convolution of stride 2 by a kernel [in, out, h, w].

    Of NHWC images, twice as large. Theano's convolutions turn the kernel around, and so does a
    transposed one: here it lies as it is.
    """
    if kernel.ndim == 2:
        return x @ kernel
    x = x.reshape(-1, 256, 4, 4).transpose(0, 2, 3, 1) if x.ndim == 2 else x
    return lax.conv_general_dilated(
        x, kernel, (1, 1), [(2, 3), (2, 3)], lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "IOHW", "NHWC"),
    )  # fmt: skip


def model():
    """The generator, with the statistics of one large batch in its norms.

    It was trained with those of each batch and has none of its own; with fixed ones an image does
    not depend on what is rendered beside it.
    """
    folder = Path(os.environ.get("DCGAN_SVHN", "dcgan_svhn"))
    files = [folder / f"gen_{number:02d}.npy" for number in range(1, 11)]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    first, *rest = (jnp.asarray(np.load(file)) for file in files)
    kernels, gains, biases = [first, *rest[2::3]], rest[::3], rest[1::3]
    x, layers = on_sphere(jax.random.normal(jax.random.key(0), (FIXED, len(first)))), []
    for kernel, gain, bias in zip(kernels, gains, biases, strict=False):
        x = linear(x, kernel)
        axes = tuple(range(x.ndim - 1))
        scale = gain.reshape(x.shape[-1:]) * lax.rsqrt(x.var(axes) + EPSILON)
        norm = [jnp.expand_dims(part, axes) for part in (scale, bias - x.mean(axes) * scale)]
        layers.append((kernel, *norm))
        x = jax.nn.relu(x * norm[0] + norm[1])
    return DCGAN([*layers, (kernels[-1],)], digest)
