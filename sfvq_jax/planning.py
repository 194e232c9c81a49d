"""What a round of a fit will cost, before it is paid for: seconds, memory, bytes read and sent.

A round of least squares takes in n latents of D numbers of b bytes, for K codewords, on C chips of
H hosts:

    reading    n·D·b / H bytes for each host, at its rate, while the chips work on the block before
    computing  n/C samples on each chip: 2·K·D operations and 16·K + (24 + 20)·D bytes of its memory
               a sample, and 44·K·D bytes a block, at the shares of the peaks that are reached
    sending    4 (K·D + 3K + 1) bytes a chip, once, into a sum over chips; a ring moves 2 (C - 1)/C
               of them over each link
    solving    a system of K rows, one after another

    seconds = max(reading, computing) + sending + solving

The 16 bytes are a product that is written once and read as both ends of a line and in a minimum; 24
and 20 are passes of float32 over the samples, by the projection and the sums. With them the times
of an H200 come out within a third from 256 codewords on (docs/results/plan.md). What is not
counted: starting, compiling, copies from host to chip (32 GB/s and more), and what measuring takes
after a round, 16 K samples or so.
"""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sfvq_jax.blocks import BLOCK_FLOATS, MAX_BLOCK, MIN_SAMPLES, SAMPLES_A_CODEWORD
from sfvq_jax.devices import round_up
from sfvq_jax.measuring import MEASURING_A_CODEWORD, MEASURING_FLOATS, MEASURING_SAMPLES
from sfvq_jax.projection import LEAST_ROWS, PRECISIONS, check_precision, tile_sizes

FLOAT = 4  # bytes
PAIR_BYTES = 16  # of a chip's memory, a sample and line
NUMBER_BYTES, SUM_BYTES = 24, 20  # a number of a sample, by the projection and the sums
CODEBOOK_BYTES = 44  # a number of the codebook, each block
ROW_SECONDS = (
    2e-6  # of the system, up to `ELIMINATED` rows; beyond, an eighth (measured on an H200)
)
ELIMINATED = 1024
READ_RATE = 1e9  # bytes a second and host: an assumption, a network of 10 Gbit/s nearly full
# of the peaks that data sheets tell, as an H200 reached them (benchmarks/results/accelerator:
# products of side 8192, a copy of 1 GiB); for other chips it is an assumption
PRODUCT_SHARE, MEMORY_SHARE = 0.72, 0.85
NEAR = 0.9  # share of a chip's memory that JAX may take at most


class Chip(NamedTuple):
    """What a chip can do at most.

    Attributes:
      name: of it.
      operations: a second, by `precision`.
      bandwidth: bytes a second of its memory.
      memory: bytes.
      link: bytes a second that it sends to chips beside it.
      chips: of a host.
      network: bytes a second between hosts, for each; None: chips of all hosts are linked.
      shares: of operations and bandwidth that are reached.
    """

    name: str
    operations: Mapping[str, float]
    bandwidth: float
    memory: float
    link: float
    chips: int
    network: float | None = None
    shares: tuple[float, float] = (PRODUCT_SHARE, MEMORY_SHARE)


def _gpu(name: str, tera: tuple[float, float, float], *numbers: Any) -> Chip:
    operations = {name: 1e12 * of for name, of in zip(PRECISIONS, tera, strict=True)}
    return Chip(name, operations, *numbers)


def _tpu(name: str, bfloat16: float, *numbers: Any) -> Chip:
    """Its units multiply bfloat16: float32 takes six such products, TensorFloat-32 three."""
    return _gpu(name, (bfloat16 / 6, bfloat16 / 3, bfloat16), *numbers)


CHIPS = {
    # NVIDIA's data sheets (nvidia.com/h100, /h200, /a100), without sparsity: float32, TF32,
    # bfloat16; memory; NVLink, of which half goes each way; network of a DGX: 8 × 400 Gbit/s of the
    # H100 and H200, 8 × 200 of the A100
    "h100": _gpu("NVIDIA H100 SXM", (66.9, 494.7, 989.4), 3.35e12, 80e9, 450e9, 8, 400e9),
    "h200": _gpu("NVIDIA H200", (66.9, 494.7, 989.4), 4.8e12, 141e9, 450e9, 8, 400e9),
    "a100": _gpu("NVIDIA A100 SXM 80 GB", (19.5, 156.0, 312.0), 2.039e12, 80e9, 300e9, 8, 200e9),
    # docs.cloud.google.com/tpu/docs/v5e and /v5p: bfloat16; memory; interconnect, half each way
    "v5e": _tpu("TPU v5e", 197.0, 819e9, 16e9, 200e9, 8),
    "v5p": _tpu("TPU v5p", 459.0, 2.765e12, 95 * 2**30, 600e9, 4),
}


