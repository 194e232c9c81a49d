"""Attributes: pure functions of images with names, to find what a direction does and to judge it.

Letters: N images of H x W pixels and C channels, A attributes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.short import short_repr

Array = jax.Array

LOG_ODDS_LIMIT = 6.0
LOGIT_SCALE = 100.0  # of CLIP's cosines
UPPER = 0.75  # quantile from which an image has an attribute that is relative


@flax.struct.dataclass
class Scorer:
    """A function of images [N, H, W, C], float32 in [-1, 1], to scores [N, A], with their names.

    It is a pytree whose leaves are the parameters of the function. A scorer that finds directions
    must be written in JAX, because its derivatives are needed. A scorer that judges may be any
    function of arrays.

    Attributes:
      function: a callable pytree, or any function wrapped by `Scorer.of`.
      names: names of the A attributes.
      thresholds: score above which an image has each attribute, such as 0 for log-odds. None for a
        relative attribute: an image has it if it is in the upper quarter of a model's images.

    >>> redness = Scorer.of(lambda images: images[..., :1].mean((1, 2)), ["redness"])
    >>> redness(jnp.ones((2, 8, 8, 3))).tolist()
    [[1.0], [1.0]]
    """

    function: Callable[[Array], Array]
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)
    thresholds: tuple[float | None, ...] = flax.struct.field(pytree_node=False)

    __repr__ = short_repr

    @classmethod
    def of(
        cls,
        function: Callable[[Array], Any],
        names: Sequence[str],
        thresholds: Sequence[float | None] | float | None = None,
    ) -> "Scorer":
        """Makes a scorer from a function images -> [N, A], such as ArcFace or your own network.

        Args:
          function: function of images; its `features`, if any, become those of the scorer.
          names: names of the attributes.
          thresholds: one for all attributes, or one for each; see the class.

        Raises:
          ValueError: names that are not strings or not unique, or a wrong number of thresholds.
        """
        if not names or len(set(names)) < len(names) or not all(isinstance(n, str) for n in names):
            raise ValueError(f"names are {names!r}; expected different strings, one an attribute")
        if jax.tree_util.all_leaves([function]):
            function = jax.tree_util.Partial(function)
        if thresholds is None or isinstance(thresholds, int | float):
            thresholds = [thresholds] * len(names)
        if len(thresholds) != len(names):
            raise ValueError(
                f"there are {len(thresholds)} thresholds for {len(names)} attributes; expected one"
                " for all, or one each"
            )
        return cls(function, tuple(names), tuple(thresholds))

    @classmethod
    def of_text(
        cls,
        image_encoder: Callable[[Array], Array],
        text_encoder: Callable[[list[str]], Any],
        texts: Sequence[str],
        *,
        neutral: str = "a photo",
    ) -> "Scorer":
        """Makes a scorer of attributes that are described by texts, with a model such as CLIP.

        A score is CLIP's logit of the text against the neutral text, 100 times the difference of
        the cosines (Radford et al., 2021). Attributes are relative: thresholds are None.

        Args:
          image_encoder: function of images [N, H, W, C] in [-1, 1] to [N, E]; it resizes and
            normalises images for its model. To find directions, it must be written in JAX.
          text_encoder: function of a list of M texts to [M, E].
          texts: one text for each attribute, which is also its name: "a smile".
          neutral: text that describes all images.

        Raises:
          ValueError: names that `of` refuses, or encoded texts that are not [M, E].
        """
        encoded = jnp.asarray(text_encoder([*texts, neutral]), jnp.float32)
        if encoded.ndim != 2 or len(encoded) != len(texts) + 1:
            raise ValueError(
                f"of {len(texts) + 1} texts the encoder gives an array of shape {encoded.shape};"
                f" expected [{len(texts) + 1}, E]"
            )
        if jax.tree_util.all_leaves([image_encoder]):
            image_encoder = jax.tree_util.Partial(image_encoder)
        encoded = _normalised(encoded)
        differences = encoded[:-1] - encoded[-1:]
        return cls.of(jax.tree_util.Partial(_text_scores, image_encoder, differences), texts)

    @property
    def features(self) -> Callable[[Array], Array] | None:
        """Function of images to features [N, F] that compare images; None if there is none."""
        return getattr(self.function, "features", None)

    @property
    def of_background(self) -> tuple[str, ...]:
        """Names of attributes that need images with an even border (`has_background`)."""
        names = getattr(self.function, "of_background", ())
        return tuple(name for name in self.names if name in names)

    def __call__(self, images: Array) -> Array:
        scores = self.function(images)
        if scores.shape != (images.shape[0], len(self.names)):
            raise ValueError(
                f"of images {images.shape} the scorer gives an array of shape {scores.shape};"
                f" expected [{images.shape[0]}, {len(self.names)}], a column for each of"
                f" {', '.join(self.names)}"
            )
        return scores

    def thresholds_among(self, scores: np.ndarray) -> np.ndarray:
        """Scores above which an image has each attribute, [A]; relative ones by scores [N, A]."""
        upper = np.quantile(np.asarray(scores), UPPER, axis=0)
        both = zip(self.thresholds, upper, strict=True)
        return np.array([relative if own is None else own for own, relative in both])

    def index(self, name: str) -> int:
        """The column of an attribute.

        Raises:
          ValueError: there is no attribute of this name.
        """
        if name not in self.names:
            raise ValueError(f"there is no attribute {name!r}; there are {', '.join(self.names)}")
        return self.names.index(name)

    def select(self, names: Sequence[str]) -> "Scorer":
        """A scorer of some of the attributes."""
        return _joined([(self, tuple(self.index(name) for name in names))])


def join(*scorers: Scorer) -> Scorer:
    """Joins scorers into one scorer of all their attributes, in the same order.

    Raises:
      ValueError: two scorers have an attribute of the same name.

    >>> from sfvq_jax.interpret import Scorer, image_statistics, join
    >>> redness = Scorer.of(lambda images: images[..., :1].mean((1, 2)), ["redness"])
    >>> join(redness, image_statistics().select(["brightness", "contrast"])).names
    ('redness', 'brightness', 'contrast')
    """
    return _joined([(scorer, tuple(range(len(scorer.names)))) for scorer in scorers])


def _joined(parts: Sequence[tuple[Scorer, tuple[int, ...]]]) -> Scorer:
    scorers, columns = zip(*parts, strict=True)
    return Scorer.of(
        Joined(scorers, columns),
        [scorer.names[column] for scorer, of_it in parts for column in of_it],
        [scorer.thresholds[column] for scorer, of_it in parts for column in of_it],
    )


@flax.struct.dataclass(eq=False)  # and so it can be hashed, as jax.jit(scorer) needs it
class Joined:
    """What the `function` of joined scorers is: some columns of each."""

    scorers: tuple[Scorer, ...]
    columns: tuple[tuple[int, ...], ...] = flax.struct.field(pytree_node=False)

    __repr__ = short_repr

    def __call__(self, images: Array) -> Array:
        scores = [
            jnp.asarray(scorer(images))[:, np.array(columns)]
            for scorer, columns in zip(self.scorers, self.columns, strict=True)
        ]
        return jnp.concatenate(scores, 1)

    @property
    def of_background(self) -> tuple[str, ...]:
        """Those of all of them."""
        names = [
            (scorer.names[column], scorer.of_background)
            for scorer, columns in zip(self.scorers, self.columns, strict=True)
            for column in columns
        ]
        return tuple(name for name, of_background in names if name in of_background)

    @property
    def features(self) -> Callable[[Array], Array] | None:
        """Those of the first scorer that has any."""
        return next((s.features for s in self.scorers if s.features is not None), None)


def class_scorer(logits: Callable[[Array], Array], names: Sequence[str]) -> Scorer:
    """Makes a scorer of the classes of a classifier.

    The scores [N, A] are log-odds of each class. They are above 0 if a class is more likely than
    all others together. They are limited smoothly to ±6, so that changes of certain results count
    little.

    Args:
      logits: function of images [N, H, W, C], float32 in [-1, 1], to logits [N, A], before any
        softmax.
      names: names of the A classes.

    Raises:
      ValueError: names that are not strings or not unique.

    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import class_scorer
    >>> scorer = class_scorer(lambda images: 3 * images.mean((1, 2)), ["red", "green", "blue"])
    >>> scores = scorer(jnp.array([[1.0, -1.0, -1.0]]).reshape(1, 1, 1, 3))  # an image of one pixel
    >>> print(scores.round(1))
    [[ 4.3 -4.6 -4.6]]
    """
    return Scorer.of(
        jax.tree_util.Partial(_class_scores, jax.tree_util.Partial(logits)), names, 0.0
    )


def _class_scores(logits: Callable[[Array], Array], images: Array) -> Array:
    return log_odds(jax.nn.log_softmax(logits(images)))


def _text_scores(encoder: Callable[[Array], Array], differences: Array, images: Array) -> Array:
    encoded = _normalised(encoder(images))
    return LOGIT_SCALE * jnp.matmul(encoded, differences.T, precision="highest")


def _normalised(rows: Array) -> Array:
    return rows / (jnp.linalg.norm(rows, axis=1, keepdims=True) + 1e-12)


def log_odds(log_probabilities: Array) -> Array:
    """log p - log(1 - p), limited smoothly to ±6."""
    others = jnp.log(jnp.maximum(-jnp.expm1(log_probabilities), 1e-7))
    return limit(log_probabilities - others)


def probability(scores: Array) -> Array:
    """The probabilities that `log_odds`, or `limit` of other log-odds, were made of."""
    share = jnp.clip(scores / LOG_ODDS_LIMIT, -1 + 1e-6, 1 - 1e-6)
    return jax.nn.sigmoid(LOG_ODDS_LIMIT * jnp.arctanh(share))


def limit(scores: Array) -> Array:
    """Scores limited smoothly to ±6, unchanged near 0."""
    return LOG_ODDS_LIMIT * jnp.tanh(scores / LOG_ODDS_LIMIT)
