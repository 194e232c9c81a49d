"""All calls that go deeper into the libraries than their public names, in one place."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.stages import Compiled

from sfvq_jax import Adam, ArraySource, Curve, LeastSquares, data_mesh, project
from sfvq_jax.least_squares import PULL, add_samples, solve, zero_sums
from sfvq_jax.projection import PRECISIONS
from sfvq_jax.sharding import Block, add_block, add_drawn, finish

__all__ = ["PRECISIONS", "PULL"]

Array = jax.Array


# The curve.


def project_program(k: int, n: int, d: int, precision: str) -> Compiled:
    """(curve, samples) -> Projection, compiled."""
    program = jax.jit(functools.partial(project, precision=precision))
    return program.lower(Curve(shape(k, d)), shape(n, d)).compile()


def round_programs(k: int, n: int, d: int, precision: str) -> tuple[Compiled, Compiled]:
    """A round of least squares over one block, compiled; both use the state up.

    Returns:
      add: (state, key, block) -> state.
      finish: state -> (state, loss).
    """
    solver, mesh = LeastSquares(precision=precision), one_device()
    state, block = jax.eval_shape(round_state, Curve(shape(k, d))), Block(shape(n, d), shape(n))
    add = add_block.lower(solver, mesh, state, jax.random.key(0), block)
    return add.compile(), finish.lower(solver, mesh, state).compile()


@jax.jit
def round_state(curve: Curve) -> Any:
    """What a round starts from."""
    return LeastSquares().init(curve, 1)


def sums_programs(k: int, n: int, d: int) -> tuple[Compiled, Compiled]:
    """What a round does once samples are projected, compiled.

    Returns:
      add: (curve, block, projection) -> sums.
      solve: (sums, curve) -> curve.
    """
    penalty = LeastSquares().length_penalty

    def add(curve: Curve, block: Block, places: Any) -> Any:
        origin = curve.codewords.mean(0)
        return add_samples(zero_sums(curve), block.x, block.weight, *places, origin)

    def solve_for(sums: Any, curve: Curve) -> Curve:
        return solve(sums, curve, penalty, curve.codewords.mean(0))

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


def adam_state(solver: Adam, codewords: Array) -> Any:
    return jax.jit(solver.init)(Curve(codewords))


def adam_epoch(solver: Adam, state: Any, data: Array, key: Array) -> Any:
    """The state after an epoch on rows of an array [N, D]; the one before is used up."""
    mesh, source = one_device(), ArraySource(data, len(data))
    plan = solver.plan(state.curve.num_codewords, source.latent_dim, source.num_latents)
    keys = jax.random.split(key)
    state = add_drawn(solver, mesh, plan, state, source, keys, 0, plan.blocks)
    return finish(solver, mesh, state)[0]


def adam_program(solver: Adam, k: int, n: int, d: int) -> Compiled:
    """(state, source, keys, first block, last block) -> state, compiled."""
    mesh, source = one_device(), ArraySource(shape(n, d), n)
    state = jax.eval_shape(solver.init, Curve(shape(k, d)))
    keys = jax.random.split(jax.random.key(0))
    plan = solver.plan(k, d, n)
    return add_drawn.lower(solver, mesh, plan, state, source, keys, 0, plan.blocks).compile()


def one_device() -> jax.sharding.Mesh:
    return data_mesh(jax.devices()[:1])


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


# The generators.


def stylegan2_program(config: Any, variables: dict, ws: Array, precision: str) -> Compiled:
    """(variables, ws [N, L, D]) -> images [N, H, W, C], compiled."""
    from ports.stylegan2.network import SynthesisNetwork

    network: Any = SynthesisNetwork(config, images_dtype(precision))

    def images(variables: dict, ws: Array) -> Array:
        own = {name: tree["synthesis"] for name, tree in variables.items()}
        return network.apply(own, ws, "const")[0]

    with products_of(precision):
        return jax.jit(images).lower(variables, ws).compile()


def biggan_program(config: Any, variables: dict, z: Array, y: Array, precision: str) -> Compiled:
    """(variables, z [N, Z], y [N, classes]) -> images [N, H, W, C], compiled."""
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
        return jax.jit(images).lower(variables, z, y).compile()


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
