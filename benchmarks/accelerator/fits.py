"""Rounds of least squares, where their time goes, and whole fits; beside k-means in PyTorch.

round     all samples of an array taken in, the system solved and the sums emptied, as in a fit;
          and of it, each compiled by itself: the projection, the sums over samples, the system.
          Dispatch is the time until Python may go on, before the device is done
k-means   product and argmin, sums by index_add, means: a round as PyTorch has it
fit       `sfvq_jax.fit` from an array or from a sampler, the first time and once compiled; what
          smaller fits have compiled is not compiled again. Its rounds are those in its history,
          without those of moves that were not kept, whose samples count all the same
"""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator import pytorch
from benchmarks.accelerator.library import (
    PRECISIONS,
    Rounds,
    block_of,
    project_program,
    sums_programs,
)
from benchmarks.accelerator.record import OutOfTimeError, Part, Row
from benchmarks.accelerator.timing import timed
from sfvq_jax import Curve, LeastSquares, Report, fit

Array = jax.Array

N, D, BITS = 2**18, 512, (6, 10, 14)
QUICK_N, QUICK_D, QUICK_BITS = 2**11, 16, (3, 9)  # sums by products, and row by row


def measure(part: Part) -> None:
    n, d, all_bits = (QUICK_N, QUICK_D, QUICK_BITS) if part.quick else (N, D, BITS)
    solver = LeastSquares(samples=n, rounds=2) if part.quick else LeastSquares(samples=n)
    of_round = ["ms", "project ms", "sums ms", "solve ms", "dispatch ms", "samples/s"]
    of_fit = ["run", "seconds", "samples/s", "rounds", "distortion"]
    part.describe(
        tables=[
            {"index": ["what", "bits", "products"], "values": of_round, "where": {"what": "round"}},
            {
                "index": ["what", "bits", "products"],
                "values": ["ms", "samples/s"],
                "where": {"what": "k-means"},
            },
            {"index": ["what", "bits", "source"], "values": of_fit, "where": {"what": "fit"}},
        ],
        N=n,
        D=d,
        solver=vars(solver),
    )
    x = jax.random.normal(jax.random.key(0), (n, d))
    rounds(part, x, all_bits, PRECISIONS[:1])
    if not part.leave_out(pytorch.why_not()):
        torch_x = pytorch.gaussian(0, n, d)
        for bits in all_bits:
            for precision in PRECISIONS:
                rows = pytorch.chunk_rows(n, 2**bits, part.quick)
                run = functools.partial(measure_k_means, torch_x, 2**bits, rows, precision)
                part.row(run, what="k-means", bits=bits, products=precision)
        del torch_x
        pytorch.free()
    for bits in all_bits[:1] if part.quick else all_bits:
        sources = {"array": x} if part.quick else {"array": x, "sampler": gaussian_sampler(d)}
        for name, source in sources.items():
            for run in ("first", "again"):
                whole = functools.partial(measure_fit, part, source, bits, solver)
                part.row(whole, what="fit", bits=bits, source=name, run=run)
    rounds(part, x, all_bits[:1] if part.quick else all_bits, PRECISIONS[1:])


def rounds(part: Part, x: Array, all_bits: tuple[int, ...], precisions: tuple[str, ...]) -> None:
    """A row for each."""
    for bits in all_bits:
        for precision in precisions:
            run = functools.partial(measure_round, x, 2**bits, precision)
            part.row(run, what="round", bits=bits, products=precision)


def measure_round(x: Array, k: int, precision: str) -> Row:
    n, d = x.shape
    curve, block = Curve(jax.random.normal(jax.random.key(1), (k, d))), block_of(x)
    its_rounds = Rounds(curve.codewords, x, precision)
    dispatched = []

    def whole_round() -> Any:
        start = time.perf_counter()
        its_rounds.add()
        loss = its_rounds.finish()
        dispatched.append(time.perf_counter() - start)
        return loss

    row = timed(whole_round, jax.block_until_ready)
    row |= {"samples/s": 1e3 * n / row["ms"], "dispatch ms": 1e3 * float(np.median(dispatched))}
    project = project_program(k, n, d, precision)
    row["project ms"] = timed(lambda: project(curve, x), jax.block_until_ready)["ms"]
    if precision != "highest":  # the rest is the same
        return row
    places = project(curve, x)
    add_sums, solve = sums_programs(k, n, d)
    sums = add_sums(curve, block, places)
    row["sums ms"] = timed(lambda: add_sums(curve, block, places), jax.block_until_ready)["ms"]
    row["solve ms"] = timed(lambda: solve(sums, curve), jax.block_until_ready)["ms"]
    return row


def measure_k_means(x: Any, k: int, rows: int, precision: str) -> Row:
    """A round of k-means on samples [N, D], the products of so many rows at once."""
    torch = pytorch.torch
    pytorch.set_products(precision)
    codewords = pytorch.gaussian(1, k, x.shape[1])

    def k_means_round() -> Any:
        book = pytorch.Book(codewords, precision, rows)
        nearest = book.nearest(book.samples(x))
        sums = torch.zeros_like(codewords).index_add_(0, nearest, x)
        load = torch.bincount(nearest, minlength=k)
        return torch.where(load[:, None] > 0, sums / load.clamp(min=1)[:, None], codewords)

    row = timed(k_means_round, pytorch.wait)
    return row | {"samples/s": 1e3 * len(x) / row["ms"]}


def measure_fit(part: Part, source: Any, bits: int, solver: LeastSquares) -> Row:
    def stop_in_time(report: Report) -> None:
        if part.seconds_left < 0:
            where = f"{report.codewords} codewords, round {report.round} {report.move}"
            raise OutOfTimeError(f"no time was left at {where}".rstrip())

    start = time.perf_counter()
    found = fit(jax.random.key(0), source, bits=bits, solver=solver, on_report=stop_in_time)
    jax.block_until_ready(found.curve)
    seconds = time.perf_counter() - start
    history = found.history
    return {
        "seconds": seconds,
        "samples/s": float(history.samples[-1]) / seconds,
        "rounds": len(history.codewords),
        "distortion": float(history.distortion[-1]),
    }


def gaussian_sampler(d: int) -> Any:
    """A function (key, n) -> [n, D]; the same object for all fits, so that they share programs."""
    return jax.tree_util.Partial(functools.partial(_gaussian, d))


def _gaussian(d: int, key: Array, n: int) -> Array:
    return jnp.asarray(jax.random.normal(key, (n, d)))
