"""Directions beside factors that are known exactly: sprites that two VAEs of dSprites encode.

    python -m benchmarks.known_factors DISVAE          # ten minutes on a core
    python -m benchmarks.known_factors DISVAE --quick  # a trial of one seed, nothing saved or drawn

DISVAE is the folder `results` of disentangling-vae (examples/disvae.py). Five seeds, each with
sprites, curve and directions of its own. Methods see the latents of 4,096 sprites, as one who has
photographs and an encoder does, and no factor; two of them also see the VAE's prior instead. What
they give is judged on other sprites, as codes and as edits.

*Codes*. Moving along direction v_k by c_k gives z = Σ c_k v_k, so that the codes of a latent are
its coordinates by the pseudo-inverse. Of each method's directions, those of most deviation beyond
the ones before are taken, ten at most, by pivoted QR.

*Edits*. For each factor the best of all of a method's directions, chosen on other latents than the
ones that tell how much else changes where that factor changes by one standard deviation.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from benchmarks import sprites
from benchmarks.disentanglement import dci, factor_vae_score, mig
from benchmarks.report import report, use_cores
from examples.disvae import DisVAE, load
from sfvq_jax import Curve, LatentModel, fit
from sfvq_jax.images import in_batches
from sfvq_jax.interpret import (
    ICA,
    PCA,
    FeaturePCA,
    KMeans,
    LatentCLR,
    Method,
    RandomDirections,
    RandomPairs,
    Scorer,
)
from sfvq_jax.interpret.comparison.methods import curve_pairs
from sfvq_jax.interpret.intervals import interval

Row = dict[str, Any]

MODELS = ("btcvae_dsprites", "VAE_dsprites")
DOCS = Path(__file__).parents[1] / "docs"
SEEDS = 5
BATCH = 16  # images at once: more are slower on a core
SEEN, JUDGED = 4096, 3072  # sprites whose latents a method sees; that codes are judged on
VOTES, SAMPLES = 256, 32  # of the FactorVAE score
CODES = 10
LEAST = 0.1  # of the largest deviation; directions that add less are in the span of those before
MOVED = ("x", "y", "scale", "orientation")
# standard deviations of factors over sprites; of a whole period for orientation
UNITS = np.array([sprites.SIDE / 2, sprites.SIDE / 2, 0.5, 1.0]) / 12**0.5
STEP = 0.05  # in latents, of numerical derivatives
SCREENED, CHOSEN_ON, FRESH = 32, 24, 128  # latents
SHORTLIST = 2
STRENGTHS = (1.0, 2.0)  # of the one that derivatives call for
FARTHEST = 4.0  # deviations of latents along a direction


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A model whose latents are those of some images."""

    model: DisVAE
    latents: jax.Array

    num_layers = 1

    @property
    def latent_dim(self) -> int:
        return self.model.latent_dim

    def sample(self, key, n, *, label=None, truncation=None):
        return self.latents[jax.random.randint(key, (n,), 0, len(self.latents))]

    def render(self, latents):
        return self.model.render(latents)


class Codec(NamedTuple):
    """A VAE as functions of arrays of any length."""

    encode: Callable[[np.ndarray], np.ndarray]
    render: Callable[[np.ndarray], np.ndarray]

    @classmethod
    def of(cls, model: DisVAE) -> "Codec":
        encode, render = jax.jit(model.encode), jax.jit(model.render)
        return cls(
            lambda images: in_batches(encode, images, BATCH),
            lambda latents: in_batches(render, np.asarray(latents, np.float32), BATCH),
        )


