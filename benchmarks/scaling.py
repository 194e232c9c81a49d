"""What a round costs as devices, codewords and data grow: traffic, rate, memory.

    python -m benchmarks.scaling          # five minutes or so; 8 GiB of memory
    python -m benchmarks.scaling --large  # and a file of 8 GiB in a temporary folder
    python -m benchmarks.scaling --quick  # a trial: small sizes, nothing saved

Devices are simulated: parts of one CPU, which share its cores, so that rates only show what the
division itself costs. Four tables:

    traffic    bytes that a device sends into collectives, counted from the text of the compiled
               programs (all-reduce, all-gather, reduce-scatter, all-to-all, collective-permute):
               K·D + 3K + 1 floats where a round ends, and nothing before, but for rows that are
               drawn at random from an array that lies divided over the devices, a half of N here
    rate       samples a second of rounds of `LeastSquares` on an array that lies divided over the
               devices, by those of one device in the same run
    memory     temporary bytes of the compiled programs beside what the code says they are
               (`project_bytes`, `add_bytes`, `update_bytes`)
    large      the most memory that a process has when it fits an .npy of 8 GiB, in one pass
"""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from benchmarks.accelerator.library import draws_of
from benchmarks.report import report
from sfvq_jax import Curve, LeastSquares, Source, data_mesh, fit, project
from sfvq_jax.blocks import AtHand, Draws, feeds, plan_round
from sfvq_jax.devices import replicate
from sfvq_jax.projection import tile_sizes
from sfvq_jax.rounds import add_sums, sum_shapes, update_by_sums, zero_sums
from sfvq_jax.rows.source import Block
from sfvq_jax.solver import Solver
from sfvq_jax.sources import as_source
from sfvq_jax.span import Span

