"""One pass of `partial_fit` beside all the rounds of `fit` on the same latents, and a drift.

    python -m benchmarks.streaming          # 15 minutes of a core
    python -m benchmarks.streaming --quick  # a trial: few samples, two seeds, nothing saved

Two kinds of latents, 2**16 of each seed: W of the bundled StyleGAN2, and forty Gaussian clusters
with noise in all of 64 dimensions. `partial_fit` takes them in blocks of 2048, each once, `fit` as
it does by default. All curves are measured on fresh latents; intervals are over five seeds, whose
latents differ too, and of ratios they are paired. Seconds are those of the core, without compiling.

The drift: of four draws of W the one that is lowest along its first principal axis comes at first,
the highest at last, and the more often in between the later; the clusters move, each in a direction
of its own. Curves are measured on fresh latents of the end;
a stream also tells the distortion of each block before it learns from it: of the last quarter here,
and `fit` of the same blocks, which it has seen.
"""

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.clusters_data import NOISY_CLUSTERS, NOISY_DIM, generator, noisy_clusters
from benchmarks.report import report, use_cores
from sfvq_jax import (
    Curve,
    LeastSquares,
    Stream,
    codebook_quality,
    distortion,
    fit,
    partial_fit,
    project,
    start_stream,
)
from sfvq_jax.interpret.intervals import interval
from sfvq_jax.least_squares import normal_sums

Array = jax.Array
Row = dict[str, Any]

SAMPLES, BLOCK, FRESH, SEEDS = 2**16, 2**11, 2**13, 5
BITS, DRIFT_BITS = (6, 8, 10), 6
HALF_LIVES = (np.inf, 2**15, 2**13)
DRIFT_HALF_LIVES = (np.inf, 2**15, 2**13, 2**11)
CANDIDATES = 4  # of which a drifting W takes the lowest along its axis first, the highest at last
DRIFT = 4.0  # that a cluster moves in all, in standard deviations of its noise


def main() -> None:
    parser = argparse.ArgumentParser(description="One pass beside many.")
    parser.add_argument("--quick", action="store_true", help="few samples, nothing saved")
    quick = parser.parse_args().quick
    use_cores(1)
    samples, seeds, bits = (2**13, 2, BITS[:1]) if quick else (SAMPLES, SEEDS, BITS)
    model = generator("W")
    kinds = {"W": model.sample, "noisy clusters": noisy_clusters}
    drifts = {
        "W, from low to high": functools.partial(drifting_w, model, principal_axis(model)),
        "clusters that move": drifting_clusters,
    }
    one_pass = [
        row
        for b in bits
        for name, sampler in kinds.items()
        for row in beside_rounds(name, jax.jit(sampler, static_argnums=1), b, samples, seeds)
    ]
    drift = [
        row
        for name, sampler in drifts.items()
        for row in beside_drift(name, jax.jit(sampler, static_argnums=2), samples, seeds)
    ]
    report(
        "streaming",
        {"One pass beside full rounds": one_pass, "A stream that drifts": drift},
        packages=("jax", "numpy"),
        save=not quick,
        samples=samples,
        block=BLOCK,
        seeds=seeds,
    )


def beside_rounds(name: str, sampler: Callable, bits: int, samples: int, seeds: int) -> list[Row]:
    """A row for `fit` and each half-life, in means over seeds."""
    found: dict[str, list[Row]] = {}
    for seed in range(seeds):
        key = jax.random.key(seed)
        drawn = sampler(jax.random.fold_in(key, 0), samples + FRESH)
        x, fresh = drawn[FRESH:], drawn[:FRESH]
        start = time.process_time()
        result = fit(key, x, bits=bits)
        seconds = time.process_time() - start
        by_fit = measured(result.curve, fresh)
        by_fit |= {"seconds": seconds, "read": float(result.history.samples[-1])}
        by_fit["objective ÷ fit's"] = by_fit["distortion ÷ fit's"] = 1.0
        found.setdefault("fit", []).append(by_fit)
        blocks = x.reshape(-1, BLOCK, x.shape[1])
        for half_life in HALF_LIVES:
            stream = start_stream(key, blocks[0], bits=bits, half_life=half_life)
            run = compiled(stream, blocks)
            start = time.process_time()
            stream, _ = jax.block_until_ready(run(stream, blocks))
            seconds = time.process_time() - start
            row = measured(stream.curve, fresh) | {"seconds": seconds, "read": float(samples)}
            for what in ("objective", "distortion"):
                row[f"{what} ÷ fit's"] = row[what] / by_fit[what]
            found.setdefault(f"stream, half-life {shown(half_life)}", []).append(row)
        print(f"{name}, {bits} bits, seed {seed}", flush=True)
    return [
        {"latents": name, "bits": bits, "curve": curve} | over_seeds(rows)
        for curve, rows in found.items()
    ]


