"""From class to class by moving few coordinates, beside random ones, as many, and beside all.

For every goal, from a source to a target, one scorer finds which coordinates to move and whereto
(`importance`, `growth`, `masks`), and another one judges what that does to latents which had no
part in finding.

Letters: N latents, D dimensions, M coordinates, C concepts, S sizes, R random orders.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.interpret.attributes import Scorer, probability
from sfvq_jax.interpret.dimensions.coordinates import Coordinates, How, latent_axes
from sfvq_jax.interpret.dimensions.goals import DRAWN, DRAWN_AT_ONCE, Found, goals_of, latents_of
from sfvq_jax.interpret.dimensions.growth import SHARE, check_share, grow_set, growth_of
from sfvq_jax.interpret.dimensions.importance import (
    EXTREME,
    VALUES,
    Effects,
    intervention_effects,
    joint_scores,
)
from sfvq_jax.interpret.dimensions.masks import optimise_mask
from sfvq_jax.interpret.dimensions.moves import (
    MOVES,
    RANDOM,
    SEQUENTIAL,
    WAYS,
    Move,
    measured_moves,
)
from sfvq_jax.interpret.directions import Bench
from sfvq_jax.interpret.directions.bench import BANK, HELD_OUT
from sfvq_jax.interpret.directions.gradients import check_differentiable
from sfvq_jax.interpret.geometry import numpy_generator
from sfvq_jax.interpret.intervals import Interval
from sfvq_jax.interpret.intervals import share as share_interval
from sfvq_jax.interpret.work import DERIVATIVE, Done, OnProgress, Work
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.short import short_repr

Array = jax.Array

SPREAD_SAMPLES = 2**12  # latents, for mean and deviations of coordinates
RANDOM_ORDERS = 3  # R
RANDOM_LATENTS = 4  # of each goal, that are moved in random orders
FOUND, NOT_FOUND = "found", "not found"
DISTRIBUTION, LATENTS, EFFECTS, SET = "images of the distribution", "latents", "effects", "set"


class Translation(NamedTuple):
    """Results of `translate`.

    Attributes:
      coordinates: the coordinates that were moved.
      concepts: names of the C concepts.
      effects: effects on all concepts for each source, on the latents that ranked coordinates.
      found: the coordinates found for each goal.
      moves: a measurement for each goal and way.
      examples: a fresh latent of each source, [D].
      random_growth: mean change of the target's probability over goals by the first coordinates in
        random orders, [R, M].
      settings: settings of the run.
    """

    coordinates: Coordinates
    concepts: tuple[str, ...]
    effects: dict[str, Effects]
    found: list[Found]
    moves: list[Move]
    examples: dict[str, Array]
    random_growth: np.ndarray
    settings: Mapping[str, Any]

    __repr__ = short_repr

    @property
    def importance(self) -> np.ndarray:
        """Mean absolute change of each concept by each coordinate, over the sources, [M, C]."""
        return np.mean([effects.importance for effects in self.effects.values()], 0)

    def to_json(self) -> dict[str, Any]:
        """All results as JSON values; effects are means over latents."""
        return {
            "settings": dict(self.settings),
            "concepts": list(self.concepts),
            "values": self.effects[next(iter(self.effects))].values.tolist(),
            "effects": {
                source: {
                    "changes": _rounded(effects.changes.mean(0)),
                    "importance": _rounded(effects.importance),
                    "correlations": _rounded(effects.correlations),
                }
                for source, effects in self.effects.items()
            },
            "found": [
                {
                    "source": found.source,
                    "target": found.target,
                    "set": found.dimensions.tolist(),
                    "signs": found.grown.signs[: found.grown.size].tolist(),
                    "growth": _rounded(found.growth),
                    "status": self.status(found),
                    "mask": None if found.mask is None else _rounded(found.mask),
                }
                for found in self.found
            ],
            "moves": [move._asdict() for move in self.moves],
            "random growth": _rounded(self.random_growth),
        }

    def _flipped(self, found: Found, way: str) -> Interval:
        """Share of a goal's fresh images that a way takes to the target, with its interval."""
        (move,) = (
            m
            for m in self.moves
            if (m.way, m.source, m.target) == (way, found.source, found.target)
        )
        fresh = self.settings["fresh"]
        return share_interval(round(move.flipped * fresh), fresh, len(self.found))

    def status(self, found: Found) -> str:
        """Whether the set flips more fresh images than random sets of its size: "found" or not.

        It is "not found" if Wilson's intervals of the two shares overlap. They are wide enough to
        hold for all goals together.
        """
        own, random = (self._flipped(found, way) for way in (SEQUENTIAL, RANDOM))
        return FOUND if own.low > random.high else NOT_FOUND

    def shift(self, found: Found) -> Array:
        """The shift of latents that moves each of the set by one standard deviation, [D]."""
        origin = jnp.zeros((1, len(self.coordinates.mean)))
        return self.coordinates.moved(origin, jnp.asarray(found.signed)[None])[0]


