"""A loaded BigGAN: images of latents and classes, and the latent spaces to fit curves in."""

import dataclasses
import functools
import math
import re
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ports.biggan.config import BigGANConfig
from ports.biggan.network import GeneratorNetwork, StatsRow, linear_input
from ports.labels import check_classes, class_indices
from ports.precision import check_dtype
from sfvq_jax.short import short_repr

Array = jax.Array

INTERPOLATIONS = ("upstream", "linear")
SPACES = ("z", "linear")


@flax.struct.dataclass
class BigGAN:
    """A BigGAN with its parameters: a pytree that passes through jit, vmap and grad.

    Letters: N samples, Z = `config.z_dim`, E width of a class embedding, L = `config.num_zs` layers
    that see z, H x W pixels, C channels.

    Attributes:
      variables: {"params": …, "constants": …}, the trees of `network.py`.
      config: the architecture.
      model_hash: SHA-256 of the parameters, which ties curves and directions to this model.
      dtype: dtype of the blocks, set by `cast`: float32, bfloat16 or float16.
    """

    variables: dict
    config: BigGANConfig = flax.struct.field(pytree_node=False)
    model_hash: str = flax.struct.field(pytree_node=False, default="")
    dtype: jnp.dtype = flax.struct.field(pytree_node=False, default=jnp.float32)

    __repr__ = short_repr

    def cast(self, dtype: Any) -> "BigGAN":
        """The same generator, with blocks that compute in float32, bfloat16 or float16.

        Kernels of convolutions are cast.

        Raises:
          ValueError: another dtype, or the kernels already have another one.
        """
        dtype = check_dtype(dtype, self.dtype)
        params = jax.tree.map(
            lambda x: x.astype(dtype) if x.ndim == 4 else x, self.variables["params"]
        )
        variables = self.variables | {"params": params}
        return dataclasses.replace(self, variables=variables, dtype=dtype)

    @property
    def num_classes(self) -> int:
        return self.config.num_classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.config.img_resolution, self.config.img_resolution, self.config.img_channels)

    def __call__(
        self,
        z: Array,
        y: Array,
        truncation: float | Array = 1.0,
        *,
        interpolation: str = "upstream",
    ) -> Array:
        """Renders latents and classes.

        Args:
          z: latents, [N, Z] for all layers or [N, L, Z], one for each layer; float32. They are not
            truncated here: draw truncated ones by `sample_z`.
          y: class indices [N], integers, or class vectors [N, classes], one-hot or mixed.
          truncation: number in (0, 1] that selects the batch statistics. It has no effect on a
            model with a single set of them. A JAX array is rounded to 1e-4 of a step.
          interpolation: weights of two sets of statistics. 'upstream' gives the nearer set less
            weight, as pytorch-pretrained-BigGAN does; 'linear' gives it more.

        Returns:
          images, [N, H, W, C] float32 in [-1, 1].
        """
        return self.generate(z, self.embed(y), truncation, interpolation=interpolation)

    def embed(self, y: Array) -> Array:
        """Class embeddings [N, E] float32 of class indices [N] or class vectors [N, classes]."""
        y = jnp.asarray(y)
        if y.ndim == 1 and jnp.issubdtype(y.dtype, jnp.integer):
            check_classes(y, self.num_classes)
            y = jax.nn.one_hot(y, self.num_classes, dtype=jnp.float32)
        elif y.ndim != 2 or y.shape[1] != self.num_classes:
            raise ValueError(
                f"y has shape {y.shape} and dtype {y.dtype}; this generator takes class indices"
                f" [N] or class vectors [N, {self.num_classes}]"
            )
        y = y.astype(jnp.float32)
        if self.config.embed_dim == 0:
            return y
        weight = self.variables["params"]["embedding"]["weight"]
        return jnp.matmul(y, weight, precision="highest")

    def generate(
        self,
        z: Array,
        embedding: Array,
        truncation: float | Array = 1.0,
        *,
        interpolation: str = "upstream",
    ) -> Array:
        """See `__call__`, but with class embeddings [N, E], which may be mixed."""
        row = stats_row(truncation, self.config.num_stats, interpolation)
        return _images(self, *self._codes(z, embedding), row)

    def layers(self, z: Array, y: Array, truncation: float | Array = 1.0) -> dict[str, Array]:
        """The output of every layer, to compare with another implementation."""
        row = stats_row(truncation, self.config.num_stats)
        return _layers(self, *self._codes(z, self.embed(y)), row)

    def sample_z(self, key: Array, n: int, truncation: float | Array | None = None) -> Array:
        """Draws latents z ~ N(0, I), [n, Z]; with truncation, cut at ±2 and scaled, as upstream.

        Args:
          key: a PRNG key.
          n: number of latents.
          truncation: factor on z ~ N(0, I) that is cut at ±2; 1 only cuts, as
            pytorch-pretrained-BigGAN always does. None for no truncation.
        """
        shape = (n, self.config.z_dim)
        if truncation is None:
            return jax.random.normal(key, shape)
        cut = jax.random.truncated_normal(key, -2.0, 2.0, shape)
        return cut * jnp.asarray(truncation, jnp.float32)

    def space(
        self, name: str, label: int | None = None, truncation: float | None = None
    ) -> "BigGANSpace":
        """One of the latent spaces, as a `LatentModel` to fit curves in.

        Args:
          name: 'z', the latents of one class, or 'linear', the output of the first linear layer.
          label: the class; required, except for a linear layer that sees the class: then None.
          truncation: truncation of drawn latents and of the statistics; None for no truncation.
        """
        if name not in SPACES:
            raise ValueError(f"space is {name!r}; a BigGAN has {SPACES}")
        if name == "linear" and self.config.linear_dim < self.config.linear_inputs:
            raise ValueError(
                f"the first linear layer makes {self.config.linear_dim} numbers of"
                f" {self.config.linear_inputs}: there is no way back from its output"
            )
        holds_classes = name == "linear" and self.config.hierarchy == "full"
        if label is None and not holds_classes:
            raise ValueError(
                f"the space {name} of this generator holds no classes: choose one with label,"
                f" 0-{self.num_classes - 1}"
            )
        if label is not None:
            if holds_classes:
                raise ValueError("the space linear of this generator holds all classes: no label")
            if not isinstance(label, int | np.integer):
                raise ValueError(f"label is {label}; expected the index of one class")
            check_classes(label, self.num_classes)
            label = int(label)
        if truncation is not None:
            stats_row(truncation, self.config.num_stats)  # which checks it
        inverse = _linear_inverse(self) if name == "linear" else None
        return BigGANSpace(self, inverse, name, label, truncation)

    def space_named(self, latent_space: str) -> "BigGANSpace":
        """The space with this `BigGANSpace.latent_space`, which curves and directions keep."""
        match = re.fullmatch(
            r"biggan-(\w+)(?:, class (\d+))?(?:, truncation ([\d.e-]+))?", latent_space
        )
        if match is None:
            raise ValueError(
                f"{latent_space or 'no name'} is no space of a BigGAN; expected one such as"
                " 'biggan-linear' or 'biggan-z, class 3'"
            )
        name, label, truncation = match.groups()
        return self.space(
            name,
            None if label is None else int(label),
            None if truncation is None else float(truncation),
        )

    def _codes(self, z: Array, embedding: Array) -> tuple[Array, Array]:
        """z and class embedding of every layer, [N, L, Z] and [N, L, E]."""
        cfg = self.config
        width = cfg.embed_dim or cfg.num_classes
        if z.shape[1:] not in ((cfg.z_dim,), (cfg.num_zs, cfg.z_dim)):
            raise ValueError(
                f"z has shape {z.shape}; this generator takes [N, {cfg.z_dim}] or"
                f" [N, {cfg.num_zs}, {cfg.z_dim}]"
            )
        n = z.shape[0]
        if embedding.shape != (n, width):
            raise ValueError(
                f"{n} latents come with classes of shape {embedding.shape}; expected [{n}, {width}]"
            )
        if z.ndim == 2:
            z = jnp.broadcast_to(z[:, None], (n, cfg.num_zs, cfg.z_dim))
        return z, jnp.broadcast_to(embedding[:, None], (n, cfg.num_zs, width))


