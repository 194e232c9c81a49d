"""Do directions hold what they say? Every reported interval beside 512 latents of another key.

    python -m benchmarks.recheck
    python -m benchmarks.recheck --quick  # a trial at 3 bits, nothing saved

For W of the bundled StyleGAN2 and the first linear layer of the bundled BigGAN: directions for all
statistics and classes, as `sfvq-jax directions` finds them; then the effects on every attribute and
the share of images that get the wanted one, by the judge, over fresh latents and beside fresh
images. An interval is right if it holds what is measured there. The intervals of all directions of
a model hold together (Bonferroni), so that nearly all should; what is measured has an error too.
"""

import argparse
from typing import Any

import jax

import ports
from benchmarks.directions import bundled_models
from benchmarks.report import report
from sfvq_jax import LeastSquares, fit
from sfvq_jax.cli.common import with_statistics
from sfvq_jax.interpret import Bench, FoundDirection, find_directions, load_scorers

FRESH = 512
WANTED = 0.9  # share of the intervals that are right


def row(
    name: str, found: FoundDirection, bench: Bench, key: jax.Array, fresh: int
) -> dict[str, Any]:
    """One direction, measured again."""
    latents_key, chance_key = jax.random.split(key)
    latents = bench.model.sample(latents_key, fresh)
    _, judged = bench.effects(found.direction, latents, found.limits)
    held = {
        attribute: effect.low <= judged[attribute].mean <= effect.high
        for attribute, effect in found.judged.items()
    }
    reported = found.gain
    assert reported is not None
    again = bench.gain(chance_key, found.direction, latents, found.attribute, found.limits)
    gain_held = reported.gained.low <= again.gained.mean <= reported.gained.high
    return {
        "model": name,
        "attribute": found.attribute,
        "confirmed": found.confirmed,
        "effect": found.judged[found.attribute].mean,
        "effect, again": judged[found.attribute].mean,
        "gained": reported.gained.mean,
        "gained, again": again.gained.mean,
        "intervals": len(held) + 1,
        "right": sum(held.values()) + gain_held,
    }


def summary(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the confirmed directions of a model."""
    confirmed = [one for one in rows if one["model"] == name and one["confirmed"]]
    right = sum(one["right"] for one in confirmed)
    share = right / max(1, sum(one["intervals"] for one in confirmed))
    return {
        "model": name,
        "confirmed": len(confirmed),
        "share of their intervals that are right": share,
        "wanted": WANTED,
        "met": share >= WANTED,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bits", type=int, default=6)
    parser.add_argument("--quick", action="store_true", help="a trial at 3 bits, nothing saved")
    options = parser.parse_args()
    bits, fresh = (3, 64) if options.quick else (options.bits, FRESH)
    solver = LeastSquares(samples=2**13, rounds=2) if options.quick else LeastSquares()
    scorers = load_scorers(ports.BUNDLED / "fashion_mnist_scorers.npz")
    names = ("brightness", "trouser") if options.quick else None
    models = bundled_models()
    rows: list[dict[str, Any]] = []
    for number, (name, model) in enumerate(models.items()):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(options.seed), number), 4)
        find, judge = with_statistics(scorers, model)
        curve = fit(keys[0], model, bits=bits, solver=solver).curve
        found = find_directions(keys[1], model, curve, find, judge, attributes=names)
        bench = Bench(keys[2], model, find, judge)
        for i, direction in enumerate(found):
            rows.append(row(name, direction, bench, jax.random.fold_in(keys[3], i), fresh))
            print(rows[-1], flush=True)
    tables = {"Summary": [summary(name, rows) for name in models], "Directions": rows}
    report(
        "recheck",
        tables,
        packages=("jax", "numpy", "scipy"),
        save=not options.quick,
        seed=options.seed,
        bits=bits,
        fresh=fresh,
    )


if __name__ == "__main__":
    main()
