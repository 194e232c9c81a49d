"""Steps a second of the published recipe, beside PyTorch's loop on the same device.

    ours            an epoch as `sfvq_jax.fit` runs it, compiled
    PyTorch         the loop of `benchmarks.adam`, a step dispatched from Python
    torch.compile   the same with its loss compiled and Adam fused

All draw their batches and fractions on the device, within the time.
"""

import functools
import time
from typing import Any

import jax

from benchmarks.accelerator import pytorch
from benchmarks.accelerator.library import Epochs
from benchmarks.accelerator.record import Part, Row
from sfvq_jax import Adam

Array = jax.Array

ROWS = {128: 2**18, 512: 2**16}  # of the data, by D
BITS = (6, 2, 4, 3, 5)
QUICK_ROWS, QUICK_BITS = {16: 2**10}, (3,)
STEPS, WARM_UP_STEPS, SECONDS = 400, 50, 1.5  # of PyTorch's loops: what ends first


def measure(part: Part) -> None:
    solver = Adam(samples=2**9) if part.quick else Adam()
    part.describe(
        tables=[{"index": ["D", "bits"], "across": ["who"], "values": ["steps/s"]}],
        solver=vars(solver),
        torch_steps=STEPS,
    )
    without_torch = part.leave_out(pytorch.why_not())
    for d, n in (QUICK_ROWS if part.quick else ROWS).items():
        data = jax.random.normal(jax.random.key(0), (n, d))
        torch_data = None if without_torch else pytorch.gaussian(0, n, d)
        for bits in QUICK_BITS if part.quick else BITS:
            names = {"D": d, "bits": bits}
            part.row(functools.partial(ours, data, 2**bits, solver), who="ours", **names)
            if torch_data is not None:
                for who, compiled in (("PyTorch", False), ("torch.compile", True)):
                    run = functools.partial(loop, torch_data, 2**bits, solver, compiled)
                    part.row(run, who=who, **names)


def ours(data: Array, k: int, solver: Adam) -> Row:
    """Some epochs: the first compiles."""
    epochs, seconds = Epochs(solver, data[:k], data), []
    for key in jax.random.split(jax.random.key(0), 3):
        start = time.perf_counter()
        jax.block_until_ready(epochs.run(key))
        seconds.append(time.perf_counter() - start)
    return {"steps/s": epochs.steps / min(seconds[1:]), "first s": seconds[0]}


def loop(data: Any, k: int, solver: Adam, compiled: bool) -> Row:
    """PyTorch's, after some steps to warm up."""
    from benchmarks.adam import torch_loss, torch_step

    torch = pytorch.torch
    pytorch.set_products("highest")
    parameter = torch.nn.Parameter(data[:k].clone())
    optimiser = torch.optim.Adam([parameter], lr=solver.learning_rate, fused=compiled)
    backend = "inductor" if pytorch.on_cuda() else "eager"  # a trial needs no compiler of C++
    compiled_loss = torch.compile(torch_loss, backend=backend)

    def step() -> None:
        rows = torch.randint(len(data), (solver.batch_size,), device=data.device)
        fractions = torch.rand(k - 1, device=data.device)
        if not compiled:
            torch_step(parameter, optimiser, data[rows], fractions)
            return
        optimiser.zero_grad()
        compiled_loss(parameter, data[rows], fractions).backward()
        optimiser.step()

    start = time.perf_counter()
    for _ in range(WARM_UP_STEPS):
        step()
    pytorch.wait()
    first = time.perf_counter() - start
    steps, start = 0, time.perf_counter()
    while steps < STEPS and time.perf_counter() - start < SECONDS:
        step()
        steps += 1
    pytorch.wait()
    return {"steps/s": steps / (time.perf_counter() - start), "first s": first}
