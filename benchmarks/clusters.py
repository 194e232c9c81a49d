"""The default fit on clusters and on clouds, beside the former one and others.

    python -m benchmarks.clusters FOLDER           # FOLDER holds CIFAR10-10.npy, AFHQ-8.npy, …
    python -m benchmarks.clusters                  # without points along published curves
    python -m benchmarks.clusters FOLDER --data W  # that alone, joined to what was measured before
    python -m benchmarks.clusters --quick          # a trial: half a minute, nothing saved

Data: the linear layer of the bundled BigGAN in coordinates of its span, ten clusters at moderate
and at large distance in coordinates of theirs, forty with noise in all dimensions, W of the bundled
StyleGAN2, points along two published curves (`benchmarks.published`), an isotropic Gaussian, a
spiral in the plane (`benchmarks.tradeoff`), and scikit-learn's digits.

    old default         quadratic length penalty, published doubling, dead codewords stay dead
    new default         `LeastSquares()`; also with μ the same in all stages, and with other μ
    Adam                the published recipe; the table says how many samples an epoch has
    k-means             scikit-learn's, one start; no curve
    k-means, ordered    its codewords by 2-opt, up to 64 codewords by Or-opt too
    …, refined          the rounds and moves of the new default from there, without growing
    published           the codebook that the authors published

Each seed has a draw of its own to fit to, the same for all methods; digits are one set. All figures
are means over seeds with their 95 % interval, seconds medians. From 8 bits on, for Adam and for the
old default's other μ the seeds are fewer; the table says how many.

    objective           the new default's (μ .2, m of the curve that is measured) on the samples
                        that were fitted to, for all methods
    distortion          on fresh samples, to the nearest point of the curve; digits: on the same
    to codewords        on the same samples, to the nearest codeword
    dead                codewords that are nobody's nearest, of the samples that were fitted to
    perplexity          exp of the entropy of the counts of nearest codewords
    neighbours … runs   of the order of the codewords that are not dead, since dead ones flatter;
                        class runs by the bundled classifier on pictures of the codewords, for
                        digits by the labels of the nearest samples

Results are saved after each kind of data and number of bits. What was measured at this commit with
these settings is not measured again, unless `--data` names it.
"""

import argparse
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.cluster import KMeans

from benchmarks.clusters_data import BOOKS, FRESH, SAMPLES, Data, data_set
from benchmarks.clusters_verdict import Estimate, Row, acceptance, beside_front
from benchmarks.report import RESULTS, commit, report, table, use_cores
from sfvq_jax import (
    Adam,
    Curve,
    Info,
    LeastSquares,
    Solver,
    fit_array,
    line_lengths,
    project,
    step,
)
from sfvq_jax.least_squares import EARLY_CODEWORDS, NormalSums, normal_sums, solve
from sfvq_jax.moves import reorder
from sfvq_jax.projection import nearest_codeword
from sfvq_jax.quality import (
    TRUSTWORTHINESS_NEIGHBOURS,
    continuity,
    health,
    pairwise_distances,
    perplexity,
    same_class_share,
    shorter_order,
    trustworthiness,
)

Array = jax.Array

