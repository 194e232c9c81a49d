"""PyTorch's side, where it is installed."""

import gc
from typing import Any

import jax

try:
    import torch
except (ImportError, OSError):
    torch: Any = None

CHUNK_FLOATS, QUICK_CHUNK_FLOATS = 2**28, 2**14  # of products [rows, K] at once: 1 GiB


def why_not() -> str | None:
    """Why PyTorch is left out, or None."""
    if torch is None:
        return "PyTorch is left out: it is not installed"
    if jax.default_backend() == "gpu" and not torch.cuda.is_available():
        return "PyTorch is left out: it finds no GPU"
    return None


def on_cuda() -> bool:
    return jax.default_backend() == "gpu"


def place() -> Any:
    """The device that JAX computes on."""
    return torch.device("cuda" if on_cuda() else "cpu")


def wait(_: Any = None) -> None:
    if on_cuda():
        torch.cuda.synchronize()


def set_products(precision: str) -> None:
    """How products of float32 are computed: TF32 for "tf32", float32 otherwise."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def gaussian(seed: int, *shape: int) -> Any:
    generator = torch.Generator(place()).manual_seed(seed)
    return torch.randn(*shape, generator=generator, device=place())


def free() -> None:
    """Gives back memory that is not in use."""
    gc.collect()
    if torch is not None and on_cuda():
        torch.cuda.empty_cache()


class Book:
    """Codewords to search, prepared outside the time that is measured.

    Args:
      codewords: [K, D] float32.
      precision: of the products; "bfloat16" rounds codewords (and samples) to it.
      rows: samples whose products are in memory at once.
    """

    def __init__(self, codewords: Any, precision: str, rows: int):
        self.squared_norm = codewords.square().sum(1)
        # in float32 `addmm` takes the factor; -2 is exact in bfloat16 too
        self.bfloat16 = precision == "bfloat16"
        self.right = (-2 * codewords.bfloat16()).T if self.bfloat16 else codewords.T
        self.rows = rows

    def samples(self, x: Any) -> Any:
        """x [N, D] in the dtype of the products."""
        return x.bfloat16() if self.bfloat16 else x

    def nearest(self, x: Any) -> Any:
        """Index of the nearest codeword of samples [N, D], [N]: product and argmin, in chunks."""
        found = torch.empty(len(x), dtype=torch.int64, device=x.device)
        for start in range(0, len(x), self.rows):
            part = x[start : start + self.rows]
            found[start : start + self.rows] = self.nearest_of_chunk(part)
        return found

    def nearest_of_chunk(self, x: Any) -> Any:
        if not self.bfloat16:
            return torch.addmm(self.squared_norm, x, self.right, alpha=-2).argmin(1)
        if x.is_cuda:
            product = torch.mm(x, self.right, out_dtype=torch.float32)
        else:
            product = torch.mm(x, self.right).float()
        return product.add_(self.squared_norm).argmin(1)


def chunk_rows(n: int, k: int, quick: bool) -> int:
    """Of n samples, those whose products with K codewords are in memory at once."""
    return min(n, max(1, (QUICK_CHUNK_FLOATS if quick else CHUNK_FLOATS) // k))