class Plan(NamedTuple):
    """What a round costs.

    Attributes:
      samples: of the round, n.
      block: samples of a block, on all chips together.
      read: bytes that each host reads.
      sent: bytes that each chip gives to the sum over chips.
      reading, computing, sending, solving: seconds; seconds: of the round.
      memory: bytes a chip, by what for.
      rate: bytes a second and host, above which reading takes less than computing.
      codewords: above which computing takes more than reading, at the rate that was told.
    """

    samples: int
    block: int
    read: float
    sent: float
    reading: float
    computing: float
    sending: float
    solving: float
    seconds: float
    memory: Mapping[str, float]
    rate: float
    codewords: float

    @property
    def bound(self) -> str:
        return "reading" if self.reading > self.computing else "computing"


def plan(
    latents: tuple[int, int],
    codewords: int,
    chip: Chip,
    *,
    chips: int = 1,
    hosts: int | None = None,
    itemsize: int = FLOAT,
    precision: str = "highest",
    read_rate: float = READ_RATE,
    samples: int | None = None,
    block: int | None = None,
) -> Plan:
    """What a round of `fit` with `LeastSquares` costs.

    Args:
      latents: N and D.
      codewords: K.
      chip: one of `CHIPS`, or `measured_chip()`.
      chips: over which the samples are divided.
      hosts: by default as few as the chips need.
      itemsize: bytes of a number as it is stored.
      precision: of the solver.
      read_rate: bytes a second that a host reads.
      samples: of a round; by default as many as `fit` takes, 1024 a codeword, at most all.
      block: samples of a block; by default as `fit` has it.

    Raises:
      ValueError: a number below 1, or a precision that there is none of.

    >>> found = plan((10**9, 512), 65536, CHIPS["h100"], chips=8)
    >>> found.sent, found.bound
    (135004164, 'reading')
    """
    (n, d), k = latents, codewords
    hosts = -(-chips // chip.chips) if hosts is None else hosts
    numbers = {"N": n, "D": d, "codewords": k, "chips": chips, "hosts": hosts}
    for name, number in (numbers | {"read_rate": read_rate}).items():
        if not number >= 1:
            raise ValueError(f"{name} is {number}; expected 1 or more")
    check_precision(precision)
    if samples is None:
        samples = max(MIN_SAMPLES, SAMPLES_A_CODEWORD * k)
    samples = min(samples, n)
    block = min(block or max(1, min(MAX_BLOCK, BLOCK_FLOATS // d)), samples)

    mine, blocks = samples / chips, -(-samples // block)
    passes = mine * SUM_BYTES * d + blocks * CODEBOOK_BYTES * k * d
    passing = passes / (chip.shares[1] * chip.bandwidth)
    computing = projecting(chip, precision, mine, d, k) + passing
    # what does not grow with the codewords, and what a codeword takes
    rest = projecting(chip, precision, mine, d, 0) + mine * SUM_BYTES * d / (
        chip.shares[1] * chip.bandwidth
    )
    a_line = (computing - rest) / k
    read = samples * d * itemsize / hosts
    reading = read / read_rate
    sent = FLOAT * (k * d + 3 * k + 1) if chips > 1 else 0
    slowest = chip.link
    if hosts > 1 and chip.network is not None:  # a ring goes over each host's network once
        slowest = min(slowest, chip.network)
    sending = 2 * (chips - 1) / chips * sent / slowest
    solving = ROW_SECONDS * (min(k, ELIMINATED) + max(k - ELIMINATED, 0) / 8)
    return Plan(
        samples, block, read, sent, reading, computing, sending, solving,
        max(reading, computing) + sending + solving,
        memory_of(k, d, round_up(block, chips) // chips, itemsize),
        read / computing, max(reading - rest, 0) / a_line,
    )  # fmt: skip


def projecting(chip: Chip, precision: str, n: float, d: int, k: int) -> float:
    """Seconds to project n samples of D numbers on K codewords."""
    of_products, of_memory = chip.shares
    moved = PAIR_BYTES * n * k + NUMBER_BYTES * n * d
    products = 2 * n * k * d / (of_products * chip.operations[precision])
    return products + moved / (of_memory * chip.bandwidth)


def memory_of(
    k: int, d: int, block: int, itemsize: int = FLOAT, platform: str = "gpu"
) -> dict[str, float]:
    """Bytes that a chip has at once, by what for: K codewords, so many samples of a block on it."""
    more = min(MEASURING_A_CODEWORD * k, MEASURING_FLOATS // d)
    measuring = max(MEASURING_SAMPLES, more)
    return {
        "curves": FLOAT * 2 * k * d,  # the present one, and the one from before a move
        "sums": FLOAT * (k * d + 3 * k + 1),
        "blocks": 2 * block * (d * itemsize + FLOAT),  # this one and the next
        "measuring samples": FLOAT * measuring * (d + 1),
        "temporaries": max(
            add_bytes(k, block, d, platform),
            update_bytes(k, d),
            measure_bytes(k, measuring, d, platform),
        ),
    }


def project_bytes(k: int, n: int, d: int, platform: str = "cpu") -> int:
    """What `project` builds before its loop over tiles, or what a tile needs, if that is more.

    Before: codewords centred, in blocks, times -2, their steps, the steps between codewords, each
    K·D, and five numbers a line. A tile: those of them that it reads, 2 K·D, its samples centred
    and as they were, their products with a block of codewords and the distances of its lines.
    """
    rows, lines = (min(size, most) for size, most in zip((n, k), tile_sizes(platform), strict=True))
    return FLOAT * max(5 * k * d + 5 * k, 2 * k * d + 2 * rows * d + 2 * lines * rows)


def add_bytes(k: int, n: int, d: int, platform: str = "cpu") -> int:
    """Those of `project`, its result, and the block's sums; of samples only tiles are copied."""
    return project_bytes(k, n, d, platform) + FLOAT * (3 * n + k * d + 3 * k)


def update_bytes(k: int, d: int) -> int:
    """The sums, the right side, what elimination leaves of it, the solution; four diagonals."""
    return FLOAT * (4 * k * d + 4 * k)


def measure_bytes(k: int, n: int, d: int, platform: str = "cpu") -> int:
    """Those of `project`, or of a tile of samples beside all codewords (`nearest_codeword`)."""
    most_rows, most_lines = tile_sizes(platform)
    rows = min(n, most_rows, max(LEAST_ROWS, most_rows * most_lines // k))
    return max(project_bytes(k, n, d, platform), FLOAT * (k * d + rows * (d + k)))


def measured_chip(side: int = 2048, clock: Callable[[], float] = time.perf_counter) -> Chip:
    """The first device that JAX has, by a product and a copy that take a second or so.

    What it reaches is its peak here, so that its shares are 1. The copy is of what a tile of the
    projection has, which a CPU keeps in its cache.

    Args:
      side: of the matrices of the product.
      clock: seconds; `time.process_time` on one core that others use too.
    """
    device, (rows, lines) = jax.devices()[0], tile_sizes()
    x = jax.random.normal(jax.random.key(0), (side, side))
    operations = {}
    for precision, name in (("highest", "highest"), ("tf32", "tensorfloat32"), ("bfloat16", None)):
        y = x.astype(jnp.bfloat16) if precision == "bfloat16" else x
        product = functools.partial(jnp.matmul, precision=name)
        operations[precision] = 2 * side**3 / _seconds(clock, product, y, y)
    floats = rows * lines
    bandwidth = 2 * FLOAT * floats / _seconds(clock, jnp.negative, jnp.zeros(floats, jnp.float32))
    memory = (device.memory_stats() or {}).get("bytes_limit", 0.0)
    number = jax.local_device_count()
    return Chip(device.device_kind, operations, bandwidth, memory, bandwidth, number, None, (1, 1))


def _seconds(clock: Callable[[], float], function: Any, *arguments: Any) -> float:
    """The least of some calls."""
    compiled, times = jax.jit(function).lower(*arguments).compile(), []
    for _ in range(6):
        start = clock()
        jax.block_until_ready(compiled(*arguments))
        times.append(clock() - start)
    return min(times[1:])
