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
    """Samples latents whose images have an attribute, such as ten thousand sandals.

    First, a survey renders and scores fresh latents of the model. It shows on which lines of the
    curve the attribute occurs, and how often. Then latents are drawn at and around the positions
    of latents with the attribute (`sample_around`). They are rendered and scored, and kept if they
    have it.

    Args:
      key: a PRNG key; the same one gives the same samples.
      model: the generator.
      curve: a curve fitted to latents of this model.
      scorer: a scorer; its function may be any function of images.
      wanted: name of an attribute, or several names of attributes that an image must all have.
      count: number of samples.
      above: an image has an attribute if its score is greater than this, in the unit of the score.
        The default is the scorer's threshold, or for relative attributes the upper quartile of the
        survey; there is no default limit if `below` is given.
      below: the score must also be less than this.
      noise: see `sample_around`.
      surveyed: number of latents in the survey. Some dozens of them should have the attribute.
      least_share: lines with a smaller share of latents that have the attribute are left out. With
        a larger value, more of the drawn images have the attribute, and they vary less. If too few
        latents remain to learn from, no line is left out.
      batch: number of images rendered at once, always the same, so that nothing is compiled twice;
        by default up to 64, fewer if images are large.

    Returns:
      `count` samples that all have the attribute by the scorer, without labels.

    Raises:
      ValueError: there is no such attribute; fewer than 8 of the surveyed latents have it; or fewer
        than 1 in 200 of the drawn ones.

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
