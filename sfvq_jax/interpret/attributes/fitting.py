"""Scorers of your own labels: a small network, fitted on labelled images in minutes on a CPU.

Two of them, fitted on different images, are the honest way to use one: what finds directions is
fooled by them more easily than what has never seen them. `fit_scorers` makes such a pair.

Letters: N images of H x W pixels and C channels, A attributes, F features.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sfvq_jax.images import check_images, in_batches, to_uint8
from sfvq_jax.interpret.attributes.labels import Task, check_labels
from sfvq_jax.interpret.attributes.network import (
    CHANNELS,
    MEASURES,
    FittedFunction,
    ScorerNetwork,
    resized,
)
from sfvq_jax.interpret.attributes.scorer import Scorer
from sfvq_jax.short import short_repr

Array = jax.Array

BATCH = 128
LEARNING_RATE = 2e-3  # at the start; it falls to 0 along a cosine
EPOCHS = 4
LEAST_STEPS = 300  # that few images are seen more often for


class ScorerFit(NamedTuple):
    """A fitted scorer and its quality on images that it was not trained on.

    Attributes:
      scorer: the scorer; its `function` is a `FittedFunction`.
      measure: name of the measure in `held_out`: "recall" for classes, "balanced accuracy" for
        yes/no attributes (mean of the shares of right answers among yes and among no), "R²" for
        numbers (share of the variance explained).
      held_out: measure on the held-out images for each name; NaN if they cannot tell.
      overall: accuracy for classes, otherwise the mean of `held_out` without NaN.
      baseline: value of `overall` for a guess without the image: share of the commonest class, 0.5,
        or 0.
      trained_rows: rows of the training images, ascending.
      held_out_rows: rows of the held-out images, ascending.
    """

    scorer: Scorer
    measure: str
    held_out: dict[str, float]
    overall: float
    baseline: float
    trained_rows: np.ndarray
    held_out_rows: np.ndarray

    __repr__ = short_repr


class ScorersFit(NamedTuple):
    """Two scorers of the same attributes, fitted on different images.

    Attributes:
      find: the scorer that finds directions.
      judge: the scorer that judges them.
    """

    find: ScorerFit
    judge: ScorerFit

    __repr__ = short_repr


def fit_scorer(
    key: Array,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    epochs: int | None = None,
    held_out: float = 0.1,
) -> ScorerFit:
    """Fits a scorer on labelled images: Adam on a small convolutional network.

    Args:
      key: PRNG key of initial parameters, order and held-out images; the same key gives the same
        scorer.
      images: images [N, H, W, C] of any size, uint8 or floating point in [-1, 1]. The network sees
        them at 16x16 or 32x32 if no side is longer, otherwise at 64x64.
      labels: integers [N] are classes, counted from 0: the scores are log-odds of each class,
        limited smoothly to ±6. Booleans [N, A] are yes/no attributes: the scores are log-odds of
        yes, limited in the same way. Floats [N, A] are numbers: the scores are estimates in the
        units of the labels.
      names: names of the classes or attributes.
      epochs: number of passes over the images; by default 4, or as many more as make 300 steps of
        128 images.
      held_out: share of the images that are not used for training, at most 0.5.

    Raises:
      ValueError: images or labels of other shapes, ranges or types; NaN; fewer than 20 images, one
        class only, a class or answer with fewer than 2 images; names that do not fit.

    >>> images = np.zeros((40, 16, 16, 1), np.uint8)
    >>> images[::2] = 255
    >>> fit = fit_scorer(jax.random.key(0), images, np.arange(40) % 2, epochs=40)
    >>> fit.scorer.names, fit.measure, fit.overall
    (('class 0', 'class 1'), 'recall', 1.0)
    """
    task = check_labels(labels, names, scorers=1)
    pixels = _prepare(images, task)
    key, order_key = jax.random.split(key)
    return _fit(key, pixels, task, _shuffle(order_key, task), epochs=epochs, held_out=held_out)


def fit_scorers(
    key: Array,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    epochs: int | None = None,
    held_out: float = 0.1,
) -> ScorersFit:
    """Fits two scorers, each on one half of the images, so that one can judge the other.

    Arguments and errors are those of `fit_scorer`, but at least twice as many images are needed:
    40, and 4 of each class or answer. Each scorer is measured on the held-out part of its own half.

    >>> import jax
    >>> import numpy as np
    >>> from sfvq_jax.interpret import fit_scorers
    >>> images = np.zeros((80, 16, 16, 1), np.uint8)
    >>> images[::2] = 255
    >>> fits = fit_scorers(jax.random.key(0), images, np.arange(80) % 2, epochs=40)
    >>> fits.find.overall, fits.judge.overall
    (1.0, 1.0)
    >>> np.intersect1d(fits.find.trained_rows, fits.judge.trained_rows).size
    0
    """
    task = check_labels(labels, names, scorers=2)
    pixels = _prepare(images, task)
    key, find_key, judge_key = jax.random.split(key, 3)
    order = _shuffle(key, task)
    return ScorersFit(
        _fit(find_key, pixels, task, order[::2], epochs=epochs, held_out=held_out),
        _fit(judge_key, pixels, task, order[1::2], epochs=epochs, held_out=held_out),
    )


def _prepare(images: np.ndarray, task: Task) -> np.ndarray:
    """Images as the network sees them, but uint8, since all of them are in memory at once."""
    images = check_images(images)
    if len(images) != len(task.targets):
        raise ValueError(f"there are {len(images)} images, but {len(task.targets)} labels")
    largest = max(images.shape[1:3])
    side = next((side for side in sorted(CHANNELS) if largest <= side), max(CHANNELS))
    if images.dtype == np.uint8 and images.shape[1:3] == (side, side):
        return images
    resize = jax.jit(functools.partial(resized, side=side))
    return in_batches(lambda batch: to_uint8(resize(_to_float(batch))), images, BATCH)


def _shuffle(key: Array, task: Task) -> np.ndarray:
    """All rows in random order, but classes one after the other: every k-th row has all classes."""
    order = np.asarray(jax.random.permutation(key, len(task.targets)))
    if task.kind == "classes":
        order = order[np.argsort(task.targets[order], kind="stable")]
    return order


def _fit(
    key: Array,
    pixels: np.ndarray,
    task: Task,
    rows: np.ndarray,
    *,
    epochs: int | None,
    held_out: float,
) -> ScorerFit:
    """Fits on some rows of the prepared images [N, side, side, C]."""
    if not 0 < held_out <= 0.5:
        raise ValueError(f"held_out is {held_out}; expected a share above 0 and up to 0.5")
    if epochs is not None and epochs < 1:
        raise ValueError(f"epochs is {epochs}; expected 1 or more")
    held_out_rows = np.sort(rows[:: round(1 / held_out)])
    trained_rows = np.setdiff1d(rows, held_out_rows)
    targets = task.targets
    offset, scale = np.zeros(len(task.names)), np.ones(len(task.names))
    if task.kind == "numbers":
        offset, deviation = targets[trained_rows].mean(0), targets[trained_rows].std(0)
        scale = np.where(deviation > 0, deviation, 1)
        targets = ((targets - offset) / scale).astype(np.float32)
    network = ScorerNetwork(pixels.shape[1], len(task.names))
    function = FittedFunction(
        params=_train(key, network, task.kind, pixels, targets, trained_rows, epochs),
        offset=jnp.asarray(offset, jnp.float32),
        scale=jnp.asarray(scale, jnp.float32),
        kind=task.kind,
        side=network.side,
        channels=pixels.shape[3],
    )
    scorer = Scorer.of(function, task.names, function.threshold)
    held_out_task = task._replace(targets=task.targets[held_out_rows])
    return ScorerFit(
        scorer,
        MEASURES[task.kind],
        *_measure(scorer, pixels[held_out_rows], held_out_task),
        trained_rows,
        held_out_rows,
    )


def _train(
    key: Array,
    network: ScorerNetwork,
    kind: str,
    pixels: np.ndarray,
    targets: np.ndarray,
    rows: np.ndarray,
    epochs: int | None,
) -> dict:
    """The network's parameters; steps are dispatched singly, as scanned convolutions crawl on CPU.

    The last images of an epoch that fill no batch are left out, so that one program serves all.
    """
    batch = min(BATCH, len(rows))
    epoch_steps = len(rows) // batch
    if epochs is None:
        epochs = max(EPOCHS, math.ceil(LEAST_STEPS / epoch_steps))
    steps = epochs * epoch_steps
    init_key, order_key = jax.random.split(key)
    params = _init(network, init_key, jnp.zeros((1, *pixels.shape[1:])))["params"]
    state = optax.scale_by_adam().init(params)
    order = rows
    for step in range(steps):
        epoch, i = divmod(step, epoch_steps)
        if i == 0:
            order = np.asarray(jax.random.permutation(jax.random.fold_in(order_key, epoch), rows))
        chosen = order[i * batch : (i + 1) * batch]
        rate = np.float32(LEARNING_RATE * (1 + math.cos(math.pi * step / steps)) / 2)
        x, y = pixels[chosen], targets[chosen]
        params, state = _step(network, kind, params, state, rate, x, y)
    return params


_init = jax.jit(ScorerNetwork.init, static_argnums=0)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _step(network, kind, params, state, rate, pixels, targets):
    def loss(params):
        outputs, _ = network.apply({"params": params}, _to_float(pixels))
        if kind == "classes":
            return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()
        if kind == "yes/no":
            return optax.sigmoid_binary_cross_entropy(outputs, targets).mean()
        return ((outputs - targets) ** 2).mean()

    with jax.numpy_dtype_promotion("standard"):  # Adam counts steps in integers
        updates, state = optax.scale_by_adam().update(jax.grad(loss)(params), state)
    return jax.tree.map(lambda p, u: p - rate * u, params, updates), state


def _measure(scorer: Scorer, pixels: np.ndarray, task: Task) -> tuple[dict, float, float]:
    """`held_out`, `overall` and `baseline` of a `ScorerFit`, of prepared images."""
    scores = in_batches(lambda batch: _score(scorer, _to_float(batch)), pixels, BATCH)
    if task.kind == "classes":
        right = scores.argmax(1) == task.targets
        recalls = [_mean(right[task.targets == i]) for i in range(len(task.names))]
        commonest = np.bincount(task.targets).max() / len(task.targets)
        return dict(zip(task.names, recalls, strict=True)), _mean(right), float(commonest)
    measures = {}
    for name, column, target in zip(task.names, scores.T, task.targets.T, strict=True):
        if task.kind == "yes/no":
            yes = target > 0
            measures[name] = (_mean(column[yes] > 0) + _mean(column[~yes] <= 0)) / 2
        else:
            variance = target.var()
            error = ((column - target) ** 2).mean()
            measures[name] = float(1 - error / variance) if variance else math.nan
    known = np.array([value for value in measures.values() if not math.isnan(value)])
    return measures, _mean(known), 0.5 if task.kind == "yes/no" else 0.0


_score = jax.jit(Scorer.__call__)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _to_float(images):
    """uint8 images to float32 in [-1, 1], others to float32."""
    numbers = images.astype(np.float32)
    return numbers / 127.5 - 1 if images.dtype == np.uint8 else numbers
