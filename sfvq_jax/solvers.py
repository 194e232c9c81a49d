"""One stage of fitting, at one number of codewords: the Adam recipe of the publications."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from sfvq_jax.curve import Curve
from sfvq_jax.objective import dithered_loss
from sfvq_jax.sources import Source

Array = jax.Array

STEPS_DRAWN_AT_ONCE = 64  # one call of the random generator and of the sampler serves so many


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam on the dithered loss; the defaults are those of the authors' public PyTorch example.

    Attributes:
      learning_rate: of a stage's start.
      batch_size: samples in a step.
      samples: samples in an epoch, drawn afresh.
      epochs: epochs in a stage; each starts with fresh moments.
      decay_at: shares of a stage after which the learning rate is multiplied by `decay`.
      decay: see there.
    """

    learning_rate: float = 1e-3
    batch_size: int = 64
    samples: int = 2**18
    epochs: int = 5
    decay_at: tuple[float, ...] = (0.6, 0.8)
    decay: float = 0.5

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.decay <= 0:
            raise ValueError(f"learning_rate and decay must be positive: {self}")
        if self.batch_size < 1 or self.epochs < 1 or self.samples < self.batch_size:
            raise ValueError(f"a stage needs at least one epoch of one batch: {self}")

    @property
    def steps_per_epoch(self) -> int:
        return self.samples // self.batch_size

    def init(self, curve: Curve) -> "AdamState":
        """The state at a stage's start."""
        return AdamState(curve, self._optimiser().init(curve.codewords))

    @functools.partial(jax.jit, static_argnames="self")
    def epoch(self, key: Array, state: "AdamState", source: Source) -> tuple["AdamState", Array]:
        """One epoch as one compiled program: the next state and the mean dithered loss."""
        steps = self.steps_per_epoch
        block = min(STEPS_DRAWN_AT_ONCE, steps)
        keys = jax.random.split(key, steps // block + 1)
        state, losses = lax.scan(
            lambda state, key: self._steps(key, state, source, block), state, keys[:-1]
        )
        total = losses.sum()
        if steps % block:
            state, loss = self._steps(keys[-1], state, source, steps % block)
            total = total + loss
        return state, total / steps

    def _steps(self, key: Array, state: "AdamState", source: Source, steps: int):
        """So many steps and the sum of their losses."""
        latents_key, fractions_key = jax.random.split(key)
        x = source.draw(latents_key, steps * self.batch_size)
        x = x.reshape(steps, self.batch_size, -1)
        fractions = jax.random.uniform(fractions_key, (steps, state.curve.num_lines))

        def step(state: AdamState, batch: tuple[Array, Array]) -> tuple[AdamState, Array]:
            loss, gradient = jax.value_and_grad(dithered_loss)(state.curve, *batch)
            with jax.numpy_dtype_promotion("standard"):  # optax raises floats to an integer count
                updates, optimiser = self._optimiser().update(gradient.codewords, state.optimiser)
            curve = Curve(state.curve.codewords + jnp.asarray(updates))
            return AdamState(curve, optimiser), loss

        state, losses = lax.scan(step, state, (x, fractions))
        return state, losses.sum()

    def _optimiser(self) -> optax.GradientTransformation:
        total = self.epochs * self.steps_per_epoch
        boundaries = {round(share * total): self.decay for share in self.decay_at}
        return optax.adam(optax.piecewise_constant_schedule(self.learning_rate, boundaries))


class AdamState(NamedTuple):
    """What a stage needs to go on."""

    curve: Curve
    optimiser: optax.OptState