CORES = 2
BITS = (4, 6, 8)
LARGE_BITS, LARGE_SEEDS = 8, 2  # fewer seeds from so many bits on
FRONT_SEEDS = 2
ADAM_SAMPLES, ADAM_SEEDS = 2**16, 2
QUICK_ADAM_SAMPLES = 2**10
QUICK_DATA = ("far clusters",)
OLD_PENALTIES = (0.05, 0.1, 0.4)  # of the front, beside the default's own
FRONT = {(name, 6) for name in ("W", "CIFAR10-10", "AFHQ-8", "Gaussian")}
NEW_PENALTIES = {
    ("W", 6): (0.3, 0.4),
    ("CIFAR10-10", 4): (0.1,),
    ("CIFAR10-10", 6): (0.1, 0.05),
}
OLD, NEW, KMEANS = "old default", "new default", "k-means"
FIT_TABLE, FRONT_TABLE, VERDICT_TABLE = (
    "Fits",
    "Beside the front of the old default's μ, at equal step",
    "What was to be reached",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="of the published codebooks")
    parser.add_argument("--bits", type=int, nargs="+", default=list(BITS))
    parser.add_argument("--seeds", type=int, default=5, help="fits of each method")
    parser.add_argument("--large-seeds", type=int, default=LARGE_SEEDS, help="from 8 bits on")
    parser.add_argument("--data", nargs="+", choices=SAMPLES, help="these kinds of data only")
    parser.add_argument(
        "--adam-samples", type=int, default=ADAM_SAMPLES, help="in an epoch; published: 262144"
    )
    parser.add_argument("--adam-seeds", type=int, default=ADAM_SEEDS, help="fits of Adam")
    parser.add_argument("--quick", action="store_true", help="a trial, nothing saved")
    options = parser.parse_args()
    use_cores(CORES)
    if options.quick:
        options.data, options.bits, options.seeds = options.data or QUICK_DATA, [4], 2
        options.adam_samples = QUICK_ADAM_SAMPLES

    results = Results(not options.quick)
    for name in options.data or SAMPLES:
        if name in BOOKS and options.folder is None:
            print(f"{name} is left out: no folder of published codebooks is given")
            continue
        data = None
        for bits in options.bits:
            seeds = min(options.seeds, options.large_seeds if bits >= LARGE_BITS else 1000)
            plan = Plan(name, bits, seeds, options.adam_seeds, options.adam_samples)
            if options.data is None and results.has(plan):
                print(f"{name}, {bits} bits: measured already")
                continue
            data = data or data_set(name, options.folder, options.quick)
            begin = time.perf_counter()
            fits, front = measured(plan, data)
            results.add(plan, fits, front, round(time.perf_counter() - begin))
            # programs of all kinds together would need more maps of memory than a process may have
            jax.clear_caches()
    results.print()


class Plan(NamedTuple):
    """What is measured of one kind of data."""

    data: str
    bits: int
    seeds: int
    adam_seeds: int
    adam_samples: int  # in an epoch

    @property
    def title(self) -> str:
        return f"{self.data}, {self.bits} bits"


@flax.struct.dataclass
class OldDefault(Solver):
    """The default until 1b7916d: a penalty of μ/K Σ |c_{j+1} - c_j|², and no moves.

    A stage ended when a round gained less than the tolerance on measuring samples; here, on those
    of the round. The start was that of `initial_curve` for 2**14 samples; here, the new default's.
    """

    length_penalty: Any = 0.2
    tolerance = 1e-4
    rounds = 20
    subdivision = "published"

    def statistics(self, curve: Curve, key: Array, x: Array, weight: Array) -> NormalSums:
        return normal_sums(curve, x, weight, project(curve, x))

    def update(
        self, curve: Curve, state: tuple[()], sums: NormalSums
    ) -> tuple[Curve, tuple[()], Info]:
        distortion = sums.error / (sums.load.sum() * curve.latent_dim)
        info = Info(distortion + self.penalty(curve, state), distortion, sums.load)
        no_step_is_longer = jnp.float32(jnp.inf)
        return solve(sums, curve, self.length_penalty, no_step_is_longer), state, info

    def penalty(self, curve: Curve, state: tuple[()]) -> Array:
        count = jnp.float32(curve.num_codewords) * curve.latent_dim
        return self.length_penalty * jnp.sum(line_lengths(curve) ** 2) / count


