"""A loaded StyleGAN2: mapping, synthesis, and the two functions that fitting and editing need."""

import dataclasses
import functools
import math
import re
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ports.labels import class_indices
from ports.precision import check_dtype, low_precision_kernel
from ports.stylegan2.config import StyleGAN2Config
from ports.stylegan2.network import MappingNetwork, SynthesisNetwork
from sfvq_jax.short import short_repr

Array = jax.Array

NOISE_MODES = ("const", "none", "random")
SPACES = ("w", "z")


@flax.struct.dataclass
class StyleGAN2:
    """A StyleGAN2 with its parameters: a pytree that passes through jit, vmap and grad.

    Letters: N samples, L = `num_layers` codes for each image, D = `latent_dim` the width of W.

    Attributes:
      variables: {"params": …, "constants": …}, the trees of `network.py`.
      config: the architecture.
      model_hash: SHA-256 of the parameters, which ties curves and directions to this model.
      dtype: dtype of the convolutions of the resolutions in `config.low_precision`, set by `cast`:
        float32, bfloat16 or float16.
    """

    variables: dict
    config: StyleGAN2Config = flax.struct.field(pytree_node=False)
    model_hash: str = flax.struct.field(pytree_node=False, default="")
    dtype: jnp.dtype = flax.struct.field(pytree_node=False, default=jnp.float32)

    __repr__ = short_repr

    def cast(self, dtype: Any) -> "StyleGAN2":
        """The same generator, computing in float32, bfloat16 or float16 as upstream does.

        Resolutions that upstream keeps in float32 stay so; kernels of the others are cast.

        Raises:
          ValueError: another dtype, or the kernels already have another one.
        """
        dtype = check_dtype(dtype, self.dtype)
        synthesis = dict(self.variables["params"]["synthesis"])
        for name in [f"b{r}" for r in self.config.low_precision]:
            synthesis[name] = dict(synthesis[name])
            for conv in ("conv0", "conv1"):
                layer = synthesis[name][conv]
                kernel = low_precision_kernel(layer["weight"], dtype)
                synthesis[name][conv] = layer | {"weight": kernel}
        params = self.variables["params"] | {"synthesis": synthesis}
        variables = self.variables | {"params": params}
        return dataclasses.replace(self, variables=variables, dtype=dtype)

    @property
    def latent_space(self) -> str:
        return "stylegan2-w"

    @property
    def latent_dim(self) -> int:
        return self.config.w_dim

    @property
    def num_layers(self) -> int:
        return self.config.num_ws

    @property
    def num_classes(self) -> int:
        return self.config.c_dim

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.config.image_shape

    def mapping(
        self,
        z: Array,
        c: Array | None = None,
        truncation_psi: float | Array = 1,
        truncation_cutoff: int | Array | None = None,
    ) -> Array:
        """Maps z to codes by the mapping network, with truncation toward the mean of W.

        Args:
          z: latents, [N, z_dim] float32.
          c: labels, [N, c_dim] float32 (one-hot for classes); a conditional generator needs them.
          truncation_psi: 1 leaves w unchanged; 0 gives the mean of W.
          truncation_cutoff: number of first codes that are truncated; None for all.

        Returns:
          ws, [N, num_ws, w_dim] float32.
        """
        cfg = self.config
        _check_matrix("z", z, cfg.z_dim)
        if cfg.c_dim > 0:
            if c is None:
                raise ValueError(
                    f"this generator is conditional: pass labels c of shape [N, {cfg.c_dim}]"
                )
            _check_matrix("c", c, cfg.c_dim)
        truncated = not (isinstance(truncation_psi, int | float) and truncation_psi == 1)
        if truncated and "w_avg" not in self.variables["constants"].get("mapping", {}):
            raise ValueError(
                "this checkpoint keeps no w_avg, so nothing can be truncated: use psi = 1"
            )
        psi = jnp.asarray(truncation_psi, jnp.float32) if truncated else None
        cutoff = cfg.num_ws if truncation_cutoff is None else truncation_cutoff
        return _mapping(self, z, c, psi, cutoff)

    def synthesis(self, ws: Array, noise_mode: str = "const", *, key: Array | None = None) -> Array:
        """Renders codes by the synthesis network.

        Args:
          ws: codes, [N, num_ws, w_dim] float32, one for each layer.
          noise_mode: 'const' adds the stored noise, 'none' adds none, 'random' draws it from `key`.
          key: a PRNG key, for 'random'.

        Returns:
          images, [N, H, W, C] float32, about in [-1, 1] and not clipped.
        """
        cfg = self.config
        if ws.ndim != 3 or ws.shape[1:] != (cfg.num_ws, cfg.w_dim):
            raise ValueError(
                f"ws has shape {ws.shape}; this generator takes [N, {cfg.num_ws}, {cfg.w_dim}]"
            )
        if noise_mode not in NOISE_MODES:
            raise ValueError(f"noise_mode is {noise_mode!r}; it must be one of {NOISE_MODES}")
        if noise_mode == "random" and key is None:
            raise ValueError("noise_mode='random' draws noise: pass key=jax.random.key(…)")
        return _synthesis(self, ws, noise_mode, key)

    def sample(
        self,
        key: Array,
        n: int,
        *,
        label: int | Array | None = None,
        truncation: float | Array | None = None,
    ) -> Array:
        """Draws n latents of W, [n, w_dim] float32, from z ~ N(0, I).

        Args:
          key: a PRNG key.
          n: number of latents.
          label: a class index, or [n] of them, one for each sample; None draws classes uniformly.
          truncation: psi of `mapping`; None for no truncation.

        Raises:
          ValueError: a label that is no class.
        """
        z_key, label_key = jax.random.split(key)
        z = jax.random.normal(z_key, (n, self.config.z_dim))
        c = None
        if self.config.c_dim > 0:
            if label is None:
                label = jax.random.randint(label_key, (n,), 0, self.config.c_dim)
            c = jax.nn.one_hot(class_indices(label, n, self.config.c_dim), self.config.c_dim)
        elif label is not None:
            raise ValueError(f"label is {label}, but this generator is unconditional")
        return self.mapping(z, c, 1 if truncation is None else truncation)[:, 0]

    def render(self, latents: Array) -> Array:
        """Renders w [N, D], for all layers, or w+ [N, L, D], with constant noise: [N, H, W, C]."""
        return self.synthesis(self._for_all_layers(latents))

    def features(self, latents: Array) -> Array:
        """Activations of the block in the middle of the network, [N, F].

        Args:
          latents: latents or codes as for `render`.
        """
        return _features(self, self._for_all_layers(latents))

    def style_weights(self) -> list[Array]:
        """The linear map from each layer's code to the styles of its convolution, L of [O, D].

        The last code reaches no convolution; its styles are those of the last RGB layer. Other RGB
        layers, which see the code of the next block's first convolution, are left out, as in SeFa.
        """
        params, resolutions = self.variables["params"]["synthesis"], self.config.block_resolutions
        layers = [("b4", "conv1")]
        layers += [(f"b{r}", conv) for r in resolutions[1:] for conv in ("conv0", "conv1")]
        layers += [(f"b{resolutions[-1]}", "torgb")]
        weights = [params[block][layer]["affine"]["weight"] for block, layer in layers]
        return [weight.T / math.sqrt(self.latent_dim) for weight in weights]

    def space(
        self, name: str, label: int | None = None, truncation: float | None = None
    ) -> "StyleGAN2 | StyleGAN2Z":
        """One of the latent spaces, as a `LatentModel`.

        Args:
          name: 'w', this model itself, or 'z', the input of the mapping network.
          label: class of z, required for a conditional generator; otherwise None.
          truncation: psi of `mapping`, for z; None for no truncation.
        """
        if name not in SPACES:
            raise ValueError(f"space is {name!r}; a StyleGAN2 has {SPACES}")
        if name == "w":
            if (label, truncation) != (None, None):
                raise ValueError("the space w holds all classes, untruncated: no label, truncation")
            return self
        if self.num_classes == 0 and label is not None:
            raise ValueError(f"label is {label}, but this generator is unconditional")
        if self.num_classes > 0 and not (
            isinstance(label, int | np.integer) and 0 <= label < self.num_classes
        ):
            raise ValueError(
                f"label is {label}, but the space z is that of one class: choose it,"
                f" 0-{self.num_classes - 1}"
            )
        return StyleGAN2Z(self, None if label is None else int(label), truncation)

    def space_named(self, latent_space: str) -> "StyleGAN2 | StyleGAN2Z":
        """The space with this `latent_space`, a name that curves and directions keep."""
        match = re.fullmatch(
            r"stylegan2-(\w+)(?:, class (\d+))?(?:, truncation ([\d.e-]+))?", latent_space
        )
        if match is None:
            return self  # whoever compares the names then says that they differ
        name, label, truncation = match.groups()
        return self.space(
            name,
            None if label is None else int(label),
            None if truncation is None else float(truncation),
        )

    def _for_all_layers(self, latents: Array) -> Array:
        if latents.ndim != 2:
            return latents
        shape = (latents.shape[0], self.num_layers, latents.shape[1])
        return jnp.broadcast_to(latents[:, None], shape)


