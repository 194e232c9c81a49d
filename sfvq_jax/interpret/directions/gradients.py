"""Exact derivatives of attributes by latents.

The derivative of an attribute along a direction in some layers is the inner product of its vector
with the attribute's gradient, summed over these layers. A gradient for each attribute and latent,
by reverse mode, so gives what a forward derivative for each of thousands of candidates would.

Letters: N latents, A attributes, L layers, D dimensions.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.images import batch_of, in_batches
from sfvq_jax.interpret.attributes import Scorer
from sfvq_jax.interpret.edit import codes_of
from sfvq_jax.interpret.work import DERIVATIVE
from sfvq_jax.latent_model import LatentModel, method
from sfvq_jax.memory import differentiable_rows

Array = jax.Array

GRADIENT_BATCH = 32
NOT_IN_JAX = (
    "{}, so the scorer that finds and the model's render must be written in JAX; a function of"
    " other arrays can judge"
)


def attribute_gradients(
    model: LatentModel,
    scorer: Scorer,
    latents: Array,
    *,
    batch: int | None = None,
    on_images: Callable[[int], Any] | None = None,
) -> np.ndarray:
    """Computes gradients of every attribute by every layer's code, [N, A, L, D] float32.

    Their unit is the unit of the attribute ÷ the unit of the latents.

    Args:
      model: the generator; its `render` must be differentiable.
      scorer: a scorer written in JAX.
      latents: latents, [N, D].
      batch: largest number of latents at once; by default up to 32, fewer if images are large or
        `memory_limit` has no room for them.
      on_images: called after each batch with the number of images that would take as long.

    Raises:
      ValueError: a scorer or `render` that JAX cannot trace.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import Scorer, attribute_gradients
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> colours = Scorer.of(lambda images: images.mean((1, 2)), ["red", "green", "blue"])
    >>> gradients = attribute_gradients(model, colours, jnp.zeros((2, 3)))
    >>> gradients.shape, gradients[0, :, 0].round(2).tolist()
    ((2, 3, 1, 3), [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    """
    render = method(model, "render")
    if batch is None:
        batch = derivatives_of(model, scorer, GRADIENT_BATCH)
    attributes = range(len(scorer.names))

    def gradients(part: Array) -> np.ndarray:
        codes, found = codes_of(part, model.num_layers), []
        for attribute in attributes:
            found.append(np.asarray(_gradient(render, scorer, codes, attribute)))
            if on_images is not None:
                on_images(DERIVATIVE * len(part))
        return np.stack(found, 1)

    check_differentiable(model, scorer, "directions are found by derivatives")
    return in_batches(gradients, latents, batch)


def check_differentiable(model: LatentModel, scorer: Callable[[Array], Array], why: str) -> None:
    """Raises ValueError where JAX knows no derivative of what is seen in the model's images."""
    codes = jax.ShapeDtypeStruct((1, model.num_layers, model.latent_dim), jnp.float32)
    try:
        jax.eval_shape(jax.grad(lambda codes: scorer(model.render(codes)).sum()), codes)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
        raise ValueError(NOT_IN_JAX.format(why)) from error
    except ValueError as error:
        if "callback" in str(error).lower():  # of `jax.pure_callback`, which has none
            raise ValueError(NOT_IN_JAX.format(why)) from error
        raise


def derivatives_of(model: LatentModel, scorer: Scorer, most: int) -> int:
    """How many latents to take a scorer's derivatives at, at once, up to `most`."""
    codes = (model.num_layers, model.latent_dim)
    return differentiable_rows(
        lambda codes: scorer(model.render(codes)), codes, batch_of(model, most)
    )


@jax.jit
def _gradient(
    render: jax.tree_util.Partial, scorer: Scorer, codes: Array, attribute: Array
) -> Array:
    """Of one attribute, so that one compiled program serves all and little is kept in memory."""
    return jax.grad(lambda codes: scorer(render(codes))[:, attribute].sum())(codes)
