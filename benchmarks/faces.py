"""Which index is "smile", how strong, and does another network see it? VAEs of CelebA.

    export DISVAE=disentangling-vae/results FACE_NETS=face_nets  # see examples/
    python -m benchmarks.faces directions  # a quarter of an hour on a core
    python -m benchmarks.faces comparison  # as long
    python -m benchmarks.faces smiles      # three minutes
    python -m benchmarks.faces directions --quick  # a trial at 3 bits, nothing saved

Two networks find directions and two others judge them (examples/face_nets.py). How far they agree
on random images is measured too, as no claim can be surer. Directions are found among lines
and among pairs of codewords, each seed having a curve of its own; by the protocol of `compare` they
stand beside PCA, ICA and the VAE's own axes; ten thousand faces with a smile are drawn.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import comparison as comparing
from benchmarks.directions import direction_row, grouped, over_seeds
from benchmarks.report import report, use_cores
from examples import disvae, face_nets
from sfvq_jax import LatentModel, fit
from sfvq_jax.images import in_batches
from sfvq_jax.interpret import (
    ICA,
    PCA,
    SFVQ,
    Fitted,
    Scorer,
    compare,
    find_directions,
    join,
    sample_by_attribute,
)
from sfvq_jax.interpret.intervals import interval, share

Row = dict[str, Any]
Tables = dict[str, list[Row]]

MODELS = ("VAE_celeba", "btcvae_celeba")
NETWORKS = ("happy", "face_expression", "emotion"), ("male", "gender", "age_gender")
OF_GEAR = ("male", "gender", "gear"), ("age", "age_gender", "gear")
SEEDS = 5
LATENTS = 64  # fresh ones, that a direction is measured on
RANDOM, RANDOM_OF_GEAR = 2048, 256  # images, on which networks are compared
SMILES, SURVEYED = 10_000, 1024
UPPER = 0.75  # quantile, from which images have an attribute


class Axes:
    """The VAE's own axes, which its loss was to make independent."""

    name = "the VAE's axes"

    def fit(self, key: jax.Array, model: LatentModel) -> Fitted:
        return Fitted({(0, 0): jnp.eye(model.latent_dim)})


def finder_and_judge() -> tuple[Scorer, Scorer]:
    """Of two networks for an attribute the one whose derivatives are cheaper finds."""
    find = join(face_nets.face_expression(), face_nets.gender())
    return find, join(face_nets.emotion(), face_nets.age_gender().select(["male"]))


def scores(scorer: Scorer, model: LatentModel, latents: Any) -> np.ndarray:
    return in_batches(lambda part: scorer(model.render(part)), latents, 64)


def agreement(own: np.ndarray, others: np.ndarray) -> Row:
    """Of the scores that two networks give to the same images, [N] each."""
    upper, other_upper = (x > np.quantile(x, UPPER) for x in (own, others))
    return {
        "images": len(own),
        "correlation": float(np.corrcoef(own, others)[0, 1]),
        "upper quarter in common": float(other_upper[upper].mean()),
    }


def agreement_rows(model: LatentModel, latents: np.ndarray) -> list[Row]:
    rows = []
    for pairs, images in ((NETWORKS, RANDOM), (OF_GEAR, RANDOM_OF_GEAR)):
        names = {name for _, *both in pairs for name in both}
        scorers = {name: getattr(face_nets, name)() for name in names}
        seen = {name: scores(scorer, model, latents[:images]) for name, scorer in scorers.items()}
        for attribute, *both in pairs:
            of_both = (seen[name][:, scorers[name].index(attribute)] for name in both)
            named = {"attribute": attribute, "finds": both[0], "judges": both[1]}
            rows.append(named | agreement(*of_both))
    return rows


def directions(name: str, seeds: int, bits: int, random: int) -> Tables:
    model, (find, judge) = getattr(disvae, name), finder_and_judge()
    agreements = agreement_rows(model, np.asarray(model.sample(jax.random.key(SEEDS), random)))
    correlations = {row["attribute"]: row["correlation"] for row in reversed(agreements)}
    rows: list[Row] = []
    for seed in range(seeds):
        fit_key, *keys = jax.random.split(jax.random.key(seed), 3)
        curve = fit(fit_key, model, bits=bits).curve
        for candidates, key in zip(("lines", "pairs"), keys, strict=True):
            found = find_directions(
                key, model, curve, find, judge, pairs=candidates == "pairs", latents=LATENTS
            )
            rows += [
                {"seed": seed, "candidates": candidates}
                | direction_row(direction)
                | {"agreement": correlations[direction.attribute]}
                for direction in found
            ]
        print(f"{name}, seed {seed}: done", flush=True)
    summary = [
        {
            "candidates": candidates,
            "attribute": attribute,
            "confirmed": f"{sum(row['confirmed'] for row in own)} of {len(own)}",
            **{column: over_seeds(own, column) for column in ("effect", "judged", "gained")},
            "by chance": over_seeds(own, "by chance"),
            "entangled, median": over_seeds(own, "entangled", np.median),
            "agreement": own[0]["agreement"],
        }
        for (candidates, attribute), own in grouped(rows, "candidates", "attribute").items()
    ]
    return {"Agreement": agreements, "Summary": summary, "Directions": rows}


def comparison(name: str, seeds: int, bits: int, random: int) -> Tables:
    model = getattr(disvae, name)
    methods = [SFVQ(bits), PCA(model.latent_dim), ICA(model.latent_dim), Axes()]
    compared = compare(
        jax.random.key(0),
        model,
        *finder_and_judge(),
        methods=methods,
        seeds=seeds,
        latents=LATENTS,
    )
    return comparing.tables(compared)


def smiles(name: str, seeds: int, bits: int, random: int) -> Tables:
    """Faces drawn with a smile beside random ones, as the judge sees them; of one seed."""
    model, find, judge = getattr(disvae, name), face_nets.face_expression(), face_nets.emotion()
    fit_key, random_key, key = jax.random.split(jax.random.key(0), 3)
    curve = fit(fit_key, model, bits=bits).curve
    latents = model.sample(random_key, random)
    count = SMILES * random // RANDOM
    samples = sample_by_attribute(key, model, curve, find, "happy", count, surveyed=SURVEYED)
    found, others = (scores(scorer, model, latents)[:, 0] for scorer in (find, judge))
    least = np.quantile(others, UPPER)
    both = {"random": others, "with a smile": scores(judge, model, samples.latents)[:, 0]}
    rows = [
        {
            "faces": kind,
            "count": len(seen),
            "kept of those drawn": samples.accepted if kind != "random" else None,
            "in the judge's upper quarter": str(share(int((seen > least).sum()), len(seen))),
            "more likely happy than not": str(share(int((seen > 0).sum()), len(seen))),
            "mean log odds": str(interval(seen)),
        }
        for kind, seen in both.items()
    ]
    return {"Smiles": rows, "Agreement": [agreement(found, others)]}


PARTS = {"directions": directions, "comparison": comparison, "smiles": smiles}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("models", nargs="*", default=MODELS, help="of disentangling-vae")
    parser.add_argument("--quick", action="store_true", help="two seeds at 3 bits, nothing saved")
    options = parser.parse_args()
    use_cores(1)
    seeds, bits, random = (2, 3, RANDOM // 16) if options.quick else (SEEDS, 6, RANDOM)
    for name in options.models:
        report(
            f"faces_{options.part}_{name}",
            PARTS[options.part](name, seeds, bits, random),
            packages=("jax", "numpy", "scipy"),
            save=not options.quick,
            seeds=1 if options.part == "smiles" else seeds,
        )


if __name__ == "__main__":
    main()
