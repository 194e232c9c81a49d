"""One seed of a comparison: the latents that all methods are measured on, and how.

Letters: N latents, A attributes, L layers, D dimensions, M directions, F features.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.curve import Curve
from sfvq_jax.images import render_images
from sfvq_jax.interpret.attributes import Scorer, fit_scorer
from sfvq_jax.interpret.comparison.measures import Edit, Order, Recognition
from sfvq_jax.interpret.directions import (
    Bench,
    Walk,
    attribute_gradients,
    layers_price,
    merit_of,
    search_vectors,
)
from sfvq_jax.interpret.edit import Direction, layer_steps
from sfvq_jax.projection import project
from sfvq_jax.quality import class_runs_by_chance, codebook_quality, same_class_share
from sfvq_jax.short import short_repr

Array = jax.Array

SPREAD_SAMPLES = 2**12  # latents, for covariance and the overall trend of attributes
SCREENED = 64  # latents whose derivatives are taken
SHORTLIST = 3  # directions for each attribute by derivatives, and as many by the overall trend
CHOSEN_ON = 32  # latents to choose among all these, and to scale the ones that are chosen
PATH_LATENTS = 32  # that are followed from minus the scaled strength to plus
RECOGNISED = 16  # directions of a method that are to be told apart
RECOGNITION_PAIRS = 48  # pairs of images for each of them
RECOGNITION_EPOCHS = 60
RECOGNITION_STRENGTH = 3.0
RECOGNITION_SIDE = 16  # pixels; larger images are scaled down
LEAST_CHANGE = 1e-3  # deviations of an attribute; less is rounding
RIDGE = 1e-3  # of the mean variance of a dimension


class Columns(NamedTuple):
    """Where the attributes are among the scores."""

    find: list[int]
    judge: list[int]
    classes: list[int]  # of the judge

    @classmethod
    def of(
        cls, find: Scorer, judge: Scorer, attributes: Sequence[str], classes: Sequence[str]
    ) -> "Columns":
        if len(attributes) < 2:
            raise ValueError(
                f"attributes to compare by are {list(attributes)}; expected two or more that both"
                " scorers have"
            )
        return cls(
            [find.index(name) for name in attributes],
            [judge.index(name) for name in attributes],
            [judge.index(name) for name in classes],
        )


class _Tried(NamedTuple):
    """A direction, and how good it is for each attribute."""

    direction: Direction
    merits: list[float]


class Trial(NamedTuple):
    """The latents of a seed, which all methods are measured on, and what is known of them."""

    bench: Bench
    columns: Columns
    features: Callable[[Array], Array] | None
    change: float
    covariance: np.ndarray  # of latents, [D, D]
    gradients: np.ndarray  # of attributes in their deviations, [N, A, L, D]
    trend: np.ndarray  # of attributes over all latents, as one gradient, [1, A, L, D]
    chosen_on: Array
    fresh: Array
    fresh_judged: np.ndarray
    fresh_features: np.ndarray | None

    __repr__ = short_repr

    @classmethod
    def of(
        cls,
        key: Array,
        bench: Bench,
        columns: Columns,
        features: Callable[[Array], Array] | None,
        latents: int,
        change: float,
    ) -> "Trial":
        model, find = bench.model, bench.find
        keys = jax.random.split(key, 4)
        spread = model.sample(keys[0], SPREAD_SAMPLES)
        screened = model.sample(keys[1], SCREENED)
        gradients = attribute_gradients(model, find, screened, on_images=bench.on_images)
        gradients /= bench.find_scale[None, :, None, None]
        covariance = np.atleast_2d(np.cov(np.asarray(spread, np.float64), rowvar=False))
        (scores,) = bench.look(spread, bench.found)
        trend = _trend(np.asarray(spread, np.float64), scores, covariance)
        of_layer = np.broadcast_to(
            trend[None, :, None] / model.num_layers, (1, *gradients.shape[1:])
        )
        chosen_on, fresh = model.sample(keys[2], CHOSEN_ON), model.sample(keys[3], latents)
        seen = bench.look(fresh, bench.judged, *([] if features is None else [features]))
        return cls(
            bench, columns, features, change, covariance,
            gradients, of_layer, chosen_on, fresh, seen[0],
            None if features is None else seen[1],
        )  # fmt: skip

    def edits(
        self, directions: Mapping[tuple[int, int], Array], length: float | None = None
    ) -> list[Edit]:
        """What the best direction for each attribute does; method and seed are to be set.

        Args:
          directions: of a method, see `Fitted`.
          length: of a step of strength 1; by default one standard deviation of latents along it.
        """
        # most methods have one array for all ranges, which is prepared once
        prepared = {id(v): self._with_steps(v, length) for v in directions.values()}
        vectors, steps = (
            {layers: prepared[id(v)][i] for layers, v in directions.items()} for i in (0, 1)
        )
        shortlists = [
            search_vectors(vectors, steps, gradients, self.columns.find, count=SHORTLIST)
            for gradients in (self.gradients, self.trend)
        ]
        # what is shortlisted for one attribute may be the best for another
        shortlisted = {
            (d.layers, np.asarray(d.vector).tobytes()): d
            for lists in shortlists
            for shortlist in lists
            for d in shortlist
        }
        tried = [self._tried(direction) for direction in shortlisted.values()]
        best = [
            max(tried, key=lambda t: t.merits[number]).direction
            for number in range(len(self.columns.find))
        ]
        # one direction may be the best for several attributes
        different = {id(direction): direction for direction in best}
        walks = {i: self.bench.walk(d, self.chosen_on) for i, d in different.items()}
        return [
            self._measured(direction, number, walks[id(direction)])
            for number, direction in enumerate(best)
        ]

    def _with_steps(
        self, vectors: Array, length: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors [M, D] in float64, and lengths of steps along them (see `edits`), [M]."""
        exact = np.asarray(vectors, np.float64)
        if length is not None:
            return exact, np.full(len(exact), length)
        variances = np.einsum("md,md->m", exact @ self.covariance, exact)
        return exact, np.sqrt(np.maximum(variances, 0))

    def _tried(self, direction: Direction) -> _Tried:
        changes = self.bench.found_changes(direction, self.chosen_on)
        price = layers_price(direction.layers, self.bench.model.num_layers)
        merits = [merit_of(changes, column) for column in self.columns.find]
        return _Tried(direction, [m * price if m > 0 else m for m in merits])

    def _reached_beyond(self, direction: Direction, column: int, strengths: np.ndarray) -> bool:
        """Whether fresh latents change as wanted at one of these strengths."""
        for strength in strengths:
            (after,) = self.bench.look_at(direction, self.fresh, float(strength), self.bench.judged)
            if (after - self.fresh_judged)[:, column].mean() >= self.change:
                return True
        return False

    def _measured(self, direction: Direction, number: int, walk: Walk) -> Edit:
        column = self.columns.judge[number]
        edit = Edit("", 0, self.bench.judge.names[column], direction.layers, walk.limit)
        strength = walk.reaches(column, self.change)
        if strength is None:
            return edit
        edit = edit._replace(reached_where_chosen=True)
        most = float(walk.strengths[-1]) if walk.limit is None else walk.limit
        strength = min(strength, most)
        functions = [self.bench.judged, *([] if self.features is None else [self.features])]
        seen = self.bench.look_at(direction, self.fresh, strength, *functions)
        changes = (seen[0] - self.fresh_judged)[:, self.columns.judge]
        change = float(changes[:, number].mean())
        between = (walk.strengths > strength) & (walk.strengths < most)
        further = np.unique([*walk.strengths[between], *[most] * (most > strength)])
        if change < self.change and not self._reached_beyond(direction, column, further):
            return edit
        others = np.delete(np.abs(changes), number, axis=1)
        return edit._replace(
            strength=strength,
            change=change,
            reached=True,
            agree=float((changes[:, number] > 0).mean()),
            dependency=float(others.mean()) / change if change > 0 else None,
            content=None if self.fresh_features is None else _cosine(self.fresh_features, seen[1]),
            correlation=self._correlation(direction, strength, seen[0], number),
        )

    def _correlation(
        self, direction: Direction, strength: float, end: np.ndarray, number: int
    ) -> float:
        n = min(PATH_LATENTS, len(self.fresh))
        path = {0.0: self.fresh_judged[:n], 1.0: end[:n]}
        for part in (-1.0, -0.5, 0.5):
            (path[part],) = self.bench.look_at(
                direction, self.fresh[:n], part * strength, self.bench.judged
            )
        scores = np.stack(list(path.values()))[:, :, self.columns.judge]  # [parts, n, attributes]
        correlations = np.abs(path_correlations(np.array(list(path)), scores))
        return float(correlations[number] / max(correlations.sum(), 1e-12))

    def recognition(
        self, key: Array, directions: Mapping[tuple[int, int], Array], length: float | None
    ) -> Recognition:
        """Method and seed are to be set.

        Args:
          key: a PRNG key.
          directions: of a method, see `Fitted`.
          length: of equal steps of strength 1; by default the mean of the method's own.
        """
        model, layers = self.bench.model, _widest(directions)
        vectors, steps = self._with_steps(directions[layers])
        mean = float(steps.mean())
        equal = np.full(len(vectors), mean if length is None else length)
        choice_key, latents_key, fit_key = jax.random.split(key, 3)
        chosen = np.asarray(jax.random.permutation(choice_key, len(vectors)))[:RECOGNISED]
        labels = np.repeat(np.arange(len(chosen), dtype=np.int32), RECOGNITION_PAIRS)
        latents = model.sample(latents_key, len(labels))
        before = render_images(model, latents, max_side=RECOGNITION_SIDE)

        def accuracy(units: np.ndarray) -> float:
            chosen_directions = [
                Direction(jnp.asarray(vectors[c], jnp.float32), layers, float(units[c]))
                for c in chosen
            ]
            steps = jnp.stack([layer_steps(d, model.num_layers) for d in chosen_directions])
            edited = latents[:, None] + RECOGNITION_STRENGTH * steps[labels]
            after = render_images(model, edited, max_side=RECOGNITION_SIDE)
            pairs = np.concatenate([before, after], -1)
            return fit_scorer(fit_key, pairs, labels, epochs=RECOGNITION_EPOCHS).overall

        return Recognition("", 0, len(vectors), len(chosen), accuracy(steps), accuracy(equal), mean)

    def order(self, curve: Curve) -> Order:
        """Method and seed are to be set."""
        quality = codebook_quality(curve)
        distances = project(curve, self.fresh).squared_distance
        order = Order(
            "", 0, float(distances.mean()) / curve.latent_dim, quality.neighbour_share,
            quality.step_ratio, quality.trustworthiness,
        )  # fmt: skip
        if not self.columns.classes:
            return order
        (judged,) = self.bench.look(curve.codewords, self.bench.judge)
        classes = judged[:, self.columns.classes].argmax(1)
        return order._replace(
            class_runs=same_class_share(classes),
            class_runs_by_chance=class_runs_by_chance(classes),
        )


