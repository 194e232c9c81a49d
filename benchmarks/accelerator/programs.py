"""What XLA says of the main programs, and their shares of what this card can do at most.

The ceilings are measured first: a large copy, by bytes read and written, and large products of
float32, TF32 and bfloat16. A program's floor is the larger of two times: its operations at the
ceiling of its products, and its arguments and output at that of the copy. XLA counts what is in a
loop once, so that operations of programs that loop are counted here by hand.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.stages import Compiled

from benchmarks.accelerator import ceilings
from benchmarks.accelerator.library import (
    PRECISIONS,
    Epochs,
    Rounds,
    analysis,
    block_of,
    project_program,
    sums_programs,
)
from benchmarks.accelerator.record import Part, Row
from benchmarks.accelerator.timing import timed
from sfvq_jax import Adam, Curve, project

Array = jax.Array
# a program, a call of it, and its operations
Prepared = tuple[Compiled, Callable[[], Any], float]

N, D, CODEWORDS = 2**18, 512, (1024, 16384)
QUICK_N, QUICK_D, QUICK_CODEWORDS = 2**9, 16, (64, 300)
ADAM_CODEWORDS = 64


def measure(part: Part) -> None:
    shown = ["ms", "floor ms", "share of floor", "share of product", "share of copy"]
    shown += ["temporary MiB", "XLA GFLOP", "XLA GB"]
    where = {"what": "program"}
    part.describe(
        tables=[
            ceilings.TABLE,
            {"index": ["program", "products"], "values": shown, "where": where},
        ]
    )
    found = ceilings.measure_ceilings(part)
    for name, precision, prepare in programs(part.quick):
        run = functools.partial(measure_program, prepare, precision, found)
        part.row(run, program=name, products=precision, **where)


def measure_program(
    prepare: Callable[[], Prepared], precision: str, found: ceilings.Ceilings
) -> Row:
    program, run, operations = prepare()
    row = timed(run, jax.block_until_ready) | analysis(program)
    return row | ceilings.shares(row, operations, precision, found)


def programs(quick: bool) -> list[tuple[str, str, Callable[[], Prepared]]]:
    """Name, precision, and what prepares it."""
    n, d, codewords = (QUICK_N, QUICK_D, QUICK_CODEWORDS) if quick else (N, D, CODEWORDS)
    found: list[tuple[str, str, Callable[[], Prepared]]] = []
    for k in codewords:
        for precision in PRECISIONS:
            prepare = functools.partial(projection, k, n, d, precision)
            found.append((f"project, K={k}", precision, prepare))
    for name, prepare in {"add": least_squares_add, "sums": sums, "solve": solve}.items():
        for k in codewords:
            found.append((f"{name}, K={k}", "highest", functools.partial(prepare, k, n, d)))
    solver = Adam(samples=2**9) if quick else Adam()
    prepare = functools.partial(adam, solver, ADAM_CODEWORDS, n, d)
    found.append((f"epoch of Adam, K={ADAM_CODEWORDS}", "highest", prepare))
    return found


def projection(k: int, n: int, d: int, precision: str) -> Prepared:
    program, curve, x = project_program(k, n, d, precision), Curve(normal(1, k, d)), normal(0, n, d)
    return program, lambda: program(curve, x), 2.0 * n * k * d


def least_squares_add(k: int, n: int, d: int) -> Prepared:
    """A block of a round."""
    rounds = Rounds(normal(1, k, d), normal(0, n, d), "highest")
    return rounds.program, rounds.add, 2.0 * n * k * d


def sums(k: int, n: int, d: int) -> Prepared:
    """The least that it must compute: each sample times its weights at two codewords."""
    program, _ = sums_programs(k, n, d)
    curve, block = Curve(normal(1, k, d)), block_of(normal(0, n, d))
    places = project(curve, block.x)
    return program, lambda: program(curve, block, places), 4.0 * n * d


def solve(k: int, n: int, d: int) -> Prepared:
    """Elimination and substitution in a tridiagonal system of D right sides."""
    add, program = sums_programs(k, n, d)
    curve, block = Curve(normal(1, k, d)), block_of(normal(0, n, d))
    found = add(curve, block, project(curve, block.x))
    return program, lambda: program(found, curve), 5.0 * k * d


def adam(solver: Adam, k: int, n: int, d: int) -> Prepared:
    """An epoch; its operations are those of two products a step."""
    x = normal(0, n, d)
    epochs = Epochs(solver, x[:k], x)
    program, run = epochs.in_one_call(jax.random.key(0))
    return program, run, 4.0 * epochs.steps * solver.batch_size * k * d


def normal(seed: int, *shape: int) -> Array:
    return jax.random.normal(jax.random.key(seed), shape)
