"""LatentCLR: directions learned by contrast.

Letters: N samples, D dimensions, M directions, F features.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sfvq_jax.interpret.attributes import small_pixels
from sfvq_jax.interpret.comparison.methods.method import COUNT, Fitted, draw_latents, in_all_ranges
from sfvq_jax.interpret.geometry import numpy_generator, onto_span, unit_rows
from sfvq_jax.latent_model import LatentModel, method
from sfvq_jax.memory import differentiable_rows, even_part

Array = jax.Array

LEAST_SQUARE = 1e-12  # added to squared lengths that may be zero


class Training(NamedTuple):
    """How LatentCLR went.

    Attributes:
      vectors: unit vectors, [M, D].
      losses: of every step, [steps] float32.
    """

    vectors: Array
    losses: np.ndarray


@dataclasses.dataclass(frozen=True)
class LatentCLR:
    """Global directions learnt by contrast (Yüksel et al., ICCV 2021, arXiv 2104.00820).

    A direction should change features in the same way from every start, and other directions should
    change them in other ways (`contrastive_loss`). Edits are in all layers. Features are the
    model's `features`, or its images at 16x16 pixels if it has none; they are differentiated.

    The paper trains all directions at once for thousands of steps. Here each step trains some of
    them, drawn at random, so that a CPU is enough. The learning rate is higher to match, and falls
    to 0 along a cosine.

    Attributes:
      count: number M of directions.
      steps: number of steps of Adam.
      batch: number of latents in a step, out of 4096 or more that are drawn.
      directions_a_step: number of directions drawn for each step, at most M.
      temperature: τ of the paper.
      strength: length of the edits, in root mean square deviations of a dimension of the latents.
      learning_rate: learning rate of the first step, in root mean squares of an entry of a unit
        vector.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import LatentCLR
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> method = LatentCLR(count=4, steps=2, directions_a_step=2, batch=2)
    >>> method.fit(jax.random.key(0), model).directions[0, 0].shape
    (4, 3)
    """

    count: int = COUNT
    steps: int = 800
    batch: int = 8
    directions_a_step: int = 16
    temperature: float = 0.5
    strength: float = 3.0
    learning_rate: float = 0.1

    name = "LatentCLR"

    def fit(self, key: Array, model: LatentModel) -> Fitted:
        return Fitted(in_all_ranges(self.train(key, model).vectors, model.num_layers))

    def train(self, key: Array, model: LatentModel) -> Training:
        """The directions and the losses on the way to them.

        Raises:
          ValueError: nothing to contrast, for less than two directions or latents in a step.
        """
        chosen = min(self.directions_a_step, self.count)
        if chosen < 2 or self.batch < 2:
            raise ValueError(
                f"{chosen} directions at {self.batch} latents a step leave nothing to contrast:"
                " take two or more of both"
            )
        features = jax.tree_util.Partial(_small_images, method(model, "render"))
        if hasattr(model, "features"):
            features = method(model, "features")
        init_key, sample_key, order_key = jax.random.split(key, 3)
        random = numpy_generator(order_key)
        latents = draw_latents(sample_key, model)
        length = np.float32(self.strength * math.sqrt(latents.var(0).mean()))
        # entries of mean square 1, so that one learning rate serves any width
        vectors = jax.random.normal(init_key, (self.count, model.latent_dim))
        projector = onto_span(latents)
        if projector is not None:  # directions in which latents do not differ are none
            projector = jnp.asarray(projector, jnp.float32)
            vectors = math.sqrt(model.latent_dim) * unit_rows(
                jnp.matmul(vectors, projector, precision="highest")
            )
        state = optax.scale_by_adam().init(vectors)
        losses, images = [], self.batch * (chosen + 1)
        room = differentiable_rows(features, (model.latent_dim,), images)
        at_once = even_part(images, room)
        for step in range(self.steps):  # singly, as scanned convolutions crawl on CPU
            rate = np.float32(self.learning_rate * (1 + math.cos(math.pi * step / self.steps)) / 2)
            start = latents[random.choice(len(latents), self.batch, replace=False)]
            rows = random.choice(self.count, chosen, replace=False)
            vectors, state, loss = _step(
                features, vectors, state, start, rows, length, self.temperature, rate, projector,
                at_once=at_once,
            )  # fmt: skip
            losses.append(loss)
        return Training(unit_rows(vectors), np.asarray(losses, np.float32))


def contrastive_loss(changes: Array, temperature: float | Array) -> Array:
    """The loss of LatentCLR, a scalar: 0 by chance, less where a direction's changes are alike.

    The mean over directions k and latents i of

      -log( mean_{j ≠ i} exp(s(h_i^k, h_j^k) / τ) / mean_{j, l ≠ k} exp(s(h_i^k, h_j^l) / τ) ),

    where h are the changes of features and s is the absolute cosine. The paper has sums, which
    differ from means by a constant; means and absolute values are those of the public code: a
    direction and its opposite are the same edit. That code multiplies by τ = 0.5; the division is
    the paper's.

    Args:
      changes: h, of M directions at N latents, [M, N, F].
      temperature: τ.
    """
    m, n, _ = changes.shape
    h = changes.reshape(m * n, -1)
    h = h * jax.lax.rsqrt(jnp.sum(h**2, 1, keepdims=True) + LEAST_SQUARE)
    similar = jnp.exp(jnp.abs(jnp.matmul(h, h.T, precision="highest")) / temperature)
    similar = similar.reshape(m, n, m, n)
    own = jnp.einsum("kikj->kij", similar)
    same = (own.sum(2) - jnp.einsum("kii->ki", own)) / (n - 1)
    other = (similar.sum((2, 3)) - own.sum(2)) / ((m - 1) * n)
    return -jnp.log(same / other).mean()


@functools.partial(jax.jit, static_argnames="at_once")
def _step(
    features: jax.tree_util.Partial,
    vectors: Array,
    state: optax.OptState,
    latents: Array,
    rows: Array,
    length: Array,
    temperature: Array,
    rate: Array,
    projector: Array | None,
    *,
    at_once: int,
) -> tuple[Array, optax.OptState, Array]:
    """One of Adam, for some rows [m] of the vectors [M, D] and latents [n, D]."""
    d = vectors.shape[1]

    def loss(vectors: Array) -> Array:
        chosen = vectors[rows]
        chosen = chosen * (length * jax.lax.rsqrt(jnp.sum(chosen**2, 1, keepdims=True)))
        edited = (latents[None] + chosen[:, None]).reshape(-1, d)
        found = _in_parts(features, jnp.concatenate([latents, edited]), at_once)
        n = latents.shape[0]
        changes = found[n:].reshape(len(rows), n, -1) - found[None, :n]
        return contrastive_loss(changes, temperature)

    value, gradient = jax.value_and_grad(loss)(vectors)
    with jax.numpy_dtype_promotion("standard"):  # Adam counts steps in integers
        updates, state = optax.scale_by_adam().update(gradient, state)
    vectors = jax.tree.map(lambda v, u: v - rate * u, vectors, updates)
    if projector is not None:
        vectors = jnp.matmul(vectors, projector, precision="highest")
    return vectors, state, value


def _in_parts(features: jax.tree_util.Partial, latents: Array, at_once: int) -> Array:
    """Features of latents [N, D], so many at once, for whose derivative others are computed again.

    A direction is contrasted with all others, while memory may have room for few images.
    """
    if at_once == len(latents):
        return features(latents)
    parts = latents.reshape(-1, at_once, latents.shape[1])
    found = jax.lax.map(jax.checkpoint(features), parts)
    return found.reshape(len(latents), -1)


def _small_images(render: jax.tree_util.Partial, latents: Array) -> Array:
    return small_pixels(render(latents))
