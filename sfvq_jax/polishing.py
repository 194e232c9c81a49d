"""Polishing: a fitted curve's dead codewords are put to use, its crossings undone, and it is refit.

Refining moves codewords only a little at a time, so two faults of a curve stay for ever: codewords
that no sample reaches, and stretches that are passed through in the wrong direction. Both are seen
at once from the codebook as a whole.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sfvq_jax import sharding
from sfvq_jax.curve import Curve, decode
from sfvq_jax.fit import DEFAULT_SOLVER
from sfvq_jax.projection import distortion, project
from sfvq_jax.quality import TWO_OPT_CODEWORDS, pairwise_distances, two_opt
from sfvq_jax.solvers import LeastSquares, Plan
from sfvq_jax.sources import ArraySource, Source, as_source

Array = jax.Array

HELD_SAMPLES = 2**14  # at least
HELD_A_CODEWORD = 16  # of an evenly used codeword all of them miss one time in exp(16)


def polish(
    key: Array,
    curve: Curve,
    source: Any,
    *,
    solver: LeastSquares = DEFAULT_SOLVER,
    rounds: int = 10,
) -> Curve:
    """A curve of as many codewords with a distortion + length penalty that is at most as high.

    1. Dead codewords, to which no sample's nearest point of the curve belongs (it lies on no half
       line that touches them), are taken out and set anew into the lines that most samples use.
    2. Stretches of the order are reversed while that shortens the curve (2-opt, K <= 2048), unless
       distortion + penalty rise.
    3. The solver's rounds are run at this number of codewords, on fresh draws.

    Of all curves on the way, the given one included, the one of the least distortion + penalty on
    held samples is returned: a small array as a whole, otherwise 16 a codeword, at least 16,384.

    Args:
      key: a PRNG key; the same key and arguments give the same curve.
      curve: K codewords of width D.
      source: of latents, whatever `fit` takes.
      solver: its length penalty is the objective's, its plan says how many samples a round takes.
      rounds: 0 for the first two steps only.

    Raises:
      ValueError: latents of another width, rounds below 0, or samples="all" of a source that does
        not tell how many there are.

    >>> import jax
    >>> x = jax.random.normal(jax.random.key(0), (4096, 2))
    >>> curve = Curve(jax.random.normal(jax.random.key(1), (8, 2)))
    >>> bool(distortion(polish(jax.random.key(2), curve, x), x) < distortion(curve, x))
    True
    """
    source = as_source(source)
    plan = solver.plan(curve.num_codewords, curve.latent_dim, source.num_latents)
    if rounds < 0:
        raise ValueError(f"rounds is {rounds}; expected 0 or more")
    if plan.blocks == 0 or (plan.whole and source.num_latents is None):
        raise ValueError('samples is "all", but the source does not tell how many: give a number')
    mesh = sharding.default_mesh(plan.batch)
    source = sharding.place_source(source, mesh)
    held_key, order_key, rounds_key = jax.random.split(key, 3)
    count = max(HELD_SAMPLES, HELD_A_CODEWORD * curve.num_codewords)
    held = jnp.asarray(np.asarray(sharding.read_samples(source, held_key, count, mesh)))

    def objective(curve: Curve) -> float:
        return float(distortion(curve, held)) + float(solver.penalty(curve))

    candidate = _shortened(_revived(curve, held), objective)
    best = min(curve, candidate, key=objective)
    state = sharding.init(solver, mesh, sharding.replicate(candidate, mesh))
    for i in range(rounds):
        keys = jax.random.split(jax.random.fold_in(rounds_key, i))
        state = _add_round(solver, mesh, plan, state, source, order_key, keys, i)
        state, _ = sharding.finish(solver, mesh, state)
        # a copy, since the next round takes the state's memory
        candidate = Curve(jnp.asarray(np.array(state.curve.codewords)))
        best = min(best, candidate, key=objective)
    return best


def _revived(curve: Curve, held: Array) -> Curve:
    """The curve without its dead codewords, and as many more in the lines most used."""
    nearest = np.rint(np.asarray(project(curve, held).position)).astype(int)
    alive = np.flatnonzero(np.bincount(nearest, minlength=curve.num_codewords))
    dead = curve.num_codewords - len(alive)
    if dead == 0 or len(alive) < 2:
        return curve
    # the last codeword repeated: a curve of the same size, for which nothing is compiled anew
    curve = Curve(curve.codewords[np.pad(alive, (0, dead), mode="edge")])
    last = len(alive) - 2
    line = np.minimum(np.asarray(project(curve, held).line), last)
    use, parts = np.bincount(line, minlength=last + 1), np.ones(last + 1, int)
    for _ in range(dead):
        parts[(use / parts).argmax()] += 1
    starts = np.concatenate([i + np.arange(n) / n for i, n in enumerate(parts)])
    places = np.append(starts, last + 1).astype(np.float32)
    return Curve(decode(curve, jnp.asarray(places)))


def _shortened(curve: Curve, objective: Callable[[Curve], float]) -> Curve:
    if curve.num_codewords > TWO_OPT_CODEWORDS:
        return curve
    distances = pairwise_distances(np.asarray(curve.codewords, np.float64))
    shorter = Curve(curve.codewords[two_opt(distances, np.arange(curve.num_codewords))])
    return shorter if objective(shorter) <= objective(curve) else curve


def _add_round(
    solver: LeastSquares,
    mesh: Mesh,
    plan: Plan,
    state: Any,
    source: Source,
    order: Array,
    keys: Array,
    number: int,
) -> Any:
    """Takes in the samples of a round: drawn by its own keys [2], or read on in a common order."""
    if source.on_device and not plan.whole:
        keys = sharding.replicate(keys, mesh)
        return sharding.add_drawn(solver, mesh, plan, state, source, keys, 0, plan.blocks)
    if isinstance(source, ArraySource):
        block = sharding.whole_block(source, mesh)
        return sharding.add_block(solver, mesh, state, keys[1], block)
    for i in range(plan.blocks):
        start, count = i * plan.block_samples, plan.block_samples
        if plan.whole:
            assert source.num_latents is not None
            count = min(count, source.num_latents - start)
            block = sharding.read_block(source, None, start, count, plan, mesh).block
        else:
            start += number * plan.blocks * plan.block_samples
            block = sharding.read_block(source, order, start, count, plan, mesh).block
        state = sharding.add_block(solver, mesh, state, jax.random.fold_in(keys[1], i), block)
    return state
