"""Methods that give directions, compared under one protocol.

Every method is fitted anew for every seed. Of its directions, in every layer range that it gives
them for, each attribute gets the one that the finding scorer likes best, by the criterion of
`directions`. Its strength is then scaled until the judge sees the attribute change by as much as
with any other method, since at equal strength a method that changes little would look pure. What
is reported is measured by the judge on latents that had no part in any of this.

Letters: N latents, A attributes, L layers, D dimensions, M directions, F features.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sfvq_jax.interpret.attributes import Scorer
from sfvq_jax.interpret.latent_clr import LatentCLR
from sfvq_jax.interpret.measuring import Bench, Interval, interval
from sfvq_jax.interpret.methods import (
    PCA,
    SFVQ,
    Fitted,
    KMeans,
    Method,
    RandomDirections,
    RandomPairs,
    SeFa,
    curve_pairs,
    in_all_ranges,
)
from sfvq_jax.interpret.trial import Columns, Edit, Order, Recognition, Trial
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.short import short_repr

Array = jax.Array


def default_methods(model: LatentModel, bits: int = 6) -> tuple[Method, ...]:
    """All methods that the model allows, each with as many directions.

    Lines of 2**bits codewords set the number; pairs of codewords, and of latents, are more.
    """
    count, k = 2**bits - 1, 2**bits
    return (
        SFVQ(bits),
        KMeans(k),
        PCA(count),
        *([SeFa(count)] if hasattr(model, "style_weights") else []),
        LatentCLR(count),
        RandomDirections(count),
        RandomPairs(k * (k - 1) // 2),
    )


class Comparison(NamedTuple):
    """What `compare` measures, one entry each; `summary` and `order_summary` are its tables."""

    edits: list[Edit]
    recognitions: list[Recognition]
    orders: list[Order]
    settings: Mapping[str, Any]

    __repr__ = short_repr

    def to_json(self) -> dict[str, Any]:
        """Both tables and all entries, as JSON values."""
        tables = {"summary": summary(self), "order": order_summary(self)}
        return _jsonable({"settings": self.settings} | tables | self._asdict())


class MethodSummary(NamedTuple):
    """Of a method over all seeds: means and 95 % intervals over seeds of each seed's mean.

    Attributes:
      method: its name.
      directions: how many it chooses among, for each layer range.
      reached: share of the attributes that can be changed as wanted.
      recognition: accuracy of `Recognition`.
      dependency, content, correlation, agree, strength: of `Edit`, over the attributes that all
        methods reach with that seed; None where there are none, or no features.
      dependency_gap, content_gap, correlation_gap: what the method has more of than the first one,
        over the attributes that both reach with that seed; None for the first.
    """

    method: str
    directions: int
    reached: Interval
    recognition: Interval
    dependency: Interval | None
    content: Interval | None
    correlation: Interval | None
    agree: Interval | None
    strength: Interval | None
    dependency_gap: Interval | None
    content_gap: Interval | None
    correlation_gap: Interval | None


def compare(
    key: Array,
    model: LatentModel,
    find: Scorer,
    judge: Scorer,
    *,
    methods: Sequence[Method] | None = None,
    attributes: Sequence[str] | None = None,
    classes: Sequence[str] = (),
    features: Callable[[Array], Array] | None = None,
    seeds: int = 5,
    latents: int = 128,
    change: float = 1.0,
    on_done: Callable[[str, int], None] | None = None,
) -> Comparison:
    """Compares methods on a model.

    Args:
      key: a PRNG key.
      model: whose `render` is differentiable.
      find: the scorer that chooses among directions, written in JAX.
      judge: another one with attributes of the same names, any function.
      methods: of different names; `default_methods` of the model by default. Your own is anything
        with `name` and `fit(key, model)`. One that fits a curve is compared by its own directions
        and, as a row of its own, by all pairs of codewords.
      attributes: to compare by; all that both scorers have by default.
      classes: attributes of which each image has one, for the order of codewords.
      features: images -> [N, F], for content preservation: the judge's penultimate layer, say.
      seeds: two or more.
      latents: N, fresh ones to measure on, for each seed.
      change: wanted of each attribute, in its standard deviations over images.
      on_done: called with method and seed when they are measured.

    Raises:
      ValueError: unknown attributes or classes, methods that have a name in common or give nothing,
        or numbers that are too small.
    """
    methods = default_methods(model) if methods is None else methods
    names = [method.name for method in methods]
    if len(set(names)) < len(names) or not names:
        raise ValueError(f"methods are {names}; expected different names")
    if seeds < 2 or latents < 2 or not change > 0:
        raise ValueError(
            f"seeds is {seeds}, latents {latents}, change {change}; expected two seeds, two latents"
            " or more and a change above 0"
        )
    if attributes is None:
        attributes = [name for name in find.names if name in judge.names]
    columns = Columns.of(find, judge, attributes, classes)
    edits, recognitions, orders = [], [], []
    for seed in range(seeds):
        bench_key, latents_key, *keys = jax.random.split(jax.random.fold_in(key, seed), 4)
        bench = Bench(bench_key, model, find, judge)
        trial = Trial.of(latents_key, bench, columns, features, latents, change)
        for method in methods:
            fitted = method.fit(keys[0], model)
            _check_fitted(method, fitted, model)
            rows = {method.name: fitted.directions}
            if fitted.curve is not None:
                orders.append(trial.order(fitted.curve)._replace(method=method.name, seed=seed))
                rows[f"{method.name}, pairs"] = in_all_ranges(
                    curve_pairs(fitted.curve), model.num_layers
                )
            for name, directions in rows.items():
                own = {"method": name, "seed": seed}
                edits += [edit._replace(**own) for edit in trial.edits(directions)]
                recognitions.append(trial.recognition(keys[1], directions)._replace(**own))
            if on_done is not None:
                on_done(method.name, seed)
    settings = {
        "seeds": seeds,
        "latents": latents,
        "change": change,
        "attributes": list(attributes),
        "methods": {method.name: repr(method) for method in methods},
    }
    return Comparison(edits, recognitions, orders, settings)


def summary(comparison: Comparison) -> list[MethodSummary]:
    """A row a method, in the order in which they were given."""
    names = list(dict.fromkeys(edit.method for edit in comparison.edits))
    of_method = {
        name: {(e.seed, e.attribute): e for e in comparison.edits if e.method == name}
        for name in names
    }
    common = _reached_by_all(comparison.edits)
    first = of_method[names[0]]
    rows = []
    for name, own in of_method.items():
        recognitions = [r for r in comparison.recognitions if r.method == name]
        reached = _over_seeds({place: e.strength is not None for place, e in own.items()})
        assert reached is not None  # there are two seeds or more
        means = {
            field: _over_seeds(
                {place: getattr(edit, field) for place, edit in own.items() if place in common}
            )
            for field in ("dependency", "content", "correlation", "agree", "strength")
        }
        both = [p for p, e in own.items() if None not in (e.dependency, first[p].dependency)]
        gaps = {
            f"{field}_gap": None
            if name == names[0]
            else _over_seeds(
                {p: _gap(getattr(own[p], field), getattr(first[p], field)) for p in both}
            )
            for field in ("dependency", "content", "correlation")
        }
        rows.append(
            MethodSummary(
                method=name,
                directions=recognitions[0].directions,
                reached=reached,
                recognition=interval(np.array([r.accuracy for r in recognitions])),
                **means,
                **gaps,
            )
        )
    return rows


def _over_seeds(values: Mapping[tuple[int, str], float | None]) -> Interval | None:
    """Of the means of each seed; None for fewer than two seeds."""
    by_seed: dict[int, list[float]] = {}
    for (seed, _), value in values.items():
        if value is not None:
            by_seed.setdefault(seed, []).append(value)
    if len(by_seed) < 2:
        return None
    return interval(np.array([np.mean(of_seed) for of_seed in by_seed.values()]))


def _gap(own: float | None, other: float | None) -> float | None:
    return None if own is None or other is None else own - other


def order_summary(comparison: Comparison) -> list[dict[str, Any]]:
    """A row a method that fits a curve: name -> `Interval` over seeds, None where not measured."""
    rows = []
    for name in dict.fromkeys(order.method for order in comparison.orders):
        own = [order for order in comparison.orders if order.method == name]
        row: dict[str, Any] = {"method": name}
        for field in Order._fields[2:]:
            values = [getattr(order, field) for order in own]
            row[field] = None if None in values else interval(np.array(values))
        rows.append(row)
    return rows


def shared_attributes(comparison: Comparison) -> float:
    """Mean number of attributes a seed that all methods reach, over which `summary` averages."""
    return len(_reached_by_all(comparison.edits)) / comparison.settings["seeds"]


def _jsonable(value: Any) -> Any:
    """Named tuples as mappings, however deep."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {name: _jsonable(part) for name, part in value.items()}
    return [_jsonable(part) for part in value] if isinstance(value, list) else value