def solvers(plan: Plan) -> dict[str, tuple[Solver, int]]:
    """That fit from four codewords on, and how many seeds each gets, by what the tables say."""
    name, seeds = f"Adam, {plan.adam_samples} samples an epoch", plan.seeds
    found: dict[str, tuple[Solver, int]] = {
        OLD: (OldDefault(), seeds),
        NEW: (LeastSquares(), seeds),
        name: (Adam(samples=plan.adam_samples), min(seeds, plan.adam_seeds)),
    }
    if 2 ** (plan.bits - 1) >= EARLY_CODEWORDS:  # else it is the same
        found[f"{NEW}, μ the same in all stages"] = LeastSquares(early=1.0), seeds
    at = plan.data, plan.bits
    for mu in OLD_PENALTIES if at in FRONT else ():
        found[f"{OLD}, μ {mu:g}"] = OldDefault(length_penalty=mu), min(seeds, FRONT_SEEDS)
    for mu in NEW_PENALTIES.get(at, ()):
        found[f"{NEW}, μ {mu:g}"] = LeastSquares(length_penalty=mu), seeds
    return found


def measured(plan: Plan, data: Data) -> tuple[list[Row], list[Row]]:
    """All methods on one kind of data: rows of the fits, and of what is beside the old front."""
    values: dict[str, list[dict[str, float]]] = {}
    times: dict[str, list[float]] = {}
    for seed in range(plan.seeds):
        x = jax.block_until_ready(data.samples(seed))
        for method, curve, seconds in curves(plan, x, seed):
            found = measure(curve, x, data, method != KMEANS)
            values.setdefault(method, []).append(found)
            times.setdefault(method, []).append(seconds)
            line = ", ".join(f"{key} {value:.4g}" for key, value in found.items())
            print(f"{plan.title}, seed {seed}, {method}, {seconds:.1f} s: {line}", flush=True)
    if plan.bits in data.books:
        values["published"] = [measure(data.books[plan.bits], data.samples(0), data, True)]
    label: Row = {"data": plan.data, "bits": plan.bits}
    fits = [
        label
        | {"method": method, "seeds": len(found)}
        | {key: Estimate.of([one[key] for one in found]) for key in found[0]}
        | ({"seconds": float(np.median(times[method]))} if method in times else {})
        for method, found in values.items()
    ]
    print(table(fits), flush=True)
    with_front = (plan.data, plan.bits) in FRONT
    return fits, [label | row for row in beside_front(values, OLD, NEW)] if with_front else []


def curves(plan: Plan, x: Array, seed: int) -> Iterator[tuple[str, Curve, float]]:
    """Each method, its curve and its seconds, of which the first seed's are with compilation."""
    key, k = jax.random.key(seed), 2**plan.bits
    for method, (solver, seeds) in solvers(plan).items():
        if seed < seeds:
            begin = time.perf_counter()
            curve = jax.block_until_ready(fit_array(key, x, bits=plan.bits, solver=solver)[0])
            yield method, curve, time.perf_counter() - begin
    begin = time.perf_counter()
    found = KMeans(k, n_init=1, random_state=seed).fit(np.asarray(x)).cluster_centers_
    seconds = time.perf_counter() - begin
    yield KMEANS, Curve(jnp.asarray(found, "float32")), seconds
    ordered = _reordered(Curve(jnp.asarray(found[shorter_order(found)], "float32")))
    yield f"{KMEANS}, ordered", jax.block_until_ready(ordered), time.perf_counter() - begin
    refined = fit_array(key, x, bits=plan.bits, solver=LeastSquares(), start=ordered)[0]
    refined = jax.block_until_ready(refined)
    yield f"{KMEANS}, ordered, refined", refined, time.perf_counter() - begin


@jax.jit
def _reordered(curve: Curve) -> Curve:
    return Curve(reorder(curve).curve.codewords)


