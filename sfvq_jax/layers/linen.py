"""The quantiser as a layer of Flax linen."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from sfvq_jax.layers.quantiser import Quantised, Quantiser, Settings, Upkeep

Array = jax.Array


class SFVQ(nn.Module, Settings):
    __doc__ = f"""Space-filling vector quantisation inside a network.

    `params` holds the "codebook" [K, D], and `batch_stats` the fields of `Upkeep`. Train with
    mutable=["batch_stats"], as for batch normalisation, and with rngs={{"quantiser": key}}.

    {Settings.__doc__}"""

    @nn.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Quantised:
        """See `Quantiser`; x [..., D]."""
        names = [field.name for field in dataclasses.fields(Settings)]
        quantiser = Quantiser(**{name: getattr(self, name) for name in names})
        shape = (self.num_codewords, x.shape[-1])
        codebook = self.param("codebook", nn.initializers.zeros, shape, jnp.float32)
        start = quantiser.init(x.shape[-1])
        kept = {
            name: self.variable("batch_stats", name, lambda value=value: value)
            for name, value in start._asdict().items()
        }
        train = train and not self.is_initializing()
        key = self.make_rng("quantiser") if train and quantiser.random else None
        upkeep = Upkeep(**{name: variable.value for name, variable in kept.items()})
        found, upkeep = quantiser(codebook, upkeep, x, key=key, mask=mask, train=train)
        if train:
            for name, value in upkeep._asdict().items():
                kept[name].value = value
        return found
