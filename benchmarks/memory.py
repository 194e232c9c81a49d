"""Memory of `sfvq-jax directions` and of its derivatives, for generators of 256 and 1024 px.

    python -m benchmarks.memory          # both
    python -m benchmarks.memory 256      # or one
    python -m benchmarks.memory --quick  # 64 px, nothing saved

StyleGAN2 with its default channels and random weights, on two cores. The whole command runs in a
process of its own: of two attributes and on few latents, which decide on its time and hardly on its
memory, but with all derivatives of a batch. Then the derivative of an attribute: what JAX is seen
to keep for it, thrice of which `sfvq_jax.memory` counts, beside what the compiled program takes;
and the same where every block of the generator is computed anew on the way back (`jax.checkpoint`).
"""

import argparse
import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.generators import CORES, stylegan2_config
from benchmarks.large_images import memory
from benchmarks.report import report, use_cores

LIMITS = {64: ["2GiB"], 256: ["8GiB"], 1024: ["8GiB"]}  # pixels -> --memory
BATCHES = {64: 16, 256: 4, 1024: 1}  # pixels -> the largest batch on a CPU
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("px", nargs="*", type=int, choices=(256, 1024), help="both by default")
    parser.add_argument("--quick", action="store_true", help="64 px; nothing is saved")
    options = parser.parse_args()
    for px in (64,) if options.quick else options.px or (256, 1024):
        commands = [alone(run_directions, px, limit) for limit in LIMITS[px]]
        derivatives = [alone(measure_derivatives, px, BATCHES[px], anew) for anew in (False, True)]
        report(
            f"memory_{px}",
            {"sfvq-jax directions": commands, "Derivatives": derivatives},
            packages=("jax", "jaxlib", "flax"),
            save=not options.quick,
            threads=CORES,
        )


def alone(function: Callable[..., dict], *arguments: Any) -> dict[str, Any]:
    """What a function gives in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        row = pool.apply(function, arguments)
    print(row, flush=True)
    return row


def run_directions(px: int, limit: str) -> dict[str, Any]:
    use_cores(CORES)
    from sfvq_jax.cli import directions
    from sfvq_jax.cli.common import scorers_of
    from sfvq_jax.cli.main import main
    from sfvq_jax.interpret.directions import bench, finding

    def few_attributes(*arguments: Any) -> list:
        return [scorer.select(("brightness", "contrast")) for scorer in scorers_of(*arguments)]

    for module, few in (
        (directions, {"scorers_of": few_attributes, "DRAWN_LATENTS": 1, "DRAWN_STRENGTHS": (1.0,)}),
        (bench, {"BANK": 8, "HELD_OUT": 8, "HALVED": 1, "STRENGTHS": (2.0, 8.0)}),
        (finding, {"SCREENED": BATCHES[px], "CHOSEN_ON": 1, "LIMITED_ON": 1, "SHORTLIST": 1}),
    ):
        for name, value in few.items():
            setattr(module, name, value)
    with tempfile.TemporaryDirectory() as folder:
        model, curve, output = (f"{folder}/{name}" for name in ("model", "curve.npz", "found"))
        make_files(px, model, curve)
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        few = ["--attributes", "brightness", "--latents", "2", "--memory", limit]
        status = main(["directions", model, curve, *few, "--no-compilation-cache", "-o", output])
        if status != 0:
            raise SystemExit(f"directions ended with status {status}")
        return {
            "px": px,
            "--memory": limit,
            "resident before, MiB": before,
            "resident at most, MiB": memory("VmHWM"),
        }


def make_files(px: int, folder: str, curve: str) -> None:
    """A generator, and a curve of two bits through its latents."""
    import dataclasses

    import jax

    import ports
    from ports import checkpoint
    from ports.stylegan2 import init
    from sfvq_jax import Curve, CurveRecord, save_curve

    config = stylegan2_config(px)
    variables = init(jax.random.key(0), config).variables
    source = {"format": "random weights"}
    checkpoint.save(folder, "stylegan2", dataclasses.asdict(config), variables, source=source)
    model = ports.load(folder)
    assert isinstance(model, ports.StyleGAN2)
    codewords = model.sample(jax.random.key(1), 4)
    save_curve(curve, CurveRecord(Curve(codewords), model.latent_space, model.model_hash))


def measure_derivatives(px: int, latents: int, anew: bool) -> dict[str, Any]:
    """Of one attribute by all layers' codes."""
    use_cores(CORES)
    import flax.linen as nn
    import jax

    from ports.stylegan2 import init, network
    from sfvq_jax.interpret import image_statistics
    from sfvq_jax.interpret.directions.gradients import _gradient
    from sfvq_jax.latent_model import method
    from sfvq_jax.memory import _kept_bytes

    config, scorer = stylegan2_config(px), image_statistics()
    model = init(jax.random.key(0), config)
    if anew:
        network.SynthesisBlock = nn.remat(network.SynthesisBlock, static_argnums=(4,))
    codes = jax.random.normal(jax.random.key(1), (latents, config.num_ws, config.w_dim))
    kept = _kept_bytes(lambda codes: scorer(model.render(codes)), codes.shape)
    assert kept is not None
    render = method(model, "render")
    compiled = _gradient.lower(render, scorer, codes, 0).compile()
    takes = compiled.memory_analysis().temp_size_in_bytes
    return {
        "px": px,
        "latents": latents,
        "blocks anew": anew,
        "kept by JAX, MiB": kept / MIB,
        "compiled program, MiB": takes / MIB,
        "ratio": takes / kept,
    }


if __name__ == "__main__":
    main()
