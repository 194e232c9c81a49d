"""The exact nearest line beside plain products and nearest-codeword searches of the same shapes.

    python -m benchmarks.projection          # five minutes or so
    python -m benchmarks.projection --quick  # a trial: 1/16 of the samples, nothing saved

For N samples of width D and K codewords, float32, in milliseconds:

    ours            `sfvq_jax.project`: the nearest of all K - 1 lines, fraction, squared distance
    jax X·Cᵀ        one matrix product, the least that any exact search computes
    torch X·Cᵀ      the same in PyTorch
    torch cdist     PyTorch's cdist and argmin: the nearest codeword only
    faiss           FAISS' IndexFlatL2, k=1: the nearest codeword only (if faiss-cpu is there)
    jax untiled     the nearest line as one writes it first: one product, argmin, both ends gathered

On a CPU all have two threads. On a GPU or TPU the rows of JAX come twice, with products in full
float32 ("highest") and as JAX does them by default (TF32 on recent NVIDIA GPUs); `project` asks for
the full ones itself. PyTorch runs there if it can, and FAISS, on the CPU only, is left out.

Every contender runs once, compiled and warm, in each of several rounds; the least time counts. The
machine should have nothing else to do: threads that wait for each other, FAISS' above all, lose
more by company than others.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.report import report, use_cores
from sfvq_jax import Curve, project

THREADS = 2
N, D = 2**16, 512
ROUNDS = {64: 24, 256: 12, 1024: 6, 4096: 3}  # by K
PAUSE = 0.02  # seconds between contenders, for the threads of the one before to fall asleep


def main() -> None:
    parser = argparse.ArgumentParser(description="The projection beside products and searches.")
    parser.add_argument("--quick", action="store_true", help="1/16 of the samples, nothing saved")
    quick = parser.parse_args().quick
    use_cores(THREADS)
    torch.set_num_threads(THREADS)

    n = N // 16 if quick else N
    x = gaussian(0, n, D)
    on_cpu = jax.default_backend() == "cpu"
    with_faiss = on_cpu and importlib.util.find_spec("faiss") is not None
    packages = ["jax", "torch", "numpy"] + ["faiss-cpu"] * with_faiss
    rows = []
    for k, rounds in ROUNDS.items():
        codewords = gaussian(1, k, D)
        # full float32 is what a CPU does anyway
        for precision in ("highest",) if on_cpu else ("highest", "default"):
            with jax.default_matmul_precision(precision):
                contenders = jax_contenders(x, codewords) | torch_contenders(x, codewords)
                if with_faiss:
                    contenders |= faiss_contender(x, codewords)
                row = least_times(contenders, rounds=3 if quick else rounds)
            row |= {"ours ÷ product": row["ours"] / min(row["jax X·Cᵀ"], row["torch X·Cᵀ"])}
            if with_faiss:
                row |= {"ours ÷ faiss": row["ours"] / row["faiss"]}
            rows.append({"K": k} | ({} if on_cpu else {"precision": precision}) | row)
    report(
        "projection",
        {f"ms, N={n}, D={D}": rows},
        packages=packages,
        save=not quick,
        threads=THREADS,
        rounds_by_k=ROUNDS,
    )


def least_times(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds of each, the least of `rounds` in turn after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(1 + rounds):
        for name, run in contenders.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: min(values[1:]) for name, values in times.items()}


def jax_contenders(x: np.ndarray, codewords: np.ndarray) -> dict[str, Callable[[], object]]:
    curve, samples = Curve(jnp.asarray(codewords)), jnp.asarray(x)
    product = jax.jit(lambda x, codewords: x @ codewords.T)
    untiled = jax.jit(nearest_line_untiled)
    return {
        "ours": lambda: jax.block_until_ready(project(curve, samples)),
        "jax X·Cᵀ": lambda: jax.block_until_ready(product(samples, curve.codewords)),
        "jax untiled": lambda: jax.block_until_ready(untiled(samples, curve.codewords)),
    }


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


def torch_contenders(x: np.ndarray, codewords: np.ndarray) -> dict[str, Callable[[], object]]:
    cuda = jax.default_backend() == "gpu" and torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    samples, book = torch.from_numpy(x).to(device), torch.from_numpy(codewords).to(device)
    wait = torch.cuda.synchronize if cuda else lambda: None

    def product() -> object:
        return samples @ book.T, wait()

    def nearest_codeword() -> object:
        return torch.cdist(samples, book).argmin(1), wait()

    return {"torch X·Cᵀ": product, "torch cdist": nearest_codeword}


def faiss_contender(x: np.ndarray, codewords: np.ndarray) -> dict[str, Callable[[], object]]:
    import faiss

    faiss.omp_set_num_threads(THREADS)
    index = faiss.IndexFlatL2(codewords.shape[1])
    index.add(codewords)
    return {"faiss": lambda: index.search(x, 1)}


def gaussian(seed: int, n: int, d: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d), np.float32)


if __name__ == "__main__":
    main()
