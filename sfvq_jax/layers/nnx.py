"""The quantiser as a layer of Flax nnx."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sfvq_jax.curve import Curve
from sfvq_jax.layers.quantiser import Quantised, Quantiser, Upkeep, curve_of

Array = jax.Array


class SFVQ(nnx.Module):
    """Space-filling vector quantisation inside a network.

    Attributes:
      codebook: the trained codebook, [K, D].
      upkeep: the fields of `Upkeep`, as `nnx.BatchStat`.
      quantiser: the settings.
      deterministic: whether the nearest points are exact and nothing changes, as outside training;
        `train()` and `eval()` of the module set it.
    """

    def __init__(
        self, num_codewords: int, latent_dim: int, *, rngs: nnx.Rngs, **settings: Any
    ) -> None:
        """Settings are those of `Quantiser`; `rngs` has a stream "quantiser", or a default one."""
        self.quantiser = Quantiser(num_codewords, **settings)
        self.codebook = nnx.Param(jnp.zeros((num_codewords, latent_dim), jnp.float32))
        start = self.quantiser.init(latent_dim)
        self.upkeep = nnx.Dict({n: nnx.BatchStat(v) for n, v in start._asdict().items()})
        self.rngs = rngs["quantiser"].fork()
        self.deterministic = False

    def __call__(self, x: Array, *, mask: Array | None = None) -> Quantised:
        """See `Quantiser`; x [..., D]."""
        train = not self.deterministic
        key = self.rngs() if train and self.quantiser.random else None
        upkeep = Upkeep(**{name: value[...] for name, value in self.upkeep.items()})
        found, upkeep = self.quantiser(
            self.codebook[...], upkeep, x, key=key, mask=mask, train=train
        )
        if train:
            for name, value in upkeep._asdict().items():
                self.upkeep[name][...] = value
        return found

    def curve(self) -> Curve:
        """See `curve_of`."""
        stats = {name: value[...] for name, value in self.upkeep.items()}
        return curve_of({"codebook": self.codebook[...]}, stats)
