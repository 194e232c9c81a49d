"""What is measured of a method with one seed: its edits, how they are told apart, its order.

Letters: A attributes, M directions.
"""

from typing import NamedTuple

from sfvq_jax.short import short_repr


class Edit(NamedTuple):
    """What one method does for one attribute with one seed; None where it does not reach it.

    Attributes:
      method: its name.
      seed: number of the run.
      attribute: that is to be raised.
      layers: first and last layer of the direction that was chosen.
      limit: strength at which images leave the distribution (`Bench.limits`); None where they do
        not as far as was looked (8).
      reached_where_chosen: whether the attribute rises by the wanted change on the latents that
        chose the direction, at up to eight deviations, be they within the limit or not.
      reached: whether it does so on fresh latents too, at a strength within the limit.
      strength: in standard deviations of latents along it, at which it does on the latents that
        chose, or the limit where that is less. All that follows is measured there.
      change: mean change of the attribute on fresh latents, in its standard deviations over images.
      agree: share of these latents at which it rises.
      dependency: attribute dependency (StyleSpace; Wu et al., 2021): mean absolute change of
        the other attributes, each in its standard deviations, ÷ `change`.
      content: content preservation, the mean cosine of features before and after.
      correlation: attribute-path correlation: share of this attribute among the magnitudes of all
        attributes' correlations with the strength, each within one latent's path and averaged over
        latents; 1 ÷ A is chance (WarpedGANSpace; Tzelepis et al., 2021: a matrix of paths by
        attributes whose rows are normalised in L1).
    """

    method: str
    seed: int
    attribute: str
    layers: tuple[int, int]
    limit: float | None = None
    reached_where_chosen: bool = False
    reached: bool = False
    strength: float | None = None
    change: float | None = None
    agree: float | None = None
    dependency: float | None = None
    content: float | None = None
    correlation: float | None = None


class Recognition(NamedTuple):
    """How well a network tells a method's directions apart, by images before and after.

    Attributes:
      method: its name.
      seed: number of the run.
      directions: M, that the method gives in its widest range.
      recognised: how many of them are to be told apart; 1 ÷ so many is chance.
      accuracy: of a network on held-out pairs (RCA; Voynov & Babenko, 2020), at a strength of
        three standard deviations, in the widest range.
      accuracy_equal: the same where steps along all directions of all methods are equally long: as
        three deviations along the first method's are on average.
      step: mean of the standard deviations of latents along its directions there.
    """

    method: str
    seed: int
    directions: int
    recognised: int
    accuracy: float
    accuracy_equal: float
    step: float


class Order(NamedTuple):
    """How well a method's codewords are ordered.

    Attributes:
      method: its name.
      seed: number of the run.
      distortion: mean over fresh latents and dimensions of (x - nearest point of the curve)².
      neighbour_share, step_ratio, trustworthiness: of `CodebookQuality`.
      class_runs: share of consecutive codewords whose images are of the same class, by the judge;
        None without classes.
      class_runs_by_chance: the same for random orders.
    """

    method: str
    seed: int
    distortion: float
    neighbour_share: float
    step_ratio: float
    trustworthiness: float
    class_runs: float | None = None
    class_runs_by_chance: float | None = None

    __repr__ = short_repr
