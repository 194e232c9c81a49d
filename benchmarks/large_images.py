"""Seconds and memory of images of 1024 px: one, and a map of 64, beside PyTorch.

    pip install "sfvq-jax[benchmarks]"
    python -m benchmarks.large_images [--quick]

StyleGAN2 at 1024 px with its default channels and random weights, the same on both sides, in
float32 on two CPU threads. PyTorch's side is that of `benchmarks.generators`, an image at a time; a
map's images are scaled down as `sfvq-jax map` does it, and beside ours is the faster of PyTorch's
two forms. Each figure comes from a process of its own: the first call, which in JAX compiles, a
later one, and the largest memory that the process took meanwhile beyond what imports and weights
had taken.
"""

import argparse
import ctypes
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.generators import (
    CORES,
    prepare_stylegan2,
    stylegan2_config,
    synthesise,
    torch_place,
)
from benchmarks.report import report, use_cores

MAP = 64
CONTENDERS = ("ours", "PyTorch, a kernel a sample", "PyTorch, shared kernel")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="64 px, 4 images; nothing is saved")
    quick = parser.parse_args().quick
    resolution, most = (64, 4) if quick else (1024, MAP)
    rows = []

    def add(contender: str, images: int) -> None:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            measured = pool.apply(measure, (contender, resolution, images))
        rows.append({"images": images, "by": contender} | measured)
        print(rows[-1], flush=True)

    for contender in CONTENDERS:
        add(contender, 1)
    others = [row for row in rows if row["by"] != "ours"]
    for contender in ("ours", min(others, key=lambda row: row["later, s"])["by"]):
        add(contender, most)
    report(
        "large_images",
        {f"StyleGAN2, {resolution} px": rows},
        packages=("jax", "jaxlib", "torch"),
        save=not quick,
        threads=CORES,
    )


def measure(contender: str, resolution: int, images: int) -> dict[str, float | None]:
    """Seconds of the first call and, of one image, a later one; MiB at most beyond those before."""
    use_cores(CORES)
    run = renderer(contender, resolution, images)
    ctypes.CDLL(None).malloc_trim(0)  # what making the weights left behind
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    seconds = [timed(run) for _ in range(1 if images > 1 else 4)]
    return {
        "first, s": seconds[0],
        "later, s": min(seconds[1:], default=None),
        "peak memory, MiB": memory("VmHWM") - before,
    }


def timed(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def memory(kind: str) -> float:
    """Of this process, in MiB: VmRSS now, VmHWM at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"this system does not tell {kind}; the benchmark needs Linux")


def renderer(contender: str, resolution: int, images: int) -> Callable[[], Any]:
    """A function that makes that many uint8 images [N, H, W, C], those of a map scaled down."""
    import jax
    import numpy as np

    from ports.stylegan2 import init
    from sfvq_jax.images import render_images
    from sfvq_jax.views.grids import MAP_SIDE

    config = stylegan2_config(resolution)
    model = init(jax.random.key(0), config)
    codes = jax.random.normal(jax.random.key(1), (images, config.num_ws, config.w_dim))
    side = None if images == 1 else min(MAP_SIDE, resolution)
    if contender == "ours":
        return lambda: render_images(model, codes, max_side=side)
    fused = contender == "PyTorch, a kernel a sample"
    return pytorch_renderer(model.variables, np.asarray(codes), side, fused=fused)


def pytorch_renderer(variables: dict, codes: Any, side: int | None, *, fused: bool) -> Any:
    import jax
    import numpy as np
    import torch

    torch_place("float32")
    trees = (variables[name]["synthesis"] for name in ("params", "constants"))
    params, noise = (jax.tree.map(lambda x: torch.tensor(np.asarray(x)), tree) for tree in trees)
    prepared = prepare_stylegan2(params, torch.float32, torch.contiguous_format)

    def one(code: Any) -> Any:
        image = synthesise(prepared, noise, code[None], fused=fused, dtype=torch.float32)
        if side is not None:
            image = torch.nn.functional.interpolate(
                image, side, mode="bilinear", antialias=True, align_corners=False
            )
        image = (image * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
        return image[0].permute(1, 2, 0).numpy()

    def run() -> Any:
        with torch.inference_mode():
            return np.stack([one(code) for code in torch.tensor(codes)])

    return run


if __name__ == "__main__":
    main()
