"""`plan`: what a fit will cost, before it is run."""

import argparse
import re

import numpy as np

from sfvq_jax.cli.common import BITS_HELP, add_examples, table
from sfvq_jax.cli.models import LATENTS_HELP

DTYPES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1, "float64": 8}
HERE = "here"
SMALL = 1024  # samples of a block for each chip, below which they wait for the codebook


def add_plan(command: argparse.ArgumentParser) -> None:
    from sfvq_jax.planning import CHIPS, NEAR, READ_RATE
    from sfvq_jax.projection import PRECISIONS

    command.set_defaults(run=run_plan, near=NEAR)
    add_examples(
        command,
        "plan s3://bucket/latents.zarr --bits 16 --chips 8 --chip h100",
        "plan --latents 1e9x512 --dtype bfloat16 --bits 12 --chips 256 --chip v5e --read-rate 5",
    )
    command.add_argument("source", nargs="?", help=LATENTS_HELP)
    command.add_argument(
        "--latents",
        metavar="NxD",
        help="number and width of latents, such as 1e9x512, in place of a source",
    )
    command.add_argument(
        "--dtype",
        choices=DTYPES,
        help="type of the stored numbers, with --latents (default: float32)",
    )
    command.add_argument("--bits", type=int, default=6, help=BITS_HELP)
    command.add_argument(
        "--chip",
        choices=[*CHIPS, HERE],
        default="h100",
        help=f"type of chip; {HERE} measures this machine's first device (default: %(default)s)",
    )
    command.add_argument(
        "--chips", type=int, default=1, help="number of chips (default: %(default)s)"
    )
    command.add_argument(
        "--hosts", type=int, help="number of hosts (default: as few as the chips need)"
    )
    command.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="highest",
        help="precision of matrix products (default: %(default)s)",
    )
    command.add_argument(
        "--read-rate",
        type=float,
        default=READ_RATE / 1e9,
        metavar="GB/S",
        help="speed at which each host reads (default: %(default)s, an assumption: measure yours)",
    )


def run_plan(options: argparse.Namespace) -> None:
    from sfvq_jax.planning import CHIPS, measured_chip, plan
    from sfvq_jax.stage import checked_bits

    (n, d), itemsize, dtype = _latents(options)
    chip = measured_chip() if options.chip == HERE else CHIPS[options.chip]
    k = 2 ** checked_bits(options.bits)
    of_round, of_all = (
        plan(
            (n, d),
            k,
            chip,
            chips=options.chips,
            hosts=options.hosts,
            itemsize=itemsize,
            precision=options.precision,
            read_rate=1e9 * options.read_rate,
            samples=samples,
        )
        for samples in (None, n)
    )
    print(
        f"{n:,} latents of {d:,} {dtype} numbers, {_bytes(float(n) * d * itemsize)};"
        f" {k:,} codewords; {options.chips} x {chip.name}"
    )
    both = {
        "samples": lambda of: f"{of.samples:,}",
        "each host reads": lambda of: _bytes(of.read),
        "reading": lambda of: _seconds(of.reading),
        "computing": lambda of: _seconds(of.computing),
        "each chip sends": lambda of: _bytes(of.sent),
        "sending": lambda of: _seconds(of.sending),
        "solving": lambda of: _seconds(of.solving),
        "in all": lambda of: _seconds(of.seconds),
        "bound by": lambda of: of.bound,
    }
    rows = [(name, show(of_round), show(of_all)) for name, show in both.items()]
    print(table([("", "a round", "a pass over all"), *rows]))
    total = sum(of_round.memory.values())
    parts = ", ".join(f"{name} {_bytes(size)}" for name, size in of_round.memory.items())
    print(f"memory a chip: {_bytes(total)} of {_bytes(chip.memory)} ({parts})")
    if 0 < options.near * chip.memory < total:
        print("that is too much for it: fewer bits, or a smaller block (LeastSquares(block=…))")
    print(
        f"reading takes less than computing from {_bytes(of_all.rate)}/s a host on, or from"
        f" {of_all.codewords:,.0f} codewords on"
    )
    enough = SMALL * options.chips
    if of_round.block < enough:
        few = f"{of_round.block:,} samples, {of_round.block / options.chips:,.0f} a chip"
        more = f"LeastSquares(block={enough})"
        print(f"a block is {few}: with {more} chips wait less for the codebook")


def _latents(options: argparse.Namespace) -> tuple[tuple[int, int], int, str]:
    """N and D, bytes of a number and its type's name."""
    if (options.source is None) == (options.latents is None):
        raise ValueError("name latents, or tell how many there are by --latents, such as 1e9x512")
    if options.source is not None:
        from sfvq_jax.rows.opening import open_rows

        if options.dtype is not None:
            raise ValueError("--dtype goes with --latents; a source tells its own")
        rows = open_rows(options.source)
        if len(rows.shape) != 2:
            raise ValueError(f"{options.source} has shape {rows.shape}; expected latents [N, D]")
        return (rows.shape[0], rows.shape[1]), np.dtype(rows.dtype).itemsize, str(rows.dtype)
    found = re.fullmatch(r"(\d[\d.]*(?:e\d+)?)x(\d+)", options.latents)
    if found is None:
        raise ValueError(
            f"--latents is {options.latents}; expected how many by how wide, such as 1e9x512"
        )
    dtype = options.dtype or "float32"
    return (int(float(found[1])), int(found[2])), DTYPES[dtype], dtype


def _bytes(number: float) -> str:
    power = min(int(np.log10(max(number, 1)) // 3), 5)
    return f"{number / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"


def _seconds(number: float) -> str:
    if number < 100:
        return f"{number:.2g} s"
    return f"{number / 60:.3g} min" if number < 6000 else f"{number / 3600:.3g} h"
