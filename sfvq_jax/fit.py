"""Coarse to fine: start with four codewords, refine, subdivide, refine, … up to 2**bits."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from sfvq_jax.curve import Curve, initial_curve, subdivide
from sfvq_jax.projection import project
from sfvq_jax.quality import line_use, perplexity
from sfvq_jax.solvers import Adam
from sfvq_jax.sources import ArraySource, Source, as_source, check_latents

Array = jax.Array

PUBLISHED = Adam()
START_SAMPLES = 2**14  # the start and the history use so many


class History(NamedTuple):
    """What happened, one entry an epoch: R entries. All NumPy.

    Attributes:
      bits: of the stage, [R] int32.
      loss: mean dithered loss of the epoch, per dimension, [R] float32.
      distortion: by exact projection of the same held samples after the epoch, [R] float32.
      perplexity: exp of the entropy of the use of lines, at most K - 1, [R] float32.
      use: share of the samples on each line, [R, K - 1] float32, zero beyond a stage's own lines.
    """

    bits: np.ndarray
    loss: np.ndarray
    distortion: np.ndarray
    perplexity: np.ndarray
    use: np.ndarray


class FitResult(NamedTuple):
    """A fitted curve and how it came about."""

    curve: Curve
    history: History


def fit(
    key: Array, source: Any, *, bits: int, solver: Adam = PUBLISHED, progress: bool = False
) -> FitResult:
    """Fits a curve of 2**bits codewords to latents.

    Four codewords (`initial_curve`) are refined by `solver`, then doubled (`subdivide`) and refined
    again until there are 2**bits (Vali & Bäckström, Interspeech 2023; TMLR 2025). The same key,
    source and settings give the same curve.

    Args:
      key: a PRNG key.
      source: an array [N, D], a `LatentModel`, or a pure function (key, n) -> [n, D].
      bits: 2 or more.
      solver: the schedule of a stage.
      progress: shows a progress bar on standard error if that is a terminal.

    Returns:
      FitResult(curve, history).

    Raises:
      ValueError: bits below 2, fewer latents than codewords, latents that are not finite or do not
        differ, or a fit that diverged.

    >>> import jax
    >>> x = jax.random.normal(jax.random.key(0), (4096, 2))
    >>> result = fit(jax.random.key(1), x, bits=3, solver=Adam(samples=4096, epochs=1))
    >>> result.curve.codewords.shape
    (8, 2)
    """
    if bits < 2:
        raise ValueError(
            f"bits is {bits}; a curve starts with four codewords, so bits must be >= 2"
        )
    source = as_source(source)
    if isinstance(source, ArraySource) and len(source.latents) < 2**bits:
        raise ValueError(
            f"{len(source.latents)} latents are fewer than the {2**bits} codewords of bits={bits}:"
            " give more latents or fewer bits"
        )
    start_key, held_key, stages_key = jax.random.split(key, 3)
    held = _held_samples(held_key, source)
    curve = initial_curve(_held_samples(start_key, source))

    records = []
    # disable=None is quiet where standard error is no terminal
    disable = None if progress else True
    with tqdm(total=(bits - 1) * solver.epochs, unit="epoch", disable=disable) as bar:
        for stage_bits in range(2, bits + 1):
            if stage_bits > 2:
                curve = subdivide(curve)
            state = solver.init(curve)
            for epoch in range(solver.epochs):
                epoch_key = jax.random.fold_in(jax.random.fold_in(stages_key, stage_bits), epoch)
                state, loss = solver.epoch(epoch_key, state, source)
                record = _record(state.curve, held, loss)
                if not np.isfinite(record["distortion"]):
                    raise ValueError(
                        f"the fit diverged at {stage_bits} bits, epoch {epoch + 1}: use a learning"
                        f" rate below {solver.learning_rate}, or scale the latents to unit size"
                    )
                records.append({"bits": stage_bits, **record})
                bar.set_description(f"{stage_bits} bits", refresh=False)
                bar.set_postfix_str(f"distortion {record['distortion']:.4g}", refresh=False)
                bar.update()
            curve = state.curve
    return FitResult(curve, _history(records, curve.num_lines))


def _held_samples(key: Array, source: Source) -> Array:
    """Samples to start from or to measure with: a whole small array, or a draw."""
    if isinstance(source, ArraySource) and len(source.latents) <= START_SAMPLES:
        latents = source.latents
    else:
        latents = jax.jit(lambda source: source.draw(key, START_SAMPLES))(source)
        check_latents(latents, "what the source draws")
        if latents.shape[0] != START_SAMPLES:
            raise ValueError(
                f"asked for {START_SAMPLES} latents, the source drew {latents.shape[0]}: a sampler"
                " (key, n) gives [n, D]"
            )
    if not bool((latents != latents[:1]).any()):
        raise ValueError("all latents are the same point, and no curve goes through one point")
    return latents.astype(jnp.float32)


def _record(curve: Curve, held: Array, loss: Array) -> dict[str, Any]:
    projection = project(curve, held)
    use = line_use(projection.line, curve.num_lines)
    return {
        "loss": float(loss),
        "distortion": float(projection.squared_distance.mean()) / curve.latent_dim,
        "perplexity": float(perplexity(use)),
        "use": np.asarray(use),
    }


def _history(records: list[dict[str, Any]], num_lines: int) -> History:
    columns = {
        name: np.array([record[name] for record in records], np.float32)
        for name in ("loss", "distortion", "perplexity")
    }
    use = [np.pad(record["use"], (0, num_lines - len(record["use"]))) for record in records]
    bits = np.array([record["bits"] for record in records], np.int32)
    return History(bits=bits, use=np.stack(use), **columns)
