"""Rounds: one curve on one device and on many, and what crosses between them."""

import collections
import functools
import math
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
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
)
from sfvq_jax.blocks import Draws, Feed, feeds, plan_round
from sfvq_jax.devices import replicate
from sfvq_jax.rounds import add_sums, sum_shapes, update_by_sums, zero_sums
from sfvq_jax.sources import as_source
from sfvq_jax.span import Span

DEVICES = [1, 2, 8]
UNEVEN = 1003  # a prime number: no number of devices divides it


def gaussian(n=UNEVEN, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def sampler(key, n):
    return jax.random.normal(key, (n, 3)) * jnp.array([[3.0, 1.0, 0.3]])


def mesh_of(devices):
    return data_mesh(jax.devices()[:devices])


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
        with pytest.raises(ValueError, match=r"axes \('data', 'model'\); a fit needs the axis"):
            fit(jax.random.key(0), gaussian(), bits=2, mesh=mesh)


class Slow:
    """Latents on the host, which notes what it is asked for."""

    latent_dim, num_latents, on_device = 3, 10**6, False

    def __init__(self):
        self.asked = set()

    def read(self, key, start, count):
        self.asked.add(start)
        return np.random.default_rng(start).normal(size=(count, 3))


class TestReadingAhead:
    def test_the_next_block_is_asked_for_while_one_is_taken_in_also_where_a_round_ends(self):
        source, late = Slow(), []

        def on_report(report):
            began = time.monotonic()
            while report.samples not in source.asked and time.monotonic() < began + 5:
                time.sleep(0.001)
            late.extend({report.samples} - source.asked)

        solver = LeastSquares(samples=200, block=70, rounds=3, tolerance=0, moves=())
        fit(jax.random.key(0), source, bits=2, solver=solver, on_report=on_report)
        assert not late


class TestWhatCrossesDevices:
    """Counted in the compiled programs."""

    k, d = 16, 3

    def programs(self, devices, n):
        mesh, key = mesh_of(devices), jax.random.key(0)
        curve = Curve(jnp.asarray(gaussian(self.k, seed=1)))
        solver = LeastSquares(samples=2**12)
        state = solver.init(curve)
        sums = zero_sums(mesh, solver, sum_shapes(solver, curve, state, devices))
        curve, state = replicate((curve, state), mesh)
        draws = Draws(replicate(key, mesh), np.zeros(3, np.int32))
        lowered = {}
        for name, latents in (("all of an array", gaussian(n)), ("draws", sampler)):
            source = as_source(latents).placed(mesh)
            plan = plan_round(solver, self.k, source, mesh)
            (feed, *_) = feeds(source, Span(), plan, draws, key, 0, 0, mesh)
            assert isinstance(feed, Feed)
            lowered[name] = add_sums.lower(
                mesh, solver, curve, sums, draws, feed.feed, 0, feed.stop
            )
        return lowered | {"end": update_by_sums.lower(mesh, solver, curve, state, sums)}

    @pytest.mark.parametrize("devices", [2, 8])
    @pytest.mark.parametrize("n", [UNEVEN, 4 * UNEVEN])
    def test_is_k_d_and_some_k_floats_a_round_whatever_n_is(self, devices, n):
        floats = {
            name: sum(collectives(lowered.compile().as_text()).values())
            for name, lowered in self.programs(devices, n).items()
        }
        assert floats["all of an array"] == floats["draws"] == 0
        assert floats["end"] == self.k * self.d + 3 * self.k + 1


def collectives(program):
    """Elements of the results of each collective operation in a compiled program's text."""
    kinds = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
    total = collections.Counter()
    for result, kind in re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", program):
        for shape in re.findall(r"\w+\[([\d,]*)\]", result):
            total[kind] += math.prod(int(size) for size in shape.split(",") if size)
    return total
