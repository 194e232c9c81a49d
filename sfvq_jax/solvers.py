"""One stage of fitting, at one number of codewords: `Adam` as published, or `LeastSquares`.

A solver is a value: `init` gives the state of a stage, `add` takes in a block of samples, `finish`
ends a round. `add` and `finish` are written for one shard, with collectives over a named axis where
there is one. `step` is a whole update of a curve by samples that are at hand, for loops of your own
under `jit`, `jax.shard_map` or `jax.pmap`.
"""

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import PartitionSpec

from sfvq_jax.curve import Curve
from sfvq_jax.least_squares import NormalSums, add_samples, length_term, objective, solve, zero_sums
from sfvq_jax.objective import dithered_loss, nearest_dithered
from sfvq_jax.projection import check_precision, project

Array = jax.Array

BLOCK_STEPS = 64  # steps of Adam whose samples are drawn at once
BLOCK_FLOATS = 2**24  # in a block of samples: 64 MiB
MAX_BLOCK = 2**16  # samples in a block
MIN_SAMPLES = 2**16  # in a round
SAMPLES_A_CODEWORD = 1024


class Plan(NamedTuple):
    """The samples of one round: `blocks` blocks of batch × steps samples each.

    Steps are taken one after another, each on `batch` samples; over devices the batch is divided.
    Where `whole` is set, the round is one pass over a finite source, and the last block may be
    short.
    """

    blocks: int
    batch: int
    steps: int
    whole: bool = False

    @property
    def block_samples(self) -> int:
        return self.batch * self.steps


class Solver(Protocol):
    """What `fit` needs of a solver."""

    @property
    def rounds(self) -> int:
        """In a stage, at most."""
        ...

    def plan(self, num_codewords: int, latent_dim: int, num_latents: int | None) -> Plan: ...

    def init(self, curve: Curve, shards: int = 1) -> Any:
        """The state at a stage's start: a pytree with a field `curve`."""
        ...

    def layout(self, axis: str) -> Any:
        """PartitionSpecs of the state."""
        ...

    def add(self, state: Any, key: Array, x: Array, weight: Array, axis: str | None) -> Any:
        """Takes in one shard's part of a block, batch-major: [batch × steps, D], weights [N]."""
        ...

    def finish(self, state: Any, axis: str | None) -> tuple[Any, Array]:
        """Ends a round: the next state and the round's loss, a dimension."""
        ...

    def penalty(self, curve: Curve) -> Any:
        """What is minimised beside the distortion, a dimension."""
        ...

    def converged(self, previous: float, objective: float) -> bool:
        """Whether distortion + penalty after the last two rounds say that a stage is done."""
        ...