def measure(curve: Curve, x: Array, data: Data, ordered: bool) -> dict[str, float]:
    """The figures of one codebook; without those of a curve if it is not ordered."""
    objective, distortion, to_codewords, load = _seen(curve, x, data.fresh)
    codewords, living = np.asarray(curve.codewords), np.asarray(load) > 0
    found = {
        "objective": float(objective),
        "distortion": float(distortion),
        "to codewords": float(to_codewords),
        "dead": float((~living).sum()),
        "perplexity": float(perplexity(load / load.sum())),
        "step": float(line_lengths(curve).mean()),
    }
    if not ordered:
        return {key: found[key] for key in ("to codewords", "dead", "perplexity")}
    found |= order(codewords[living])
    if data.classes is not None:
        found["class runs"] = same_class_share(data.classes(codewords)[living])
    return found


@jax.jit
def _seen(curve: Curve, x: Array, fresh: Array) -> tuple[Array, Array, Array, Array]:
    """Objective on x [N, D]; distortions of fresh samples [M, D] to the curve and to the
    codewords; load of each codeword by x, [K]."""
    solver = LeastSquares()
    info = step(solver, curve, solver.init(curve), jax.random.key(0), x)[2]
    to_curve = project(curve, fresh).squared_distance.mean() / fresh.shape[1]
    to_codewords = jnp.mean((fresh - curve.codewords[nearest_codeword(curve, fresh)]) ** 2)
    return info.objective, to_curve, to_codewords, health(curve, x).load


def order(codewords: np.ndarray) -> dict[str, float]:
    """Neighbour share, trustworthiness and continuity of codewords [K, D]; 0 for fewer than 3."""
    k = len(codewords)
    if k < 3:
        return {"neighbours": 0.0, "trustworthiness": 0.0, "continuity": 0.0}
    distances = pairwise_distances(codewords.astype(np.float64))
    nearest = (distances + np.diag(np.full(k, np.inf))).argmin(1)
    near = min(TRUSTWORTHINESS_NEIGHBOURS, (k - 1) // 2)
    return {
        "neighbours": float((np.abs(nearest - np.arange(k)) == 1).mean()),
        "trustworthiness": trustworthiness(distances, near),
        "continuity": continuity(distances, near),
    }


class Results:
    """What has been measured, joined with what the file of results holds."""

    def __init__(self, save: bool):
        self.save, self.commit = save, commit()
        path = RESULTS / "clusters.json"
        self.fits: list[Row] = []
        self.front: list[Row] = []
        self.runs: dict[str, Any] = {}
        if save and path.is_file():
            content = json.loads(path.read_text())
            self.fits, self.front = (
                [{key: Estimate.read(value) for key, value in row.items()} for row in rows]
                for rows in (content["tables"][name] for name in (FIT_TABLE, FRONT_TABLE))
            )
            self.runs = content["settings"]["runs"]

    def has(self, plan: Plan) -> bool:
        """Whether this is measured at this commit; never where the code has changes beside it."""
        run = self.runs.get(plan.title, {})
        wanted = {**plan._asdict(), "commit": self.commit}
        return " " not in self.commit and wanted.items() <= run.items()

    def add(self, plan: Plan, fits: list[Row], front: list[Row], seconds: int) -> None:
        def joined(old: list[Row], new: list[Row]) -> list[Row]:
            others = [row for row in old if (row["data"], row["bits"]) != plan[:2]]
            places = list(SAMPLES)
            return sorted(others + new, key=lambda row: (places.index(row["data"]), row["bits"]))

        self.fits, self.front = joined(self.fits, fits), joined(self.front, front)
        self.runs[plan.title] = {**plan._asdict(), "commit": self.commit, "seconds": seconds}
        if self.save:
            with contextlib.redirect_stdout(None):
                self.print()

    def print(self) -> None:
        """Prints all and saves it."""
        report(
            "clusters",
            {
                FIT_TABLE: self.fits,
                FRONT_TABLE: self.front,
                VERDICT_TABLE: acceptance(self.fits, self.front, OLD, NEW, KMEANS),
            },
            packages=("jax", "numpy", "scikit-learn"),
            save=self.save,
            samples=SAMPLES,
            fresh=FRESH,
            runs=self.runs,
        )


if __name__ == "__main__":
    main()