def directions_of(
    key: jax.Array,
    model: DisVAE,
    encoded: Encoded,
    curve: Curve,
    factors: np.ndarray,
    features: Scorer,
) -> dict[str, np.ndarray]:
    """Of each method, unit vectors [M, D]."""

    def given(method: Method, source: LatentModel) -> np.ndarray:
        return np.asarray(method.fit(key, source).directions[0, 0], np.float64)

    steps = np.diff(np.asarray(curve.codewords, np.float64), axis=0)
    prior = fit(key, model.sample(key, 2 * SEEN), bits=6).curve
    of_prior = np.asarray(prior.codewords, np.float64)
    latents = np.asarray(encoded.latents, np.float64)
    told = (factors - factors.mean(0)).T @ (latents - latents.mean(0))
    return {
        "the VAE's axes": np.eye(model.latent_dim),
        "SFVQ, lines": unit(steps),
        "SFVQ, pairs": np.asarray(curve_pairs(curve), np.float64),
        "PCA": given(PCA(CODES), encoded),
        "ICA": given(ICA(CODES), encoded),
        "components of features": given(FeaturePCA(features, CODES, samples=1024), encoded),
        "LatentCLR": given(LatentCLR(CODES, steps=100, batch=4, directions_a_step=CODES), encoded),
        "random": given(RandomDirections(63), encoded),
        "random pairs": given(RandomPairs(2016), encoded),
        "SFVQ, lines, of the prior": unit(np.diff(of_prior, axis=0)),
        "ICA, of the prior": given(ICA(CODES), model),
        "regression, supervised": unit(told),
    }


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def chosen(vectors: np.ndarray, latents: np.ndarray) -> np.ndarray:
    """Of unit vectors [M, D], those that say most of latents [N, D]: ten at most (see above)."""
    deviations = (latents @ vectors.T).std(0)
    _, triangle, order = scipy.linalg.qr(
        (vectors * deviations[:, None]).T, mode="economic", pivoting=True
    )
    added = np.abs(np.diag(triangle))
    return vectors[order[: min((added > LEAST * added[0]).sum(), CODES)]]


def code_scores(
    vectors: np.ndarray, latents: np.ndarray, values: np.ndarray, votes: np.ndarray,
    fixed: np.ndarray, seed: int,
) -> Row:  # fmt: skip
    """Of codes along unit vectors [C, D] of latents [N, D] with known factors [N, F]."""
    inverse = np.linalg.pinv(vectors)
    codes = latents @ inverse
    found = dci(codes, values, classes=[sprites.FACTORS.index("shape")], seed=seed)
    gaps = mig(codes, values)
    return {
        "codes": len(vectors),
        "disentanglement": found.disentanglement,
        "completeness": found.completeness,
        "error": found.error,
        "MIG": float(gaps.mean()),
        "FactorVAE": factor_vae_score(votes @ inverse, fixed, codes.std(0)),
        "MIG by inner products": float(mig(latents @ vectors.T, values).mean()),
        **{f"gap of {name}": float(gap) for name, gap in zip(sprites.FACTORS, gaps, strict=True)},
        **{
            f"error of {name}": float(error)
            for name, error in zip(sprites.FACTORS, found.errors, strict=True)
        },
    }


class Moved(NamedTuple):
    """What a step does to sprites: mean change of each factor, of its size, and the share left."""

    change: np.ndarray  # [4], in standard deviations of the factor
    size: np.ndarray  # [4]
    kept: float  # share that has the shape it had
    seen: float  # share in which a sprite is seen at all


def moved(codec: Codec, latents: np.ndarray, before: sprites.Factors, step: np.ndarray) -> Moved:
    """Of latents [N, D] by a step [D]; orientation is of those that keep their shape."""
    after, seen = sprites.measure(codec.render(latents + step))
    change = sprites.changes(before, after) / UNITS
    kept = seen & (after.shape == before.shape)
    if not kept.any():
        return Moved(np.zeros(4), np.full(4, np.inf), 0.0, float(seen.mean()))
    rows = (seen, seen, seen, kept)
    of_seen = [change[row, column] for column, row in enumerate(rows)]
    return Moved(
        np.array([c.mean() for c in of_seen]),
        np.array([np.abs(c).mean() for c in of_seen]),
        float(kept.sum() / seen.sum()),
        float(seen.mean()),
    )


def dependency(of: Moved, factor: int) -> float:
    """Mean change of the other factors ÷ that of the one wanted; infinite where that falls."""
    change = of.change[factor]
    return float(np.delete(of.size, factor).mean() / change) if change > 0 else np.inf


def derivatives(codec: Codec, latents: np.ndarray) -> np.ndarray:
    """Of the four factors by latents [N, D], in standard deviations of the factor, [N, 4, D]."""
    n, d = latents.shape
    steps = STEP * np.eye(d)
    ends = [
        sprites.measure(codec.render((latents[:, None] + sign * steps).reshape(-1, d)))[0]
        for sign in (-1, 1)
    ]
    change = sprites.changes(*ends) / UNITS
    change[ends[0].shape != ends[1].shape, 3] = 0  # the angle of another shape is another
    return change.reshape(n, d, 4).swapaxes(1, 2) / (2 * STEP)


