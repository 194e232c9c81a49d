"""The Adam stage beside a straightforward PyTorch loop of the same algorithm, on two CPU threads.

    python -m benchmarks.adam          # the published schedule: two minutes or so
    python -m benchmarks.adam --quick  # a trial: 1/32 of the samples, nothing saved

The loop is as one writes it first, and as the published example has it: a step is dispatched from
Python, and the differences of the batch to all points are one [B, K - 1, D] tensor. Ours is timed
over a whole epoch as `fit` runs it, from the first block to the end of the round, once it is
compiled; the loop over some hundred steps once it is warm. Both draw their batches and fractions
within the time. Distortions are by exact projection.
"""

import argparse
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.report import report, use_cores
from sfvq_jax import Adam, Curve, Source, data_mesh, distortion, initial_curve, subdivide
from sfvq_jax.blocks import feeds, plan_round
from sfvq_jax.rounds import absorb, sum_shapes, zero_sums
from sfvq_jax.solver import round_steps
from sfvq_jax.sources import as_source
from sfvq_jax.span import Span

THREADS = 2
START_SAMPLES = 2**14
ROWS = {128: 2**18, 512: 2**16}  # of the data, by D: 128 MiB each
TIMED_BITS = range(2, 7)
FITTED_BITS = range(2, 6)
FITTED_DIM = 128
WARM_UP_STEPS = 50
TORCH_STEPS = 400


def main() -> None:
    parser = argparse.ArgumentParser(description="The Adam stage: ours beside PyTorch's.")
    parser.add_argument("--quick", action="store_true", help="1/32 of the samples, nothing saved")
    quick = parser.parse_args().quick
    use_cores(THREADS)
    torch.set_num_threads(THREADS)

    solver = Adam(samples=2**13) if quick else Adam()
    rows = []
    for d, n in ROWS.items():
        data = gaussian(0, n, d)
        for bits in TIMED_BITS:
            row = time_stage(data, bits, solver, TORCH_STEPS // 4 if quick else TORCH_STEPS)
            rows.append({"D": d, "bits": bits, **row})
    # after the timings, which are to compile everything themselves
    fitted = fitted_distortions(gaussian(0, ROWS[FITTED_DIM], FITTED_DIM), solver)
    for row in rows:
        if row["D"] == FITTED_DIM:
            row |= fitted.get(row["bits"], {})
    title = f"Gaussian data, batch {solver.batch_size}, {solver.samples} samples an epoch"
    report(
        "adam",
        {title: rows},
        packages=("jax", "torch", "numpy"),
        save=not quick,
        threads=THREADS,
        **dataclasses.asdict(solver),
    )


def time_stage(data: np.ndarray, bits: int, solver: Adam, torch_steps: int) -> dict[str, float]:
    """Steps a second of both at 2**bits codewords, and the seconds that ours takes to compile."""
    codewords = data[: 2**bits]
    loop = torch_steps_per_second(codewords, data, solver, torch_steps)
    source = as_source(data).placed(data_mesh(jax.devices()[:1]))
    times = []
    for _ in range(2):  # the first time compiles
        curve = Curve(jnp.asarray(codewords))
        state = jax.jit(solver.init)(curve)
        start = time.perf_counter()
        jax.block_until_ready(epoch(solver, curve, state, source, jax.random.key(0)))
        times.append(time.perf_counter() - start)
    ours = math.prod(round_steps(solver)) / times[1]
    return {
        "torch steps/s": loop,
        "our steps/s": ours,
        "ratio": ours / loop,
        "our compile s": times[0] - times[1],
    }


def epoch(
    solver: Adam, curve: Curve, state: Any, source: Source, key: jax.Array
) -> tuple[Curve, Any]:
    """Curve and state after one epoch, as `fit` runs it; the state before is used up."""
    mesh = data_mesh(jax.devices()[:1])
    plan = plan_round(solver, curve.num_codewords, source, mesh)
    sums = zero_sums(mesh, solver, sum_shapes(solver, curve, state, 1))
    for feed in feeds(source, Span(), plan, (key, key), 0, 0, mesh):
        curve, state, sums = absorb(mesh, solver, plan.steps, curve, state, sums, key, feed)
        jax.block_until_ready(state)
    return curve, state


def torch_steps_per_second(
    codewords: np.ndarray, data: np.ndarray, solver: Adam, steps: int
) -> float:
    parameter, optimiser = torch_init(codewords, solver)
    batches = torch_batches(torch.from_numpy(data), len(codewords) - 1, solver.batch_size)
    start = 0.0
    for i in range(WARM_UP_STEPS + steps):
        if i == WARM_UP_STEPS:
            start = time.perf_counter()
        torch_step(parameter, optimiser, *next(batches))
    return steps / (time.perf_counter() - start)


def fitted_distortions(data: np.ndarray, solver: Adam) -> dict[int, dict[str, float]]:
    """Distortions of both after each stage from one start, on samples that neither has seen."""
    start = initial_curve(jnp.asarray(data[:START_SAMPLES]))
    fresh = jnp.asarray(gaussian(1, START_SAMPLES, data.shape[1]))
    rows: dict[int, dict[str, float]] = {bits: {} for bits in FITTED_BITS}
    for name, stage in (("torch", torch_stage), ("our", our_stage)):
        for bits, curve in coarse_to_fine(start, stage, data, solver):
            rows[bits][f"{name} distortion"] = float(distortion(curve, fresh))
    return rows


def coarse_to_fine(
    curve: Curve, stage: Callable, data: np.ndarray, solver: Adam
) -> Iterator[tuple[int, Curve]]:
    """The curve after each stage."""
    for bits in FITTED_BITS:
        if bits > FITTED_BITS[0]:
            curve = subdivide(curve)
        curve = stage(curve, data, solver)
        yield bits, curve


def our_stage(curve: Curve, data: np.ndarray, solver: Adam) -> Curve:
    source = as_source(data).placed(data_mesh(jax.devices()[:1]))
    state = jax.jit(solver.init)(curve)
    for key in jax.random.split(jax.random.key(curve.num_codewords), solver.epochs):
        curve, state = epoch(solver, curve, state, source, key)
    return curve


def torch_stage(curve: Curve, data: np.ndarray, solver: Adam) -> Curve:
    """The same in PyTorch."""
    *_, last = torch_epochs(curve, data, solver)
    return last


def torch_epochs(curve: Curve, data: np.ndarray, solver: Adam) -> Iterator[Curve]:
    """The curve after each epoch; the rate falls at their ends, as in the published example."""
    parameter, optimiser = torch_init(np.array(curve.codewords), solver)
    milestones = [round(share * solver.epochs) for share in solver.decay_at]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, solver.decay)
    batches = torch_batches(torch.from_numpy(data), curve.num_lines, solver.batch_size)
    for _ in range(solver.epochs):
        for _ in range(math.prod(round_steps(solver))):
            torch_step(parameter, optimiser, *next(batches))
        schedule.step()
        yield Curve(jnp.asarray(parameter.detach().numpy().copy()))


