"""The published recipe: Adam on the dithered loss (Vali & Bäckström, Interspeech 2023)."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from sfvq_jax.curve import Curve, wide
from sfvq_jax.dither import DitheredSums, dithered_sums
from sfvq_jax.solver import Info, Solver, check_samples, is_number, round_steps

Array = jax.Array


@flax.struct.dataclass
class Adam(Solver):
    """Fit by Adam on the dithered loss; defaults are those of the authors' public PyTorch example.

    The loss is equation 10 of docs/explanation/equations.md.

    Attributes:
      learning_rate: the learning rate at the start of a stage.
      decay: factor on the learning rate at each of the times in `decay_at`.
      batch_size: samples in a step.
      samples: samples in an epoch, newly drawn; rounded up to whole blocks of at most 64 steps.
      epochs: epochs in a stage; each stage starts with new moments of Adam.
      decay_at: times at which the learning rate decays, as shares of a stage.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax import Adam, Curve, step
    >>> x, curve = jnp.array([[1.0], [5.0]]), Curve(jnp.array([[0.0], [4.0]]))
    >>> solver = Adam(learning_rate=0.01)
    >>> curve, state, info = step(solver, curve, solver.init(curve), jax.random.key(0), x)
    >>> print(curve.codewords[:, 0].round(2))
    [-0.01  3.99]
    """

    learning_rate: Any = 1e-3
    batch_size: int = flax.struct.field(pytree_node=False, default=64)
    samples: int = flax.struct.field(pytree_node=False, default=2**18)  # pyright: ignore
    epochs: int = flax.struct.field(pytree_node=False, default=5)
    decay_at: tuple[float, ...] = flax.struct.field(pytree_node=False, default=(0.6, 0.8))
    decay: Any = 0.5
    tolerance = -float("inf")  # a stage has all its epochs
    subdivision = "published"

    def __post_init__(self) -> None:
        for name in ("learning_rate", "decay"):
            value = getattr(self, name)
            if is_number(value) and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be a positive number: {self}")
        if self.samples is None or isinstance(self.samples, str):
            raise ValueError(f"samples is {self.samples!r}; expected a number, of an epoch")
        check_samples(self.samples)
        if self.batch_size < 1 or self.epochs < 1 or self.samples < self.batch_size:
            raise ValueError(f"a stage needs at least one epoch of one batch: {self}")
        # a list would do all the same, but it has no hash
        object.__setattr__(self, "decay_at", tuple(self.decay_at))

    @property
    def rounds(self) -> int:  # pyright: ignore
        return self.epochs

    @property
    def batch(self) -> int:  # pyright: ignore
        return self.batch_size

    def init(self, curve: Curve) -> optax.ScaleByAdamState:
        return optax.scale_by_adam().init(wide(curve.codewords))  # pyright: ignore

    def draw(self, curve: Curve, key: Array) -> Array:
        """λ, one a line, [K - 1]."""
        return jax.random.uniform(key, (len(curve.codewords) - 1,), wide(curve.codewords).dtype)

    def statistics(self, curve: Curve, drawn: Array, x: Array, weight: Array) -> DitheredSums:
        """Σ w |x - p|², its gradient, and Σ w by codeword."""
        codewords = wide(curve.codewords)
        x, weight = jnp.asarray(x, codewords.dtype), jnp.asarray(weight, codewords.dtype)
        sums = dithered_sums(Curve(codewords, curve.size), x, drawn, weight)
        near_start = jnp.where(drawn < 0.5, sums.load, 0)
        load = jnp.pad(near_start, (0, 1)) + jnp.pad(sums.load - near_start, (1, 0))
        return sums._replace(load=load)

    def update(
        self, curve: Curve, state: optax.ScaleByAdamState, sums: DitheredSums
    ) -> tuple[Curve, optax.ScaleByAdamState, Info]:
        size = sums.weight * curve.latent_dim
        size = jnp.where(size > 0, size, 1)  # a batch of padding moves nothing
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to an integer count
            direction, state = optax.scale_by_adam().update(sums.gradient / size, state)  # pyright: ignore
        direction = jnp.asarray(direction)
        rate = self._rate(state.count - 1).astype(direction.dtype)  # pyright: ignore
        codewords = wide(curve.codewords) - rate * direction
        loss = sums.error / size
        new = Curve(codewords.astype(curve.codewords.dtype), curve.size)
        return new, state, Info(loss, loss, sums.load)

    def _rate(self, step: Array) -> Array:
        """The learning rate of a stage's step, from 0."""
        blocks, steps = round_steps(self)
        total = self.rounds * blocks * steps
        past = sum((step >= round(share * total)).astype(jnp.float32) for share in self.decay_at)
        rate, decay = jnp.asarray(self.learning_rate), jnp.asarray(self.decay)
        return rate * decay ** jnp.asarray(past, decay.dtype)
