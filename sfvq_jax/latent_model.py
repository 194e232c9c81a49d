"""The one protocol between generators and this library."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

Array = jax.Array


@runtime_checkable
class LatentModel(Protocol):
    """Protocol for any generator in JAX: a GAN, or the decoder of a VAE or a diffusion model.

    A model that is a pytree (such as a `flax.struct.dataclass`) is passed through jit. Any other
    model is a constant of the compiled programs.

    Letters: N samples, D = `latent_dim`, L = `num_layers`, the number of codes of one image.

    Two optional attributes tie files to a model: `latent_space`, a name such as "stylegan2-w", and
    `model_hash`, the hash of its parameters. A model whose `render` JAX cannot trace should have
    `image_shape`, (H, W, C), so that few large images are rendered at once.

    Methods that look inside the generator (`sfvq_jax.interpret.comparison.methods`) use three
    optional functions:

      style_weights() -> L arrays [O, D], one for each layer, each with its own O: the linear map
        from the code of a layer to its styles.
      activations(latents [N, D]) -> [N, F]: activations of a layer near the input; their principal
        components replace those of the latents.
      features(latents [N, D] or [N, L, D]) -> [N, F]: differentiable activations of the middle of
        the network, in which changes of images are compared.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> model.render(model.sample(jax.random.key(0), 2)).shape
    (2, 8, 8, 3)
    """

    @property
    def latent_dim(self) -> int: ...

    @property
    def num_layers(self) -> int: ...

    def sample(
        self,
        key: Array,
        n: int,
        *,
        label: int | Array | None = None,
        truncation: float | None = None,
    ) -> Array:
        """Draws n latents, [n, D]."""
        ...

    def render(self, latents: Array) -> Array:
        """Images [N, H, W, C], float32 in [-1, 1], of latents [N, D] or codes [N, L, D]."""
        ...


def method(model: LatentModel, name: str) -> jax.tree_util.Partial:
    """A method of a model as a pytree that passes through jit, its leaves those of the model.

    Leaves that are no arrays, such as the activation functions of a module of Equinox, stay as they
    are and are a part of the compiled programs.
    """
    leaves, structure = jax.tree_util.tree_flatten(model)
    if jax.tree_util.all_leaves([model]):
        return jax.tree_util.Partial(getattr(model, name))
    arrays = [leaf if _is_array(leaf) else None for leaf in leaves]
    fixed = tuple(None if _is_array(leaf) else leaf for leaf in leaves)
    if all(leaf is None for leaf in fixed):
        return jax.tree_util.Partial(getattr(type(model), name), model)
    return jax.tree_util.Partial(_Method(type(model), name, structure, fixed), arrays)


class _Method(NamedTuple):
    """A method of a model whose leaves are put together again when it is called."""

    kind: type
    name: str
    structure: Any
    fixed: tuple

    def __call__(self, arrays: list, *arguments: Any, **options: Any) -> Any:
        leaves = [
            fixed if array is None else array
            for array, fixed in zip(arrays, self.fixed, strict=True)
        ]
        model = jax.tree_util.tree_unflatten(self.structure, leaves)
        return getattr(self.kind, self.name)(model, *arguments, **options)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | float | int | complex)
