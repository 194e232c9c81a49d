"""The exact nearest line beside plain products and nearest-codeword searches of the same shapes.

    python -m benchmarks.projection          # ten minutes or so
    python -m benchmarks.projection --quick  # a trial: 1/16 of the samples, nothing saved

For N samples of width D and K codewords, float32, in milliseconds:

    ours            `sfvq_jax.project`: the nearest of all K - 1 lines, fraction, squared distance
    round           a round of `LeastSquares`: the same, its sums, and the solution
    jax X·Cᵀ, C·Xᵀ  one matrix product, the least that any exact search computes
    torch, numpy    the same, into memory that is there already
    torch nearest   PyTorch's |c|² - 2 X·Cᵀ and argmin: the nearest codeword only
    faiss           FAISS' IndexFlatL2, k=1: the nearest codeword only (if faiss-cpu is there)
    jax untiled     the nearest line as one writes it first: one product, argmin, both ends gathered

All have two threads. Products of more than 2 GiB are made in parts of that size. On a GPU or TPU
see `benchmarks.accelerator`.

faiss-cpu brings an OpenBLAS of its own, which falls back to a kernel of 2004 on processors that it
does not know. So FAISS runs in a process for each kernel that may suit, the fastest one counts and
is named, and a fallback is refused; NumPy's kernel is looked at too.

Every contender runs once, compiled and warm, in each of several rounds; the least time counts (of
65,536 codewords the only one, which compiles, within half a minute). The
machine should have nothing else to do: threads that wait for each other, FAISS' above all, lose
more by company than others.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.report import blas_kernel, blas_kernels, report, use_cores
from sfvq_jax import Curve, LeastSquares, project
from sfvq_jax.solver import step

THREADS = 2
N, D = 2**16, 512
ROUNDS = {64: 24, 256: 12, 1024: 6, 4096: 3, 65536: 0}  # by K
PRODUCT_FLOATS = 2**29  # at once: 2 GiB
UNTILED_K = 4096  # at most: it holds several arrays [N, K]
PRODUCTS = ("jax X·Cᵀ", "jax C·Xᵀ", "torch X·Cᵀ", "numpy X·Cᵀ")
PAUSE = 0.02  # seconds between contenders, for the threads of the one before to fall asleep
FAISS_KERNELS = ("SkylakeX", "Zen", "Haswell", "")  # of OpenBLAS; "" is its own choice

Contenders = dict[str, Callable[[], object]]


def main() -> None:
    parser = argparse.ArgumentParser(description="The projection beside products and searches.")
    parser.add_argument("--quick", action="store_true", help="1/16 of the samples, nothing saved")
    parser.add_argument("--serve-faiss", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    use_cores(THREADS)
    if options.serve_faiss:
        serve_faiss(*options.serve_faiss)
        return
    torch.set_num_threads(THREADS)
    blas_kernels()  # refuses a fallback

    n = N // 16 if options.quick else N
    x = gaussian(0, n, D)
    with_faiss = importlib.util.find_spec("faiss") is not None
    rows, kernels = [], FAISS_KERNELS
    for k, rounds in ROUNDS.items():
        if options.quick and k > UNTILED_K:
            continue
        codewords = gaussian(1, k, D)
        contenders = our_contenders(x, codewords) | product_contenders(x, codewords)
        with contextlib.ExitStack() as stack:
            kernel = None
            if with_faiss:
                search, kernel = stack.enter_context(faiss_contender(n, k, kernels))
                contenders["faiss"] = search
                if k >= 1024:
                    kernels = (kernel,)  # trying the others would take minutes
            row = least_times(contenders, rounds=2 if options.quick else rounds)
        product = min(row[name] for name in PRODUCTS)
        row |= {"ours ÷ product": row["ours"] / product, "round ÷ product": row["round"] / product}
        if with_faiss:
            row |= {"ours ÷ faiss": row["ours"] / row["faiss"]}
        rows.append({"K": k, **row, "faiss kernel": kernel})
        print(rows[-1], flush=True)
    report(
        "projection",
        {f"ms, N={n}, D={D}": rows},
        packages=["jax", "torch", "numpy"] + ["faiss-cpu"] * with_faiss,
        save=not options.quick,
        threads=THREADS,
        rounds_by_k=ROUNDS,
    )


def least_times(contenders: Contenders, rounds: int) -> dict[str, float]:
    """Milliseconds of each, the least of `rounds` in turn after one to warm up, or that one."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(1 + rounds):
        for name, run in contenders.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: min(values[1:] or values) for name, values in times.items()}


def our_contenders(x: np.ndarray, codewords: np.ndarray) -> Contenders:
    curve, samples = Curve(jnp.asarray(codewords)), jnp.asarray(x)
    solver, key = LeastSquares(), jax.random.key(0)
    a_round = jax.jit(lambda curve, x: step(solver, curve, solver.init(curve), key, x))
    untiled = jax.jit(nearest_line_untiled)
    contenders: Contenders = {
        "ours": lambda: jax.block_until_ready(project(curve, samples)),
        "round": lambda: jax.block_until_ready(a_round(curve, samples)),
    }
    if len(codewords) <= UNTILED_K:
        contenders["jax untiled"] = lambda: jax.block_until_ready(untiled(samples, curve.codewords))
    return contenders


