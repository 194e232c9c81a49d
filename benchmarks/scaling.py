"""What a round costs as devices, codewords and data grow: traffic, rate, memory.

    python -m benchmarks.scaling          # five minutes or so; 8 GiB of memory
    python -m benchmarks.scaling --large  # and a file of 8 GiB in a temporary folder
    python -m benchmarks.scaling --curve  # instead of all that, a curve over devices; 4 GiB
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

With `--curve` the codewords are divided too, saved as scaling_curve: what a device holds and sends
in the compiled programs beside what the code says it is (`held_bytes`, `block_bytes`, `end_bytes`);
and rounds of some meshes, whose curves are compared with that of one device.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.accelerator.library import draws_of
from benchmarks.report import report
from sfvq_jax import Curve, LeastSquares, Source, data_mesh, fit, project
from sfvq_jax.blocks import AtHand, Draws, feeds, plan_round
from sfvq_jax.devices import (
    AXIS,
    divide,
    lines_axis,
    parts,
    place_curve,
    replicate,
    sums_spec,
)
from sfvq_jax.planning import add_bytes, project_bytes, update_bytes
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
MESHES = ((8, 1), (4, 2), (2, 4), (1, 8))  # parts of the samples and of the curve
RUN_MESHES = ((1, 1), (2, 4), (1, 8))
CURVE_N, CURVE_ROUNDS = 2**11, 2

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
FLOAT = 4  # bytes

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description="Traffic, rate and memory.")
    parser.add_argument("--large", action="store_true", help="fit a file of 8 GiB too")
    parser.add_argument("--curve", action="store_true", help="only a curve over devices")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing saved")
    parser.add_argument("--fit-file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit_file:
        print(json.dumps(fit_file(options.fit_file)))
        return
    sizes = [n // 8 for n in SIZES] if options.quick else SIZES
    large_k = LARGE_K // 16 if options.quick else LARGE_K
    if options.curve:
        tables = {
            f"A device's share, K={large_k}, D={D}": [
                share(*mesh, large_k, CURVE_N) for mesh in MESHES
            ],
            f"Rounds, K={large_k}, D={D}": rounds(large_k, CURVE_N),
        }
        report("scaling_curve", tables, packages=("jax", "numpy"), save=not options.quick)
        return
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
    pattern = rf"= (.*?) (?:{'|'.join(COLLECTIVES)})(?:-start)?\("
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
        seconds = least_seconds(solver, mesh, K, as_source(x).placed(mesh).whole())
        rows.append({"devices": devices, "N": n, "samples/s": n / seconds})
        rows[-1]["by one device's"] = rows[-1]["samples/s"] / rows[0]["samples/s"]
    return rows


def least_seconds(
    solver: Solver,
    mesh: Mesh,
    k: int,
    block: Block,
    *,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Of so many rounds over a block, after one that compiles."""
    feed = AtHand(block, Span())
    curve, state, sums, draws = begin(solver, mesh, k, block.x.shape[1])
    times = []
    for _ in range(1 + rounds):
        start = clock()
        sums = add_sums(mesh, solver, curve, sums, draws, feed, 0, 1)
        updated = update_by_sums(mesh, solver, curve, state, sums)
        curve, state, sums = updated.curve, updated.state, updated.sums
        jax.block_until_ready((curve, sums))
        times.append(clock() - start)
    return min(times[1:])


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


def _shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


# A curve over devices.


class Programs(NamedTuple):
    """A round's, compiled: `add` takes in a block, `update` ends the round."""

    add: jax.stages.Compiled
    update: jax.stages.Compiled


