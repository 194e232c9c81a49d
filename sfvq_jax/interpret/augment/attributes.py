"""New latents whose images have wanted attributes."""

from collections.abc import Sequence

import jax
import numpy as np

from sfvq_jax.curve import Curve
from sfvq_jax.images import batch_of
from sfvq_jax.interpret.attributes import Scorer
from sfvq_jax.interpret.augment.drawing import Drawing, Samples
from sfvq_jax.latent_model import LatentModel

Array = jax.Array


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
        the scorer's threshold, or, where that is relative, the upper quartile of the survey; no
        limit where `below` is given.
      below: and if it is less than this.
      noise: of `sample_around`.
      surveyed: latents in the survey. Some dozens of them should have the attribute.
      least_share: lines on which fewer of the latents have the attribute are left out. The higher,
        the more of the images drawn have it, and the less various they are. Where that leaves too
        few latents to learn from, no line is left out.
      batch: images rendered at once, always so many, so that nothing is compiled twice; by default
        up to 64, fewer where they are large.

    Returns:
      `count` samples, all of which were seen to have the attribute; without labels.

    Raises:
      ValueError: no such attribute; fewer than 8 of the surveyed latents have it; or fewer than 1
        in 200 of those drawn.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax import Curve
    >>> from sfvq_jax.interpret import Scorer, sample_by_attribute
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> curve = Curve(jnp.array([[-2.0, 0, 0], [0, 0, 0], [2, 0, 0]]))
    >>> colours = Scorer.of(lambda images: images.mean((1, 2)), ["red", "green", "blue"])
    >>> samples = sample_by_attribute(
    ...     jax.random.key(0), model, curve, colours, "red", 10, above=0.5, surveyed=256)
    >>> samples.latents.shape, samples.thresholds.tolist()
    ((10, 3), [0.5])
    """
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    columns = [scorer.index(name) for name in names]
    survey_key, key = jax.random.split(key)
    batch = batch_of(model, 64) if batch is None else batch
    drawing = Drawing(model, curve, scorer, noise, least_share, batch)
    survey = drawing.survey(survey_key, surveyed)
    lower, upper = -np.inf if above is None else above, np.inf if below is None else below
    if (above, below) == (None, None):
        lower = scorer.thresholds_among(survey.scores)[columns]
    lower = np.broadcast_to(lower, len(columns))

    def has_all(scores: np.ndarray) -> np.ndarray:
        scores = scores[:, columns]
        return np.all((scores > lower) & (scores < upper), axis=1)

    arrays, accepted = drawing.draw(key, survey, has_all, " and ".join(map(repr, names)), count)
    return Samples(*arrays, accepted, lower)
