"""Augmentation: new latents on the curve, around it, and of wanted attributes.

Letters: N samples, D dimensions, A attributes.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sfvq_jax.curve import Curve, decode
from sfvq_jax.images import batch_of
from sfvq_jax.interpret.attributes import Scorer
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.projection import bucket_size, project
from sfvq_jax.short import short_repr

Array = jax.Array

DRAWN_AT_ONCE = 256  # latents of `sample_around` in memory at once, each with its neighbours
LEAST_FOUND = 8  # latents with the attribute: fewer do not tell how such latents spread
TRIAL = 1000  # images drawn before it is judged whether too few have the attribute
LEAST_ACCEPTED = 1 / 200


class Samples(NamedTuple):
    """Latents whose images were seen to have an attribute; NumPy arrays.

    Attributes:
      latents: [N, D].
      positions: on the curve around which they were drawn, [N].
      scores: of their images, [N, A], all that the scorer gives.
      accepted: share of the images drawn that had the attribute.
      labels: of `sample_balanced`, the index of each sample's attribute in the names, [N] int;
        None of `sample_by_attribute`.
    """

    latents: np.ndarray
    positions: np.ndarray
    scores: np.ndarray
    accepted: float
    labels: np.ndarray | None = None

    __repr__ = short_repr


def positions_along(curve: Curve, start: float, stop: float, count: int) -> Array:
    """Positions [count] spread evenly from one to another: the middles of `count` equal pieces.

    Both ends are left out, so that stretches side by side, such as the lines j to j + 1, give no
    point twice.

    Raises:
      ValueError: positions outside the curve or not in order, or a count below 1.

    >>> curve = Curve(jnp.zeros((9, 2)))
    >>> positions_along(curve, 2, 4, 4).tolist()
    [2.25, 2.75, 3.25, 3.75]
    """
    for position in (start, stop):
        if not 0 <= position <= curve.num_lines:
            raise ValueError(
                f"position {position:g} is outside 0-{curve.num_lines}, the curve's positions"
            )
    if not start < stop:
        raise ValueError(f"the stretch from {start:g} to {stop:g} is none: start before its end")
    if count < 1:
        raise ValueError(f"count is {count}; ask for at least one sample")
    piece = (stop - start) / count
    return start + (jnp.arange(count, dtype=jnp.float32) + 0.5) * piece


def sample_around(
    key: Array,
    curve: Curve,
    positions: Array,
    latents: Array,
    *,
    noise: float = 1.0,
    neighbours: int = 32,
) -> Array:
    """New latents that lie around positions of the curve as real latents do.

    Real latents lie around the curve, not on it. Here a position's point gets a random residual,
    from the normal distribution that has mean and covariance of the residuals, latent minus nearest
    point, of the real latents next in position. Taking over whole residuals instead would give
    near copies of the real latents, since points move little along the curve.

    Args:
      key: a PRNG key; the same one gives the same latents.
      curve: of width D.
      positions: where, [count].
      latents: real ones, fresh draws of the model, [N, D]: the more, the more local.
      noise: factor of the residuals, from 0, on the curve, to 1, as far from it as real latents.
      neighbours: so many real latents are taken for a position's.

    Returns:
      [count, D].

    Raises:
      ValueError: no latents, ones of another width, or a noise outside 0-1.
    """
    if not 0 <= noise <= 1:
        raise ValueError(
            f"noise is {noise:g}; expected 0, on the curve, to 1, as far from it as real latents"
        )
    real = project(curve, latents).position
    if real.shape[0] == 0:
        raise ValueError("there are no real latents that new ones could be like: draw some")
    residuals = _residuals(key, curve, positions, latents, real, neighbours)
    return decode(curve, positions) + noise * residuals


@functools.partial(jax.jit, static_argnames="neighbours")
def _residuals(
    key: Array,
    curve: Curve,
    positions: Array,
    latents: Array,
    real_positions: Array,
    neighbours: int,
) -> Array:
    """Random residuals [count, D] at positions, like those of the latents next to each."""
    n = latents.shape[0]
    neighbours = min(neighbours, n)
    order = jnp.argsort(real_positions)
    real_positions = real_positions[order]
    residuals = latents[order] - decode(curve, real_positions)
    place_key, residual_key = jax.random.split(key)
    # many latents lie at exactly the position of a codeword: any of them may be the middle one
    left, right = (jnp.searchsorted(real_positions, positions, side) for side in ("left", "right"))
    middle = jax.random.randint(place_key, positions.shape, left, right + 1)
    first = jnp.clip(middle - neighbours // 2, 0, n - neighbours)

    def draw(argument: tuple[Array, Array]) -> Array:
        key, first = argument
        near = lax.dynamic_slice_in_dim(residuals, first, neighbours)
        mean = near.mean(0)
        # a normal combination of the deviations has their covariance
        weights = jax.random.normal(key, (neighbours,)) / max(neighbours - 1, 1) ** 0.5
        return mean + jnp.matmul(weights, near - mean[None], precision="highest")

    keys = jax.random.split(residual_key, positions.shape[0])
    return lax.map(draw, (keys, first), batch_size=DRAWN_AT_ONCE)


def sample_by_attribute(
    key: Array,
    model: LatentModel,
    curve: Curve,
    scorer: Scorer,
    wanted: str | Sequence[str],
    count: int,
    *,
    above: float | None = None,
    below: float | None = None,
    noise: float = 1.0,
    surveyed: int = 4096,
    least_share: float = 0.05,
    batch: int | None = None,
) -> Samples:
    """Latents whose images have an attribute: ten thousand sandals.

    First a survey: fresh latents of the model are rendered and scored, which tells on which lines
    of the curve the attribute is met, and how often. Then latents are drawn at and around the
    positions of those that have it (`sample_around`), rendered, scored, and kept if they have it.

    Args:
      key: a PRNG key; the same one gives the same samples.
      model: the generator.
      curve: fitted to latents of this model.
      scorer: any function of images, with names.
      wanted: the name of an attribute, or several that an image must have all at once.
      count: how many samples.
      above: an image has an attribute if its score, in the score's own unit, is greater; by default
        0, where log-odds say more likely than not, or no limit where `below` is given.
      below: and if it is less than this.
      noise: of `sample_around`.
      surveyed: latents in the survey. Some dozens of them should have the attribute.
      least_share: lines on which fewer of the latents have the attribute are left out. The higher,
        the more of the images drawn have it, and the less various they are. Where that leaves too
        few latents to learn from, no line is left out.
      batch: images rendered at once, always so many, so that nothing is compiled twice; by default
        up to 64, fewer where they are large.

    Raises:
      ValueError: no such attribute; fewer than 8 of the surveyed latents have it; or fewer than 1
        in 200 of those drawn.
    """
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    columns = [scorer.index(name) for name in names]
    if above is None:
        above = 0.0 if below is None else -np.inf
    upper = np.inf if below is None else below

    def has_all(scores: np.ndarray) -> np.ndarray:
        scores = scores[:, columns]
        return np.all((scores > above) & (scores < upper), axis=1)

    survey_key, key = jax.random.split(key)
    batch = batch_of(model, 64) if batch is None else batch
    drawing = _Drawing(model, curve, scorer, noise, least_share, batch)
    survey = drawing.survey(survey_key, surveyed)
    return drawing.draw(key, survey, has_all, " and ".join(map(repr, names)), count)


def sample_balanced(
    key: Array,
    model: LatentModel,
    curve: Curve,
    scorer: Scorer,
    count: int,
    *,
    names: Sequence[str] | None = None,
    above: float = 0.0,
    noise: float = 1.0,
    surveyed: int = 4096,
    least_share: float = 0.05,
    batch: int | None = None,
) -> Samples:
    """Latents of several classes, equally many of each, in random order: a labelled dataset.

    As `sample_by_attribute` for one class after the other, with one survey for all.

    Args:
      names: the attributes that are the classes; all of the scorer's by default. An image is of a
        class if this score of it is greater than `above` and than those of the other classes, so
        that the scores must be of one kind, such as log-odds. Where count is no multiple of their
        number, the first ones get one sample more.

    The other arguments, and errors, are those of `sample_by_attribute`.
    """
    names = list(scorer.names if names is None else names)
    columns = [scorer.index(name) for name in names]
    survey_key, order_key, key = jax.random.split(key, 3)
    batch = batch_of(model, 64) if batch is None else batch
    drawing = _Drawing(model, curve, scorer, noise, least_share, batch)
    survey = drawing.survey(survey_key, surveyed)
    labels = np.sort(np.arange(count) % len(names))
    parts = []
    for label in np.unique(labels).tolist():

        def is_class(scores: np.ndarray, label: int = label) -> np.ndarray:
            scores = scores[:, columns]
            return (scores[:, label] > above) & (scores.argmax(1) == label)

        number = int((labels == label).sum())
        class_key = jax.random.fold_in(key, label)
        parts.append(drawing.draw(class_key, survey, is_class, repr(names[label]), number))
    order = np.asarray(jax.random.permutation(order_key, count))
    return Samples(
        latents=np.concatenate([part.latents for part in parts])[order],
        positions=np.concatenate([part.positions for part in parts])[order],
        scores=np.concatenate([part.scores for part in parts])[order],
        accepted=count / sum(len(part.latents) / part.accepted for part in parts),
        labels=labels[order],
    )


class _Survey(NamedTuple):
    """Fresh latents [N, D] of a model, where they project to, [N], and their scores [N, A]."""

    latents: np.ndarray
    line: np.ndarray
    positions: np.ndarray
    scores: np.ndarray


class _Drawing(NamedTuple):
    """What all draws of one call have in common; see `sample_by_attribute`."""

    model: LatentModel
    curve: Curve
    scorer: Scorer
    noise: float
    least_share: float
    batch: int

    def survey(self, key: Array, number: int) -> _Survey:
        batches = max(-(-number // self.batch), 1)
        latents = self.model.sample(key, batches * self.batch)
        projection = project(self.curve, latents)
        on_host = np.asarray(latents)  # where a slice is not a program to be compiled
        scores = [self.scores(jnp.asarray(part)) for part in np.split(on_host, batches)]
        return _Survey(
            on_host,
            np.asarray(projection.line),
            np.asarray(projection.position),
            np.concatenate(scores),
        )

    def draw(
        self,
        key: Array,
        survey: _Survey,
        has: Callable[[np.ndarray], np.ndarray],
        wanted: str,
        count: int,
    ) -> Samples:
        """Draws until `count` samples are kept: those for whose scores [N, A] `has` is true."""
        if count < 1:
            raise ValueError(f"count is {count}; ask for at least one sample")
        had = has(survey.scores)
        pool = self.pool(survey, had, wanted)
        latents, positions = (jnp.asarray(a[pool]) for a in (survey.latents, survey.positions))
        kept: list[tuple[np.ndarray, ...]] = []
        drawn = accepted = 0
        while accepted < count:
            pick_key, around_key = jax.random.split(jax.random.fold_in(key, drawn))
            # lines get their share of the latents that have the attribute, and so do their parts
            at = jax.random.choice(pick_key, positions, (self.batch,))
            new = sample_around(around_key, self.curve, at, latents, noise=self.noise)
            scores = self.scores(new)
            good = has(scores)
            kept.append((np.asarray(new)[good], np.asarray(at)[good], scores[good]))
            drawn += self.batch
            accepted += int(good.sum())
            if drawn >= TRIAL and accepted < LEAST_ACCEPTED * drawn:
                raise ValueError(
                    f"only {accepted} of {drawn} images drawn have {wanted}, as {had.sum()} of the"
                    f" {len(had)} surveyed did: survey more latents, lower the noise, or ask for"
                    " less of it"
                )
        columns = (np.concatenate(arrays)[:count] for arrays in zip(*kept, strict=True))
        return Samples(*columns, accepted=accepted / drawn)

    def pool(self, survey: _Survey, has: np.ndarray, wanted: str) -> np.ndarray:
        """Numbers of the surveyed latents to draw around."""
        if has.sum() < LEAST_FOUND:
            raise ValueError(
                f"{has.sum()} of {len(has)} latents surveyed have {wanted}, and at least"
                f" {LEAST_FOUND} are needed to draw more of them: survey more latents, or ask for"
                " less of it"
            )
        use, use_with = (
            np.bincount(lines, minlength=self.curve.num_lines)
            for lines in (survey.line, survey.line[has])
        )
        enough = use_with >= self.least_share * use
        pool = np.flatnonzero(has & enough[survey.line])
        if len(pool) < LEAST_FOUND:
            pool = np.flatnonzero(has)
        # some of them twice, so that pools of other attributes run in the same compiled programs
        return np.resize(pool, bucket_size(len(pool)))

    def scores(self, latents: Array) -> np.ndarray:
        return np.asarray(self.scorer(self.model.render(latents)))
