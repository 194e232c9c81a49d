"""A quantiser to train inside a network, as pure functions of its codebook and of its upkeep.

In training every sample goes to the curve (or to its nearest codeword), and a gradient goes around
the quantiser. Beside it the layer keeps some recent samples and how much each line is used. With
them it begins, once there are enough; doubles its codewords, if it is told to; and takes out
codewords that no recent sample is nearest to, where others are split: in order, so that the curve
is never broken. Such a change must not wait for an optimizer, nor be undone by one: the codebook in
use is a trained array plus an offset, and only the offset is changed.

Letters: N samples, D dimensions, K codewords, R recent samples.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sfvq_jax.curve import Curve, padded, tied
from sfvq_jax.dither import nearest_dithered
from sfvq_jax.layers.gradients import (
    GRADIENTS,
    through_noise,
    through_point,
    toward_ends,
    toward_point,
)
from sfvq_jax.moves import reseed
from sfvq_jax.projection import nearest_codeword, project
from sfvq_jax.subdivision import START_CODEWORDS, initial_curve, occurrence
from sfvq_jax.sums import sum_over

Array = jax.Array

LEAST_RECENT = 1024
RECENT_A_CODEWORD = 8
WINDOW_A_CODEWORD = 64
UNUSED = 0.01  # of the mean use of a line; what is used less is not used


class Quantised(NamedTuple):
    """Result of a quantiser for samples x [..., D].

    Attributes:
      value: input of the next layer, in the dtype of x, [..., D]. In training it lies at the
        nearest of one random point on each line (or at the nearest codeword), or as far from x as
        that point. Otherwise it is the nearest point of the curve. Until the quantiser begins, it
        is x.
      position: line + fraction, or the number of a codeword; float32 [...].
      squared_distance: |x - point|², float32 [...].
      loss: loss to add to that of the network with "ste", otherwise 0; a scalar. With p the points
        and β the commitment, it is the mean over samples and dimensions of
        |sg(x) - p|² + β |x - sg(p)|² (van den Oord et al., 2017, eq. 3).
      perplexity: exp of the entropy of the use of lines (or codewords) over the last samples of
        training, a scalar; 0 until the quantiser begins.
      used: share of the lines (or codewords) that these samples use, a scalar.
      dead: number of codewords that belong to no used line; int32 [].
    """

    value: Array
    position: Array
    squared_distance: Array
    loss: Array
    perplexity: Array
    used: Array
    dead: Array


class Upkeep(NamedTuple):
    """State of a quantiser beside its codebook, from step to step.

    Attributes:
      offset: offset that is added to the trained codebook, float32 [K, D].
      size: number of codewords in use, int32 []; 0 until the quantiser begins.
      steps: number of training steps, int32 []; after the begin, since the last change of size.
      since: number of samples since the last search for dead codewords, float32 [].
      use: fading count of samples at each line (or codeword), float32 [K - 1] (or [K]).
      recent: recent samples, float32 [R, D].
      weight: 1 for rows of `recent` that hold a sample, otherwise 0; float32 [R].
      place: row of `recent` for the next sample, int32 [].
    """

    offset: Array
    size: Array
    steps: Array
    since: Array
    use: Array
    recent: Array
    weight: Array
    place: Array


@dataclasses.dataclass
class Settings:
    """Settings of a quantiser and of its Flax layers.

    Attributes:
      num_codewords: number of codewords K, 4 or more.
      gradient: "ste", "nsvq", "diveq" or "sf_diveq" (`sfvq_jax.layers.gradients`).
      lines: whether points between codewords are used; if not, it is a plain vector quantiser, for
        which "sf_diveq" makes no sense.
      noise: standard deviation of the noise of "diveq" and "sf_diveq"; 0 is their detached form.
      commitment: β of "ste".
      skip: number of training steps without quantising, while the network still changes much.
        After them the quantiser begins, with codewords in order, from recent samples.
      doubling: number of training steps before the codewords are doubled, starting from 4; 0 starts
        with all codewords, as SF-DiVeQ does.
      recent: number R of recent samples that are kept; by default 8 K, at least 1024.
      window: number of samples over which use is measured, and between two searches for dead
        codewords; by default 64 K.
      axis_name: name of the axis of `shard_map` or `pmap` over which samples are divided.
    """

    num_codewords: int
    gradient: str = "sf_diveq"
    lines: bool = True
    noise: float = 1e-3
    commitment: float = 0.25
    skip: int = 0
    doubling: int = 0
    recent: int | None = None
    window: int | None = None
    axis_name: str | None = None


@dataclasses.dataclass(unsafe_hash=True)
class Quantiser(Settings):
    __doc__ = f"""Space-filling vector quantisation inside a network: `init`, then call it.

    {Settings.__doc__}
    >>> import jax.numpy as jnp
    >>> from sfvq_jax.layers import Quantiser
    >>> codebook = jnp.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [4.0, 2.0]])
    >>> quantiser = Quantiser(num_codewords=4)
    >>> upkeep = quantiser.init(latent_dim=2)._replace(size=jnp.int32(4))  # as if it had begun
    >>> found, upkeep = quantiser(codebook, upkeep, jnp.array([[1.0, 1.0], [2.5, 3.0]]))
    >>> found.value.tolist(), found.position.tolist()
    ([[1.0, 0.0], [2.5, 2.0]], [0.5, 2.25])
    """

    def __post_init__(self) -> None:
        if self.num_codewords < START_CODEWORDS:
            raise ValueError(
                f"num_codewords is {self.num_codewords}; expected {START_CODEWORDS} or more"
            )
        if self.gradient not in GRADIENTS:
            raise ValueError(
                f"gradient is {self.gradient!r}; expected one of {', '.join(GRADIENTS)}"
            )
        if self.gradient == "sf_diveq" and not self.lines:
            raise ValueError('without lines gradient is "ste", "nsvq" or "diveq"')
        least = {"noise": 0, "commitment": 0, "skip": 0, "doubling": 0, "recent": 4, "window": 1}
        for name, value in least.items():
            found = getattr(self, name)
            if found is not None and not found >= value:
                raise ValueError(f"{name} is {found}; expected {value} or more")

    @property
    def random(self) -> bool:
        """Whether training needs a key."""
        return self.gradient != "ste" and (self.lines or self.gradient == "nsvq" or self.noise > 0)

    def init(self, latent_dim: int) -> Upkeep:
        """The state before training, for samples of `latent_dim` dimensions."""
        k = self.num_codewords
        rows = max(RECENT_A_CODEWORD * k, LEAST_RECENT) if self.recent is None else self.recent
        zero = jnp.zeros((), jnp.int32)
        return Upkeep(
            offset=jnp.zeros((k, latent_dim), jnp.float32),
            size=zero,
            steps=zero,
            since=jnp.zeros((), jnp.float32),
            use=jnp.zeros(k - self.lines, jnp.float32),
            recent=jnp.zeros((rows, latent_dim), jnp.float32),
            weight=jnp.zeros(rows, jnp.float32),
            place=zero,
        )

    def __call__(
        self,
        codebook: Array,
        upkeep: Upkeep,
        x: Array,
        *,
        key: Array | None = None,
        mask: Array | None = None,
        train: bool = False,
    ) -> tuple[Quantised, Upkeep]:
        """Quantises samples; in training it also maintains the codebook.

        Args:
          codebook: the trained codebook, float32 [K, D].
          upkeep: state from `init`, or from the last step of training.
          x: samples, [..., D]; computed in float32.
          key: PRNG key for training, except for "ste" and some plain quantisers (`random`); the
            same on all devices.
          mask: [...] bool; samples where it is False are left out.
          train: whether this is a training step. If not, the nearest points are exact, and the
            state does not change.

        Raises:
          ValueError: shapes that do not fit, or a missing key.
        """
        _check(self, codebook, x, key, mask, train)
        rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
        weight = jnp.ones_like(rows[:, 0]) if mask is None else mask.reshape(-1).astype(rows.dtype)
        begun = upkeep.size > 0
        curve = _curve(codebook, upkeep)
        point_key, noise_key = (None, None) if key is None else jax.random.split(key)
        at = self._nearest(curve, rows, point_key if train else None)
        value = self._value(rows, at, noise_key) if train else at.point
        value = jnp.where(begun, value, rows).reshape(x.shape).astype(x.dtype)
        loss = jnp.zeros((), jnp.float32)
        if self.gradient == "ste":
            loss = jnp.where(begun, self._loss(rows, at.point, weight), 0)
        if train:
            counted = self._counted(upkeep, at.line, lax.stop_gradient(rows), weight)
            upkeep = self._changed(lax.stop_gradient(codebook), counted)
        squared = jnp.where(begun, jnp.sum((rows - at.point) ** 2, 1), 0)
        position = jnp.where(begun, at.line.astype(jnp.float32) + at.fraction, 0)
        shape = x.shape[:-1]
        found = Quantised(
            value, position.reshape(shape), squared.reshape(shape), loss, *self._told(upkeep)
        )
        return found, upkeep

    def _nearest(self, curve: Curve, x: Array, key: Array | None) -> "_Nearest":
        """The points that samples [N, D] go to; with a key, among one random point a line."""
        fixed = jax.tree.map(lax.stop_gradient, curve)
        samples = lax.stop_gradient(x)
        if not self.lines:
            line = nearest_codeword(fixed, samples)
            point = curve.codewords[line]
            return _Nearest(line, jnp.zeros_like(x[:, 0]), point, point, point)
        if key is None or self.gradient == "ste":
            line, fraction, _ = project(fixed, samples)
        else:
            ratios = jax.random.uniform(key, (self.num_codewords - 1,))
            line, fraction, _ = nearest_dithered(fixed, samples, ratios)
        first, second = curve.codewords[line], curve.codewords[line + 1]
        point = (1 - fraction[:, None]) * first + fraction[:, None] * second
        return _Nearest(line, fraction, first, second, point)

    def _value(self, x: Array, at: "_Nearest", key: Array | None) -> Array:
        if self.gradient == "ste":
            return through_point(x, at.point)
        if self.gradient == "nsvq":
            return through_noise(x, at.point, self._noise(key, x, 0))
        if self.gradient == "diveq":
            return toward_point(x, at.point, self.noise * self._noise(key, x, 0))
        noise = tuple(self.noise * self._noise(key, x, i) for i in (1, 2))
        return toward_ends(x, at.first, at.second, at.fraction, noise)  # pyright: ignore

    def _noise(self, key: Array | None, x: Array, number: int) -> Array:
        """Of a sample the same, wherever it lies."""
        if key is None or (self.gradient != "nsvq" and self.noise == 0):
            return jnp.zeros_like(x)
        key = jax.random.fold_in(key, number)
        index = jnp.arange(len(x), dtype=jnp.uint32)
        if self.axis_name is not None:
            index += lax.axis_index(self.axis_name).astype(jnp.uint32) * len(x)
        draw = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), x.shape[1:]))
        return draw(index)

    def _loss(self, x: Array, point: Array, weight: Array) -> Array:
        toward_x = jnp.sum((lax.stop_gradient(x) - point) ** 2, 1)
        toward_points = jnp.sum((x - lax.stop_gradient(point)) ** 2, 1)
        errors = weight * (toward_x + self.commitment * toward_points)
        error, number = sum_over(self.axis_name, (errors.sum(), weight.sum()))
        return error / jnp.maximum(number, 1) / x.shape[1]

    def _counted(self, upkeep: Upkeep, line: Array, x: Array, weight: Array) -> Upkeep:
        """With one more batch."""
        counts = jnp.zeros_like(upkeep.use, shape=upkeep.use.shape).at[line].add(weight)
        counts, number = sum_over(self.axis_name, (counts, weight.sum()))
        # as if the batch came in many small ones, so that its size does not matter
        part = number / self._window
        faded = jnp.where(part > 0, -jnp.expm1(-part) / jnp.maximum(part, 1e-6), 1)
        use = jnp.exp(-part) * upkeep.use + jnp.where(upkeep.size > 0, faded * counts, 0)
        shards = 1 if self.axis_name is None else lax.axis_size(self.axis_name)
        rows = len(upkeep.weight)
        step = -(-len(x) * shards // rows)  # of all samples, so many at most
        x, weight = x[::step], weight[::step]
        if self.axis_name is not None:
            x, weight = (_all_gathered(part, self.axis_name) for part in (x, weight))
        index = (upkeep.place + jnp.arange(len(x), dtype=jnp.int32)) % rows
        return upkeep._replace(
            steps=upkeep.steps + 1,
            since=upkeep.since + number,
            use=use,
            recent=upkeep.recent.at[index].set(x),
            weight=upkeep.weight.at[index].set(weight),
            place=(upkeep.place + len(x)) % rows,
        )

    @property
    def _window(self) -> int:
        return WINDOW_A_CODEWORD * self.num_codewords if self.window is None else self.window

    def _changed(self, codebook: Array, upkeep: Upkeep) -> Upkeep:
        """With the codebook begun, doubled or looked after, where it is time."""
        look_after = max(self._window, len(upkeep.weight))
        return _changed(codebook, upkeep, self.skip, self.doubling, look_after)

    def _told(self, upkeep: Upkeep) -> tuple[Array, Array, Array]:
        """Perplexity, share of the lines or codewords that are used, and dead codewords."""
        number = (upkeep.size - int(self.lines)).astype(jnp.float32)
        total = upkeep.use.sum()
        share = upkeep.use / jnp.maximum(total, 1e-30)
        entropy = -jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.maximum(share, 1e-30)), 0))
        used = share * number > UNUSED
        at = used
        if self.lines:  # a codeword is at both of its lines
            at = jnp.pad(used, (0, 1)) | jnp.pad(used, (1, 0))
        known = total > 0
        real = jnp.arange(self.num_codewords, dtype=jnp.int32) < upkeep.size
        dead = jnp.sum(real & ~at & known, dtype=jnp.int32)
        return (
            jnp.where(known, jnp.exp(entropy), 0),
            used.sum(dtype=jnp.float32) / jnp.maximum(number, 1),
            dead,
        )


class _Nearest(NamedTuple):
    """Of samples [N]: line, fraction, both ends of the line and the point on it, [N, D] each."""

    line: Array
    fraction: Array
    first: Array
    second: Array
    point: Array


def curve_of(params: Mapping[str, Any], stats: Mapping[str, Any]) -> Curve:
    """The curve of a trained layer, for `save_curve`, maps and measures.

    Args:
      params: parameters of the layer, with its "codebook", float32 [K, D].
      stats: collection "batch_stats" of the layer, with "offset", float32 [K, D], and "size",
        int32 [].

    Returns:
      The curve of the codewords in use, float32.

    Raises:
      ValueError: the layer has not begun to quantise.

    >>> import jax.numpy as jnp
    >>> from sfvq_jax.layers import curve_of
    >>> params = {"codebook": jnp.zeros((8, 2))}
    >>> stats = {"offset": jnp.ones((8, 2)), "size": jnp.int32(4)}  # 4 of 8 codewords until now
    >>> curve_of(params, stats).codewords.shape
    (4, 2)
    """
    size = int(stats["size"])
    if size == 0:
        raise ValueError(
            "the layer has not begun to quantise: train it for more steps than `skip`, on as many"
            " samples as `recent`, and keep what it updates in batch_stats"
        )
    return Curve((params["codebook"] + stats["offset"])[:size])


@jax.jit
def _changed(
    codebook: Array, upkeep: Upkeep, skip: Array, doubling: Array, window: Array
) -> Upkeep:
    """See `Quantiser._changed`; compiled once for all settings."""
    k = len(codebook)
    begin = (upkeep.size == 0) & (upkeep.steps >= skip) & (upkeep.since >= len(upkeep.weight))
    double = (upkeep.size > 0) & (upkeep.size < k) & (upkeep.steps >= doubling)
    look = (upkeep.size > 0) & (upkeep.since >= window)

    def stay() -> tuple[Array, Array]:
        return codebook + upkeep.offset, upkeep.size

    def begun() -> tuple[Array, Array]:
        size = jnp.where(doubling > 0, START_CODEWORDS, k).astype(jnp.int32)

        def doubled(i: Array, curve: Curve) -> Curve:
            larger = jnp.minimum(START_CODEWORDS << (i + 1), size)
            return occurrence(curve, larger, upkeep.recent, upkeep.weight)

        start = padded(initial_curve(upkeep.recent, upkeep.weight), k)
        rounds = math.ceil(math.log2(k / START_CODEWORDS))
        curve = lax.fori_loop(0, jnp.where(doubling > 0, 0, rounds), doubled, start)
        return tied(curve.codewords, size).codewords, size

    def doubled() -> tuple[Array, Array]:
        size = jnp.minimum(2 * upkeep.size, k)
        curve = _curve(codebook, upkeep)
        return occurrence(curve, size, upkeep.recent, upkeep.weight).codewords, size

    def reseeded() -> tuple[Array, Array]:
        curve = _curve(codebook, upkeep)
        proposal = reseed(curve, upkeep.recent, upkeep.weight)
        new = jnp.where(proposal.worthwhile, proposal.curve.codewords, curve.codewords)
        return new, upkeep.size

    # a change that does not come costs nothing
    branch = jnp.where(begin, 1, jnp.where(double, 2, jnp.where(look, 3, 0)))
    codewords, size = lax.switch(branch, [stay, begun, doubled, reseeded])
    resized = begin | double
    return upkeep._replace(
        offset=codewords - codebook,
        size=size,
        steps=jnp.where(resized, 0, upkeep.steps),
        since=jnp.where(branch > 0, 0, upkeep.since),
        # other lines than before, but for a few where codewords were dead
        use=jnp.where(resized, 0, upkeep.use),
    )


def _curve(codebook: Array, upkeep: Upkeep) -> Curve:
    """In use; of two codewords at least, also before it begins."""
    return tied(codebook + lax.stop_gradient(upkeep.offset), jnp.maximum(upkeep.size, 2))


def _all_gathered(x: Array, axis: str) -> Array:
    """Rows of all shards, one after the other; a sum, of which it is known that all have it."""
    shards = lax.axis_size(axis)
    rows = jnp.zeros((shards, *x.shape), x.dtype).at[lax.axis_index(axis)].set(x)
    return lax.psum(rows, axis).reshape(-1, *x.shape[1:])


def _check(
    quantiser: Quantiser,
    codebook: Array,
    x: Array,
    key: Array | None,
    mask: Array | None,
    train: bool,
) -> None:
    k, d = codebook.shape
    if x.ndim == 0 or x.shape[-1] != d or 0 in x.shape:
        raise ValueError(f"x has shape {x.shape}; expected samples [..., {d}]")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x is {x.dtype}; expected floating point numbers")
    if k != quantiser.num_codewords:
        raise ValueError(f"the codebook has {k} rows; expected {quantiser.num_codewords}")
    if mask is not None and mask.shape != x.shape[:-1]:
        raise ValueError(f"the mask has shape {mask.shape}; expected {x.shape[:-1]}")
    if train and key is None and quantiser.random:
        raise ValueError(
            f'gradient "{quantiser.gradient}" takes a key in training: pass key=, or to a layer of'
            ' Flax rngs with the stream "quantiser"'
        )