@flax.struct.dataclass
class StyleGAN2Z:
    """The space z of a StyleGAN2, the input of its mapping network: a `LatentModel` and a pytree.

    Letters: N samples, D = `latent_dim`, L = `num_layers`.

    Attributes:
      model: the generator.
      label: class of a conditional generator, otherwise None.
      truncation: psi of `mapping`; None for no truncation.
    """

    model: StyleGAN2
    label: int | None = flax.struct.field(pytree_node=False, default=None)
    truncation: float | None = flax.struct.field(pytree_node=False, default=None)

    __repr__ = short_repr

    @property
    def latent_space(self) -> str:
        label = "" if self.label is None else f", class {self.label}"
        return f"stylegan2-z{label}" + (
            "" if self.truncation is None else f", truncation {self.truncation}"
        )

    @property
    def model_hash(self) -> str:
        return self.model.model_hash

    @property
    def latent_dim(self) -> int:
        return self.model.config.z_dim

    @property
    def num_layers(self) -> int:
        return self.model.num_layers

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
        """Draws n latents z ~ N(0, I), [n, D] float32; the space sets label and truncation."""
        for name, asked in {"label": label, "truncation": truncation}.items():
            own = getattr(self, name)
            if asked is not None and not (np.ndim(asked) == 0 and asked == own):
                raise ValueError(f"{name} is {asked}, but this is the space with {name} {own}")
        return jax.random.normal(key, (n, self.latent_dim))

    def render(self, latents: Array) -> Array:
        """Renders z [N, D], for all layers, or [N, L, D], one for each layer: [N, H, W, C]."""
        return self.model.render(self.activations(latents))

    def features(self, latents: Array) -> Array:
        """See `StyleGAN2.features`, for latents as `render` takes them."""
        return self.model.features(self.activations(latents))

    def activations(self, latents: Array) -> Array:
        """Maps z to W, [N, D] -> [N, w_dim]; GANSpace takes the principal components of these.

        Codes [N, L, D] give [N, L, w_dim].
        """
        z = latents.reshape(-1, latents.shape[-1])
        c = None
        if self.label is not None:
            one_hot = jax.nn.one_hot(self.label, self.model.num_classes)[None]
            c = jnp.broadcast_to(one_hot, (z.shape[0], one_hot.shape[1]))
        w = self.model.mapping(z, c, 1 if self.truncation is None else self.truncation)[:, 0]
        return w.reshape(*latents.shape[:-1], -1)


