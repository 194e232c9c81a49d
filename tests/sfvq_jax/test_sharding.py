"""One curve on one device and on many, by fit, shard_map and pmap."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import (
    Adam,
    Curve,
    HostSource,
    IteratorSource,
    LeastSquares,
    data_mesh,
    fit,
    project,
    sharding,
)
from sfvq_jax.sources import as_source

DEVICES = [1, 2, 8]
UNEVEN = 1003  # a prime number: no number of devices divides it


def gaussian(n=UNEVEN, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def sampler(key, n):
    return jax.random.normal(key, (n, 3)) * jnp.array([[3.0, 1.0, 0.3]])


def mesh_of(devices):
    return data_mesh(jax.devices()[:devices])


def start(k=16):
    return Curve(jnp.asarray(gaussian(k, seed=1)))


def padded(x, shards):
    """Samples in equal parts for the shards, [shards, n, D], and their weights: 0 for padding."""
    rest = -len(x) % shards
    weight = np.pad(np.ones(len(x), np.float32), (0, rest))
    x = np.pad(x, ((0, rest), (0, 0)), constant_values=99.0)
    return x.reshape(shards, -1, x.shape[1]), weight.reshape(shards, -1)


def by_shard_map(step, shards):
    """A step of one shard's samples and weights, over [shards, …] of both."""
    per_shard = jax.shard_map(
        lambda x, weight: step(x[0], weight[0]),
        mesh=mesh_of(shards),
        in_specs=PartitionSpec("data"),
        out_specs=PartitionSpec(),
    )
    return jax.jit(per_shard)


def assert_same_curve(curve, expected, x):
    assert_allclose(curve.codewords, expected.codewords, rtol=1e-4, atol=1e-4)
    # the same assignment, but where a sample is as near to one line as to another
    positions = project(curve, x).position, project(expected, x).position
    assert np.mean(np.abs(positions[0] - positions[1]) < 1e-3) > 0.999


SOURCES = {
    "array": (gaussian(), LeastSquares(rounds=4)),
    "sampler": (sampler, LeastSquares(rounds=4, samples=UNEVEN, block=300)),
    "all of the host's": (HostSource(gaussian()), LeastSquares(samples="all", block=300)),
    "parts of the host's": (HostSource(gaussian()), LeastSquares(samples=200, block=70)),
    "adam": (sampler, Adam(samples=2**11, epochs=2, batch_size=50, learning_rate=1e-2)),
}


@functools.cache
def fitted(source, devices, bits):
    latents, solver = SOURCES[source]
    return fit(jax.random.key(0), latents, bits=bits, solver=solver, mesh=mesh_of(devices))


class TestFit:
    @pytest.mark.parametrize(
        ("source", "devices", "bits"),
        [
            *(("array", devices, 3) for devices in DEVICES[1:]),
            *((source, 8, 2) for source in SOURCES if source != "array"),
            ("sampler", 3, 2),  # which divides neither the block nor the batch
            ("adam", 3, 2),
        ],
    )
    def test_more_devices_give_the_same_curve(self, source, devices, bits):
        one, more = fitted(source, 1, bits), fitted(source, devices, bits)
        assert_same_curve(more.curve, one.curve, gaussian())
        assert_allclose(more.history.loss, one.history.loss, rtol=1e-4)
        assert_array_equal(more.history.samples, one.history.samples)

    def test_an_iterator_of_uneven_blocks_gives_the_curve_of_their_rows(self):
        x = gaussian()
        source = IteratorSource(np.split(x, [10, 400, 401, 900]))
        solver = LeastSquares(rounds=3, samples="all", block=300)
        for devices in (1, 4):
            found = fit(jax.random.key(0), source, bits=2, solver=solver, mesh=mesh_of(devices))
            expected = fit(jax.random.key(0), HostSource(x), bits=2, solver=solver)
            assert_array_equal(found.history.samples, expected.history.samples)
            assert_same_curve(found.curve, expected.curve, x)

    def test_the_curve_is_on_the_default_device_again(self):
        curve = fit(jax.random.key(0), gaussian(), bits=2, mesh=mesh_of(4)).curve
        assert curve.codewords.devices() == {jax.devices()[0]}
        project(curve, gaussian())

    def test_a_mesh_of_other_axes_is_refused(self):
        mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "model"))
        with pytest.raises(ValueError, match=r"axes \('data', 'model'\); a fit needs the one axis"):
            fit(jax.random.key(0), gaussian(), bits=2, mesh=mesh)


