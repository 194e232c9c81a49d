"""What this card can do at most, measured in the same process, and a program's shares of it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.accelerator.record import Part, Row
from benchmarks.accelerator.timing import timed

SIDE, COPIED = 8192, 2**28  # of the products; floats of the copy
QUICK_SIDE, QUICK_COPIED = 256, 2**16
PRECISIONS = {"highest": "highest", "tf32": "tensorfloat32", "bfloat16": None}
TABLE = {
    "index": ["ceiling", "products"],
    "values": ["ms", "TFLOP/s", "GB/s"],
    "where": {"what": "ceiling"},
}

Ceilings = dict[str, float]


def measure_ceilings(part: Part) -> Ceilings:
    """Operations a second by precision, and the bytes a second of a "copy"."""
    side, copied = (QUICK_SIDE, QUICK_COPIED) if part.quick else (SIDE, COPIED)
    names = {"what": "ceiling", "ceiling": f"copy of {copied} floats", "products": "-"}
    found = part.row(functools.partial(measure_copy, copied), **names)
    ceilings = {"copy": 1e9 * found.get("GB/s", float("nan"))}
    for precision in PRECISIONS:
        names = {"what": "ceiling", "ceiling": f"product of side {side}", "products": precision}
        found = part.row(functools.partial(measure_product, side, precision), **names)
        ceilings[precision] = 1e12 * found.get("TFLOP/s", float("nan"))
    return ceilings


def measure_copy(floats: int) -> Row:
    x = jax.random.normal(jax.random.key(0), (floats,))
    copy = jax.jit(jnp.negative)  # a copy itself XLA could leave out
    row = timed(lambda: copy(x), jax.block_until_ready)
    return row | {"GB/s": 8e-6 * floats / row["ms"]}


def measure_product(side: int, precision: str) -> Row:
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    x, y = (jax.random.normal(jax.random.key(i), (side, side), dtype) for i in range(2))
    product = jax.jit(functools.partial(jnp.matmul, precision=PRECISIONS[precision]))
    row = timed(lambda: product(x, y), jax.block_until_ready)
    return row | {"TFLOP/s": 2e-9 * side**3 / row["ms"]}


def shares(row: Row, operations: float, precision: str, ceilings: Ceilings) -> dict[str, Any]:
    """How near a program is to its floor.

    The floor is the larger of two times: its operations at the ceiling of its products, and its
    arguments and output at that of the copy.

    Args:
      row: its `ms` and what `library.analysis` says of it.
      operations: additions and multiplications.
      precision: of the products.
      ceilings: of this card.
    """
    moved = 2**20 * (row["arguments MiB"] + row["output MiB"])
    product_ms, copy_ms = 1e3 * operations / ceilings[precision], 1e3 * moved / ceilings["copy"]
    return {
        "GFLOP": operations / 1e9,
        "GB": moved / 1e9,
        "floor ms": max(product_ms, copy_ms),
        "share of floor": max(product_ms, copy_ms) / row["ms"],
        "share of product": product_ms / row["ms"],
        "share of copy": copy_ms / row["ms"],
    }