@functools.partial(jax.jit, static_argnames="config")
def init(key: Array, config: StyleGAN2Config) -> StyleGAN2:
    """A generator with random weights, as training starts from."""
    mapping_key, synthesis_key = jax.random.split(key)
    z, c = jnp.zeros((1, config.z_dim)), jnp.zeros((1, config.c_dim))
    ws = jnp.zeros((1, config.num_ws, config.w_dim))
    mapping = MappingNetwork(config).init(mapping_key, z, c)
    synthesis = SynthesisNetwork(config).init(synthesis_key, ws)
    return StyleGAN2(
        variables={
            "params": {
                "mapping": mapping.get("params", {}),  # none where it has no layers
                "synthesis": synthesis["params"],
            },
            "constants": {
                "mapping": {"w_avg": jnp.zeros(config.w_dim)},
                "synthesis": synthesis.get("constants", {}),
            },
        },
        config=config,
    )


def synthesis_blocks(model: StyleGAN2, ws: Array, noise_mode: str = "const") -> dict[str, Array]:
    """Every block's features and running image, for comparison with another implementation."""
    return _apply_synthesis(model, ws, noise_mode, None)[1]


@jax.jit
def _mapping(
    model: StyleGAN2, z: Array, c: Array | None, psi: Array | None, cutoff: int | Array
) -> Array:
    cfg = model.config
    params = model.variables["params"].get("mapping", {})
    network: Any = MappingNetwork(cfg)  # Any, since flax types what apply returns for all cases
    w = network.apply({"params": params}, z, c)
    ws = jnp.broadcast_to(w[:, None], (w.shape[0], cfg.num_ws, cfg.w_dim))
    if psi is None:
        return ws
    mean = model.variables["constants"]["mapping"]["w_avg"][None, None]
    truncated = mean + psi * (ws - mean)
    return jnp.where(jnp.arange(cfg.num_ws)[None, :, None] < cutoff, truncated, ws)


@functools.partial(jax.jit, static_argnames="noise_mode")
def _synthesis(model: StyleGAN2, ws: Array, noise_mode: str, key: Array | None) -> Array:
    return _apply_synthesis(model, ws, noise_mode, key)[0]


@jax.jit
def _features(model: StyleGAN2, ws: Array) -> Array:
    """What lies above the middle block is not computed, since nothing comes of it."""
    resolutions = model.config.block_resolutions
    out = _apply_synthesis(model, ws, "const", None)[1]
    middle = out[f"b{resolutions[len(resolutions) // 2]}/x"]
    return middle.reshape(middle.shape[0], -1).astype(jnp.float32)


def _apply_synthesis(
    model: StyleGAN2, ws: Array, noise_mode: str, key: Array | None
) -> tuple[Array, dict[str, Array]]:
    variables = {name: tree.get("synthesis", {}) for name, tree in model.variables.items()}
    network: Any = SynthesisNetwork(model.config, model.dtype)
    return network.apply(variables, ws, noise_mode, rngs=None if key is None else {"noise": key})


def _check_matrix(name: str, x: Array, width: int) -> None:
    if x.ndim != 2 or x.shape[1] != width:
        raise ValueError(f"{name} has shape {x.shape}; this generator takes [N, {width}]")