def nearest_line_untiled(x: jax.Array, codewords: jax.Array) -> tuple[jax.Array, ...]:
    """Line, fraction and squared distance, [N] each, by way of [N, K] arrays."""
    start, step = codewords[:-1], jnp.diff(codewords, axis=0)
    product = x @ codewords.T
    along = product[:, 1:] - product[:, :-1] - (start * step).sum(1)
    length = (step**2).sum(1)
    fraction = jnp.clip(along / length, 0, 1)
    distance = (start**2).sum(1) - 2 * product[:, :-1] - fraction * (2 * along - fraction * length)
    line = distance.argmin(1)
    begin, end = codewords[line], codewords[line + 1]
    step = end - begin
    fraction = jnp.clip(((x - begin) * step).sum(1) / (step**2).sum(1), 0, 1)
    return line, fraction, ((x - begin - fraction[:, None] * step) ** 2).sum(1)


def product_contenders(x: np.ndarray, codewords: np.ndarray) -> Contenders:
    """Products of all samples with all codewords, in as few parts as memory allows."""
    rows = min(len(x), PRODUCT_FLOATS // len(codewords))
    parts = np.split(x, len(x) // rows)
    jax_parts, book = [jnp.asarray(part) for part in parts], jnp.asarray(codewords)
    samples_first = jax.jit(lambda x, codewords: x @ codewords.T)
    codewords_first = jax.jit(lambda x, codewords: codewords @ x.T)
    out = np.empty((rows, len(codewords)), np.float32)
    torch_parts, torch_book = (
        [torch.from_numpy(part) for part in parts],
        torch.from_numpy(codewords),
    )
    torch_out = torch.from_numpy(out)

    def by_jax(product: Callable[..., jax.Array]) -> Callable[[], object]:
        # one after another, since all products together may not fit into memory
        return lambda: [jax.block_until_ready(product(part, book)).shape for part in jax_parts]

    @torch.inference_mode()
    def nearest() -> object:
        norms = torch_book.square().sum(1)
        return [torch.addmm(norms, part, torch_book.T, alpha=-2).argmin(1) for part in torch_parts]

    @torch.inference_mode()
    def by_torch() -> object:
        return [torch.mm(part, torch_book.T, out=torch_out).shape for part in torch_parts]

    return {
        "jax X·Cᵀ": by_jax(samples_first),
        "jax C·Xᵀ": by_jax(codewords_first),
        "torch X·Cᵀ": by_torch,
        "numpy X·Cᵀ": lambda: [np.matmul(part, codewords.T, out=out).shape for part in parts],
        "torch nearest": nearest,
    }


@contextlib.contextmanager
def faiss_contender(
    n: int, k: int, kernels: tuple[str, ...]
) -> Iterator[tuple[Callable[[], object], str]]:
    """A search by FAISS with the fastest of its kernels, and that kernel's name.

    Raises:
      SystemExit: no kernel but a fallback runs here.
    """
    servers = [server for kernel in kernels if (server := FaissServer(n, k, kernel)).kernel]
    try:
        if not servers:
            raise SystemExit(
                f"FAISS' OpenBLAS has none of {', '.join(filter(None, FAISS_KERNELS))} for this"
                " processor, only a fallback: set OPENBLAS_CORETYPE to a kernel that suits it, or"
                " take faiss-cpu away, and it is left out"
            )
        fastest = min(servers, key=FaissServer.seconds)
        for server in servers:
            if server is not fastest:
                server.close()
        yield fastest.search, fastest.kernel
    finally:
        for server in servers:
            server.close()


class FaissServer:
    """FAISS in a process of its own, in which OpenBLAS takes the kernel that it is told to."""

    def __init__(self, n: int, k: int, kernel: str):
        environment = os.environ | ({"OPENBLAS_CORETYPE": kernel} if kernel else {})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.projection", "--serve-faiss", str(n), str(k)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        # nothing if the processor does not know the kernel's instructions
        found = json.loads(self._process.stdout.readline() or '""')
        if kernel and found != kernel:
            found = ""
        self.kernel: str = found
        if not found:
            self.close()

    def search(self) -> None:
        """One search of all samples."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("search\n")
        self._process.stdin.flush()
        self._process.stdout.readline()

    def seconds(self) -> float:
        """The lesser of two searches."""
        times = []
        for _ in range(2):
            start = time.perf_counter()
            self.search()
            times.append(time.perf_counter() - start)
        return min(times)

    def close(self) -> None:
        self._process.communicate()


def serve_faiss(n: int, k: int) -> None:
    """Prints the kernel's name, or "" for a fallback; then searches once a line of the input."""
    import faiss

    faiss.omp_set_num_threads(THREADS)
    x, index = gaussian(0, n, D), faiss.IndexFlatL2(D)
    index.add(gaussian(1, k, D))
    print(json.dumps(blas_kernel("faiss") or ""), flush=True)
    for _ in sys.stdin:
        index.search(x, 1)
        print("done", flush=True)


def gaussian(seed: int, n: int, d: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d), np.float32)


if __name__ == "__main__":
    main()
