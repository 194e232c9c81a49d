"""Methods that give directions, compared under one protocol.

Every method is fitted anew for every seed. Of its directions, in every layer range that it gives
them for, each attribute gets the one that the finding scorer likes best, by the criterion of
`directions`. Its strength is then scaled until the judge sees the attribute change by as much as
with any other method, since at equal strength a method that changes little would look pure. What
is reported is measured by the judge on latents that had no part in any of this: whether the
attribute changes as wanted within the direction's limits, and what else changes.

Letters: N latents, A attributes, L layers, D dimensions, M directions, F features.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from sfvq_jax.interpret.attributes import Scorer
from sfvq_jax.interpret.comparison.measures import Edit, Order, Recognition
from sfvq_jax.interpret.comparison.methods import (
    ICA,
    PCA,
    SFVQ,
    ClassMeans,
    FeaturePCA,
    Fitted,
    Hyperplane,
    KMeans,
    LatentCLR,
    Method,
    RandomDirections,
    RandomPairs,
    SeFa,
    curve_pairs,
    in_all_ranges,
)
from sfvq_jax.interpret.comparison.tables import Comparison
from sfvq_jax.interpret.comparison.trial import SCREENED, SPREAD_SAMPLES, Columns, Trial
from sfvq_jax.interpret.directions import Bench
from sfvq_jax.interpret.directions.bench import BANK, HELD_OUT
from sfvq_jax.interpret.work import DERIVATIVE, Done, OnProgress, Work
from sfvq_jax.latent_model import LatentModel

Array = jax.Array

IMAGES = 1500  # of a method an attribute, about, until the first seed tells it


def default_methods(
    model: LatentModel, bits: int = 6, scorer: Scorer | None = None
) -> tuple[Method, ...]:
    """Lists all methods that the model allows, with equally many directions each.

    Their number is the number of lines of 2**bits codewords. Pairs of codewords, and of latents,
    are more. A scorer adds components of its features, at most as many as it has, and supervised
    methods, with a direction for each of its attributes.

    Args:
      model: the generator; one with `style_weights` gets `SeFa` too.
      bits: bits of the curve, which has 2**bits - 1 lines.
      scorer: scorer for methods that look at images.

    >>> import ports
    >>> from sfvq_jax.interpret import default_methods
    >>> model = ports.load(ports.bundled("fashion_mnist"))
    >>> [method.name for method in default_methods(model)][:5]
    ['SFVQ', 'k-means', 'GANSpace, PCA', 'GANSpace, ICA', 'SeFa']
    """
    count, k = 2**bits - 1, 2**bits
    return (
        SFVQ(bits),
        KMeans(k),
        PCA(count),
        ICA(count),
        *([SeFa(count)] if hasattr(model, "style_weights") else []),
        LatentCLR(count),
        RandomDirections(count),
        RandomPairs(k * (k - 1) // 2),
        *(
            []
            if scorer is None
            else [FeaturePCA(scorer, count), ClassMeans(scorer), Hyperplane(scorer)]
        ),
    )


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
    done: Done | None = None,
    on_progress: OnProgress | None = None,
) -> Comparison:
    """Compares methods on a model; docs/how-to/compare.md shows it, from a model to the tables.

    Args:
      key: a PRNG key.
      model: the generator; its `render` must be differentiable.
      find: the scorer that chooses among directions, written in JAX.
      judge: another scorer with attributes of the same names; its function may be any function.
      methods: methods with different names; by default `default_methods` of the model and `find`.
        Your own method is any object with `name` and `fit(key, model)`. A method that fits a curve
        gets a second row for all pairs of codewords. Random directions get a second row with steps
        as long as those of the first method on average.
      attributes: attributes to compare by; by default all that both scorers have.
      classes: attributes of which each image has exactly one, to measure the order of codewords.
      features: function of images to [N, F] for content preservation, such as the judge's
        penultimate layer.
      seeds: number of seeds, two or more.
      latents: number N of fresh latents to measure on, for each seed.
      change: wanted change of each attribute, in its standard deviations over images.
      done: finished parts of an interrupted run with the same arguments, by name. New parts are
        added: a dict, or a mapping that keeps them in files.
      on_progress: called with `Progress`.

    Returns:
      All measurements; `summary` and `order_summary` make tables of them.

    Raises:
      ValueError: unknown attributes or classes, methods with the same name or without directions,
        or numbers that are too small.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import PCA, Scorer, compare
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> colours = Scorer.of(lambda images: images.mean((1, 2)), ["red", "green", "blue"])
    >>> methods = [PCA(count=2), PCA(count=3)]  # two rows of one name could not be told apart
    >>> compare(jax.random.key(0), model, colours, colours, methods=methods)
    Traceback (most recent call last):
    ValueError: methods are ['GANSpace, PCA', 'GANSpace, PCA']; expected different names
    """
    methods = default_methods(model, scorer=find) if methods is None else methods
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
    of_method = IMAGES * len(attributes)
    of_trial = BANK + HELD_OUT + SPREAD_SAMPLES + DERIVATIVE * SCREENED * len(find.names)
    expected = {name: (seeds, of_method + of_trial * (name == names[0])) for name in names}
    work = Work(expected, done, on_progress)

    def of_seed(seed: int) -> Iterator[tuple[list[Edit], list[Recognition], list[Order]]]:
        bench_key, latents_key, *keys = jax.random.split(jax.random.fold_in(key, seed), 4)

        @functools.cache
        def trial_of() -> Trial:  # which a seed whose parts are done before does without
            bench = Bench(bench_key, model, find, judge, on_images=work.images)
            return Trial.of(latents_key, bench, columns, features, latents, change)

        def measured(
            method: Method, length: float | None
        ) -> tuple[list[Edit], list[Recognition], list[Order]]:
            edits, recognitions, orders = [], [], []
            trial = trial_of()
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
                recognition = trial.recognition(keys[1], directions, length)
                recognitions.append(recognition._replace(**own))
            if isinstance(method, RandomDirections):
                own = {"method": f"{method.name}, equal steps", "seed": seed}
                edits += [e._replace(**own) for e in trial.edits(fitted.directions, length)]
                own["accuracy"] = recognitions[-1].accuracy_equal
                recognitions.append(recognitions[-1]._replace(**own))
            return edits, recognitions, orders

        length = None  # of the first method's steps
        for method in methods:
            make = functools.partial(measured, method, length)
            part = work.part(method.name, f"{method.name}, seed {seed}", make)
            length = part[1][0].step if length is None else length
            yield part

    edits, recognitions, orders = [], [], []
    for part in itertools.chain.from_iterable(map(of_seed, range(seeds))):
        for whole, own in zip((edits, recognitions, orders), part, strict=True):
            whole += own
    settings = {
        "seeds": seeds,
        "latents": latents,
        "change": change,
        "attributes": list(attributes),
        "methods": {method.name: repr(method) for method in methods},
    }
    return Comparison(edits, recognitions, orders, settings)


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
