"""Attributes: pure functions of images with names, to find what a direction does and to judge it.

Letters: N images of H x W pixels and C channels, A attributes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from sfvq_jax.short import short_repr

Array = jax.Array

LOG_ODDS_LIMIT = 6.0


@flax.struct.dataclass
class Scorer:
    """A function images [N, H, W, C], float32 in [-1, 1] -> scores [N, A], and names of the scores.

    A pytree, whose leaves are the function's parameters. What finds directions must be written in
    JAX, since its derivatives are taken; what judges them may be any function of arrays.

    Attributes:
      function: a callable pytree, or any function wrapped by `Scorer.of`.
      names: of the A attributes.

    >>> redness = Scorer.of(lambda images: images[..., :1].mean((1, 2)), ["redness"])
    >>> redness(jnp.ones((2, 8, 8, 3))).tolist()
    [[1.0], [1.0]]
    """

    function: Callable[[Array], Array]
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)

    __repr__ = short_repr

    @classmethod
    def of(cls, function: Callable[[Array], Any], names: Sequence[str]) -> "Scorer":
        """A scorer of any function images -> [N, A], of ArcFace, CLIP or your own network, say.

        Raises:
          ValueError: names that are not strings, or one twice.
        """
        if not names or len(set(names)) < len(names) or not all(isinstance(n, str) for n in names):
            raise ValueError(f"names are {names!r}; expected different strings, one an attribute")
        if jax.tree_util.all_leaves([function]):
            function = jax.tree_util.Partial(function)
        return cls(function, tuple(names))

    def __call__(self, images: Array) -> Array:
        scores = self.function(images)
        if scores.shape != (images.shape[0], len(self.names)):
            raise ValueError(
                f"of images {images.shape} the scorer gives an array of shape {scores.shape};"
                f" expected [{images.shape[0]}, {len(self.names)}], a column for each of"
                f" {', '.join(self.names)}"
            )
        return scores

    def index(self, name: str) -> int:
        """The column of an attribute.

        Raises:
          ValueError: no attribute of this name.
        """
        if name not in self.names:
            raise ValueError(f"there is no attribute {name!r}; there are {', '.join(self.names)}")
        return self.names.index(name)

    def select(self, names: Sequence[str]) -> "Scorer":
        """A scorer of some of the attributes."""
        columns = tuple(self.index(name) for name in names)
        return Scorer.of(jax.tree_util.Partial(_select_scores, self, columns), tuple(names))


def join(*scorers: Scorer) -> Scorer:
    """One scorer of all their attributes; raises ValueError where two have a name in common."""
    names = [name for scorer in scorers for name in scorer.names]
    return Scorer.of(jax.tree_util.Partial(_join_scores, scorers), names)


def class_scorer(logits: Callable[[Array], Array], names: Sequence[str]) -> Scorer:
    """The classes of a classifier, a function images -> logits [N, A], as attributes.

    The scores are log-odds of each class, above 0 where it is more likely than all others together,
    and limited smoothly to ±6: changes of what is certain anyway count little.
    """
    return Scorer.of(
        jax.tree_util.Partial(_class_scores, jax.tree_util.Partial(logits)), tuple(names)
    )


def _join_scores(scorers: tuple[Scorer, ...], images: Array) -> Array:
    return jnp.concatenate([scorer(images) for scorer in scorers], 1)


def _select_scores(scorer: Scorer, columns: tuple[int, ...], images: Array) -> Array:
    return jnp.stack([scorer(images)[:, column] for column in columns], 1)


def _class_scores(logits: Callable[[Array], Array], images: Array) -> Array:
    return log_odds(jax.nn.log_softmax(logits(images)))


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
