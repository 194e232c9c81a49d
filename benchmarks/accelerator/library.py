"""All calls that go deeper into the libraries than their public names, in one place."""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.stages import Compiled, Lowered

from sfvq_jax import Adam, Curve, LeastSquares, Projection, data_mesh, project
from sfvq_jax.blocks import AtHand, Draws, Feed, feeds, plan_round
from sfvq_jax.devices import replicate
from sfvq_jax.least_squares import LEAST_USE, PULL, mean_step, normal_sums, solve
from sfvq_jax.projection import PRECISIONS
from sfvq_jax.rounds import absorb, add_sums, descend, sum_shapes, update_by_sums, zero_sums
from sfvq_jax.rows.source import Block
from sfvq_jax.solver import round_steps
from sfvq_jax.sources import as_source
from sfvq_jax.span import Span

__all__ = ["LEAST_USE", "PRECISIONS", "PULL"]

Array = jax.Array


# The curve.


def project_program(k: int, n: int, d: int, precision: str) -> Compiled:
    """(curve, samples) -> Projection, compiled."""
    program = jax.jit(functools.partial(project, precision=precision))
    return program.lower(Curve(shape(k, d)), shape(n, d)).compile()


class Rounds:
    """Rounds of least squares over one block of samples [N, D], compiled, as a fit has them.

    Attributes:
      program: what `add` calls.
    """

    def __init__(self, codewords: Array, x: Array, precision: str):
        self._solver, self._mesh = LeastSquares(precision=precision), one_device()
        curve = Curve(codewords)
        self._curve, self._state = replicate((curve, self._solver.init(curve)), self._mesh)
        shapes = sum_shapes(self._solver, self._curve, self._state, 1)
        self._sums = zero_sums(self._mesh, self._solver, shapes)
        draws = draws_of(jax.random.key(0), self._mesh)
        self._block = (draws, AtHand(block_of(x), Span()), np.int32(0), np.int32(1))
        self.program = add_sums.lower(
            self._mesh, self._solver, self._curve, self._sums, *self._block
        ).compile()
        self._update = update_by_sums.lower(
            self._mesh, self._solver, self._curve, self._state, self._sums
        ).compile()

    def add(self) -> Any:
        """The sums, with those of the block once more."""
        self._sums = self.program(self._solver, self._curve, self._sums, *self._block)
        return self._sums

    def finish(self) -> Array:
        """Updates the curve, and empties the sums; what a fit looks at."""
        updated = self._update(self._solver, self._curve, self._state, self._sums)
        self._curve, self._state, self._sums = updated.curve, updated.state, updated.sums
        return updated.seen


def sums_programs(k: int, n: int, d: int) -> tuple[Compiled, Compiled]:
    """What a round does once samples are projected, compiled.

    Returns:
      add: (curve, block, projection) -> sums.
      solve: (sums, curve) -> curve.
    """
    penalty = LeastSquares().length_penalty

    def add(curve: Curve, block: Block, places: Projection) -> Any:
        return normal_sums(curve, *block, places)

    def solve_for(sums: Any, curve: Curve) -> Curve:
        return solve(sums, curve, penalty, mean_step(curve, sums))

    curve, block = Curve(shape(k, d)), Block(shape(n, d), shape(n))
    places = jax.eval_shape(project, curve, block.x)
    sums = jax.eval_shape(add, curve, block, places)
    return (
        jax.jit(add).lower(curve, block, places).compile(),
        jax.jit(solve_for).lower(sums, curve).compile(),
    )


def block_of(x: Array) -> Block:
    """Samples [N, D] of weight 1."""
    return Block(x, jnp.ones_like(x[:, 0]))


class Epochs:
    """Epochs of Adam on rows of an array [N, D], one after another."""

    def __init__(self, solver: Adam, codewords: Array, data: Array):
        self._solver, self._mesh = solver, one_device()
        curve = Curve(codewords)
        self._curve, self._state = replicate((curve, solver.init(curve)), self._mesh)
        self._shapes = sum_shapes(solver, self._curve, self._state, 1)
        self._source = as_source(data).placed(self._mesh)
        self._plan = plan_round(solver, len(codewords), self._source, self._mesh)
        self.steps = math.prod(round_steps(solver))  # in an epoch

    def run(self, key: Array) -> Array:
        """An epoch as `sfvq_jax.fit` runs it, block after block; the codewords after it."""
        info = self._no_info()
        for feed in self._feeds(key):
            self._curve, self._state, info = absorb(
                self._mesh,
                self._solver,
                self._plan.steps,
                self._curve,
                self._state,
                info,
                draws_of(key, self._mesh),
                feed,
            )
            jax.block_until_ready((self._state, info))
        return self._curve.codewords

    def in_one_call(self, key: Array) -> tuple[Compiled, Callable[[], Array]]:
        """The compiled program, and what runs a whole epoch in one call of it."""
        draws = draws_of(key, self._mesh)
        blocks = (draws, next(self._feeds(key)).feed, np.int32(0), np.int32(self._plan.blocks))

        def arguments() -> tuple:
            return (self._solver, self._curve, self._state, self._no_info(), *blocks)

        solver, *rest = arguments()
        program = descend.lower(self._mesh, solver, self._plan.steps, *rest).compile()

        def run() -> Array:
            self._curve, self._state, _ = program(*arguments())
            return self._curve.codewords

        return program, run

    def _feeds(self, key: Array) -> Iterator[Feed]:
        draws = draws_of(key, self._mesh)
        return feeds(self._source, Span(), self._plan, draws, key, 0, 0, self._mesh)

    def _no_info(self) -> Any:
        return zero_sums(self._mesh, self._solver, self._shapes)


