"""The Adam stage beside a straightforward PyTorch loop of the same algorithm, on two CPU threads.

    python -m benchmarks.adam          # the published schedule: five minutes or so
    python -m benchmarks.adam --quick  # a trial: 1/32 of the samples, nothing saved

The loop is as one writes it first, and as the published example has it: a step is dispatched from
Python, and the differences of the batch to all points are one [B, K - 1, D] tensor. The tuned loop
finds the nearest points by one product and updates by PyTorch's fused Adam. Ours is timed
over a whole epoch as `fit` runs it, from the first block to the end of the round, once it is
compiled; the loops over some hundred steps once they are warm. All draw their batches and fractions
within the time, and take turns in several rounds, of which the median counts: the ratios are of
medians. Distortions are by exact projection.
"""

import argparse
import dataclasses
import math
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.accelerator.library import Epochs
from benchmarks.report import report, use_cores
from sfvq_jax import Adam, Curve, distortion, initial_curve, subdivide
from sfvq_jax.solver import round_steps

THREADS = 2
START_SAMPLES = 2**14
ROWS = {128: 2**18, 512: 2**16}  # of the data, by D: 128 MiB each
TIMED_BITS = range(2, 7)
FITTED_BITS = range(2, 6)
FITTED_DIM = 128
WARM_UP_STEPS = 50
TORCH_STEPS = 200  # in a round
ROUNDS = 7


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
            row = time_stage(data, bits, solver, *((50, 2) if quick else (TORCH_STEPS, ROUNDS)))
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
        rounds=ROUNDS,
        torch_steps=TORCH_STEPS,
        **dataclasses.asdict(solver),
    )


def time_stage(
    data: np.ndarray, bits: int, solver: Adam, torch_steps: int, rounds: int
) -> dict[str, float]:
    """Steps a second of each at 2**bits codewords, and the seconds that ours takes to compile."""
    codewords = data[: 2**bits]
    contenders = {
        "torch steps/s": torch_loop(codewords, data, solver, torch_steps, torch_loss),
        "tuned torch steps/s": torch_loop(
            codewords, data, solver, torch_steps, torch_loss_by_product, fused=True
        ),
        "our steps/s": our_loop(codewords, data, solver),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    warm = {name: run() for name, run in contenders.items()}  # ours compiles
    for _ in range(rounds):
        for name, run in contenders.items():
            rates[name].append(run())
    row = {name: float(np.median(values)) for name, values in rates.items()}
    ours = row["our steps/s"]
    row |= {"ratio": ours / row["torch steps/s"], "ratio, tuned": ours / row["tuned torch steps/s"]}
    compilation = math.prod(round_steps(solver)) * (1 / warm["our steps/s"] - 1 / ours)
    return row | {"our compile s": compilation}


def our_loop(codewords: np.ndarray, data: np.ndarray, solver: Adam) -> Callable[[], float]:
    """A function that runs an epoch and tells its steps a second."""
    epochs = Epochs(solver, jnp.asarray(codewords), jnp.asarray(data))

    def run() -> float:
        start = time.perf_counter()
        jax.block_until_ready(epochs.run(jax.random.key(0)))
        return epochs.steps / (time.perf_counter() - start)

    return run


def torch_loop(
    codewords: np.ndarray,
    data: np.ndarray,
    solver: Adam,
    steps: int,
    loss: Callable[..., torch.Tensor],
    fused: bool = False,
) -> Callable[[], float]:
    """A function that runs so many steps and tells how many a second."""
    parameter, optimiser = torch_init(codewords, solver, fused=fused)
    batches = torch_batches(torch.from_numpy(data), len(codewords) - 1, solver.batch_size)

    def run() -> float:
        for _ in range(WARM_UP_STEPS):
            torch_step(parameter, optimiser, *next(batches), loss)
        start = time.perf_counter()
        for _ in range(steps):
            torch_step(parameter, optimiser, *next(batches), loss)
        return steps / (time.perf_counter() - start)

    return run


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
    epochs, codewords = Epochs(solver, curve.codewords, jnp.asarray(data)), curve.codewords
    for key in jax.random.split(jax.random.key(curve.num_codewords), solver.epochs):
        codewords = epochs.run(key)
    return Curve(codewords)


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
    codewords: np.ndarray, solver: Adam, fused: bool = False
) -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
    """Codewords [K, D] to optimise."""
    parameter = torch.nn.Parameter(torch.from_numpy(codewords).clone())
    return parameter, torch.optim.Adam([parameter], lr=solver.learning_rate, fused=fused)


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
    loss_function: Callable[..., torch.Tensor] | None = None,
) -> torch.Tensor:
    """One step of Adam; the loss before it."""
    optimiser.zero_grad()
    loss = (loss_function or torch_loss)(parameter, x, fractions)
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


def torch_loss_by_product(
    codewords: torch.Tensor, x: torch.Tensor, fractions: torch.Tensor
) -> torch.Tensor:
    """The same, in which |p|² - 2 x·p finds the nearest point p."""
    points = torch.lerp(codewords[:-1], codewords[1:], fractions[:, None])
    with torch.no_grad():
        norms = points.square().sum(1)
        nearest = torch.addmm(norms, x, points.T, alpha=-2).argmin(1)
    return torch.nn.functional.mse_loss(points[nearest], x)


def gaussian(seed: int, n: int, d: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d), np.float32)


if __name__ == "__main__":
    main()