def edits(
    codec: Codec, vectors: np.ndarray, gradients: np.ndarray, deviations: np.ndarray,
    chosen_on: np.ndarray, fresh: np.ndarray,
) -> list[Row]:  # fmt: skip
    """For each factor, what the best of unit vectors [M, D] does; its strength raises it by 1."""
    slopes = gradients @ vectors.T  # [N, 4, M]
    means, sizes = slopes.mean(0), np.abs(slopes).mean(0)
    of_chosen = sprites.measure(codec.render(chosen_on))[0]
    of_fresh = sprites.measure(codec.render(fresh))[0]
    rows = []
    for factor, name in enumerate(MOVED):
        others = np.delete(sizes, factor, 0).mean(0) / np.maximum(np.abs(means[factor]), 1e-9)
        far = np.abs(means[factor]) * deviations * FARTHEST < 1
        best, least = None, np.inf
        for m in np.argsort(others + 1e3 * far, kind="stable")[:SHORTLIST]:
            unit_step = vectors[m] * np.sign(means[factor, m])
            wanted = 1 / max(abs(means[factor, m]), 1e-9)
            for strength in STRENGTHS:
                length = min(strength * wanted, FARTHEST * deviations[m])
                there = moved(codec, chosen_on, of_chosen, length * unit_step)
                if there.change[factor] >= 1:
                    # back to where it changes by 1, as if it went straight
                    length /= there.change[factor]
                    there = moved(codec, chosen_on, of_chosen, length * unit_step)
                    if dependency(there, factor) < least:
                        best, least = length * unit_step, dependency(there, factor)
                    break
        row: Row = {"factor": name, "reached": False}
        if best is not None:
            there = moved(codec, fresh, of_fresh, best)
            row |= {
                "reached": bool(there.change[factor] >= 0.8),
                "change": float(there.change[factor]),
                "dependency": dependency(there, factor),
                "shape kept": there.kept,
                "seen": there.seen,
            }
        rows.append(row)
    return rows


def draw_votes(random: np.random.Generator, votes: int) -> tuple[np.ndarray, np.ndarray]:
    """Values of factors [V, L, F], one of which is the same in each vote, and which one, [V]."""
    fixed = random.integers(0, len(sprites.VALUES), votes)
    values = random.integers(0, sprites.VALUES, (votes, SAMPLES, len(sprites.VALUES)))
    rows = np.arange(votes)
    values[rows, :, fixed] = values[rows, :1, fixed]
    return values, fixed


def latents_of(codec: Codec, values: np.ndarray) -> np.ndarray:
    """Of sprites with these factors [..., F], [..., D] float64."""
    images = sprites.draw(sprites.factors_of(values.reshape(-1, values.shape[-1])))
    return codec.encode(images).astype(np.float64).reshape(*values.shape[:-1], -1)


def order(codec: Codec, curve: Curve) -> Row:
    """How alike the sprites of neighbours are, ÷ how alike those of any two codewords are."""
    found, seen = sprites.measure(codec.render(np.asarray(curve.codewords)))
    start, stop = np.triu_indices(seen.sum(), 1)
    row: Row = {"sprites": int(seen.sum())}
    for name in ("x", "y", "scale"):
        values = getattr(found, name)[seen]
        row[name] = float(
            np.abs(np.diff(values)).mean() / np.abs(values[stop] - values[start]).mean()
        )
    shape = found.shape[seen]
    row["same shape"] = float((np.diff(shape) == 0).mean())
    row["same shape, by chance"] = float((shape[start] == shape[stop]).mean())
    return row


class Rows(NamedTuple):
    codes: list[Row]
    edits: list[Row]
    orders: list[Row]