def draws_of(key: Array, mesh: jax.sharding.Mesh) -> Draws:
    """Of the first round."""
    return Draws(replicate(key, mesh), np.zeros(3, np.int32))


def one_device() -> jax.sharding.Mesh:
    return data_mesh(jax.devices()[:1])


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


# The generators.


def stylegan2_program(config: Any, variables: dict, ws: Array, precision: str) -> Lowered:
    """(variables, ws [N, L, D]) -> images [N, H, W, C]."""
    from ports.stylegan2.network import SynthesisNetwork

    network: Any = SynthesisNetwork(config, images_dtype(precision))

    def images(variables: dict, ws: Array) -> Array:
        own = {name: tree["synthesis"] for name, tree in variables.items()}
        return network.apply(own, ws, "const")[0]

    with products_of(precision):
        return jax.jit(images).lower(variables, ws)


def biggan_program(config: Any, variables: dict, z: Array, y: Array, precision: str) -> Lowered:
    """(variables, z [N, Z], y [N, classes]) -> images [N, H, W, C]."""
    from ports.biggan.model import stats_row
    from ports.biggan.network import GeneratorNetwork

    network: Any = GeneratorNetwork(config, images_dtype(precision))
    row = stats_row(0.4, config.num_stats)

    def images(variables: dict, z: Array, y: Array) -> Array:
        weight = variables["params"]["embedding"]["weight"]
        embedding = jnp.matmul(y, weight, precision="highest")
        every_layer = [
            jnp.broadcast_to(a[:, None], (len(a), config.num_zs, a.shape[1]))
            for a in (z, embedding)
        ]
        return network.apply(variables, *every_layer, row)[0]

    with products_of(precision):
        return jax.jit(images).lower(variables, z, y)


def images_dtype(precision: str) -> Any:
    return jnp.bfloat16 if precision == "bfloat16" else jnp.float32


@contextmanager
def products_of(precision: str) -> Iterator[None]:
    """Traces the generators with TF32 products, which they do not offer themselves."""
    if precision != "tf32":
        yield
        return
    with (
        mock.patch.object(jnp, "matmul", _with_tf32(jnp.matmul)),
        mock.patch.object(jnp, "einsum", _with_tf32(jnp.einsum)),
        mock.patch.object(lax, "conv_general_dilated", _with_tf32(lax.conv_general_dilated)),
    ):
        yield


def _with_tf32(function: Callable[..., Array]) -> Callable[..., Array]:
    def call(*args: Any, precision: Any = None, **options: Any) -> Array:
        return function(*args, precision="tensorfloat32", **options)

    return call


def random_variables(init: Callable[[], Any], seed: int) -> dict:
    """Variables of the shapes that `init` gives a model's, all random, made on the host."""
    rng = np.random.default_rng(seed)

    def fill(path: Any, leaf: Any) -> Array:
        names = [entry.key for entry in path]
        x = rng.standard_normal(leaf.shape, np.float32)
        if names[-1] == "var":
            x = 1 + np.abs(x)
        elif names[-1] in ("bias", "gain", "mean", "noise_strength", "gamma"):
            one = "affine" in names or names[-2:] == ["output_bn", "gain"]
            x = np.float32(one) + x / 10
        elif names[-1] == "weight" and "synthesis" not in names:  # StyleGAN2 scales its own
            x /= np.sqrt(np.prod(leaf.shape[:-1]), dtype=np.float32)
        return jnp.asarray(x)

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(init).variables)


# What XLA says.


def operations(program: Lowered) -> float:
    """Of a program that does not loop, as it is written.

    Once it is compiled, XLA does not count what it leaves to the card's library.
    """
    return (program.cost_analysis() or {}).get("flops", float("nan"))


def analysis(program: Compiled) -> dict[str, float]:
    """Of a compiled program: MiB, and operations and bytes as XLA counts them.

    XLA counts what is in a loop once, however often it runs.
    """
    memory, cost = program.memory_analysis(), program.cost_analysis() or {}
    cost = cost[0] if isinstance(cost, list) else cost
    sizes = {
        "arguments MiB": memory.argument_size_in_bytes / 2**20,
        "output MiB": memory.output_size_in_bytes / 2**20,
        "temporary MiB": memory.temp_size_in_bytes / 2**20,
    }
    return sizes | {
        "peak MiB": sum(sizes.values()),
        "XLA GFLOP": cost.get("flops", float("nan")) / 1e9,
        "XLA GB": cost.get("bytes accessed", float("nan")) / 1e9,
    }