@flax.struct.dataclass
class BigGANSpace:
    """A latent space of a BigGAN: a `LatentModel` and a pytree.

    The output of the first linear layer is an injective function of its input. So its least-squares
    inverse gives the z and the class for the other layers (as GANSpace goes from activations back
    to z; Härkönen et al., 2020, §3.2). If that layer sees only the first piece of z, the other
    pieces are 0, their mean.

    Letters: N samples, D = `latent_dim`, L = `num_layers`.

    Attributes:
      model: the generator.
      inverse: the linear layer's pseudoinverse, [linear_dim, linear_inputs]; None in the space z.
      name: 'z' or 'linear'.
      label: the class; None if the space holds all classes.
      truncation: truncation of drawn latents and of the statistics; None for no truncation.
    """

    model: BigGAN
    inverse: Array | None
    name: str = flax.struct.field(pytree_node=False)
    label: int | None = flax.struct.field(pytree_node=False)
    truncation: float | None = flax.struct.field(pytree_node=False, default=None)

    __repr__ = short_repr

    @property
    def latent_space(self) -> str:
        parts = [f"biggan-{self.name}"]
        if self.label is not None:
            parts.append(f"class {self.label}")
        if self.truncation is not None:
            parts.append(f"truncation {self.truncation}")
        return ", ".join(parts)

    @property
    def model_hash(self) -> str:
        return self.model.model_hash

    @property
    def latent_dim(self) -> int:
        config = self.model.config
        return config.z_dim if self.name == "z" else config.linear_dim

    @property
    def num_layers(self) -> int:
        config = self.model.config
        return config.num_zs if self.name == "z" or config.hierarchy == "full" else 1

    @property
    def num_classes(self) -> int:
        return self.model.num_classes if self.label is None else 0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.model.image_shape

    def sample(
        self,
        key: Array,
        n: int,
        *,
        label: int | Array | None = None,
        truncation: float | Array | None = None,
    ) -> Array:
        """Draws n latents, [n, D].

        Args:
          key: a PRNG key.
          n: number of latents.
          label: if the space holds all classes, a class index, or [n] of them; None draws classes
            uniformly. If it holds one class, None or that class.
          truncation: truncation of z, as in `BigGAN.sample_z`; None for that of the space.

        Raises:
          ValueError: a label that is no class.
        """
        truncation = self.truncation if truncation is None else truncation
        z_key, label_key = jax.random.split(key)
        z = self.model.sample_z(z_key, n, truncation)
        if self.label is not None:
            if label is not None and not (np.ndim(label) == 0 and label == self.label):
                raise ValueError(f"label is {label}, but this is the space of class {self.label}")
            label = self.label
        elif label is None:
            label = jax.random.randint(label_key, (n,), 0, self.model.num_classes)
        if self.name == "z":
            return z
        return self._linear(z, self.model.embed(class_indices(label, n, self.model.num_classes)))

    def render(self, latents: Array) -> Array:
        """Renders latents [N, D] or [N, L, D]: images [N, H, W, C], float32 in [-1, 1]."""
        return _render(self, self._for_all_layers(latents))

    def features(self, latents: Array) -> Array:
        """Activations of the block in the middle of the network, [N, F].

        Args:
          latents: latents as for `render`.
        """
        return _features(self, self._for_all_layers(latents))

    def activations(self, latents: Array) -> Array:
        """The output of the first linear layer, [N, linear_dim], for latents [N, D].

        GANSpace takes the principal components of it (Härkönen et al., 2020, §3.2).
        """
        if self.name == "linear":
            return latents
        assert self.label is not None
        labels = jnp.full((latents.shape[0],), self.label, jnp.int32)
        return self._linear(latents, self.model.embed(labels))

    def style_weights(self) -> list[Array]:
        """The linear map from each layer's code to its effect in the layer, L of [O, D].

        The effects are the output of the first linear layer (in the space linear, after the way
        back to z and class), then the gains and biases of each block.
        """
        cfg, params = self.model.config, self.model.variables["params"]
        layers = [params["linear"]["weight"]]
        for i in range(self.num_layers - 1):
            block = params[f"block{i}"]
            norms = [block[name] for name in sorted(block) if name.startswith("bn")]
            layers.append(jnp.concatenate([bn[p] for bn in norms for p in ("gain", "bias")], 1))
        if self.inverse is not None:
            return [jnp.matmul(self.inverse, w, precision="highest").T for w in layers]
        chunks = cfg.hierarchy == "chunks"
        width = cfg.linear_inputs if chunks else cfg.z_dim
        starts = [layer * width if chunks else 0 for layer in range(len(layers))]
        # z comes first in what a layer sees, and the class embedding after it
        return [
            jnp.pad(w[:width].T, [(0, 0), (start, cfg.z_dim - start - width)])
            for w, start in zip(layers, starts, strict=True)
        ]

    def _linear(self, z: Array, embedding: Array) -> Array:
        seen = linear_input(self.model.config, z, embedding)
        layer = self.model.variables["params"]["linear"]
        return jnp.matmul(seen, layer["weight"], precision="highest") + layer["bias"][None]

    def _for_all_layers(self, latents: Array) -> Array:
        shape = latents.shape
        if shape[1:] not in ((self.latent_dim,), (self.num_layers, self.latent_dim)):
            raise ValueError(
                f"latents have shape {shape}; this space takes [N, {self.latent_dim}] or"
                f" [N, {self.num_layers}, {self.latent_dim}]"
            )
        if latents.ndim == 2:
            latents = jnp.broadcast_to(latents[:, None], (shape[0], self.num_layers, shape[1]))
        return latents


