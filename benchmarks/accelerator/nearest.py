"""The nearest codeword by a Triton kernel and by torch.compile, beside PyTorch's own.

It is the upper bound of what a kernel written for the purpose could gain: flash-kmeans reports 203
TFLOP/s for it at D=128 and 16 bits on an H200 (arXiv 2603.09229).
"""

import functools
from typing import Any

from benchmarks.accelerator import pytorch
from benchmarks.accelerator.projection import Contender
from benchmarks.accelerator.record import Part, Row
from benchmarks.accelerator.timing import timed

try:
    from benchmarks.accelerator import triton_kernel
except (ImportError, OSError):
    triton_kernel: Any = None

SIZES = [(2**18, 128), (2**18, 512), (2**20, 128), (2**20, 512)]
CODEWORDS = (1024, 16384, 256, 65536, 4096, 64)
COMPILED = 1024  # codewords: torch.compile takes long for each number of them
TUNED_WITH = 4096  # codewords, for the choice of tiles
QUICK_SIZES, QUICK_CODEWORDS = [(2**9, 32)], (64, 1024)
PRECISIONS = ("bfloat16", "tf32")
CHECKED = 2**10  # samples at each end
EXCESS = 1e-3  # tolerance of TF32


def measure(part: Part) -> None:
    part.describe(
        tables=[
            {"index": ["N", "D", "K"], "across": ["who", "products"], "values": ["TFLOP/s"]}
            | {"where": {"what": "search"}},
        ],
        operations="2 N K D",
    )
    if part.leave_out(pytorch.why_not()):
        return
    with_triton = not part.leave_out(why_no_triton())
    tiles: dict[tuple[str, int], Any] = {}
    sizes = QUICK_SIZES if part.quick else SIZES
    for n, d in sizes:
        x = pytorch.gaussian(0, n, d)
        for precision in PRECISIONS if with_triton else ():
            if (precision, d) not in tiles:
                tune = functools.partial(fastest_tiles, x, precision)
                names = {"what": "tiles", "N": n, "D": d, "K": TUNED_WITH, "products": precision}
                tiles[precision, d] = part.row(tune, **names).get("tiles")
        for k in QUICK_CODEWORDS if part.quick else CODEWORDS:
            rows = pytorch.chunk_rows(n, k, part.quick)
            for precision in PRECISIONS:
                names = {"what": "search", "N": n, "D": d, "K": k, "products": precision}
                if tiles.get((precision, d)):
                    run = functools.partial(by_triton, x, k, precision, tiles[precision, d])
                    part.row(run, who="Triton", **names)
                run = functools.partial(by_product, x, k, rows, precision)
                part.row(run, who="PyTorch", **names)
    for n, d in sizes[:2]:
        x = pytorch.gaussian(0, n, d)
        for precision in PRECISIONS:
            rows = pytorch.chunk_rows(n, COMPILED, part.quick)
            run = functools.partial(by_compiled, x, COMPILED, rows, precision)
            names = {"what": "search", "N": n, "D": d, "K": COMPILED, "products": precision}
            part.row(run, who="torch.compile", **names)


def why_no_triton() -> str | None:
    if triton_kernel is None:
        return "Triton is left out: it is not installed"
    return None if pytorch.on_cuda() else "Triton is left out: its kernel needs a GPU"


def by_product(x: Any, k: int, rows: int, precision: str) -> Row:
    pytorch.set_products(precision)
    book = pytorch.Book(pytorch.gaussian(1, k, x.shape[1]), precision, rows)
    samples = book.samples(x)
    return rated(Contender(lambda: book.nearest(samples), pytorch.wait), x, k)


def by_compiled(x: Any, k: int, rows: int, precision: str) -> Row:
    """Product and argmin of a chunk compiled together."""
    torch = pytorch.torch
    pytorch.set_products(precision)
    book = pytorch.Book(pytorch.gaussian(1, k, x.shape[1]), precision, rows)
    parts = book.samples(x).split(rows)
    # the trial needs no compiler of C++
    backend = "inductor" if pytorch.on_cuda() else "eager"
    of_chunk = torch.compile(book.nearest_of_chunk, dynamic=False, backend=backend)
    return rated(Contender(lambda: [of_chunk(part) for part in parts], pytorch.wait), x, k)


def by_triton(x: Any, k: int, precision: str, tiles: Any) -> Row:
    search = TritonSearch(x, k, precision, tiles)
    times = rated(Contender(search, pytorch.wait), x, k)
    excess = search.excess()
    return times | {"excess": excess, "excess ≤": EXCESS, "ok": excess <= EXCESS}


def fastest_tiles(x: Any, precision: str) -> Row:
    """Of the candidates; one that cannot be built is passed over."""
    times: dict[Any, float] = {}
    errors = []
    bits = 16 if precision == "bfloat16" else 32
    for tiles in triton_kernel.TILES[bits, x.shape[1]]:
        try:
            search = TritonSearch(x, TUNED_WITH, precision, tiles)
            times[tiles] = timed(search, pytorch.wait, seconds=0.1)["ms"]
        except Exception as error:
            errors.append(f"{tuple(tiles)}: {error}"[:300])
    if not times:
        raise RuntimeError("; ".join(errors))
    return {
        "tiles": min(times, key=times.__getitem__),
        "ms by tiles": [[*tiles, ms] for tiles, ms in times.items()],
        "not built": errors,
    }


class TritonSearch:
    """The kernel on samples [N, D] and K random codewords, rounded outside the time."""

    def __init__(self, x: Any, k: int, precision: str, tiles: Any):
        codewords = pytorch.gaussian(1, k, x.shape[1])
        self._squared_norm = codewords.square().sum(1)
        rounded = precision == "bfloat16"
        self._x = x.bfloat16() if rounded else x
        self._codewords = codewords.bfloat16() if rounded else codewords
        self._tiles = tiles

    def __call__(self) -> Any:
        """Index of the nearest codeword, [N] int32."""
        return triton_kernel.nearest_codewords(
            self._x, self._codewords, self._squared_norm, self._tiles
        )

    def excess(self) -> float:
        """How much farther than the nearest codeword the found ones are, at most.

        As a share of the mean distance, squared, of some samples from both ends; by float32
        products of the same rounded numbers. NaN where an index is none.
        """
        found = self()
        if not bool(((found >= 0) & (found < len(self._codewords))).all()):
            return float("nan")
        pytorch.set_products("highest")
        excesses = []
        for ends in (slice(None, CHECKED), slice(-CHECKED, None)):
            x = self._x[ends].float()
            distance = self._squared_norm - 2 * x @ self._codewords.float().T
            least = distance.min(1).values
            far = distance.gather(1, found[ends, None].long())[:, 0] - least
            excesses.append(float(far.max() / (least + x.square().sum(1)).mean()))
        return max(excesses)


def rated(contender: Contender, x: Any, k: int) -> Row:
    times = timed(*contender)
    return times | {"TFLOP/s": 2e-9 * x.numel() * k / times["ms"]}