def translate(
    key: Array,
    model: LatentModel,
    find: Scorer,
    judge: Scorer,
    *,
    coordinates: Callable[[Array], Coordinates] = latent_axes,
    sources: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    exclusive: bool = True,
    extreme: float = EXTREME,
    how: How = "shift",
    share: float = SHARE,
    latents: int = 16,
    fresh: int = 32,
    mask_steps: int = 40,
    done: Done | None = None,
    on_progress: OnProgress | None = None,
) -> Translation:
    """Finds which coordinates control each goal, and measures what moving them does.

    Args:
      key: a PRNG key.
      model: the generator; to optimise masks, its `render` must be differentiable.
      find: scorer of log-odds of concepts, written in JAX.
      judge: another scorer with concepts of the same names; its function may be any function.
      coordinates: function of latents [N, D] to the coordinates that are moved: by default their
        dimensions; another one is `functools.partial(curve_lines, curve)`.
      sources: classes to start from; by default all classes that enough latents have.
      targets: concepts to reach; by default all that both scorers have.
      exclusive: whether each image has exactly one concept, as for classes. If not, as for a smile,
        the source is every image without the concept.
      extreme, how: see `intervene`.
      share: see `grow_set`.
      latents: number of latents of each source to rank coordinates on; as many more serve to grow
        sets and optimise masks.
      fresh: number of fresh latents of each source to measure on.
      mask_steps: steps of `optimise_mask`; 0 for no masks.
      done: finished parts of an interrupted run with the same arguments, by name. New parts are
        added: a dict, or a mapping that keeps them in files.
      on_progress: called with `Progress`.

    Returns:
      The coordinates found for each goal, and the effect of each way on fresh latents.

    Raises:
      ValueError: unknown names, numbers that are too small, or sources with too few latents.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import class_scorer, translate
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> classes = class_scorer(lambda images: 4 * images.mean((1, 2)), ["red", "green", "blue"])
    >>> run = translate(
    ...     jax.random.key(0), model, classes, classes, sources=["red"], targets=["blue"],
    ...     latents=4, fresh=8, mask_steps=0)
    >>> run.found[0].dimensions.tolist()  # blue and red
    [2, 0]
    >>> run.moves[0].way, run.moves[0].flipped
    ('sequential', 1.0)
    """
    if min(latents, fresh) < 2 or mask_steps < 0 or not extreme > 0:
        raise ValueError(
            f"latents is {latents}, fresh {fresh}, mask_steps {mask_steps}, extreme {extreme};"
            " expected 2 or more, 2 or more, 0 or more and a number above 0"
        )
    check_share(share)
    names = tuple(name for name in find.names if name in judge.names)
    if targets is None:
        targets = names
    goals = goals_of(names, sources, targets, exclusive)
    find, judge = find.select(names), judge.select(names)
    _check_traceable(model, find)
    if mask_steps:
        check_differentiable(model, find, "masks are optimised by derivatives (0 steps: none)")
    bench_key, spread_key, pool_key, fresh_key, mask_key, key = jax.random.split(key, 6)
    spread = model.sample(spread_key, SPREAD_SAMPLES)
    axes = coordinates(spread)
    wanted = list(dict.fromkeys(source for source, _ in goals))
    m = axes.count
    growing = latents * m / 2 + DERIVATIVE * mask_steps * 8
    work = Work(
        {
            DISTRIBUTION: (1, BANK + HELD_OUT),
            LATENTS: (2, 2 * DRAWN_AT_ONCE),
            EFFECTS: (len(wanted), latents * m * len(VALUES)),
            SET: (len(goals), growing + RANDOM_LATENTS * RANDOM_ORDERS * m),
            MOVES: (len(goals), (len(WAYS) if mask_steps else len(WAYS) - 2) * fresh),
        },
        done,
        on_progress,
    )
    bench = work.part(
        DISTRIBUTION,
        DISTRIBUTION,
        lambda: Bench(bench_key, model, find, judge, on_images=work.images),
        keep=False,
    )
    pools = work.part(
        LATENTS,
        "latents to find on",
        lambda: latents_of(pool_key, bench, find, wanted, 2 * latents, exclusive),
    )
    pools_fresh = work.part(
        LATENTS,
        "latents to judge on",
        lambda: latents_of(fresh_key, bench, judge, wanted, fresh, exclusive),
    )
    missing = [name for name in wanted if name not in pools or name not in pools_fresh]
    if (sources is not None and missing) or len(missing) == len(wanted):
        raise ValueError(
            f"of {DRAWN} latents of the model fewer than {2 * latents} (or, by the judge, {fresh})"
            f" are {', '.join(missing)}: ask for fewer latents, or for other sources"
        )
    goals = [goal for goal in goals if goal[0] not in missing]
    present = [source for source in wanted if source not in missing]
    work.expect(EFFECTS, len(present))
    work.expect(SET, len(goals))
    work.expect(MOVES, len(goals))
    grid = np.array(VALUES) * (extreme / max(VALUES))

    def effects_of(source: str) -> Effects:
        return intervention_effects(
            model, find, pools[source][:latents], axes, values=grid.tolist(), how=how,
            on_images=work.images,
        )  # fmt: skip

    effects = {
        name: work.part(EFFECTS, f"effects on {name}", functools.partial(effects_of, name))
        for name in present
    }
    generator = numpy_generator(key)

    def set_for(number: int, orders: np.ndarray) -> tuple[Found, np.ndarray]:
        source, target = goals[number]
        column, held_out = names.index(target), pools[source][latents:]
        ranking = effects[source].ranking(column)
        of_goal = (model, find, held_out, axes, column)
        grown = grow_set(*of_goal, ranking, extreme=extreme, how=how, share=share)
        mask = None
        if mask_steps:
            mask = optimise_mask(
                jax.random.fold_in(mask_key, number), *of_goal, ranking.signed(axes.count),
                extreme=extreme, how=how, steps=mask_steps,
            )  # fmt: skip
        of_fresh = (model, find, pools_fresh[source], axes, column)
        growth = growth_of(*of_fresh, grown, extreme=extreme, how=how)
        some = of_fresh[2][:RANDOM_LATENTS]
        random = _random_growth(orders, *of_fresh[:2], some, *of_fresh[3:], extreme, how)
        return Found(source, target, ranking, grown, growth, mask), random

    found, growths = [], []
    for number, (source, target) in enumerate(goals):
        # of goals that are done as well, so that the others get the same
        make = functools.partial(set_for, number, _random_orders(generator, m))
        set_found, random = work.part(SET, f"set from {source} to {target}", make)
        found.append(set_found)
        growths.append(random)
    moves = measured_moves(
        generator, bench, axes, pools_fresh, found, extreme, how, exclusive, work
    )
    settings = {
        "extreme": extreme,
        "how": how,
        "share": share,
        "latents": latents,
        "fresh": fresh,
        "mask_steps": mask_steps,
        "too few latents of": missing,
    }
    examples = {source: pools_fresh[source][0] for source in present}
    return Translation(axes, names, effects, found, moves, examples, np.mean(growths, 0), settings)