def one_seed(
    seed: int, models: Mapping[str, DisVAE], codecs: Mapping[str, Codec], name: str
) -> Rows:
    random, codec = np.random.default_rng(seed), codecs[name]
    seen, judged = (sprites.draw_values(random, n) for n in (SEEN, JUDGED))
    vote_values, fixed = draw_votes(random, VOTES)
    latents = latents_of(codec, judged)
    votes = latents_of(codec, vote_values)
    encoded = Encoded(models[name], jnp.asarray(latents_of(codec, seen), jnp.float32))
    other = next(model for other, model in models.items() if other != name)
    features = Scorer.of(other.encode, [f"code {k}" for k in range(other.latent_dim)])
    key = jax.random.key(seed)
    of_means = KMeans(64).fit(key, encoded).curve
    assert of_means is not None
    curves = {"SFVQ": fit(key, encoded.latents, bits=6).curve, "k-means, 2-opt": of_means}
    directions = directions_of(
        key, models[name], encoded, curves["SFVQ"], seen[:, : len(MOVED)], features
    )
    of_seen = np.asarray(encoded.latents, np.float64)
    gradients = derivatives(codec, of_seen[:SCREENED])
    chosen_on, fresh = of_seen[SCREENED:][:CHOSEN_ON], latents[:FRESH]
    orders = [
        {"model": name, "method": method, "seed": seed} | order(codec, curve)
        for method, curve in curves.items()
    ]
    codes, edited = [], []
    for method, vectors in directions.items():
        own = {"model": name, "method": method, "seed": seed, "directions": len(vectors)}
        few = chosen(vectors, of_seen)
        codes.append(own | code_scores(few, latents, judged, votes, fixed, seed))
        deviations = (of_seen @ vectors.T).std(0)
        found = edits(codec, vectors, gradients, deviations, chosen_on, fresh)
        edited += [own | row for row in found]
    return Rows(codes, edited, orders)


def figure(model: DisVAE) -> Figure:
    """A curve in the plane of the two latents that move sprites, and one through all latents."""
    codec, random = Codec.of(model), np.random.default_rng(0)
    latents = latents_of(codec, sprites.draw_values(random, SEEN))
    slopes = np.abs(derivatives(codec, latents[:SCREENED])[:, :2]).mean((0, 1))
    axes = np.sort(np.argsort(slopes)[-2:])
    plane = latents[:, axes].astype(np.float32)
    in_plane = np.asarray(fit(jax.random.key(0), plane, bits=6).curve.codewords)
    in_all = np.asarray(fit(jax.random.key(0), latents.astype(np.float32), bits=6).curve.codewords)
    square = sprites.Factors(*(np.array([v]) for v in (31.5, 31.5, 0.75, 0.0, 0)))
    still = codec.encode(sprites.draw(square))
    moved = np.repeat(still, len(in_plane), 0)
    moved[:, axes] = in_plane
    drawing, panels = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
    panels[0].scatter(*plane.T, s=2, color="0.85")
    _path(panels[0], *in_plane.T)
    panels[0].set(
        title="64 codewords through two of ten latents",
        xlabel=f"latent {axes[0]}",
        ylabel=f"latent {axes[1]}",
    )
    for panel, codes, title in (
        (panels[1], moved, "where their sprites are: a square, moved"),
        (panels[2], in_all, "64 codewords through all latents"),
    ):
        found, _ = sprites.measure(codec.render(codes))
        _path(panel, found.x, found.y, sizes=(10 * found.scale) ** 2, shapes=found.shape)
        panel.set(title=title, xlabel="x, pixels", ylabel="y, pixels")
        panel.set(xlim=(12, 52), ylim=(52, 12), aspect="equal")
    return drawing


def _path(panel: Axes, x: np.ndarray, y: np.ndarray, sizes: Any = 30, shapes: Any = None) -> None:
    """A line through points in their order, in colours of it."""
    order, sizes = np.linspace(0, 1, len(x)), np.broadcast_to(sizes, len(x))
    shapes = np.ones(len(x), int) if shapes is None else shapes
    points = np.stack([x, y], 1)
    lines = np.stack([points[:-1], points[1:]], 1)
    panel.add_collection(LineCollection(list(lines), colors=plt.cm.viridis(order[:-1])))
    for number, marker in enumerate(("s", "o", "v")):
        rows = shapes == number
        panel.scatter(
            *points[rows].T, s=sizes[rows], c=plt.cm.viridis(order[rows]), marker=marker, zorder=2
        )


