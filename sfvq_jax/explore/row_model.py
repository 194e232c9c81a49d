"""Rows of data in place of a generator: the image of a latent is that of the row nearest to it.

Letters: N rows, M of them that are held, D dimensions, B latents.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.interpret.geometry import nearest
from sfvq_jax.io.row_images import RowImages
from sfvq_jax.sources import Source, read_in_order

Array = jax.Array

MOST_BYTES = 2**28  # of rows that are held
BLOCK = 2**14  # rows that are read at once
SIDE = 256  # pixels of an image, at most


@flax.struct.dataclass
class RowModel:
    """A `LatentModel` without a network: every image is a row's own, and there are no derivatives.

    Attributes:
      latents: the rows, [M, D].
      read: images uint8 [B, H, W, C] of rows, by their place in `latents`, [B].
      image_shape: (H, W, C).
    """

    latents: Array
    read: Callable[[Array | np.ndarray], np.ndarray] = flax.struct.field(pytree_node=False)
    image_shape: tuple[int, ...] = flax.struct.field(pytree_node=False)
    num_layers: int = flax.struct.field(pytree_node=False, default=1)

    @property
    def latent_dim(self) -> int:
        return self.latents.shape[1]

    def sample(
        self,
        key: Array,
        n: int,
        *,
        label: int | Array | None = None,
        truncation: float | None = None,
    ) -> Array:
        """Rows drawn with replacement, [n, D]."""
        if label is not None or truncation is not None:
            raise ValueError("rows are drawn as they are: leave out label and truncation")
        return self.latents[jax.random.randint(key, (n,), 0, len(self.latents))]

    def render(self, latents: Array) -> Array:
        """Images of the nearest rows, [B, H, W, C] in [-1, 1], of [B, D] or [B, 1, D]."""
        rows = nearest(self.latents, latents.reshape(-1, self.latent_dim)).point
        shape = jax.ShapeDtypeStruct((len(rows), *self.image_shape), jnp.uint8)
        images = jax.pure_callback(self.read, shape, rows, vmap_method="sequential")
        return images.astype(jnp.float32) / 127.5 - 1


def row_model(source: Source, images: RowImages) -> RowModel:
    """The model of rows and their images; of more than 256 MiB of rows, so many drawn at random.

    Args:
      source: N rows of width D, on the host.
      images: N.
    """
    n = source.num_latents
    held = min(n, max(1, MOST_BYTES // (4 * source.latent_dim)))
    numbers = np.arange(n)
    if held < n:
        numbers = np.sort(np.random.default_rng(0).choice(n, held, replace=False))
    blocks = []  # all are read in order, since to ask for each row alone takes far longer
    for start in range(0, n, BLOCK):
        first, stop = np.searchsorted(numbers, (start, start + BLOCK))
        block = read_in_order(source, start, min(BLOCK, n - start))
        blocks.append(block[numbers[first:stop] - start])
    latents = np.concatenate(blocks)

    def read(rows: Array | np.ndarray) -> np.ndarray:
        return images.of_one_size(numbers[np.asarray(rows)], SIDE)

    return RowModel(jnp.asarray(latents), read, read(np.zeros(1, int)).shape[1:])