def _widest(directions: Mapping[tuple[int, int], Array]) -> tuple[int, int]:
    """The range of most layers, of several the one with most directions."""
    return max(directions, key=lambda r: (r[1] - r[0], len(directions[r])))


def path_correlations(steps: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Pearson's correlation of steps [S] with scores [S, N, A] within each path, averaged: [A].

    0 where a score, in deviations of its attribute, does not change along a path but for rounding.
    """
    steps, scores = steps - steps.mean(), scores - scores.mean(0)
    changes = np.linalg.norm(scores, axis=0)
    along = np.einsum("s,sna->na", steps, scores) / np.linalg.norm(steps)
    return np.where(changes > LEAST_CHANGE, along / np.maximum(changes, LEAST_CHANGE), 0).mean(0)


def _trend(latents: np.ndarray, scores: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Coefficients [A, D] of scores [N, A] regressed on latents [N, D], with a small ridge."""
    centred = scores - scores.mean(0)
    product = (latents - latents.mean(0)).T @ centred / len(latents)
    d = len(covariance)
    ridge = RIDGE * np.trace(covariance) / d * np.eye(d)
    return np.linalg.solve(covariance + ridge, product).T


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Mean cosine of rows [N, F]."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / np.maximum(norms, 1e-12)).mean())
