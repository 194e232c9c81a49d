"""Directions with names: what each line or pair of codewords changes, where, how much, how far.

Four sets of latents take part: exact derivatives at the first, and the images of the codewords,
give a few candidates for each attribute (`screening`), edits of the second choose among them and
their layers, those of the third say how far a direction goes before images leave the distribution,
and what is reported is measured within these limits on the fourth, which had no part in the choice,
by the scorer that found and by another that judges.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from sfvq_jax.curve import Curve
from sfvq_jax.interpret.attributes import Scorer
from sfvq_jax.interpret.directions.bench import (
    BANK,
    HELD_OUT,
    STRENGTHS,
    Bench,
    Effect,
    Gain,
    Limits,
)
from sfvq_jax.interpret.directions.choosing import FEW, KEPT, Choice, Chosen
from sfvq_jax.interpret.directions.gradients import attribute_gradients
from sfvq_jax.interpret.directions.screening import Candidate, search, search_reached
from sfvq_jax.interpret.edit import Direction
from sfvq_jax.interpret.work import DERIVATIVE, Done, OnProgress, Work
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.short import short_repr

Array = jax.Array

SCREENED = 128  # latents whose derivatives are taken
SHORTLIST = 12  # candidates for each attribute, of either screen
CHOSEN_ON = 64  # latents to choose among candidates
LIMITED_ON = 64  # latents that are edited further and further
SPREAD_SAMPLES = 2**14  # latents, for covariance and deviations
NAMED_SHARE = 0.6  # of the largest effect, from which an attribute is named
MOST_NAMED = 3
LAYERS_TRIED = 6  # for each direction, about
DISTRIBUTION, DERIVATIVES, CODEWORDS, ATTRIBUTE = (
    "images of the distribution",
    "derivatives",
    "images of the codewords",
    "directions of an attribute",
)


class FoundDirection(NamedTuple):
    """A direction that `find_directions` found, with its effects.

    Attributes:
      name: name that says what it does, such as "more width, less trouser; layers 0-3".
      attribute: attribute that it was chosen for, and that it raises.
      direction: the direction; its unit is one standard deviation of the model's latents along it.
      codewords: the two codewords that it goes from and to; neighbours make a line of the curve.
      effects: effect on every attribute by the scorer that found it, measured between -2 and 2
        within the limits. The intervals hold together for as many directions as were asked for.
      judged: the same effects by the scorer that judges.
      gain: share of images that get the attribute at the upper limit, by the judge; None if it does
        not judge this attribute.
      entanglement: root of the sum of squares of the effects on all other attributes ÷ effect on
        this one, by the scorer that found it; 0 is pure (equation 17 of
        docs/explanation/equations.md).
      limits: strengths below and above 0 at which images leave the distribution, measured on
        separate latents; None if they do not leave it in the range that was tried
        (`Bench.limits`).
    """

    name: str
    attribute: str
    direction: Direction
    codewords: tuple[int, int]
    effects: Mapping[str, Effect]
    judged: Mapping[str, Effect]
    entanglement: float
    limits: Limits
    gain: Gain | None

    __repr__ = short_repr

    @property
    def confirmed(self) -> bool:
        """Whether images get the attribute by this direction and not by chance.

        By the judge, the attribute must rise, and more images must get it at the upper limit than
        by random steps of the same length. The intervals, for all directions together, must exclude
        0 and must not overlap.
        """
        effect, gain = self.judged.get(self.attribute), self.gain
        return effect is not None and gain is not None and effect.low > 0 and gain.certain


def find_directions(
    key: Array,
    model: LatentModel,
    curve: Curve,
    find: Scorer,
    judge: Scorer,
    *,
    attributes: Sequence[str] | None = None,
    per_attribute: int = 1,
    pairs: bool = True,
    latents: int = 256,
    features: Callable[[Array], Array] | None = None,
    done: Done | None = None,
    on_progress: OnProgress | None = None,
) -> list[FoundDirection]:
    """Finds the best directions for every attribute, among lines of a curve and codeword pairs.

    For each attribute a, it seeks the candidate and the range of layers that change a most and
    everything else least. With e the effects on all attributes and q the share of latents at which
    a rises, these maximise e_a²/|e| × (2 q - 1) (equation 16 of docs/explanation/equations.md).

    Args:
      key: a PRNG key.
      model: the generator; its `render` must be differentiable.
      curve: a curve fitted to its latents.
      find: the scorer that chooses and names directions, written in JAX.
      judge: another scorer with attributes of the same names; its function may be any function.
        Attributes that it does not have are not judged.
      attributes: attributes to find directions for; by default all of `find`.
      per_attribute: number of directions for each attribute.
      pairs: whether any two codewords make a candidate, or only neighbours.
      latents: number N of latents to measure on.
      features: function of images to [N, F]; with pixels, it decides which images are in the
        distribution. By default the features of the judge or of `find`, if they have any.
      done: finished parts of an interrupted run with the same arguments, by name. New parts are
        added: a dict, or a mapping that keeps them in files.
      on_progress: called with `Progress`.

    Returns:
      Directions in the order of `attributes`, and for each attribute the best first.

    Raises:
      ValueError: unknown attributes, a curve of another width, or numbers that are too small.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax import Curve
    >>> from sfvq_jax.interpret import Scorer, find_directions
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> colours = Scorer.of(lambda images: images.mean((1, 2)), ["red", "green", "blue"])
    >>> curve = Curve(jnp.array([[-2.0, 0, 0], [2, 0, 0], [2, 2, 0], [2, 2, 2]]))
    >>> found = find_directions(
    ...     jax.random.key(0), model, curve, colours, colours, attributes=["red"], latents=32)
    >>> [(f.name, f.codewords, f.confirmed) for f in found]
    [('more red; all layers', (0, 1), True)]
    """
    if per_attribute < 1 or latents < 2:
        raise ValueError(
            f"per_attribute is {per_attribute} and latents {latents}; expected 1 and 2 or more"
        )
    attributes = find.names if attributes is None else tuple(attributes)
    columns = [find.index(name) for name in attributes]
    if curve.latent_dim != model.latent_dim:
        raise ValueError(
            f"the curve has {curve.latent_dim} dimensions, the model's latents {model.latent_dim}"
        )
    keys = jax.random.split(key, 7)
    tried = 2 * (2 * SHORTLIST * FEW + per_attribute * (KEPT * CHOSEN_ON + LAYERS_TRIED * FEW))
    measured = per_attribute * (2 * LIMITED_ON * len(STRENGTHS) + 4 * latents)
    work = Work(
        {
            DISTRIBUTION: (1, BANK + HELD_OUT),
            DERIVATIVES: (1, DERIVATIVE * SCREENED * len(find.names)),
            CODEWORDS: (1, curve.num_codewords),
            ATTRIBUTE: (len(columns), tried + measured),
        },
        done,
        on_progress,
    )
    bench = work.part(
        DISTRIBUTION,
        DISTRIBUTION,
        lambda: Bench(keys[0], model, find, judge, features=features, on_images=work.images),
        keep=False,
    )
    spread = model.sample(keys[1], SPREAD_SAMPLES)

    def derivatives() -> np.ndarray:
        screened = model.sample(keys[2], SCREENED)
        gradients = attribute_gradients(model, find, screened, on_images=work.images)
        gradients /= bench.find_scale[None, :, None, None]
        return gradients

    gradients = work.part(DERIVATIVES, DERIVATIVES, derivatives)
    covariance = np.atleast_2d(np.cov(spread, rowvar=False))
    shortlist = search(curve, gradients, columns, covariance, count=SHORTLIST, pairs=pairs)
    reached = search_reached(
        curve,
        work.part(CODEWORDS, CODEWORDS, lambda: bench.look(curve.codewords, bench.found)[0]),
        columns,
        covariance,
        num_layers=model.num_layers,
        count=SHORTLIST,
        pairs=pairs,
    )
    chosen_on, measured_on = model.sample(keys[3], CHOSEN_ON), model.sample(keys[4], latents)
    limited_on, comparisons = model.sample(keys[5], LIMITED_ON), per_attribute * len(columns)
    found: list[FoundDirection] = []

    @functools.cache
    def had() -> np.ndarray:
        return bench.look(measured_on, bench.has)[0]

    def best_of(name: str, column: int, candidates: Sequence[Sequence[Candidate]]) -> list:
        choice = Choice(bench, curve, spread, chosen_on, column)
        tried = [(c.codewords, c.layers) for c in itertools.chain(*candidates)]
        directions = []
        for chosen in choice.best(tried, per_attribute):
            chance = jax.random.fold_in(keys[6], len(found) + len(directions))
            latents_of = (limited_on, measured_on, had)
            directions.append(_measured(bench, chance, name, chosen, *latents_of, comparisons))
        return directions

    for name, column, *candidates in zip(attributes, columns, shortlist, reached, strict=True):
        make = functools.partial(best_of, name, column, candidates)
        found += work.part(ATTRIBUTE, f"directions of {name}", make)
    return found


def _measured(
    bench: Bench,
    key: Array,
    attribute: str,
    chosen: Chosen,
    limited_on: Array,
    latents: Array,
    had: Callable[[], np.ndarray],
    comparisons: int,
) -> FoundDirection:
    direction = chosen.direction
    limits = bench.limits(direction, limited_on)
    effects, judged = bench.effects(direction, latents, limits, comparisons)
    gain = None
    if attribute in judged:
        gain = bench.gain(key, direction, latents, attribute, limits, comparisons, has=had())
    return FoundDirection(
        name=name_of(attribute, effects, direction.layers, bench.model.num_layers),
        attribute=attribute,
        direction=direction,
        codewords=chosen.codewords,
        effects=effects,
        judged=judged,
        entanglement=entanglement_of(attribute, effects),
        limits=limits,
        gain=gain,
    )


def entanglement_of(attribute: str, effects: Mapping[str, Effect]) -> float:
    """Root of the sum of squares of the effects on all other attributes ÷ that on this one."""
    others = [effect.mean for name, effect in effects.items() if name != attribute]
    return float(np.linalg.norm(others) / max(abs(effects[attribute].mean), 1e-12))


def name_of(
    attribute: str, effects: Mapping[str, Effect], layers: tuple[int, int], num_layers: int
) -> str:
    """The attribute first, then what else changes nearly as much and with certainty; the layers."""
    least = NAMED_SHARE * max(abs(effect.mean) for effect in effects.values())
    others = sorted(
        (name for name, e in effects.items() if e.certain and abs(e.mean) >= least),
        key=lambda name: -abs(effects[name].mean),
    )
    named = list(dict.fromkeys([attribute, *others]))[:MOST_NAMED]
    words = [f"{'more' if effects[name].mean > 0 else 'less'} {name}" for name in named]
    first, last = layers
    where = "all layers" if (first, last) == (0, num_layers - 1) else f"layers {first}-{last}"
    return f"{', '.join(words)}; {where if first < last or num_layers == 1 else f'layer {first}'}"
