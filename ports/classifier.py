"""A small convolutional classifier of images: what judges the bundled generators."""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from ports.errors import shown
from ports.precision import check_dtype
from sfvq_jax.short import short_repr

Array = jax.Array


class ClassifierNetwork(nn.Module):
    """Images [N, H, W, C] in [-1, 1] -> logits [N, classes] and features [N, features].

    Height and width must be divisible by two as often as there are convolutions.
    """

    channels: tuple[int, ...]
    features: int
    classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Array, *, dropout: float = 0.0) -> tuple[Array, Array]:
        x = images
        for i, channels in enumerate(self.channels):
            x = nn.relu(nn.Conv(channels, (3, 3), dtype=self.dtype, name=f"conv{i}")(x))
            n, h, w, c = x.shape
            # as a reshape: the gradient of XLA's pooling window is some six times slower on CPU
            x = x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
        dense = nn.Dense(self.features, dtype=self.dtype, name="features")
        x = nn.relu(dense(x.reshape(x.shape[0], -1)))
        dropped = nn.Dropout(dropout, deterministic=dropout == 0)(x)
        logits = nn.Dense(self.classes, dtype=self.dtype, name="logits")(dropped)
        return logits.astype(jnp.float32), x.astype(jnp.float32)


@flax.struct.dataclass
class Classifier:
    """A trained classifier: a pytree.

    Attributes:
      variables: parameters, {"params": …}.
      class_names: names of the classes, in the order of the logits.
      channels: channels of each convolution.
      num_features: width of the penultimate layer.
      dtype: dtype of computation, set by `cast`: float32, bfloat16 or float16.
    """

    variables: dict
    class_names: tuple[str, ...] = flax.struct.field(pytree_node=False)
    channels: tuple[int, ...] = flax.struct.field(pytree_node=False)
    num_features: int = flax.struct.field(pytree_node=False)
    dtype: jnp.dtype = flax.struct.field(pytree_node=False, default=jnp.float32)

    __repr__ = short_repr

    @jax.jit
    def __call__(self, images: Array) -> tuple[Array, Array]:
        """Logits [N, classes] and penultimate features [N, F] of images [N, H, W, C] in [-1, 1]."""
        network: Any = self.network  # Any, since flax types what apply returns for all cases
        return network.apply(self.variables, images)

    def cast(self, dtype: Any) -> "Classifier":
        """The same classifier, computing in float32, bfloat16 or float16; parameters are cast.

        Raises:
          ValueError: another dtype, or the parameters already have another one.
        """
        dtype = check_dtype(dtype, self.dtype)
        variables = jax.tree.map(lambda x: x.astype(dtype), self.variables)
        return dataclasses.replace(self, variables=variables, dtype=dtype)

    @property
    def network(self) -> ClassifierNetwork:
        return ClassifierNetwork(
            self.channels, self.num_features, len(self.class_names), self.dtype
        )

    def config(self) -> dict:
        """The settings that `config.json` keeps."""
        return {
            "class_names": self.class_names,
            "channels": self.channels,
            "num_features": self.num_features,
        }

    @classmethod
    def from_config(cls, config: dict, variables: dict) -> "Classifier":
        """A classifier from a parsed `config.json`; ValueError or KeyError if it describes none."""
        names, channels = config["class_names"], config["channels"]
        if not isinstance(names, list) or not all(type(name) is str for name in names):
            raise ValueError("class_names are no texts")
        if not isinstance(channels, list) or not 1 <= len(channels) <= 13:
            raise ValueError("channels are no list of 1 to 13 numbers")
        for count in (*channels, config["num_features"]):
            if type(count) is not int or not 1 <= count <= 2**16:
                raise ValueError(f"a width is {shown(count)}; expected a whole number from 1")
        return cls(
            variables=variables,
            class_names=tuple(names),
            channels=tuple(channels),
            num_features=config["num_features"],
        )