def _reached_by_all(edits: Sequence[Edit]) -> set[tuple[int, str]]:
    """Seeds and attributes that no method fails at."""
    everything = {(edit.seed, edit.attribute) for edit in edits}
    return everything - {(e.seed, e.attribute) for e in edits if e.dependency is None}


def _check_fitted(method: Method, fitted: Fitted, model: LatentModel) -> None:
    if not fitted.directions:
        raise ValueError(f"{method.name} gives no directions")
    if max(len(vectors) for vectors in fitted.directions.values()) < 2:
        raise ValueError(f"{method.name} gives one direction; a comparison takes two or more")
    for (first, last), vectors in fitted.directions.items():
        lengths = np.linalg.norm(np.asarray(vectors, np.float64), axis=-1)
        right = vectors.ndim == 2 and vectors.shape[1] == model.latent_dim and len(vectors)
        if not 0 <= first <= last < model.num_layers or not right:
            raise ValueError(
                f"{method.name} gives an array of shape {vectors.shape} for layers {first}-{last};"
                f" expected unit vectors [M, {model.latent_dim}] for layers within"
                f" 0-{model.num_layers - 1}"
            )
        if not np.allclose(lengths, 1, atol=1e-3):
            raise ValueError(
                f"{method.name} gives vectors of length {lengths.min():g} to {lengths.max():g} for"
                f" layers {first}-{last}; expected unit vectors"
            )
