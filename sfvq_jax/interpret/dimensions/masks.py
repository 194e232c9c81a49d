"""Signed masks over coordinates, optimised for their joint effect on a concept.

Ours, and the one of the public code of Li, Tao, Niu and Li (ICPR 2020, arXiv 2006.10132).

Letters: N latents, D dimensions, M coordinates.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sfvq_jax.interpret.attributes import Scorer, probability
from sfvq_jax.interpret.attributes.scorer import LOG_ODDS_LIMIT
from sfvq_jax.interpret.dimensions.coordinates import Coordinates, How, check_how, intervene
from sfvq_jax.interpret.dimensions.importance import EXTREME, Ranking
from sfvq_jax.interpret.directions.gradients import derivatives_of
from sfvq_jax.latent_model import LatentModel, method
from sfvq_jax.memory import even_part

Array = jax.Array

ADAM = optax.scale_by_adam()
START = 0.5  # of v, where s = tanh(v)
PENALTY = 0.2


def optimise_mask(
    key: Array,
    model: LatentModel,
    concepts: Scorer,
    latents: Array,
    coordinates: Coordinates,
    concept: int,
    signs: np.ndarray,
    *,
    extreme: float = EXTREME,
    how: How = "shift",
    penalty: float = PENALTY,
    steps: int = 40,
    batch: int = 8,
    learning_rate: float = 0.1,
) -> np.ndarray:
    """Optimises a signed mask s over the coordinates, [M] in (-1, 1), for its joint effect.

    With s = tanh(v), the loss over batches of latents is -mean(score) ÷ 12 + penalty · ‖s‖₂. The
    score is the concept's log-odds, limited to ±6, after `intervene` moved every coordinate by its
    s. (The published loss uses the probability. Its derivative vanishes if the concept is far away,
    and the penalty would win.) Adam minimises the loss, with a learning rate that falls to 0 along
    a cosine. If a concept is far away, few latents have a derivative, and rounding decides: another
    machine, or number of threads, gives another mask for the same key.

    Args:
      key: a PRNG key for the batches.
      model, concepts, latents, coordinates, extreme, how: see `intervene` and
        `intervention_effects`.
      concept: column of the concept to raise.
      signs: signs of the coordinates' own effects, [M]; v starts at ±0.5 with these signs.
      penalty: weight of the length, 0.2 in the authors' public code.
      steps, batch, learning_rate: settings of the optimisation.

    Returns:
      The mask s, float32 [M].

    Raises:
      ValueError: an unknown `how`.

    Source: after Li, Tao, Niu and Li (ICPR 2020, arXiv 2006.10132).

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from sfvq_jax.interpret import class_scorer, latent_axes, optimise_mask
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> classes = class_scorer(lambda images: 4 * images.mean((1, 2)), ["red", "green", "blue"])
    >>> latents = model.sample(jax.random.key(0), 4)
    >>> axes = latent_axes(model.sample(jax.random.key(1), 64))
    >>> signs = np.array([1, 1, 1])
    >>> mask = optimise_mask(jax.random.key(2), model, classes, latents, axes, 0, signs)
    >>> print(np.sign(mask))  # red up, the others down
    [ 1. -1. -1.]
    """
    check_how(how)
    v = jnp.asarray(START * np.asarray(signs), jnp.float32)
    state, latents = ADAM.init(v), jnp.asarray(latents)
    room = derivatives_of(model, concepts, batch)
    at_once = even_part(batch, room)
    step = functools.partial(
        _mask_step, method(model, "render"), concepts, coordinates, how=how, at_once=at_once
    )
    for i, step_key in enumerate(jax.random.split(key, steps)):
        rows = jax.random.randint(step_key, (batch,), 0, len(latents))
        rate = learning_rate * 0.5 * (1 + np.cos(np.pi * i / steps))
        v, state = step(latents[rows], concept, extreme, penalty, float(rate), v, state)
    return np.asarray(jnp.tanh(v))


@functools.partial(jax.jit, static_argnames=("how", "at_once"))
def _mask_step(
    render: jax.tree_util.Partial,
    concepts: Scorer,
    coordinates: Coordinates,
    latents: Array,
    concept: Array,
    extreme: Array,
    penalty: Array,
    rate: Array,
    v: Array,
    state: optax.OptState,
    *,
    how: How,
    at_once: int,
) -> tuple[Array, optax.OptState]:
    def loss(v: Array, latents: Array) -> Array:
        s = jnp.tanh(v)
        signed = jnp.broadcast_to(s[None], (latents.shape[0], s.shape[0]))
        moved = intervene(latents, coordinates, signed, extreme, how)
        raised = concepts(render(moved))[:, concept].mean() / (2 * LOG_ODDS_LIMIT)
        return penalty * _length(s) - raised

    if at_once == len(latents):
        gradient = jax.grad(loss)(v, latents)
    else:  # in parts that memory has room for
        parts = latents.reshape(-1, at_once, latents.shape[1])
        gradient = jax.lax.map(lambda part: jax.grad(loss)(v, part), parts).mean(0)
    with jax.numpy_dtype_promotion("standard"):  # of optax's counts
        update, state = ADAM.update(gradient, state)
    return optax.apply_updates(v, jax.tree.map(lambda u: -rate * u, update)), state  # type: ignore


def _length(s: Array) -> Array:
    """‖s‖₂, with a derivative at 0."""
    return jnp.sqrt((s**2).sum() + 1e-12)


def mask_ranking(mask: np.ndarray) -> Ranking:
    """Ranks coordinates by the size of a mask's entries, [M].

    >>> mask_ranking(np.array([0.1, -0.9, 0.0])).order.tolist()
    [1, 0, 2]
    """
    order = np.argsort(-np.abs(mask), kind="stable")
    return Ranking(order, np.where(mask[order] >= 0, 1, -1), np.abs(mask[order]))


def published_mask(
    model: LatentModel,
    concepts: Scorer,
    latents: Array,
    concept: int,
    *,
    strength: float = 10.0,
    penalty: float = PENALTY,
    learning_rate: float = 0.05,
) -> np.ndarray:
    """Optimises a mask s = tanh(v), [D] in (-1, 1), as the authors' public code does.

    Each latent z, in order, makes one plain gradient step on
    -max(|p(z₋) - p(z)|, |p(z₊) - p(z)|) + penalty · ‖s‖₂. Here p is the probability of the concept,
    z∓ = z · (1 ∓ strength · mean(z) · s), and mean(z) is over the dimensions of this z. v starts at
    0.5. In the paper, z has 100 dimensions, and the latents are 7,000 of the source class.

    The loss is the same for s and -s, so the sign of the whole mask is that of its start, wherever
    the concept lies.

    Args:
      model: the generator; its `render` must be differentiable.
      concepts: scorer of log-odds of concepts, written in JAX.
      latents: latents z, [N, D]; each makes one step.
      concept: column of the concept.
      strength: strength of the move, without a unit.
      penalty: weight of the length.
      learning_rate: learning rate of the steps.

    Returns:
      The mask s, float32 [D].

    Source: the public code of Li, Tao, Niu and Li (ICPR 2020, arXiv 2006.10132).

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import class_scorer, published_mask
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> classes = class_scorer(lambda images: 4 * images.mean((1, 2)), ["red", "green", "blue"])
    >>> mask = published_mask(model, classes, model.sample(jax.random.key(0), 200), 0)
    >>> mask.shape, int(abs(mask).argmax())
    ((3,), 0)
    """
    render, latents = method(model, "render"), jnp.asarray(latents)
    v = jnp.full(latents.shape[1], START, jnp.float32)
    for z in latents:
        gradient = _published_gradient(v, render, concepts, z, concept, strength, penalty)
        v = v - jnp.float32(learning_rate) * gradient
    return np.asarray(jnp.tanh(v))


@jax.jit
def _published_gradient(
    v: Array,
    render: jax.tree_util.Partial,
    concepts: Scorer,
    z: Array,
    concept: Array,
    strength: Array,
    penalty: Array,
) -> Array:
    def loss(v: Array) -> Array:
        s = jnp.tanh(v)
        move = strength * z.mean() * s
        p = probability(concepts(render(jnp.stack([z, z * (1 - move), z * (1 + move)]))))
        change = jnp.abs(p[1:, concept] - p[0, concept]).max()
        return penalty * _length(s) - change

    return jax.grad(loss)(v)
