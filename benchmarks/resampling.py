"""One curve at other bitrates: resampled by occurrence, beside a fit of each number of codewords.

    python -m benchmarks.resampling          # five minutes on a core
    python -m benchmarks.resampling --quick  # a trial, nothing saved

A curve of 8 bits in W of the bundled StyleGAN2 gets other numbers of codewords (`resample`, on the
65,536 latents that it was fitted to); for each power of two a curve is also fitted. Distortion is
on 16,384 fresh latents, means of five seeds with their 95 % intervals.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import ports
from benchmarks.report import report, use_cores
from sfvq_jax import codebook_quality, distortion, fit, resample
from sfvq_jax.interpret.intervals import interval

BITS = 8
SAMPLES, FRESH, SEEDS = 2**16, 2**14, 5
NUMBERS = (16, 32, 48, 64, 96, 128, 192, 256, 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a trial, nothing saved")
    options = parser.parse_args()
    use_cores(1)
    model = ports.load(ports.bundled("fashion_mnist"))
    numbers = (16, 24) if options.quick else NUMBERS
    measured: dict[tuple[int, str], list[float]] = {}
    for seed in range(2 if options.quick else SEEDS):
        fit_key, key = jax.random.split(jax.random.key(seed))
        samples = np.asarray(model.sample(key, SAMPLES))  # type: ignore[union-attr]
        fresh = model.sample(jax.random.fold_in(key, 1), FRESH)  # type: ignore[union-attr]
        trained = fit(fit_key, samples, bits=5 if options.quick else BITS).curve
        for number in numbers:
            curves = {"resampled": resample(trained, jnp.asarray(samples), number)}
            if number & (number - 1) == 0:
                curves["fitted"] = fit(fit_key, samples, bits=number.bit_length() - 1).curve
            for name, curve in curves.items():
                quality = codebook_quality(curve)
                for what, value in (
                    (f"distortion, {name}", float(distortion(curve, fresh))),
                    (f"trustworthiness, {name}", quality.trustworthiness),
                ):
                    measured.setdefault((number, what), []).append(value)
        print(f"seed {seed} is done", flush=True)
    rows = []
    for number in numbers:
        own = {what: values for (n, what), values in measured.items() if n == number}
        row = {what: str(interval(np.array(values))) for what, values in own.items()}
        if "distortion, fitted" in own:
            ratios = np.divide(own["distortion, resampled"], own["distortion, fitted"])
            row["resampled ÷ fitted"] = str(interval(ratios))
        rows.append({"codewords": number} | row)
    report(
        "resampling",
        {"Distortion": rows},
        packages=("jax", "numpy"),
        save=not options.quick,
        bits=BITS,
        samples=SAMPLES,
        fresh=FRESH,
    )


if __name__ == "__main__":
    main()