def torch_init(
    codewords: np.ndarray, solver: Adam
) -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
    """Codewords [K, D] to optimise."""
    parameter = torch.nn.Parameter(torch.from_numpy(codewords).clone())
    return parameter, torch.optim.Adam([parameter], lr=solver.learning_rate)


def torch_batches(
    data: torch.Tensor, num_lines: int, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches [B, D] of the data in random order, over and over, with fractions [K - 1]."""
    generator = torch.Generator().manual_seed(num_lines)
    while True:
        for rows in torch.randperm(len(data), generator=generator).split(batch_size):
            yield data[rows], torch.rand(num_lines, generator=generator)


def torch_step(
    parameter: torch.nn.Parameter,
    optimiser: torch.optim.Optimizer,
    x: torch.Tensor,
    fractions: torch.Tensor,
) -> torch.Tensor:
    """One step of Adam; the loss before it."""
    optimiser.zero_grad()
    loss = torch_loss(parameter, x, fractions)
    loss.backward()
    optimiser.step()
    return loss.detach()


def torch_loss(codewords: torch.Tensor, x: torch.Tensor, fractions: torch.Tensor) -> torch.Tensor:
    """`sfvq_jax.dithered_loss` of codewords [K, D], a batch [B, D] and fractions [K - 1]."""
    weight = fractions[:, None]
    points = (1 - weight) * codewords[:-1] + weight * codewords[1:]
    with torch.no_grad():
        difference = x[:, None] - points[None]  # [B, K - 1, D]
        nearest = difference.square().sum(2).argmin(1)
    return torch.nn.functional.mse_loss(points[nearest], x)


def gaussian(seed: int, n: int, d: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d), np.float32)


if __name__ == "__main__":
    main()