def measuring(codecs: Mapping[str, Codec], n: int = 2048) -> list[Row]:
    """How well factors are read from sprites as drawn, and as the VAEs reconstruct them."""
    known = sprites.factors_of(sprites.draw_values(np.random.default_rng(0), n))
    images = {"as drawn": sprites.draw(known)}
    for name, codec in codecs.items():
        images[f"reconstructed, {name}"] = codec.render(codec.encode(images["as drawn"]))
    rows = []
    for which, pictures in images.items():
        read, _ = sprites.measure(pictures)
        turned = (read.orientation - known.orientation + 0.5) % 1 - 0.5
        for number, shape in enumerate(sprites.SHAPES):
            of_shape = known.shape == number
            right = of_shape & (read.shape == number)
            off = np.hypot(read.x - known.x, read.y - known.y)[right]
            rows.append(
                {
                    "sprites": which,
                    "shape": shape,
                    "shape read right": float(right.sum() / of_shape.sum()),
                    "centre off, pixels": float(np.median(off)),
                    "scale off": float(np.median(np.abs(read.scale / known.scale - 1)[right])),
                    "orientation off, degrees": float(
                        np.median(np.abs(turned[right])) * sprites.PERIODS[number]
                    ),
                }
            )
    return rows


def over_seeds(rows: list[Row], column: str) -> str | None:
    values = np.array([row[column] for row in rows if column in row])
    if len(values) < 2:
        return None if len(values) == 0 else f"{values[0]:.3f}"
    return str(interval(values))


def summary(codes: list[Row], edited: list[Row], orders: list[Row]) -> dict[str, list[Row]]:
    """Tables of methods, over seeds."""
    tables: dict[str, list[Row]] = {"Codes": [], "By factor": [], "Edits": [], "Order": []}
    columns = ("disentanglement", "completeness", "error", "MIG", "FactorVAE")
    for own, of_codes, of_edits in grouped(codes, edited):
        counts = sorted({row["codes"] for row in of_codes})
        tables["Codes"].append(
            own
            | {"codes": " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))}
            | {column: over_seeds(of_codes, column) for column in columns}
            | {"MIG by inner products": over_seeds(of_codes, "MIG by inner products")}
        )
        for kind in ("gap", "error"):
            tables["By factor"].append(
                own
                | {"what": kind}
                | {name: over_seeds(of_codes, f"{kind} of {name}") for name in sprites.FACTORS}
            )
        row = own | {"directions": of_codes[0]["directions"]}
        for name in MOVED:
            reached = [r for r in of_edits if r["factor"] == name and r["reached"]]
            row[name] = over_seeds(reached, "dependency")
            row[f"{name}, seeds"] = len(reached)
        reached = [r for r in of_edits if r["reached"]]
        row["shape kept"] = float(np.mean([r["shape kept"] for r in reached])) if reached else None
        tables["Edits"].append(row)
    for own, of_orders in grouped(orders):
        columns = [column for column in of_orders[0] if column not in (*own, "seed", "sprites")]
        tables["Order"].append(own | {column: over_seeds(of_orders, column) for column in columns})
    return tables


def grouped(*tables: list[Row]) -> Iterator[tuple]:
    """Model and method, and the rows that each table has of them."""
    for model, method in dict.fromkeys((row["model"], row["method"]) for row in tables[0]):
        own = {"model": model, "method": method}
        yield own, *([row for row in rows if own.items() <= row.items()] for rows in tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("disvae", type=Path, help="the folder of models")
    parser.add_argument("--quick", action="store_true", help="a trial, nothing saved or drawn")
    options = parser.parse_args()
    use_cores(1)
    models = {name: load(options.disvae / name / "model.pt") for name in MODELS}
    codecs = {name: Codec.of(model) for name, model in models.items()}
    measured, rows = measuring(codecs), Rows([], [], [])
    for seed in range(1 if options.quick else SEEDS):
        for name in models:
            for whole, own in zip(rows, one_seed(seed, models, codecs, name), strict=True):
                whole += own
        report(  # of the seeds so far
            "known_factors",
            {"Measuring": measured, **summary(*rows)},
            packages=("jax", "numpy", "scipy", "scikit-learn"),
            save=not options.quick,
            seeds=seed + 1,
            **rows._asdict(),
        )
    if not options.quick:
        figure(models["btcvae_dsprites"]).savefig(DOCS / "known_factors.png", dpi=110)


if __name__ == "__main__":
    main()