DEVICES = (1, 2, 4, 8)
K, D = 64, 512
SIZES = (2**15, 2**16)  # N
ROUNDS = 5
LARGE_K, LARGE_N = 2**16, 2**16
BLOCK_ROWS = 2**15  # 64 MiB
FILE_BYTES = 2**33
FILE_BITS = 4
CHUNK_ROWS = 2**14

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
FLOAT = 4  # bytes

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description="Traffic, rate and memory.")
    parser.add_argument("--large", action="store_true", help="fit a file of 8 GiB too")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing saved")
    parser.add_argument("--fit-file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit_file:
        print(json.dumps(fit_file(options.fit_file)))
        return
    sizes = [n // 8 for n in SIZES] if options.quick else SIZES
    large_k = LARGE_K // 16 if options.quick else LARGE_K
    tables = {
        f"Traffic, K={K}, D={D}": [
            row for devices in DEVICES for n in sizes for row in traffic(devices, n, K, D)
        ],
        f"Rate, K={K}, D={D}": rates(sizes[-1]),
        f"Memory, K={large_k}, D={D}": memory(large_k, LARGE_N),
    }
    if options.large:
        size = FILE_BYTES // 64 if options.quick else FILE_BYTES
        tables["A large file"] = [large_file(size)]
    report("scaling", tables, packages=("jax", "numpy"), save=not options.quick)


# Traffic.


def traffic(devices: int, n: int, k: int, d: int) -> list[Row]:
    """Of every program of a round, on an array [n, D] and from a sampler."""
    mesh = data_mesh(jax.devices()[:devices])
    array = as_source(np.random.default_rng(0).standard_normal((n, d), np.float32)).placed(mesh)
    sampler = as_source(lambda key, n: jax.random.normal(key, (n, d))).placed(mesh)
    curve, state, sums, draws = begin(LeastSquares(), mesh, k, d)

    def add(source: Source, solver: LeastSquares) -> jax.stages.Lowered:
        plan = plan_round(solver, k, source, mesh)
        feed = next(feeds(source, Span(), plan, draws, draws.key, 0, 0, mesh))
        return add_sums.lower(mesh, solver, curve, sums, draws, feed.feed, 0, feed.stop)

    half = LeastSquares(samples=n // 2)
    programs = {
        "add, all of an array": add(array, LeastSquares(samples="all")),
        "add, sampler": add(sampler, half),
        "add, rows of an array": add(array, half),
        "update": update_by_sums.lower(mesh, half, curve, state, sums),
    }
    return [
        {
            "devices": devices,
            "N": n,
            "program": name,
            "bytes": collective_bytes(program.compile().as_text()),
            "K·D + 3K + 1 floats": FLOAT * (k * d + 3 * k + 1) if name == "update" else None,
        }
        for name, program in programs.items()
    ]


def begin(solver: Solver, mesh: Mesh, k: int, d: int) -> tuple[Curve, Any, Any, Draws]:
    """Some curve, the solver's state, no sums and what draws, on the mesh."""
    codewords = np.random.default_rng(1).standard_normal((k, d), np.float32)
    curve = Curve(jnp.asarray(codewords))
    state = jax.jit(solver.init)(curve)
    sums = zero_sums(mesh, solver, sum_shapes(solver, curve, state, mesh.size))
    curve, state = replicate((curve, state), mesh)
    return curve, state, sums, draws_of(jax.random.key(0), mesh)


def collective_bytes(program: str) -> int:
    """Bytes that a device gives to the collectives in the text of a compiled program.

    Each is counted once, also where it is in a loop.
    """
    pattern = rf"= (\(?[^=]*?\)?) (?:{'|'.join(COLLECTIVES)})(?:-start)?\("
    return sum(shape_bytes(shapes) for shapes in re.findall(pattern, program))


def shape_bytes(shapes: str) -> int:
    """Of shapes as a program's text has them, "(f32[64,512]{1,0}, f32[])" say."""
    return sum(
        math.prod(int(size) for size in sizes.split(",") if size) * -(-int(bits) // 8)
        for bits, sizes in re.findall(r"\b(?:f|bf|s|u)(\d+)\[([\d,]*)\]", shapes)
    )


# Rate.


def rates(n: int) -> list[Row]:
    """Rounds over all of an array, the devices in turn."""
    rows: list[Row] = []
    solver = LeastSquares(samples="all")
    x = np.random.default_rng(0).standard_normal((n, D), np.float32)
    for devices in DEVICES:
        mesh = data_mesh(jax.devices()[:devices])
        feed = AtHand(as_source(x).placed(mesh).whole(), Span())
        curve, state, sums, draws = begin(solver, mesh, K, D)
        times = []
        for _ in range(1 + ROUNDS):
            start = time.perf_counter()
            sums = add_sums(mesh, solver, curve, sums, draws, feed, 0, 1)
            updated = update_by_sums(mesh, solver, curve, state, sums)
            curve, state, sums = updated.curve, updated.state, updated.sums
            jax.block_until_ready((curve, sums))
            times.append(time.perf_counter() - start)
        rows.append({"devices": devices, "N": n, "samples/s": n / min(times[1:])})
        rows[-1]["by one device's"] = rows[-1]["samples/s"] / rows[0]["samples/s"]
    return rows


# Memory.


def memory(k: int, n: int) -> list[Row]:
    """Temporaries of the compiled programs on one device."""
    mesh = data_mesh(jax.devices()[:1])
    solver = LeastSquares()
    rows_of_block = min(n, BLOCK_ROWS)
    curve, draws = Curve(_shape(k, D)), draws_of(jax.random.key(0), mesh)
    state = jax.eval_shape(solver.init, curve)
    sums = sum_shapes(solver, curve, state, 1)
    feed = AtHand(Block(_shape(rows_of_block, D), _shape(rows_of_block)), Span())
    programs = {
        "project": (
            n,
            jax.jit(project).lower(Curve(_shape(k, D)), _shape(n, D)),
            project_bytes(k, n, D),
        ),
        "add": (
            rows_of_block,
            add_sums.lower(mesh, solver, curve, sums, draws, feed, 0, 1),
            add_bytes(k, rows_of_block, D),
        ),
        "update": (
            None,
            update_by_sums.lower(mesh, solver, curve, state, sums),
            update_bytes(k, D),
        ),
    }
    rows: list[Row] = []
    for name, (size, program, expected) in programs.items():
        found = program.compile().memory_analysis()
        rows.append(
            {
                "program": name,
                "N": size,
                "arguments MiB": found.argument_size_in_bytes / 2**20,
                "temporary MiB": found.temp_size_in_bytes / 2**20,
                "formula MiB": expected / 2**20,
                "ratio": found.temp_size_in_bytes / expected,
            }
        )
    return rows


def project_bytes(k: int, n: int, d: int) -> int:
    """What `project` builds before its loop over tiles, or what a tile needs, if that is more.

    Before: codewords centred, in blocks, times -2, their steps, the steps between codewords, each
    K·D, and five numbers a line. A tile: those of them that it reads, 2 K·D, its samples centred
    and as they were, and their products with a block of codewords.
    """
    rows, lines = (min(size, most) for size, most in zip((n, k), tile_sizes(), strict=True))
    return FLOAT * max(5 * k * d + 5 * k, 2 * k * d + 2 * rows * d + lines * rows)


def add_bytes(k: int, n: int, d: int) -> int:
    """Those of `project`, its result, and the block's sums; of samples only tiles are copied."""
    return project_bytes(k, n, d) + FLOAT * (3 * n + k * d + 3 * k)


def update_bytes(k: int, d: int) -> int:
    """The sums, the right side, what elimination leaves of it, the solution; four diagonals."""
    return FLOAT * (4 * k * d + 4 * k)


def _shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


# A large file.


def large_file(size: int) -> Row:
    """Writes an .npy of so many bytes and fits it in another process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "latents.npy"
        write_file(path, size)
        command = [sys.executable, "-m", "benchmarks.scaling", "--fit-file", str(path)]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    return {"file GiB": size / 2**30, **json.loads(found.stdout.splitlines()[-1])}


def write_file(path: Path, size: int) -> None:
    """Gaussian [N, D] float32, in chunks."""
    n = size // (D * FLOAT)
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (n, D)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, n, CHUNK_ROWS):
            rng.standard_normal((min(CHUNK_ROWS, n - start), D), np.float32).tofile(file)


def fit_file(path: Path) -> Row:
    """In this process: a fit in one pass a stage, its seconds and the most memory it took."""
    before = peak_bytes()
    start = time.perf_counter()
    solver = LeastSquares(samples="all", rounds=1)
    history = fit(jax.random.key(0), path, bits=FILE_BITS, solver=solver).history
    seconds = time.perf_counter() - start
    return {
        "bits": FILE_BITS,
        "seconds": seconds,
        "samples/s": float(history.samples[-1] / seconds),
        "peak GiB before": before / 2**30,
        "peak GiB": peak_bytes() / 2**30,
    }


def peak_bytes() -> int:
    """The most memory that this process has had at once; from Linux's /proc."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


if __name__ == "__main__":
    main()
