"""The nearest line beside the nearest codeword: milliseconds, and TFLOP/s of the product alone.

    ours     `sfvq_jax.project`, compiled: line, fraction and squared distance
    JAX      product and argmin: the nearest codeword only
    PyTorch  product and argmin: the nearest codeword only

All count 2·N·K·D operations. Products [N, K] that would take more than 1 GiB are made in chunks of
samples. JAX's and PyTorch's own search get their bfloat16 inputs ready made; ours rounds its own.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.accelerator import pytorch
from benchmarks.accelerator.library import PRECISIONS, analysis, project_program
from benchmarks.accelerator.record import Part, Row
from benchmarks.accelerator.timing import timed
from sfvq_jax import Curve

Array = jax.Array

# from the most telling on, as time may run out
SIZES = [(2**18, 512), (2**18, 128), (2**20, 512), (2**20, 128)]
CODEWORDS = (1024, 64, 16384, 256, 4096, 65536)
QUICK_SIZES, QUICK_CODEWORDS = [(2**9, 32)], (64, 512)


class Contender(NamedTuple):
    """Starts the work on the device; waits for it."""

    run: Callable[[], Any]
    wait: Callable[[Any], Any]


def measure(part: Part) -> None:
    part.describe(
        tables=[{"index": ["N", "D", "K"], "across": ["who", "products"], "values": ["TFLOP/s"]}],
        operations="2 N K D",
        chunk_floats=pytorch.CHUNK_FLOATS,
    )
    without_torch = part.leave_out(pytorch.why_not())
    for n, d in QUICK_SIZES if part.quick else SIZES:
        x = gaussian(0, n, d)
        torch_x = None if without_torch else pytorch.gaussian(0, n, d)
        for k in QUICK_CODEWORDS if part.quick else CODEWORDS:
            rows = pytorch.chunk_rows(n, k, part.quick)
            for who, precision, prepare in contenders(x, torch_x, k, rows):
                run = functools.partial(measured, prepare, n, d, k, precision)
                part.row(run, N=n, D=d, K=k, who=who, products=precision)
        del x, torch_x
        pytorch.free()


def contenders(x: Array, torch_x: Any, k: int, rows: int) -> Iterator[tuple[str, str, Callable]]:
    """Who, at which precision, and a function of that precision that gets it ready.

    Args:
      rows: samples whose products are in memory at once.
    """
    for precision in PRECISIONS:
        yield "ours", precision, functools.partial(ours, x, k)
    for precision in PRECISIONS:
        yield "JAX", precision, functools.partial(jax_product, x, k, rows)
        if torch_x is not None:
            yield "PyTorch", precision, functools.partial(torch_product, torch_x, k, rows)


def measured(
    prepare: Callable[[str], tuple[Contender, Row]], n: int, d: int, k: int, precision: str
) -> Row:
    contender, more = prepare(precision)
    times = timed(*contender)
    return times | {"TFLOP/s": 2e-9 * n * k * d / times["ms"]} | more


def ours(x: Array, k: int, precision: str) -> tuple[Contender, Row]:
    curve = Curve(gaussian(1, k, x.shape[1]))
    program = project_program(k, *x.shape, precision)
    memory = {"temporary MiB": analysis(program)["temporary MiB"]}
    return Contender(lambda: program(curve, x), jax.block_until_ready), memory


def jax_product(x: Array, k: int, rows: int, precision: str) -> tuple[Contender, Row]:
    codewords = gaussian(1, k, x.shape[1])
    squared_norm = jnp.sum(codewords**2, 1)
    if precision == "bfloat16":
        x, codewords = x.astype(jnp.bfloat16), codewords.astype(jnp.bfloat16)
    search = jax.jit(functools.partial(nearest_codewords, rows=rows, precision=precision))
    return Contender(lambda: search(x, codewords, squared_norm), jax.block_until_ready), {}


def nearest_codewords(
    x: Array, codewords: Array, squared_norm: Array, *, rows: int, precision: str
) -> Array:
    """Index of the nearest codeword of each sample, [N] int32, so many rows at a time."""
    lax_precision = {"highest": "highest", "tf32": "tensorfloat32"}.get(precision)

    def nearest(part: Array) -> Array:
        product = jnp.matmul(
            part, codewords.T, precision=lax_precision, preferred_element_type=jnp.float32
        )
        return jnp.argmin(squared_norm[None] - 2 * product, 1)

    parts = x.reshape(-1, rows, x.shape[1])  # both are powers of two
    return lax.map(nearest, parts).reshape(-1) if len(parts) > 1 else nearest(x)


def torch_product(x: Any, k: int, rows: int, precision: str) -> tuple[Contender, Row]:
    pytorch.set_products(precision)
    book = pytorch.Book(pytorch.gaussian(1, k, x.shape[1]), precision, rows)
    samples = book.samples(x)
    return Contender(lambda: book.nearest(samples), pytorch.wait), {}


def gaussian(seed: int, *shape: int) -> Array:
    return jax.random.normal(jax.random.key(seed), shape)
