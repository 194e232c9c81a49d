"""Does LatentCLR converge in the steps that `compare` gives it? Its loss after more and fewer.

    python -m benchmarks.latent_clr          # half an hour on a core
    python -m benchmarks.latent_clr --quick  # a trial, nothing saved

In W of the bundled StyleGAN2, 63 directions of which 16 are in a step, one seed. The learning rate
falls to 0 over the steps of each run. The loss is that of directions drawn at random for each step:
its mean over the last tenth of the steps, with the 95 % interval of that mean over the steps. By
chance it is 0.
"""

import argparse

import jax

import ports
from benchmarks.report import report, use_cores
from sfvq_jax.interpret import LatentCLR
from sfvq_jax.interpret.intervals import interval

STEPS = (200, 800, 3200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a trial, nothing saved")
    options = parser.parse_args()
    use_cores(1)
    model = ports.load(ports.bundled("fashion_mnist"))
    rows = []
    for steps in (20, 40) if options.quick else STEPS:
        method = LatentCLR(steps=steps)
        losses = method.train(jax.random.key(0), model).losses  # type: ignore[arg-type]
        tenth = max(steps // 10, 2)
        rows.append(
            {
                "steps": steps,
                "updates a direction": steps * method.directions_a_step / method.count,
                "loss, first tenth": str(interval(losses[:tenth])),
                "loss, last tenth": str(interval(losses[-tenth:])),
            }
        )
        print(rows[-1], flush=True)
    report(
        "latent_clr",
        {"Loss": rows},
        packages=("jax", "numpy", "optax"),
        save=not options.quick,
        batch=LatentCLR().batch,
        temperature=LatentCLR().temperature,
    )


if __name__ == "__main__":
    main()