@dataclasses.dataclass(frozen=True)
class LeastSquares:
    """Project and solve in turn, as k-means does, with a penalty on length.

    A round assigns samples to the curve and replaces the codewords by the best ones for that
    assignment (`sfvq_jax.least_squares`).

    Attributes:
      length_penalty: μ, without a unit. More gives a shorter and better ordered curve of higher
        distortion; README shows how much on five kinds of data.
      rounds: in a stage, at most.
      tolerance: a stage ends when a round lowers the objective by less than this share.
      samples: in a round, a new part of the source each time; "all" is a pass over all of a finite
        source. None is 1024 a codeword, at least 65,536, at most all.
      dithered: assigns to one random point a line, as the published recipe does, instead of to the
        nearest point of all.
      block: samples that are read and projected at once on all devices together; None is 64 MiB of
        them, at most 65,536. Draws of a sampler depend on it.
      precision: of the products that choose each sample's line; see `project`.
    """

    length_penalty: float = 0.2
    rounds: int = 20
    tolerance: float = 1e-4
    samples: int | str | None = None
    dithered: bool = False
    block: int | None = None
    precision: str = "highest"

    def __post_init__(self) -> None:
        if not self.length_penalty >= 0 or not self.tolerance >= 0:
            raise ValueError(f"length_penalty and tolerance must be at least 0: {self}")
        if self.rounds < 1 or (self.block is not None and self.block < 1):
            raise ValueError(f"a stage needs at least one round of at least one sample: {self}")
        if isinstance(self.samples, str) and self.samples != "all":
            raise ValueError(f'samples is {self.samples!r}; expected a number, "all" or None')
        if isinstance(self.samples, int) and self.samples < 1:
            raise ValueError(f"samples is {self.samples}; a round needs at least one")
        check_precision(self.precision)

    def plan(self, num_codewords: int, latent_dim: int, num_latents: int | None) -> Plan:
        samples = self.samples
        if samples is None:
            samples = max(MIN_SAMPLES, SAMPLES_A_CODEWORD * num_codewords)
        block = self.block or max(1, min(MAX_BLOCK, BLOCK_FLOATS // latent_dim))
        if isinstance(samples, str) or (num_latents is not None and num_latents <= samples):
            # of how many blocks, an iterator does not know
            blocks = 0 if num_latents is None else -(-num_latents // block)
            return Plan(blocks, min(block, num_latents or block), 1, whole=True)
        blocks = -(-samples // block)
        return Plan(blocks, -(-samples // blocks), 1)

    def init(self, curve: Curve, shards: int = 1) -> "LeastSquaresState":
        sums = jax.tree.map(lambda sum: jnp.stack([sum] * shards), zero_sums(curve))
        return LeastSquaresState(curve, sums)

    def layout(self, axis: str) -> "LeastSquaresState":
        return LeastSquaresState(PartitionSpec(), PartitionSpec(axis))  # pyright: ignore

    def step(
        self,
        curve: Curve,
        x: Array,
        weight: Array | None = None,
        key: Array | None = None,
        axis: str | None = None,
    ) -> tuple[Curve, Array]:
        """One round on samples at hand.

        Args:
          curve: K codewords of width D, the same on all shards.
          x: this shard's samples, [N, D].
          weight: of each, [N]; 0 for padding. 1 by default.
          key: for `dithered`; the same on all shards.
          axis: name of the axis over which the shards' sums are added: K·D + 2K floats.

        Returns:
          The next curve, and the objective of the former, a dimension; the same on all shards.
        """
        sums = zero_sums(curve)
        if axis is not None:
            sums = lax.pcast(sums, axis, to="varying")
        weight = jnp.ones_like(x[:, 0]) if weight is None else weight
        sums = self._add(sums, curve, key, x, weight)
        return self._solve(sums, curve, axis)

    def add(
        self, state: "LeastSquaresState", key: Array, x: Array, weight: Array, axis: str | None
    ) -> "LeastSquaresState":
        sums = jax.tree.map(lambda sum: sum[0], state.sums)
        sums = self._add(sums, state.curve, key, x, weight)
        return LeastSquaresState(state.curve, jax.tree.map(lambda sum: sum[None], sums))

    def finish(
        self, state: "LeastSquaresState", axis: str | None
    ) -> tuple["LeastSquaresState", Array]:
        sums = jax.tree.map(lambda sum: sum[0], state.sums)
        curve, loss = self._solve(sums, state.curve, axis)
        return LeastSquaresState(curve, jax.tree.map(jnp.zeros_like, state.sums)), loss

    def penalty(self, curve: Curve) -> Array:
        return length_term(curve, self.length_penalty)

    def converged(self, previous: float, objective: float) -> bool:
        return previous - objective < self.tolerance * previous

    def _add(
        self, sums: NormalSums, curve: Curve, key: Array | None, x: Array, weight: Array
    ) -> NormalSums:
        if self.dithered:
            if key is None:
                raise ValueError("a dithered step needs a key")
            fractions = jax.random.uniform(key, (curve.num_lines,))
            line, fraction, squared_distance = nearest_dithered(curve, x, fractions)
        else:
            line, fraction, squared_distance = project(curve, x, precision=self.precision)
        origin = curve.codewords.mean(0)
        return add_samples(sums, x, weight, line, fraction, squared_distance, origin)

    def _solve(self, sums: NormalSums, curve: Curve, axis: str | None) -> tuple[Curve, Array]:
        if axis is not None:
            sums = lax.psum(sums, axis)
        loss = objective(sums, curve, self.length_penalty)
        return solve(sums, curve, self.length_penalty, curve.codewords.mean(0)), loss


class LeastSquaresState(NamedTuple):
    """What a stage needs to go on: the curve, and each shard's sums of the round, [shards, …]."""

    curve: Curve
    sums: NormalSums


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam on the dithered loss; the defaults are those of the authors' public PyTorch example.

    Attributes:
      learning_rate: of a stage's start.
      batch_size: samples in a step.
      samples: samples in an epoch, drawn afresh; rounded up to whole blocks of at most 64 steps.
      epochs: epochs in a stage, which has fresh moments.
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
        if not isinstance(self.samples, int):
            raise ValueError(f"samples is {self.samples!r}; expected a number, of an epoch")
        if self.batch_size < 1 or self.epochs < 1 or self.samples < self.batch_size:
            raise ValueError(f"a stage needs at least one epoch of one batch: {self}")

    @property
    def rounds(self) -> int:
        return self.epochs

    @property
    def steps_per_epoch(self) -> int:
        blocks, steps = self._blocks()
        return blocks * steps

    def plan(self, num_codewords: int, latent_dim: int, num_latents: int | None) -> Plan:
        blocks, steps = self._blocks()
        return Plan(blocks, self.batch_size, steps)

    def init(self, curve: Curve, shards: int = 1) -> "AdamState":
        return AdamState(curve, self._optimiser().init(curve.codewords), jnp.zeros(()))

    def layout(self, axis: str) -> PartitionSpec:
        return PartitionSpec()

    def step(
        self,
        state: "AdamState",
        x: Array,
        fractions: Array,
        weight: Array | None = None,
        axis: str | None = None,
    ) -> "AdamState":
        """One step of gradient descent.

        Args:
          state: of the stage, the same on all shards.
          x: this shard's part of the batch, [B, D].
          fractions: λ of the dithered loss, the same on all shards, [K - 1].
          weight: of each sample, [B]; 0 for padding. 1 by default.
          axis: name of the axis over which gradients are averaged.

        Returns:
          The next state, with the batch's dithered loss added to its `loss`.
        """
        weight = jnp.ones_like(x[:, 0]) if weight is None else weight
        total = _sum_over(axis, weight.sum())

        def part(curve: Curve) -> Array:
            """This shard's part of the mean loss, whatever share of the weight it has."""
            own = jnp.where(weight.sum() > 0, weight, jnp.ones_like(weight))
            share = weight.sum() / total
            return share * dithered_loss(curve, x, fractions, own)

        curve = state.curve if axis is None else lax.pcast(state.curve, axis, to="varying")
        loss, gradient = _sum_over(axis, jax.value_and_grad(part)(curve))
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to an integer count
            updates, optimiser = self._optimiser().update(gradient.codewords, state.optimiser)
        curve = Curve(state.curve.codewords + jnp.asarray(updates))
        return AdamState(curve, optimiser, state.loss + loss)

    def add(
        self, state: "AdamState", key: Array, x: Array, weight: Array, axis: str | None
    ) -> "AdamState":
        steps = self._blocks()[1]
        # batch-major, so that a shard's rows are its part of every step's batch
        x = x.reshape(-1, steps, x.shape[1])
        weight = weight.reshape(-1, steps)
        fractions = jax.random.uniform(key, (steps, state.curve.num_lines))

        def step(i: Array, state: AdamState) -> AdamState:
            batch, its_weight = (
                lax.dynamic_index_in_dim(array, i, 1, keepdims=False) for array in (x, weight)
            )
            return self.step(state, batch, fractions[i], its_weight, axis)

        return lax.fori_loop(0, steps, step, state)

    def finish(self, state: "AdamState", axis: str | None) -> tuple["AdamState", Array]:
        return state._replace(loss=jnp.zeros_like(state.loss)), state.loss / self.steps_per_epoch

    def penalty(self, curve: Curve) -> float:
        return 0.0

    def converged(self, previous: float, objective: float) -> bool:
        return False

    def _blocks(self) -> tuple[int, int]:
        """Blocks in an epoch and steps in a block."""
        steps = self.samples // self.batch_size
        blocks = -(-steps // BLOCK_STEPS)
        return blocks, -(-steps // blocks)

    def _optimiser(self) -> optax.GradientTransformation:
        total = self.epochs * self.steps_per_epoch
        boundaries = {round(share * total): self.decay for share in self.decay_at}
        return optax.adam(optax.piecewise_constant_schedule(self.learning_rate, boundaries))


class AdamState(NamedTuple):
    """What a stage needs to go on; `loss` is summed over the steps of the epoch so far."""

    curve: Curve
    optimiser: optax.OptState
    loss: Array


def _sum_over(axis: str | None, tree: Any) -> Any:
    return tree if axis is None else lax.psum(tree, axis)