def _rounded(values: np.ndarray) -> list:
    return np.round(np.asarray(values, np.float64), 4).tolist()


def _check_traceable(model: LatentModel, find: Scorer) -> None:
    """Raises ValueError where JAX cannot trace the scorer and the model."""
    latent = jax.ShapeDtypeStruct((1, model.latent_dim), jnp.float32)
    try:
        jax.eval_shape(lambda x: find(model.render(x)), latent)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
        raise ValueError(
            "interventions are compiled, so the scorer that finds and the model's render must be"
            " written in JAX; a function of other arrays can judge"
        ) from error


def _random_orders(generator: np.random.Generator, m: int) -> np.ndarray:
    """The first 1 … M coordinates in random orders, with random signs, [R, M, M]: ±1 or 0."""
    order = generator.permuted(np.tile(np.arange(m), (RANDOM_ORDERS, 1)), axis=1)
    signs = generator.choice([-1.0, 1.0], (RANDOM_ORDERS, 1, m))
    place = np.argsort(order, 1)[:, None]
    return signs * (place <= np.arange(m)[None, :, None])


def _random_growth(
    orders: np.ndarray,
    model: LatentModel,
    find: Scorer,
    latents: Array,
    coordinates: Coordinates,
    column: int,
    extreme: float,
    how: How,
) -> np.ndarray:
    """Mean change of a concept's probability by the first 1 … M in random orders, [R, M]."""
    m = coordinates.count
    every = np.concatenate([np.zeros((1, m)), orders.reshape(-1, m)]).astype(np.float32)
    seen = joint_scores(model, find, latents, coordinates, every, extreme, how)
    probabilities = np.asarray(probability(jnp.asarray(seen[..., column])), np.float64)
    mean = probabilities.mean(0)
    return (mean[1:] - mean[0]).reshape(RANDOM_ORDERS, m)
