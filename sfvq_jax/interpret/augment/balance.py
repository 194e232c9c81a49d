"""New latents of several classes, equally many of each."""

from collections.abc import Sequence

import jax
import numpy as np

from sfvq_jax.curve import Curve
from sfvq_jax.images import batch_of
from sfvq_jax.interpret.attributes import Scorer
from sfvq_jax.interpret.augment.drawing import Drawing, Samples
from sfvq_jax.latent_model import LatentModel

Array = jax.Array


def sample_balanced(
    key: Array,
    model: LatentModel,
    curve: Curve,
    scorer: Scorer,
    count: int,
    *,
    names: Sequence[str] | None = None,
    above: float | None = None,
    noise: float = 1.0,
    surveyed: int = 4096,
    least_share: float = 0.05,
    batch: int | None = None,
) -> Samples:
    """Samples equally many latents of several classes, in random order: a labelled dataset.

    This is `sample_by_attribute` for one class after the other, with one survey for all.

    Args:
      count: number of samples of all classes together.
      names: names of the attributes that are classes; by default all of the scorer's. An image
        belongs to a class if its score is greater than `above` (the default is that of
        `sample_by_attribute`) and than the scores of the other classes. So the scores must be of
        one kind, such as log-odds. If count is no multiple of the number of classes, the first
        ones get one sample more.

    For other arguments, and errors, see `sample_by_attribute`.

    Returns:
      `count` samples with labels.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax import Curve
    >>> from sfvq_jax.interpret import class_scorer, sample_balanced
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> curve = Curve(jnp.array([[-2.0, 0, 0], [0, 0, 0], [2, 0, 0]]))
    >>> classes = class_scorer(lambda images: 4 * images.mean((1, 2)), ["red", "green", "blue"])
    >>> samples = sample_balanced(jax.random.key(0), model, curve, classes, 9, surveyed=256)
    >>> samples.latents.shape, sorted(samples.labels.tolist())
    ((9, 3), [0, 0, 0, 1, 1, 1, 2, 2, 2])
    """
    names = list(scorer.names if names is None else names)
    columns = [scorer.index(name) for name in names]
    survey_key, order_key, key = jax.random.split(key, 3)
    batch = batch_of(model, 64) if batch is None else batch
    drawing = Drawing(model, curve, scorer, noise, least_share, batch)
    survey = drawing.survey(survey_key, surveyed)
    thresholds = scorer.thresholds_among(survey.scores)[columns]
    if above is not None:
        thresholds = np.full(len(names), above)
    labels = np.sort(np.arange(count) % len(names))
    parts, images = [], 0.0
    for label in np.unique(labels).tolist():

        def is_class(scores: np.ndarray, label: int = label) -> np.ndarray:
            scores = scores[:, columns]
            return (scores[:, label] > thresholds[label]) & (scores.argmax(1) == label)

        number = int((labels == label).sum())
        class_key = jax.random.fold_in(key, label)
        part, accepted = drawing.draw(class_key, survey, is_class, repr(names[label]), number)
        parts.append(part)
        images += number / accepted
    order = np.asarray(jax.random.permutation(order_key, count))
    latents, positions, scores = (
        np.concatenate(arrays)[order] for arrays in zip(*parts, strict=True)
    )
    return Samples(latents, positions, scores, count / images, thresholds, labels[order])
