"""What a fit measures with, and the span that it finds by it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from sfvq_jax.blocks import sample
from sfvq_jax.devices import replicate
from sfvq_jax.rows.samplers import check_differ
from sfvq_jax.rows.source import Block, Source, finite_rows, key_of
from sfvq_jax.span import OUTSIDE, Span, find_span

Array = jax.Array

MEASURING_SAMPLES = 2**13  # at least, where there are as many
MEASURING_A_CODEWORD = 16
MEASURING_FLOATS = 2**26  # of more than the least number, at most 256 MiB
HOLD_OUT = 8  # measuring samples are held out where there are so many times as many latents
SMALLEST = 1e-17  # differences below it have squares that float32 hardly knows


class Measuring(NamedTuple):
    """What a fit measures with.

    Attributes:
      block: measuring samples, on every device.
      name: what they are.
      source: that a fit then reads.
      distinct: how many of them differ, or the number of codewords if no fewer do.
      rows: their numbers in the source, once asked for; None where they have none.
    """

    block: Block
    name: str
    source: Source
    distinct: int
    rows: Callable[[], np.ndarray | None]


def measuring_samples(key: Array, source: Source, size: int, mesh: Mesh) -> Measuring:
    """A whole small source; some of others, held out of the rounds if there are enough."""
    more = min(MEASURING_A_CODEWORD * size, MEASURING_FLOATS // source.latent_dim)
    wanted, n = max(MEASURING_SAMPLES, more), source.num_latents
    block = sample(source, key, wanted, mesh)
    present = np.asarray(block.weight) > 0
    _check_samples(np.asarray(block.x), present)
    count = int(present.sum())
    if count < min(size, wanted):
        raise ValueError(
            f"{count} latents, those of weight 0 left out, are fewer than the {size} codewords:"
            " give more latents or fewer bits"
        )
    some = np.asarray(block.x)[present] if count < len(present) else np.asarray(block.x)
    distinct = min(_distinct(some, size), size)

    def measuring(name: str, rest: Source = source) -> Measuring:
        def rows() -> np.ndarray | None:
            if n is not None and n <= wanted:
                return np.arange(n)
            return source.numbers(key, wanted)

        return Measuring(block, name, rest, distinct, rows)

    if n is None and not source.per_process:
        if source.on_device:
            check_differ(block.x, sample(source, key_of(key, 0), wanted, mesh).x)
        return measuring(f"{count} fresh draws")
    if n is None:
        return measuring(f"the first {count} latents, which were fitted too")
    if n <= wanted:
        return measuring(f"all {count} latents, which were fitted")
    rest = source.held_out(key, wanted) if n >= HOLD_OUT * wanted else None
    if rest is None:
        return measuring(f"{count} of the latents that were fitted")
    return measuring(f"{count} latents held out of the rounds", rest)


def _check_samples(x: np.ndarray, present: np.ndarray) -> None:
    if not present.any():
        raise ValueError("all weights are 0, and no curve goes through nothing")
    if not finite_rows(x)[present].all():
        raise ValueError(
            "what the source gives has NaN or infinity: look at what makes its latents"
        )
    x = x if present.all() else x[present]
    spread = float(np.ptp(x, axis=0).max())
    if spread == 0:
        raise ValueError(
            "all latents are the same point to float32, and no curve goes through one point: if"
            " they differ, subtract their mean and scale them"
        )
    if spread < SMALLEST:
        raise ValueError(
            f"the latents differ by {spread:.1g} at most, whose square float32 does not know:"
            " scale them"
        )


def _distinct(x: np.ndarray, enough: int) -> int:
    """How many rows [N, D] float32 differ; where `enough` do, at least so many."""
    columns = np.linspace(0, x.shape[1] - 1, 4).astype(int)
    if any(len(np.unique(x[:, column])) >= enough for column in columns):
        return enough
    return len(np.unique(np.ascontiguousarray(x) + np.float32(0), axis=0))  # -0 is 0


class LowRank(NamedTuple):
    """A source in the span of its latents.

    Attributes:
      span: of the latents.
      source: that is read.
      reading: what its latents are still mapped to, as they are read.
      outside: share of the variance outside the span, or None where it is not known yet.
    """

    span: Span
    source: Source
    reading: Span
    outside: float | None


def low_rank(key: Array, measuring: Measuring, samples: int, mesh: Mesh) -> LowRank:
    """What can be mapped at once is, so that nothing wide is left; the rest is block by block.

    Args:
      key: of draws.
      measuring: samples, and the source.
      samples: that a round takes.
      mesh: devices.
    """
    source, (x, weight) = measuring.source, measuring.block
    present = np.asarray(weight) > 0
    span = find_span(np.asarray(x) if present.all() else np.asarray(x)[present])
    if span.basis is None:
        return LowRank(span, source, span, 0.0)
    span, whole = Span(replicate(span.basis, mesh)), source.whole()
    outside = None if whole is None else span.share_outside(*whole)
    if outside is not None and outside > OUTSIDE:  # rows that no measuring sample stands for
        return LowRank(Span(), source, Span(), 0.0)
    enter = jax.tree_util.Partial(Span.enter, span)
    mapped = source.mapped(enter, replicate(key, mesh), samples)
    if mapped is None:
        return LowRank(span, source, span, outside)
    return LowRank(span, mapped.placed(mesh), Span(), outside)
