"""What `sfvq-jax plan` tells, beside compiled programs and measured rounds.

    python -m benchmarks.plan          # three minutes of a core
    python -m benchmarks.plan --quick  # a trial: small sizes, nothing saved

Four tables:

    a billion    rounds of 10⁹ latents of 512 numbers, by `sfvq_jax.planning.plan`, on cards and
                 slices that nobody here has measured
    programs     bytes that the compiled programs of a round on eight simulated devices take and
                 send, beside the plan's
    an H200      its measured projections and rounds (benchmarks/results/accelerator)
    this machine rounds on one core, whose product and copy are measured first, in seconds of the
                 core
"""

import benchmarks.scaling as scaling  # noqa: I001, it asks for eight devices before JAX starts

import argparse
import json
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.report import RESULTS, report, use_cores
from sfvq_jax import LeastSquares, data_mesh
from sfvq_jax.blocks import AtHand
from sfvq_jax.devices import divided
from sfvq_jax.planning import (
    CHIPS,
    Plan,
    add_bytes,
    measured_chip,
    memory_of,
    plan,
    projecting,
    update_bytes,
)
from sfvq_jax.rounds import add_sums, update_by_sums
from sfvq_jax.rows.source import Block
from sfvq_jax.span import Span

LATENTS, CODEWORDS = (10**9, 512), (2**12, 2**16)
SLICES = (("h100", 1), ("h100", 8), ("v5e", 256))
RATES = (1e9, 10e9)  # bytes a second and host
DEVICES, PROGRAM_SIZES = 8, ((2**10, 64, 2**12), (2**12, 512, 2**13))  # K, D, samples of a block
HERE = ((2**6, 512), (2**8, 512), (2**10, 512), (2**10, 64))  # K, D
HERE_SAMPLES, ROUNDS = 2**14, 3

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description="Plans beside what is measured.")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing saved")
    quick = parser.parse_args().quick
    use_cores(1)
    tables = {
        "A billion": [
            billion(*case, k, rate) for case in SLICES for k in CODEWORDS for rate in RATES
        ],
        "Programs": [row for size in PROGRAM_SIZES[: 1 if quick else 2] for row in programs(*size)],
        "An H200": h200(),
        "This machine": here(HERE[:1] if quick else HERE),
    }
    report("plan", tables, packages=("jax", "numpy"), save=not quick)


def billion(chip: str, chips: int, k: int, rate: float) -> Row:
    of_round, of_all = (
        plan(LATENTS, k, CHIPS[chip], chips=chips, read_rate=rate, samples=samples)
        for samples in (None, LATENTS[0])
    )
    return {
        "chips": f"{chips} x {CHIPS[chip].name}",
        "codewords": k,
        "read GB/s a host": rate / 1e9,
        "GB a host": of_all.read / 1e9,
        "reading s": of_all.reading,
        "computing s": of_all.computing,
        "MB sent": of_all.sent / 1e6,
        "sending s": of_all.sending,
        "a pass s": of_all.seconds,
        "a round s": of_round.seconds,
        "bound by": of_all.bound,
        "GB a chip": total(of_all) / 1e9,
        "computing bounds above GB/s": of_all.rate / 1e9,
        "or above codewords": round(of_all.codewords),
    }


def total(of: Plan) -> float:
    return sum(of.memory.values())


def programs(k: int, d: int, block: int) -> list[Row]:
    """Of a round on eight devices; a CPU's tiles."""
    mesh, solver = data_mesh(jax.devices()[:DEVICES]), LeastSquares()
    curve, state, sums, draws = scaling.begin(solver, mesh, k, d)
    samples = Block(
        *(
            jax.ShapeDtypeStruct(shape, jnp.float32, sharding=divided(mesh))
            for shape in ((block, d), (block,))
        )
    )
    feed = AtHand(samples, Span())
    add = add_sums.lower(mesh, solver, curve, sums, draws, feed, 0, 1).compile()
    update = update_by_sums.lower(mesh, solver, curve, state, sums).compile()
    mine = block // DEVICES
    parts = memory_of(k, d, mine, platform="cpu")
    held = parts["curves"] / 2 + parts["sums"] + parts["blocks"] / 2
    of_add, of_update = (program.memory_analysis() for program in (add, update))
    sent = plan((10**6, d), k, CHIPS["h100"], chips=DEVICES).sent
    found = {
        "curve, sums and a block": (of_add.argument_size_in_bytes, held),
        "temporaries of a block": (of_add.temp_size_in_bytes, add_bytes(k, mine, d)),
        "temporaries of the end": (of_update.temp_size_in_bytes, update_bytes(k, d)),
        "sent": (scaling.collective_bytes(update.as_text()), sent),
    }
    return [
        {"K": k, "D": d, "samples a device": mine, "what": what}
        | {"bytes": int(of_xla), "plan": int(planned), "plan ÷ bytes": planned / of_xla}
        for what, (of_xla, planned) in found.items()
    ]


def h200() -> list[Row]:
    """The least and largest ratio over all measured sizes, by precision and codewords."""
    results = {
        name: json.loads((RESULTS / "accelerator" / f"{name}.json").read_text())
        for name in ("projection", "fits")
    }
    chip, found = CHIPS["h200"], {}
    for row in results["projection"]["rows"]:
        if row.get("who") == "ours":
            seconds = projecting(chip, row["products"], row["N"], row["D"], row["K"])
            share = 2e-12 * row["N"] * row["D"] * row["K"] / (1e-3 * row["ms"])
            share /= chip.operations[row["products"]] / 1e12
            name = ("projection", row["products"], row["K"])
            found.setdefault(name, []).append((1e3 * seconds / row["ms"], share))
    n, d = (results["fits"]["settings"][name] for name in "ND")
    for row in results["fits"]["rows"]:
        if row["what"] == "round" and "ms" in row:
            k = 2 ** row["bits"]
            of = plan((n, d), k, chip, precision=row["products"], samples=n, block=n)
            share = 2 * n * d * k / (1e-3 * row["ms"]) / chip.operations[row["products"]]
            ratio = 1e3 * (of.computing + of.solving) / row["ms"]
            found.setdefault(("round", row["products"], k), []).append((ratio, share))
    return [
        {
            "what": what,
            "products": products,
            "K": k,
            "sizes": len(values),
            "plan ÷ measured, least": min(ratio for ratio, _ in values),
            "most": max(ratio for ratio, _ in values),
            "share of the peak, most": max(share for _, share in values),
        }
        for (what, products, k), values in sorted(found.items())
    ]


def here(sizes: Any) -> list[Row]:
    """Rounds of an array on one device; seconds of the one core that the process has."""
    chip = measured_chip(clock=time.process_time)
    mesh, solver = data_mesh(jax.devices()[:1]), LeastSquares()
    rows = []
    for k, d in sizes:
        x = np.random.default_rng(0).standard_normal((HERE_SAMPLES, d), np.float32)
        block = Block(jnp.asarray(x), jnp.ones(len(x)))
        measured = scaling.least_seconds(
            solver, mesh, k, block, rounds=ROUNDS, clock=time.process_time
        )
        of = plan((len(x), d), k, chip, samples=len(x), block=len(x))
        seconds = of.computing + of.solving
        rows.append(
            {
                "K": k,
                "D": d,
                "N": len(x),
                "GFLOP/s of products": chip.operations["highest"] / 1e9,
                "GB/s": chip.bandwidth / 1e9,
                "plan s": seconds,
                "measured s": measured,
                "plan ÷ measured": seconds / measured,
            }
        )
    return rows


if __name__ == "__main__":
    main()
