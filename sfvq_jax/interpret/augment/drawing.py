"""Latents drawn until enough of their images have what is wanted.

Letters: N samples, D dimensions, A attributes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.curve import Curve
from sfvq_jax.interpret.attributes import Scorer
from sfvq_jax.interpret.augment.lines import sample_around
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.projection import bucket_size, project
from sfvq_jax.short import short_repr

Array = jax.Array

LEAST_FOUND = 8  # latents with the attribute: fewer do not tell how such latents spread
TRIAL = 1000  # images drawn before it is judged whether too few have the attribute
LEAST_ACCEPTED = 1 / 200


class Samples(NamedTuple):
    """Samples whose images have an attribute by the scorer; NumPy arrays.

    Attributes:
      latents: the latents, [N, D].
      positions: positions on the curve around which they were drawn, [N].
      scores: all scores of their images, [N, A].
      accepted: share of the drawn images that had the attribute.
      thresholds: for each wanted attribute or class, the score above which an image has it.
      labels: index of each sample's attribute in the names, [N] int, from `sample_balanced`; None
        from `sample_by_attribute`.
    """

    latents: np.ndarray
    positions: np.ndarray
    scores: np.ndarray
    accepted: float
    thresholds: np.ndarray
    labels: np.ndarray | None = None

    __repr__ = short_repr


class Survey(NamedTuple):
    """Fresh latents [N, D] of a model, where they project to, [N], and their scores [N, A]."""

    latents: np.ndarray
    line: np.ndarray
    positions: np.ndarray
    scores: np.ndarray


class Drawing(NamedTuple):
    """What all draws of one call have in common; see `sample_by_attribute`."""

    model: LatentModel
    curve: Curve
    scorer: Scorer
    noise: float
    least_share: float
    batch: int

    def survey(self, key: Array, number: int) -> Survey:
        batches = max(-(-number // self.batch), 1)
        latents = self.model.sample(key, batches * self.batch)
        projection = project(self.curve, latents)
        on_host = np.asarray(latents)  # where a slice is not a program to be compiled
        scores = [self.scores(jnp.asarray(part)) for part in np.split(on_host, batches)]
        return Survey(
            on_host,
            np.asarray(projection.line),
            np.asarray(projection.position),
            np.concatenate(scores),
        )

    def draw(
        self,
        key: Array,
        survey: Survey,
        has: Callable[[np.ndarray], np.ndarray],
        wanted: str,
        count: int,
    ) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], float]:
        """Draws until `count` samples are kept: those for whose scores [N, A] `has` is true.

        Returns:
          Their latents, positions and scores, and the share of the images drawn that had it.
        """
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
        latents, positions, scores = (
            np.concatenate(arrays)[:count] for arrays in zip(*kept, strict=True)
        )
        return (latents, positions, scores), accepted / drawn

    def pool(self, survey: Survey, has: np.ndarray, wanted: str) -> np.ndarray:
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
