"""The nearest codeword as a Triton kernel: the products never leave the chip.

Each program keeps a tile of samples and goes through all codewords, tile by tile, with the least
distance so far and its index. Importing this needs Triton; running it needs a GPU.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl


class Tiles(NamedTuple):
    """How the work is cut: samples, codewords and dimensions at once; warps; loads ahead."""

    rows: int
    codewords: int
    dims: int
    warps: int
    stages: int


# candidates by (bits of an input, D); each fits the 227 KiB of shared memory that Hopper has
TILES = {
    (16, 128): [Tiles(128, 128, 128, 8, 3), Tiles(128, 256, 128, 8, 2), Tiles(64, 128, 128, 4, 3)],
    (16, 512): [Tiles(128, 128, 64, 8, 4), Tiles(128, 256, 64, 8, 3)],
    (32, 128): [Tiles(128, 64, 128, 8, 3), Tiles(128, 128, 128, 8, 2)],
    (32, 512): [Tiles(128, 128, 32, 8, 4), Tiles(128, 256, 32, 8, 3)],
}


def nearest_codewords(x: Any, codewords: Any, squared_norm: Any, tiles: Tiles) -> Any:
    """Index of the nearest codeword of each sample, [N] int32; of equals any.

    Args:
      x: [N, D] contiguous, bfloat16, or float32 for TF32 products.
      codewords: [K, D] likewise.
      squared_norm: [K] float32.
      tiles: dims divides D.
    """
    (n, d), k = x.shape, len(codewords)
    nearest = torch.empty(n, dtype=torch.int32, device=x.device)
    _nearest[(triton.cdiv(n, tiles.rows),)](
        x,
        codewords,
        squared_norm,
        nearest,
        n,
        k,
        D=d,
        ROWS=tiles.rows,
        CODEWORDS=tiles.codewords,
        DIMS=tiles.dims,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return nearest


@triton.jit
def _nearest(
    x,
    book,
    norm,
    out,
    num_rows,
    num_codewords,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    CODEWORDS: tl.constexpr,
    DIMS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    dim = tl.arange(0, DIMS)
    x_at = x + row[:, None] * D + dim[None, :]
    is_row = row[:, None] < num_rows
    if DIMS == D:
        x_tile = tl.load(x_at, mask=is_row, other=0.0)
    least = tl.full((ROWS,), float("inf"), tl.float32)
    nearest = tl.zeros((ROWS,), tl.int32)
    for first in range(0, num_codewords, CODEWORDS):
        codeword = first + tl.arange(0, CODEWORDS)
        is_codeword = codeword < num_codewords
        book_at = book + codeword[None, :].to(tl.int64) * D + dim[:, None]
        product = tl.zeros((ROWS, CODEWORDS), tl.float32)
        if DIMS == D:
            book_tile = tl.load(book_at, mask=is_codeword[None, :], other=0.0)
            product = tl.dot(x_tile, book_tile, product, input_precision="tf32")
        else:
            for d in range(0, D, DIMS):
                x_part = tl.load(x_at + d, mask=is_row, other=0.0)
                book_part = tl.load(book_at + d, mask=is_codeword[None, :], other=0.0)
                product = tl.dot(x_part, book_part, product, input_precision="tf32")
        squared_norm = tl.load(norm + codeword, mask=is_codeword, other=float("inf"))
        distance = squared_norm[None, :] - 2 * product
        tile_least, tile_nearest = tl.min(
            distance, 1, return_indices=True, return_indices_tie_break_left=False
        )
        nearer = tile_least < least
        nearest = tl.where(nearer, first + tile_nearest, nearest)
        least = tl.where(nearer, tile_least, least)
    tl.store(out + row, nearest, mask=row < num_rows)