class TestSteps:
    """The public steps, in loops of one's own."""

    @pytest.mark.parametrize("shards", DEVICES[1:])
    @pytest.mark.parametrize("dithered", [False, True])
    def test_a_least_squares_step_under_shard_map_and_pmap(self, shards, dithered):
        solver, curve, x, key = (
            LeastSquares(dithered=dithered),
            start(),
            gaussian(),
            jax.random.key(7),
        )
        expected, loss = jax.jit(solver.step)(curve, x, None, key)
        parts, weight = padded(x, shards)

        def step(x, weight):
            return solver.step(curve, x, weight, key, axis="data")

        by_map, loss_by_map = by_shard_map(step, shards)(parts, weight)
        by_pmap, loss_by_pmap = jax.pmap(step, axis_name="data")(parts, weight)
        for found, found_loss in ((by_map, loss_by_map), (by_pmap, loss_by_pmap)):
            codewords = np.asarray(found.codewords).reshape(-1, *expected.codewords.shape)
            for of_device in codewords:
                assert_same_curve(Curve(jnp.asarray(of_device)), expected, x)
            assert_allclose(np.asarray(found_loss), np.full(np.shape(found_loss), loss), rtol=1e-5)

    @pytest.mark.parametrize("shards", DEVICES[1:])
    def test_an_adam_step_under_shard_map_and_pmap(self, shards):
        solver, x = Adam(learning_rate=0.1), gaussian()
        state = solver.init(start())
        fractions = jax.random.uniform(jax.random.key(3), (15,))
        expected = jax.jit(solver.step)(state, x, fractions)
        parts, weight = padded(x, shards)

        def step(x, weight):
            return solver.step(state, x, fractions, weight, axis="data")

        by_map = by_shard_map(step, shards)(parts, weight)
        by_pmap = jax.tree.map(
            lambda leaf: leaf[0], jax.pmap(step, axis_name="data")(parts, weight)
        )
        for found in (by_map, by_pmap):
            assert_allclose(found.loss, expected.loss, rtol=1e-5)
            # Adam's first step is the sign of the gradient, whose size is compared too
            assert_allclose(found.curve.codewords, expected.curve.codewords, atol=1e-5)
            moments = expected.optimiser[0].mu, found.optimiser[0].mu
            assert_allclose(moments[1], moments[0], atol=1e-6)

    def test_a_shard_of_padding_alone_changes_nothing(self):
        parts, weight = padded(gaussian(8), 8)
        weight[3:] = 0
        for solver, first in ((LeastSquares(), start()), (Adam(), Adam().init(start()))):
            more = () if isinstance(solver, LeastSquares) else (jnp.full(15, 0.5),)

            def step(x, weight, solver=solver, first=first, more=more, axis="data"):
                return solver.step(first, x, *more, weight=weight, axis=axis)

            found = by_shard_map(step, 8)(parts, weight)
            expected = jax.jit(step, static_argnames="axis")(parts[:3, 0], weight[:3, 0], axis=None)
            for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
                assert_allclose(one, other, rtol=1e-4, atol=1e-5)


class TestWhatCrossesDevices:
    """Counted in the compiled programs."""

    k, d = 16, 3

    def programs(self, devices, n):
        solver, mesh = LeastSquares(), mesh_of(devices)
        source = sharding.place_source(as_source(gaussian(n)), mesh)
        state = jax.device_put(solver.init(start(self.k), devices), sharding.layout(solver, mesh))
        keys = sharding.replicate(jax.random.split(jax.random.key(0)), mesh)
        block = sharding.whole_block(source, mesh)
        drawn = sharding.place_source(as_source(sampler), mesh)
        plan = solver.plan(self.k, self.d, None)
        return {
            "add": sharding.add_block.lower(solver, mesh, state, keys[1], block),
            "draw": sharding.add_drawn.lower(solver, mesh, plan, state, drawn, keys, 0, 2),
            "finish": sharding.finish.lower(solver, mesh, state),
        }

    @pytest.mark.parametrize("devices", [2, 8])
    @pytest.mark.parametrize("n", [UNEVEN, 4 * UNEVEN])
    def test_is_k_d_plus_2_k_floats_a_round_whatever_n_is(self, devices, n):
        floats = {
            name: floats_across(lowered.compile().as_text())
            for name, lowered in self.programs(devices, n).items()
        }
        assert floats == {"add": 0, "draw": 0, "finish": self.k * self.d + 2 * self.k}


def floats_across(program):
    """Elements of the results of all collective operations in a compiled program's text."""
    kinds = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
    total = 0
    for result in re.findall(rf"= (.*?) (?:{kinds})(?:-start)?\(", program):
        for shape in re.findall(r"\w+\[([\d,]*)\]", result):
            total += int(np.prod([int(size) for size in shape.split(",") if size]))
    return total