@functools.partial(jax.jit, static_argnames="config")
def init(key: Array, config: BigGANConfig) -> BigGAN:
    """A generator with random weights, as training starts from."""
    network_key, embedding_key = jax.random.split(key)
    zs = jnp.zeros((1, config.num_zs, config.z_dim))
    embedding = jnp.zeros((1, config.num_zs, config.embed_dim or config.num_classes))
    row = stats_row(1.0, config.num_stats)
    variables: Any = GeneratorNetwork(config).init(network_key, zs, embedding, row)
    params = variables["params"]
    if config.embed_dim:
        shape = (config.num_classes, config.embed_dim)
        params = params | {"embedding": {"weight": jax.random.normal(embedding_key, shape)}}
    return BigGAN({"params": params, "constants": variables["constants"]}, config)


def stats_row(
    truncation: float | Array, num_stats: int, interpolation: str = "upstream"
) -> StatsRow:
    """The batch statistics that belong to a truncation.

    A Python number is divided in float64 as upstream does, since rounding decides the row; a JAX
    array, traced or not, is divided in float32, and taken for a row within 1e-4 of it.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation is {interpolation!r}; it must be one of {INTERPOLATIONS}")
    if not isinstance(truncation, Tracer) and not 0 < float(truncation) <= 1:
        raise ValueError(f"truncation is {truncation}; it must be in (0, 1]")
    index: Any
    if num_stats == 1:
        part, index = np.float32(0), np.int32(0)
    elif isinstance(truncation, jax.Array):
        position = truncation.astype(jnp.float32) * (num_stats - 1)
        nearest = jnp.round(position)
        position = jnp.where(jnp.abs(position - nearest) < 1e-4, nearest, position)
        first = jnp.floor(position)
        part, index = position - first, first.astype(jnp.int32)
    else:
        part, index = math.modf(float(truncation) / (1 / (num_stats - 1)))
        part, index = np.float32(part), np.int32(index)
    xp: Any = jnp if isinstance(part, jax.Array) else np
    weight = part if interpolation == "upstream" else 1 - part
    return StatsRow(index, xp.where(part == 0, xp.float32(1), weight))


@jax.jit
def _images(model: BigGAN, zs: Array, embeddings: Array, row: StatsRow) -> Array:
    return _apply(model, zs, embeddings, row)[0]


@jax.jit
def _layers(model: BigGAN, zs: Array, embeddings: Array, row: StatsRow) -> dict[str, Array]:
    return _apply(model, zs, embeddings, row)[1]


def _apply(
    model: BigGAN, zs: Array, embeddings: Array, row: StatsRow, h: Array | None = None
) -> tuple[Array, dict[str, Array]]:
    # Any, since flax types what apply returns for all cases
    network: Any = GeneratorNetwork(model.config, model.dtype)
    return network.apply(model.variables, zs, embeddings, row, h)


@jax.jit
def _render(space: BigGANSpace, codes: Array) -> Array:
    return _apply_space(space, codes)[0]


@jax.jit
def _features(space: BigGANSpace, codes: Array) -> Array:
    """What lies above the middle block is not computed, since nothing comes of it."""
    middle = _apply_space(space, codes)[1][f"block{len(space.model.config.blocks) // 2}"]
    return middle.reshape(middle.shape[0], -1).astype(jnp.float32)


def _apply_space(space: BigGANSpace, codes: Array) -> tuple[Array, dict[str, Array]]:
    """Images and every layer's output, of codes [N, num_layers, D]."""
    model, n = space.model, codes.shape[0]
    cfg = model.config
    row = stats_row(1.0 if space.truncation is None else space.truncation, cfg.num_stats)
    h, zs, embedding = None, codes, None
    if space.inverse is not None:
        h = codes[:, 0]
        bias = model.variables["params"]["linear"]["bias"]
        seen = jnp.matmul(codes - bias[None, None], space.inverse, precision="highest")
        if cfg.hierarchy == "full":
            zs, embedding = seen[..., : cfg.z_dim], seen[..., cfg.z_dim :]
        else:
            zs = jnp.pad(seen, [(0, 0), (0, 0), (0, cfg.z_dim - seen.shape[-1])])
            zs = jnp.broadcast_to(zs, (n, cfg.num_zs, cfg.z_dim))
    if embedding is None:
        assert space.label is not None
        embedding = model.embed(jnp.full((n,), space.label, jnp.int32))
        embedding = jnp.broadcast_to(embedding[:, None], (n, cfg.num_zs, embedding.shape[1]))
    return _apply(model, zs, embedding, row, h)


def _linear_inverse(model: BigGAN) -> Array:
    """The pseudoinverse of the linear layer's weight, [linear_dim, linear_inputs] float32."""
    weight = np.asarray(model.variables["params"]["linear"]["weight"], np.float64)
    gram = np.linalg.pinv(weight @ weight.T, rcond=1e-12, hermitian=True)
    return jnp.asarray(weight.T @ gram, jnp.float32)
