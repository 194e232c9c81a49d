"""Edits: moving latents along directions, each in layers of its own."""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.curve import Curve
from sfvq_jax.images import render_images
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.short import short_repr

Array = jax.Array

LEAST_REST = 0.05  # of a direction's length, that must be left when attributes are held
LEAST_DEVIATION = 1e-5  # of the greatest one of a dimension; less is rounding


@flax.struct.dataclass
class Direction:
    """A direction of edits: a unit vector, a range of layers, and the length of strength 1.

    Attributes:
      vector: vector of length 1 in latent space, [D].
      layers: first and last layer that it moves, both included, counted from 0.
      unit: length in latent space of strength 1: one standard deviation of the latents along the
        vector, measured by `along`.
    """

    vector: Array
    layers: tuple[int, int] = flax.struct.field(pytree_node=False)
    unit: float = flax.struct.field(pytree_node=False)

    __repr__ = short_repr

    @classmethod
    def along(cls, vector: Array, layers: tuple[int, int], latents: Array) -> "Direction":
        """The direction along a vector [D] of any length; its unit is measured on latents [N, D].

        Raises:
          ValueError: a vector of another width or of length 0, or latents that do not differ along
            it.
        """
        if latents.ndim != 2 or vector.shape != latents.shape[1:]:
            raise ValueError(
                f"the vector has shape {vector.shape} and latents {latents.shape}; expected [D] and"
                " [N, D]"
            )
        length = jnp.linalg.norm(vector)
        if not length > 0:
            raise ValueError("the vector has length 0, and is no direction")
        vector = vector / length
        latents = latents - latents.mean(0, keepdims=True)  # far from 0 they are rounded
        deviation = float(deviation_along(latents, vector))
        if not deviation > LEAST_DEVIATION * float(jnp.max(jnp.std(latents, 0))):
            raise ValueError(
                "latents do not differ along the direction, so there is no standard deviation to"
                " move them by: choose another one, or more latents"
            )
        return cls(vector, layers, deviation)


def line_direction(curve: Curve, line: int) -> Array:
    """The unit vector along a line, from codeword `line` to the next, [D].

    Raises:
      ValueError: there is no such line, or it has length 0.

    >>> curve = Curve(jnp.array([[0.0, 0.0], [2.0, 0.0], [2.0, 5.0]]))
    >>> line_direction(curve, 1).tolist()
    [0.0, 1.0]
    """
    check_line(curve, line)
    return pair_direction(curve, line, line + 1)


def pair_direction(curve: Curve, start: int, stop: int) -> Array:
    """The unit vector from one codeword to another, [D].

    Raises:
      ValueError: there are no such codewords, or both are equal.

    >>> curve = Curve(jnp.array([[0.0, 0.0], [2.0, 0.0], [3.0, 4.0]]))
    >>> [round(x, 2) for x in pair_direction(curve, 0, 2).tolist()]
    [0.6, 0.8]
    """
    for codeword in (start, stop):
        if not 0 <= codeword < curve.num_codewords:
            raise ValueError(
                f"codeword {codeword} is outside 0-{curve.num_codewords - 1}, the curve's codewords"
            )
    step = curve.codewords[stop] - curve.codewords[start]
    length = jnp.linalg.norm(step)
    if not length > 0:
        raise ValueError(
            f"codewords {start} and {stop} are in the same place, and there is no direction from"
            " one to the other: choose others"
        )
    return step / length


def edit_latents(
    latents: Array,
    directions: Direction | Sequence[Direction],
    strengths: Array,
    num_layers: int,
) -> Array:
    """Moves every latent by every strength: w[l] + strength · unit · vector in the layers.

    This is equation 15 of docs/explanation/equations.md.

    Args:
      latents: latents [N, D], or [N, L, D] with one code for each layer.
      directions: one direction, or M directions applied at once.
      strengths: strengths in standard deviations along each direction: [S], the same for all
        directions, or [S, M].
      num_layers: number L of codes of one image.

    Returns:
      Codes w+, [N, S, L, D].

    Raises:
      ValueError: latents of another shape, a layer range outside the model, or strengths for
        another number of directions.

    Source: Vali & Bäckström, TMLR 2025 (arXiv 2410.20573), §4.

    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import Direction, edit_latents
    >>> direction = Direction(jnp.array([1.0, 0.0]), layers=(1, 2), unit=0.5)
    >>> codes = edit_latents(jnp.zeros((1, 2)), direction, jnp.array([-2.0, 2.0]), num_layers=3)
    >>> codes.shape, codes[0, 1].tolist()
    ((1, 2, 3, 2), [[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    """
    directions = [directions] if isinstance(directions, Direction) else list(directions)
    if strengths.ndim == 2 and strengths.shape[1] != len(directions):
        raise ValueError(
            f"strengths has shape {strengths.shape}; {len(directions)} directions take [S] or"
            f" [S, {len(directions)}]"
        )
    d = directions[0].vector.shape[0]
    if latents.shape[1:] not in ((d,), (num_layers, d)):
        raise ValueError(
            f"latents have shape {latents.shape}; these directions move [N, {d}] or, one code a"
            f" layer, [N, {num_layers}, {d}]"
        )
    latents = codes_of(latents, num_layers)
    steps = jnp.stack([layer_steps(direction, num_layers) for direction in directions])
    if strengths.ndim == 1:
        strengths = jnp.broadcast_to(strengths[:, None], (len(strengths), len(directions)))
    shift = jnp.einsum("sm,mld->sld", strengths.astype(latents.dtype), steps, precision="highest")
    return latents[:, None] + shift[None]


