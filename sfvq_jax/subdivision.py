"""Starts, and from M to 2M codewords: by occurrence, or as published.

All are sums over samples but for one thing: samples are put in order along a line. Over the axis of
`shard_map` or `pmap` the coordinates of all samples, a few numbers each, are gathered for that.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sfvq_jax.curve import Curve, check_curve, curve_length, decode, padded, tied, wide
from sfvq_jax.projection import WHOLE, Search, check_width
from sfvq_jax.sums import by_row, on_each, sum_over, weights_of

Array = jax.Array

SUBDIVISION_OFFSET = 0.01  # epsilon of the published example
START_CODEWORDS = 4
POWER_STEPS = 24  # to the first principal axis
MOST_EXPONENT = 120  # of a power of two that has an inverse in float32


def initial_curve(
    x: Array, weight: Array | None = None, key: Array | None = None, axis: str | None = None
) -> Curve:
    """Four codewords to start from: the means of four equal groups of the samples.

    The groups are quarters of the samples sorted by norm (Vali & Bäckström, Interspeech 2023). If
    the data is centred on the origin, all four means may fall near its centre. Then the samples are
    sorted along their first principal axis. This happens if the curve by norm has less than a
    quarter of the other one's length, or is within twice the noise of such means.

    Args:
      x: samples, [N, D], N >= 4.
      weight: weight of each sample, [N]; 0 leaves it out. 1 by default.
      key: PRNG key of an extra random weight for each sample (Rubin's Bayesian bootstrap, 1981), so
        that another key gives another start that is as likely; None means no random weights.
      axis: name of the axis over which the samples are divided.

    >>> import jax
    >>> initial_curve(jax.random.normal(jax.random.key(0), (256, 8))).codewords.shape
    (4, 8)
    """
    if not hasattr(x, "ndim"):
        raise TypeError(f"x is a {type(x).__name__}; expected an array [N, D], as np.asarray gives")
    if x.ndim != 2 or x.shape[0] < START_CODEWORDS:
        raise ValueError(f"x has shape {x.shape}; expected samples of shape [N, D] with N >= 4")
    x = jnp.asarray(x, jnp.result_type(float)) if x.dtype.kind in "iub" else wide(x)
    weight = weights_of(x, weight)
    number = sum_over(axis, jnp.sum(weight > 0, dtype=jnp.int32)).astype(x.dtype)
    if key is not None:
        weight = weight * _by_sample(jax.random.exponential, key, weight, axis)
    weight = _shares(weight, axis)
    mean, unit = _location(x, weight, axis)
    y = (x - mean) * unit  # its squares are in the range of the dtype, whatever the unit of x
    along = jnp.matmul(y, _principal_axis(y, weight, axis), precision="highest")
    by_axis = _group_means(along, y, weight, axis)
    norm = jnp.sum((x * _unit(jnp.abs(x).max(1), weight, axis)) ** 2, 1)
    by_norm = _group_means(norm, y, weight, axis)
    spread = sum_over(axis, jnp.sum(weight * jnp.sum(y**2, 1)))
    noise = 3 * jnp.sqrt(8 / number * spread)
    enough = jnp.maximum(0.25 * curve_length(by_axis), 2 * noise)
    found = jnp.where(curve_length(by_norm) > enough, by_norm.codewords, by_axis.codewords)
    return Curve(found / unit + mean)


def occurrence(
    curve: Curve,
    size: Array | int,
    x: Array,
    weight: Array,
    axis: str | None = None,
    search: Search = WHOLE,
) -> Curve:
    """`size` codewords: the means of groups of equal weight along the curve.

    Occurrence normalisation (Vali & Bäckström, Interspeech 2024). Order is kept, and every new
    codeword has samples. The samples at a corner, where many have one position, go by their
    coordinate along the curve.

    Args:
      curve: in at least `size` rows.
      size: may be traced.
      x: samples, [N, D].
      weight: of each, [N]; 0 leaves it out.
      axis: name of the axis over which the samples are divided.
      search: how samples find their places.
    """
    codewords = wide(curve.codewords)
    x = jnp.asarray(x, codewords.dtype)
    weight = _shares(weights_of(x, weight), axis)
    curve = Curve(codewords, jnp.asarray(curve.num_codewords, jnp.int32))
    line, t, _ = search.point(curve, x)
    corner = line + (t > 0.5).astype(line.dtype)
    step = jnp.diff(codewords, axis=0)
    step = step / jnp.maximum(jnp.linalg.norm(step, axis=1, keepdims=True), 1e-30)
    tangent = jnp.pad(step, ((1, 0), (0, 0))) + jnp.pad(step, ((0, 1), (0, 0)))
    along = jnp.sum((x - codewords[corner]) * tangent[corner], 1)
    at_corner = (t <= 0) | (t >= 1)
    place = jnp.where(at_corner, 2 * corner, 2 * line + 1).astype(jnp.int32)
    group = _equal_groups((place, jnp.where(at_corner, along, t)), weight, size, axis)
    rows = codewords.shape[0]
    # from their mean, since the moments of far data would lose their digits
    origin = sum_over(axis, by_row(_zeros(x), weight, x, 1))
    load = jnp.zeros_like(x, shape=(rows,)).at[group].add(weight)
    load, moment = sum_over(axis, (load, by_row(group, weight, x - origin, rows)))
    # more codewords than samples: what is left over lies on the old curve
    share = jnp.arange(rows, dtype=x.dtype) / jnp.asarray(size - 1, x.dtype)
    on_curve = decode(curve, share * jnp.asarray(curve.num_lines, x.dtype))
    means = moment / jnp.where(load > 0, load, 1)[:, None] + origin
    return tied(jnp.where(load[:, None] > 0, means, on_curve), size)


def resample(curve: Curve, x: Array, num_codewords: int, *, weight: Array | None = None) -> Curve:
    """Changes the number of codewords of a curve; each new codeword gets equally many samples.

    New codewords are means of groups of equal weight along the curve (equation 9 of
    docs/explanation/equations.md), so one trained curve serves every bitrate. The order of the
    samples stays the same. A new fit would be nearer to the samples, but would be another curve.

    Args:
      curve: a curve of K codewords.
      x: samples, [N, D]; some dozens for each codeword.
      num_codewords: number of codewords of the result, from 2 to the number of samples.
      weight: weight of each sample, [N]; 1 by default.

    Raises:
      ValueError: a number of codewords below 2 or above that of samples; other shapes.

    >>> import jax
    >>> curve = Curve(jnp.array([[0.0, 0.0], [1.0, 0.0]]))
    >>> x = jax.random.uniform(jax.random.key(0), (1024, 2))
    >>> resample(curve, x, 5).codewords.shape
    (5, 2)
    """
    check_width(curve, x)
    if not 2 <= num_codewords <= x.shape[0]:
        raise ValueError(
            f"num_codewords is {num_codewords}; expected 2 or more, and no more than the"
            f" {x.shape[0]} samples"
        )
    rows = padded(curve, max(num_codewords, curve.codewords.shape[0]))
    found = occurrence(rows, num_codewords, x, weights_of(x, weight))
    return Curve(found.codewords[:num_codewords].astype(curve.codewords.dtype))


def subdivide(curve: Curve, size: Array | int | None = None) -> Curve:
    """Doubles the codewords of a curve; all new ones lie on the old curve.

    Each codeword i becomes a pair: positions (i, i + 0.01) in the first half of the indices and
    (i - 0.01, i) in the second (the public example of Vali & Bäckström).

    Args:
      curve: K codewords.
      size: None gives 2K rows. A number from 2 to the number of rows, which may be traced, keeps
        the rows as they are; if it is below 2K, some of the 2K codewords are left out, evenly.

    >>> curve = Curve(jnp.array([[0.0], [1.0], [2.0]]))
    >>> subdivide(curve).codewords.shape
    (6, 1)
    """
    check_curve(curve)
    if isinstance(size, int | float | np.number) and not (
        int(size) == size and 2 <= size <= curve.codewords.shape[0]
    ):
        raise ValueError(
            f"size is {size!r}; expected a whole number from 2 to {curve.codewords.shape[0]}, the"
            " rows of the curve"
        )
    if size is None:
        k = curve.codewords.shape[0]
        return Curve(subdivide(padded(curve, 2 * k), 2 * k).codewords)
    dtype = wide(curve.codewords).dtype
    count = jnp.asarray(curve.num_codewords, jnp.int32)
    ratio = (2 * count).astype(dtype) / jnp.asarray(size, dtype)
    row = jnp.arange(curve.codewords.shape[0], dtype=dtype) * ratio
    row = row.astype(jnp.int32)
    index = row // 2
    offset = jnp.where(2 * index < count, row % 2, row % 2 - 1)
    position = index.astype(dtype) + SUBDIVISION_OFFSET * offset.astype(dtype)
    return tied(decode(curve, position), size)


def _shares(weight: Array, axis: str | None) -> Array:
    """Weights [N] whose sum over all shards is 1, however small or large they were."""
    largest = weight.max()
    largest = largest if axis is None else lax.pmax(largest, axis)
    weight = weight / jnp.where(largest > 0, largest, 1)
    total = sum_over(axis, weight.sum())
    return weight / jnp.where(total > 0, total, 1)


def _location(x: Array, weight: Array, axis: str | None) -> tuple[Array, Array]:
    """The mean [1, D], and the unit of what differs from it."""
    mean = sum_over(axis, by_row(_zeros(x), weight, x, 1))
    mean = mean + sum_over(axis, by_row(_zeros(x), weight, x - mean, 1))  # digits of far data
    return mean, _unit(jnp.abs(x - mean).max(1), weight, axis)


def _unit(size: Array, weight: Array, axis: str | None) -> Array:
    """A power of two that takes the largest of sizes [N] to about 1."""
    largest = jnp.max(jnp.where(weight > 0, size, 0))
    largest = largest if axis is None else lax.pmax(largest, axis)
    exponent = jnp.clip(jnp.frexp(largest)[1], -MOST_EXPONENT, MOST_EXPONENT)
    return jnp.ldexp(jnp.ones((), size.dtype), -exponent)


def _principal_axis(centred: Array, weight: Array, axis: str | None) -> Array:
    """The direction of the greatest variance, [D]: a few power steps, no [D, D] matrix."""
    start = np.random.default_rng(0).normal(size=centred.shape[1]).astype(centred.dtype)

    def power(_: Array, v: Array) -> Array:
        along = jnp.matmul(centred, on_each(axis, v), precision="highest")
        v = sum_over(axis, jnp.matmul(weight * along, centred, precision="highest"))
        return v / jnp.maximum(jnp.linalg.norm(v), 1e-30)

    return lax.fori_loop(0, POWER_STEPS, power, jnp.asarray(start / np.linalg.norm(start)))


def _group_means(value: Array, x: Array, weight: Array, axis: str | None) -> Curve:
    group = _equal_groups((value,), weight, START_CODEWORDS, axis)
    load = jnp.zeros_like(x, shape=(START_CODEWORDS,)).at[group].add(weight)
    load, moment = sum_over(axis, (load, by_row(group, weight, x, START_CODEWORDS)))
    return Curve(moment / jnp.where(load > 0, load, 1)[:, None])


def _equal_groups(
    keys: tuple[Array, ...], weight: Array, size: Array | int, axis: str | None
) -> Array:
    """Groups 0 … size - 1 of equal weight, [N] int32, in the order of the keys [N].

    Of equal keys the first sample comes first; a sample goes where the middle of its weight lies.
    """
    n, first = weight.shape[0], 0
    if axis is not None:
        first = lax.axis_index(axis) * n
        keys, weight = lax.all_gather((keys, weight), axis, tiled=True)
    index = jnp.arange(weight.shape[0], dtype=jnp.int32)
    order = lax.sort((*keys, index), num_keys=len(keys))[-1]
    until = jnp.cumsum(weight[order])
    middle = until - weight[order] / 2
    share = middle / jnp.maximum(until[-1], 1e-30) * jnp.asarray(size, weight.dtype)
    group = jnp.clip(share.astype(jnp.int32), 0, size - 1)
    return lax.dynamic_slice_in_dim(jnp.zeros_like(order).at[order].set(group), first, n)


def _by_sample(draw, key: Array, weight: Array, axis: str | None) -> Array:
    """A random number for each sample, [N]: the same wherever it lies and whatever pads it."""
    number = sample_numbers(weight, axis)
    return jax.vmap(lambda i: draw(jax.random.fold_in(key, i), (), weight.dtype))(number)


def sample_numbers(weight: Array, axis: str | None = None) -> Array:
    """Each sample's number among those of weight above 0, over all shards, [N] int32."""
    present = (weight > 0).astype(jnp.int32)
    before = 0
    if axis is not None:
        counts = lax.all_gather(present.sum(dtype=jnp.int32), axis)
        earlier = jnp.arange(len(counts), dtype=jnp.int32) < lax.axis_index(axis)
        before = jnp.sum(jnp.where(earlier, counts, 0), dtype=jnp.int32)
    return jnp.cumsum(present, dtype=jnp.int32) - present + before


def _zeros(x: Array) -> Array:
    return jnp.zeros_like(x[:, 0], jnp.int32)