def beside_drift(name: str, sampler: Callable, samples: int, seeds: int) -> list[Row]:
    found: dict[str, list[Row]] = {}
    number = samples // BLOCK
    for seed in range(seeds):
        key = jax.random.key(100 + seed)
        blocks = jnp.stack(
            [
                sampler(jax.random.fold_in(key, i), jnp.float32(i / (number - 1)), BLOCK)
                for i in range(number)
            ]
        )
        end = sampler(jax.random.fold_in(key, number), jnp.float32(1), FRESH)
        last = number - number // 4
        curve = fit(key, blocks.reshape(-1, blocks.shape[2]), bits=DRIFT_BITS).curve
        by_fit = {
            "at the end": float(distortion(curve, end)),
            "last quarter": float(distortion(curve, blocks[last:].reshape(-1, end.shape[1]))),
        }
        found.setdefault("fit", []).append(by_fit | {"at the end ÷ fit's": 1.0})
        for half_life in DRIFT_HALF_LIVES:
            stream = start_stream(key, blocks[0], bits=DRIFT_BITS, half_life=half_life)
            stream, info = compiled(stream, blocks)(stream, blocks)
            row = {
                "at the end": float(distortion(stream.curve, end)),
                "last quarter": float(info.distortion[last:].mean()),
                "dead": float(info.dead[-1]),
            }
            row["at the end ÷ fit's"] = row["at the end"] / by_fit["at the end"]
            found.setdefault(f"stream, half-life {shown(half_life)}", []).append(row)
        print(f"{name}, seed {seed}", flush=True)
    return [{"latents": name, "curve": curve} | over_seeds(rows) for curve, rows in found.items()]


def drifting_w(model: Any, axis: Array, key: Array, share: Array, n: int) -> Array:
    """Low along the axis first, high at the end."""
    key, when_key = jax.random.split(key)
    w = model.sample(key, CANDIDATES * n)
    along = jnp.matmul(w, axis).reshape(n, CANDIDATES)
    late = jax.random.bernoulli(when_key, share, (n,))
    which = jnp.where(late, along.argmax(1), along.argmin(1))
    return w.reshape(n, CANDIDATES, -1)[jnp.arange(n), which]


def principal_axis(model: Any) -> Array:
    w = np.asarray(model.sample(jax.random.key(0), 2**12))
    return jnp.asarray(np.linalg.svd(w - w.mean(0), full_matrices=False)[2][0])


def drifting_clusters(key: Array, share: Array, n: int) -> Array:
    way = np.random.default_rng(8).standard_normal((NOISY_CLUSTERS, NOISY_DIM)) / NOISY_DIM**0.5
    centres = 2 * np.random.default_rng(7).standard_normal((NOISY_CLUSTERS, NOISY_DIM))
    key, cluster_key = jax.random.split(key)
    which = jax.random.randint(cluster_key, (n,), 0, NOISY_CLUSTERS)
    now = jnp.asarray(centres, jnp.float32) + DRIFT * share * jnp.asarray(way, jnp.float32)
    return now[which] + jax.random.normal(key, (n, NOISY_DIM))


_programs: dict[Any, Callable] = {}


def compiled(stream: Stream, blocks: Array) -> Callable:
    """All blocks in one program, which has been compiled."""
    shapes = stream.curve.codewords.shape, blocks.shape
    if shapes not in _programs:
        program = jax.jit(lambda stream, blocks: lax.scan(partial_fit, stream, blocks))
        _programs[shapes] = program.lower(stream, blocks).compile()
    return _programs[shapes]


@jax.jit
def _objective(curve: Curve, x: Array) -> Array:
    solver = LeastSquares()
    sums = normal_sums(curve, x, jnp.ones_like(x[:, 0]), project(curve, x))
    return solver.update(curve, solver.init(curve), sums)[2].objective


def measured(curve: Curve, fresh: Array) -> Row:
    quality = codebook_quality(curve)
    return {
        "distortion": float(distortion(curve, fresh)),
        "objective": float(_objective(Curve(curve.codewords), fresh)),
        "trustworthiness": quality.trustworthiness,
        "continuity": quality.continuity,
    }


def over_seeds(rows: list[Row]) -> Row:
    """Means with half the width of their intervals; of seconds and counts the median."""
    found: Row = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        if name in ("seconds", "read", "dead"):
            found[name] = float(np.median(values))
            continue
        of_all = interval(values)
        found[name] = [of_all.mean, of_all.high - of_all.mean]
    return found


def shown(half_life: float) -> str:
    return "∞" if half_life == np.inf else f"{int(half_life):,}"


if __name__ == "__main__":
    main()