def codes_of(latents: Array, num_layers: int) -> Array:
    """Codes [N, L, D] of latents [N, D], alike in every layer; codes are returned as they are."""
    if latents.ndim == 3:
        return latents
    n, d = latents.shape
    return jnp.broadcast_to(latents[:, None], (n, num_layers, d))


def render_edits(
    model: LatentModel,
    latents: Array,
    directions: Direction | Sequence[Direction],
    strengths: Array,
    *,
    max_side: int | None = None,
) -> np.ndarray:
    """Renders every latent at every strength, uint8 [N, S, H, W, C].

    Args:
      model: the generator.
      latents: latents [N, D], or [N, L, D] with one code for each layer.
      directions: one direction, or M directions applied at once.
      strengths: strengths in standard deviations, [S] or [S, M]; see `edit_latents`.
      max_side: largest height and width, in pixels; larger images are scaled down.

    Raises:
      ValueError: see `edit_latents`; or images that are not finite or not [N, H, W, C].

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import Direction, render_edits
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> red = Direction(jnp.array([1.0, 0.0, 0.0]), layers=(0, 0), unit=1.0)
    >>> images = render_edits(model, jnp.zeros((1, 3)), red, jnp.array([-2.0, 0.0, 2.0]))
    >>> images.shape, images[0, :, 0, 0, 0].tolist()
    ((1, 3, 8, 8, 3), [5, 128, 250])
    """
    codes = edit_latents(latents, directions, strengths, model.num_layers)
    images = render_images(model, codes.reshape(-1, *codes.shape[2:]), max_side=max_side)
    return images.reshape(*codes.shape[:2], *images.shape[1:])


def layer_steps(direction: Direction, num_layers: int) -> Array:
    """What strength 1 adds to each layer's code, [L, D].

    Raises:
      ValueError: a layer range outside the model.
    """
    first, last = direction.layers
    if not 0 <= first <= last < num_layers:
        raise ValueError(
            f"layers {first}-{last} are outside 0-{num_layers - 1}, the model's layers"
        )
    index = jnp.arange(num_layers)
    chosen = ((index >= first) & (index <= last)).astype(direction.vector.dtype)
    return chosen[:, None] * (direction.unit * direction.vector)[None]


def hold_attributes(direction: Direction, gradients: Array, latents: Array) -> Direction:
    """Removes the part of a direction that changes some attributes (conditional manipulation).

    The vector is projected onto the complement of the gradients of these attributes, each summed
    over the layers of the direction. Then it is made a unit vector again (InterFaceGAN; Shen et
    al., 2020, §2.2, with normals of linear boundaries in place of gradients).

    Args:
      direction: the direction.
      gradients: mean gradients of the H attributes to hold, [H, L, D]: the mean over latents of
        `attribute_gradients`.
      latents: latents [N, D] that measure the unit of the new direction.

    Raises:
      ValueError: hardly anything of the direction is left.

    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import Direction, hold_attributes
    >>> latents = jnp.array([[0.0, 0.0], [4.0, 0.0], [0.0, 2.0], [4.0, 2.0]])
    >>> direction = Direction.along(jnp.array([1.0, 1.0]), (0, 0), latents)
    >>> held = hold_attributes(direction, jnp.array([[[0.0, 3.0]]]), latents)
    >>> print(held.vector.round(2), round(held.unit, 2))
    [1. 0.] 2.0
    """
    first, last = direction.layers
    held = gradients[:, first : last + 1].sum(1)
    sizes = jnp.linalg.norm(held, axis=1, keepdims=True)
    _, spread, rows = jnp.linalg.svd(held / jnp.maximum(sizes, 1e-12), full_matrices=False)
    along = jnp.matmul(rows, direction.vector, precision="highest")
    # gradients that depend on each other span fewer dimensions
    along = jnp.where(spread > 1e-3 * spread.max(), along, 0)
    rest = direction.vector - jnp.matmul(along, rows, precision="highest")
    length = jnp.linalg.norm(rest)
    if length < LEAST_REST:
        raise ValueError(
            f"of the direction, {float(length):.1%} would be left: what it moves is what is to be"
            " held; hold fewer attributes"
        )
    return Direction.along(rest, direction.layers, latents)


def deviation_along(latents: Array, vector: Array) -> Array:
    """Standard deviation of latents [N, D] along a unit vector [D], a scalar.

    >>> float(deviation_along(jnp.array([[0.0, 9.0], [2.0, 9.0]]), jnp.array([1.0, 0.0])))
    1.0
    """
    return jnp.std(jnp.matmul(latents, vector, precision="highest"))


def check_line(curve: Curve, line: int) -> None:
    """Raises ValueError unless the curve has this line."""
    if not 0 <= line < curve.num_lines:
        raise ValueError(f"line {line} is outside 0-{curve.num_lines - 1}, the curve's lines")
