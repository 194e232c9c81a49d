"""New latents of the classes that a person gave to lines of a curve."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.curve import Curve
from sfvq_jax.interpret.augment.lines import REAL_LATENTS, sample_around
from sfvq_jax.interpret.geometry import numpy_generator
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.short import short_repr

Array = jax.Array


class LabelledSamples(NamedTuple):
    """Samples with classes; NumPy arrays.

    Attributes:
      latents: the latents, [N, D].
      positions: positions on the curve at or around which they were drawn, [N].
      labels: index of each latent's class in the names, [N] int32.
      names: names of the classes.
    """

    latents: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]

    __repr__ = short_repr


def sample_labelled(
    key: Array,
    model: LatentModel,
    curve: Curve,
    lines: Mapping[str, Sequence[int]],
    count: int,
    *,
    noise: float = 0.0,
) -> LabelledSamples:
    """Samples equally many latents of each class, at or around its lines, in random order.

    Args:
      key: a PRNG key; the same key gives the same latents, and the same positions for any noise.
      model: the generator.
      curve: a curve fitted to latents of this model.
      lines: lines of each class; all lines of a class get about equally many samples.
      count: number of samples N; if it is no multiple of the number of classes, the first classes
        get one sample more.
      noise: see `sample_around`: from 0, on the curve, to 1, as far from it as the model's latents.

    Raises:
      ValueError: no lines, a count below 1, or a noise outside 0-1.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax import Curve
    >>> from sfvq_jax.interpret import sample_labelled
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> curve = Curve(jnp.array([[-2.0, 0, 0], [0, 0, 0], [2, 0, 0]]))
    >>> lines = {"dark": [0], "bright": [1]}
    >>> samples = sample_labelled(jax.random.key(0), model, curve, lines, 4)
    >>> sorted(zip(samples.labels.tolist(), samples.positions.astype(int).tolist()))
    [(0, 0), (0, 0), (1, 1), (1, 1)]
    """
    if not lines:
        raise ValueError(
            "no two neighbouring codewords have the same label, so that there is no line to draw"
            " from: label more of them"
        )
    if count < 1:
        raise ValueError(f"count is {count}; ask for at least one sample")
    place_key, real_key, key = jax.random.split(key, 3)
    random = numpy_generator(place_key)
    labels = np.arange(count) % len(lines)
    chosen = np.empty(count, np.int64)
    for label, of_class in enumerate(lines.values()):
        at = np.flatnonzero(labels == label)
        chosen[at] = np.resize(random.permutation(of_class), len(at))
    positions = (chosen + random.uniform(0, 1, count)).astype(np.float32)
    order = random.permutation(count)
    positions, labels = positions[order], labels[order].astype(np.int32)
    real = model.sample(real_key, REAL_LATENTS)
    latents = sample_around(key, curve, jnp.asarray(positions), real, noise=noise)
    return LabelledSamples(np.asarray(latents), positions, labels, tuple(lines))