def compiled(mesh: Mesh, solver: LeastSquares, k: int, n: int) -> Programs:
    """Of K codewords and blocks of n samples."""
    lines = lines_axis(mesh)

    def shape(leaf: Any, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    curve = Curve(shape(_shape(k, D), PartitionSpec(lines)))  # pyright: ignore
    curve = curve.replace(size=shape(jax.ShapeDtypeStruct((), jnp.int32), PartitionSpec()))
    state = jax.eval_shape(solver.init, curve)
    state = shape(state, PartitionSpec())
    sums = sum_shapes(solver, curve, state, parts(mesh))
    sums = jax.tree.map(shape, sums, sums_spec(sums, mesh))
    samples = Block(_shape(n, D), _shape(n))
    samples = jax.tree.map(lambda leaf: shape(leaf, PartitionSpec(AXIS)), samples)
    draws = draws_of(jax.random.key(0), mesh)
    feed = AtHand(samples, Span())
    return Programs(
        add_sums.lower(mesh, solver, curve, sums, draws, feed, 0, 1).compile(),
        update_by_sums.lower(mesh, solver, curve, state, sums).compile(),
    )


def share(samples: int, curve: int, k: int, n: int) -> Row:
    """What a device holds and sends, by the compiled programs and by formula."""
    mesh = data_mesh(jax.devices()[: samples * curve], curve=curve)
    programs = compiled(mesh, LeastSquares(), k, n)
    memory = [program.memory_analysis() for program in programs]
    block, end = (collective_bytes(program.as_text()) for program in programs)
    held = memory[1].argument_size_in_bytes
    return {
        "data x curve": f"{samples} x {curve}",
        "curve and sums MiB": held / 2**20,
        "by formula": held / held_bytes(k, D, curve),
        "temporary MiB, block": memory[0].temp_size_in_bytes / 2**20,
        "temporary MiB, end": memory[1].temp_size_in_bytes / 2**20,
        "sent MiB, block": block / 2**20,
        "block by formula": block / block_bytes(n // samples, D) if curve > 1 else None,
        "sent MiB, end": end / 2**20,
        "end by formula": end / end_bytes(k, D, samples, curve),
    }


def held_bytes(k: int, d: int, curve: int) -> float:
    """The curve, and sums of as many floats and three a codeword: a part of the lines has them."""
    return FLOAT * (2 * k * d + 3 * k) / curve


def block_bytes(n: int, d: int) -> int:
    """Of n samples on the device the least distance and its line; the codeword after its lines, its
    sums, and the codewords' mean."""
    return FLOAT * (2 * n + 3 * d + 4)


def end_bytes(k: int, d: int, samples: int, curve: int) -> float:
    """The sum over parts of the samples; codewords and moments from rows to columns and the new
    codewords back; eleven numbers a codeword: its sums, and lengths of lines from all columns."""
    total = (k * d + 3 * k) / curve + 1 if samples > 1 else 0
    return FLOAT * (total + (3 * k * d / curve + 11 * k if curve > 1 else 0))


def rounds(k: int, n: int) -> list[Row]:
    """Rounds on each mesh: their time, and how far the curves are from that of one device."""
    random = np.random.default_rng(0)
    codewords = random.standard_normal((k, D), np.float32)
    x, weight = random.standard_normal((n, D), np.float32), np.ones(n, np.float32)
    rows: list[Row] = []
    expected = None
    solver = LeastSquares()
    for samples, parts_of_curve in RUN_MESHES:
        mesh = data_mesh(jax.devices()[: samples * parts_of_curve], curve=parts_of_curve)
        programs = compiled(mesh, solver, k, n)
        curve = Curve(jnp.asarray(codewords), jnp.int32(k))
        state = jax.jit(solver.init)(curve)
        sums = zero_sums(mesh, solver, sum_shapes(solver, curve, state, samples))
        curve, state = place_curve(curve, mesh), replicate(state, mesh)
        feed = AtHand(Block(divide(x, mesh), divide(weight, mesh)), Span())
        draws, times = draws_of(jax.random.key(0), mesh), []
        for _ in range(CURVE_ROUNDS):
            start = time.perf_counter()
            sums = jax.block_until_ready(programs.add(solver, curve, sums, draws, feed, 0, 1))
            middle = time.perf_counter()
            updated = programs.update(solver, curve, state, sums)
            curve, state, sums, _ = jax.block_until_ready(updated)
            times.append((middle - start, time.perf_counter() - middle))
        found = np.asarray(curve.codewords)
        expected = found if expected is None else expected
        rows.append(
            {
                "data x curve": f"{samples} x {parts_of_curve}",
                "N": n,
                "seconds, block": min(add for add, _ in times),
                "seconds, end": min(end for _, end in times),
                "largest difference": float(np.abs(found - expected).max()),
            }
        )
    return rows


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
