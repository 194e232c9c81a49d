"""Two sets of latents that share no row: one to compare with, one to measure on.

Letters: N samples, D dimensions.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.blocks import sample
from sfvq_jax.devices import data_mesh
from sfvq_jax.interpret.geometry import numpy_generator
from sfvq_jax.sources import as_source

Array = jax.Array


class TwoSets(NamedTuple):
    """Two sets of latents, [N, D] each, with no row of the source in both.

    Attributes:
      reference: to compare with.
      fresh: to measure on.
      reference_rows: numbers of the rows in the source, [N]; None where they have none.
      fresh_rows: likewise.
    """

    reference: Array
    fresh: Array
    reference_rows: np.ndarray | None
    fresh_rows: np.ndarray | None


def two_sets(key: Array, source: Any, samples: int) -> TwoSets:
    """Draws them; N <= samples."""
    source = as_source(source)
    draw_key, split_key = jax.random.split(key)
    mesh = data_mesh(jax.local_devices()[:1])
    n = source.num_latents
    x, weight = sample(source.placed(mesh), draw_key, 2 * samples, mesh)
    kept = np.flatnonzero(np.asarray(weight) > 0)
    latents, rows = np.asarray(x)[kept], None
    if n is not None:
        rows = np.arange(n) if n <= 2 * samples else source.numbers(draw_key, 2 * samples)
        rows = None if rows is None else rows[kept]
        if n > len(latents):  # drawn with replacement, perhaps
            once = np.sort(np.unique(latents, axis=0, return_index=True)[1])
            latents, rows = latents[once], None if rows is None else rows[once]
    size = min(len(latents) // 2, samples)
    if size < 1:
        raise ValueError(f"the source has {len(latents)} latents; a map is measured on two sets")
    order = numpy_generator(split_key).permutation(len(latents))
    parts = order[:size], order[size : 2 * size]
    reference, fresh = (jnp.asarray(latents[part]) for part in parts)
    if rows is None:
        return TwoSets(reference, fresh, None, None)
    return TwoSets(reference, fresh, *(rows[part] for part in parts))
