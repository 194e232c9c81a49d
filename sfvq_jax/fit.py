"""`fit`: a curve through latents from anywhere; sources, files and reports around stages.

Coarse to fine: start with four codewords, refine, subdivide, refine, … up to 2**bits.
"""

import dataclasses
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sfvq_jax.curve import Curve, trimmed
from sfvq_jax.devices import check_mesh, data_mesh, default_mesh, replicate
from sfvq_jax.history import Report, history_of
from sfvq_jax.io.checkpoints import DEFAULTS, SKETCH, SOLVER, STAGES, Checkpoints
from sfvq_jax.least_squares import LeastSquares
from sfvq_jax.result import FitResult, warnings_of
from sfvq_jax.rounds import plan_round, sample
from sfvq_jax.rows.samplers import check_differ, partial
from sfvq_jax.rows.source import Block, Source, finite_rows, key_of
from sfvq_jax.solver import Solver
from sfvq_jax.sources import as_source
from sfvq_jax.span import OUTSIDE, Span, find_span
from sfvq_jax.stage import default_start, stage_sizes
from sfvq_jax.stages import Stages

Array = jax.Array
Start = Curve | Callable[[Array, Array, Array, str | None], Curve]

DEFAULT_SOLVER = LeastSquares()
MEASURING_SAMPLES = 2**13  # at least, where there are as many
MEASURING_A_CODEWORD = 16
MEASURING_FLOATS = 2**26  # of more than the least number, at most 256 MiB
HOLD_OUT = 8  # measuring samples are held out where there are so many times as many latents
SMALLEST = 1e-17  # differences below it have squares that float32 hardly knows


def fit(
    key: Array,
    source: Any,
    *,
    bits: int,
    solver: Solver = DEFAULT_SOLVER,
    weights: Any = None,
    start: Start | None = None,
    mesh: Mesh | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 600.0,
    on_report: Callable[[Report], None] | None = None,
) -> FitResult:
    """Fits a curve of 2**bits codewords to latents.

    Four codewords (`initial_curve`) are refined by the solver, then doubled and refined again until
    there are 2**bits (Vali & Bäckström, Interspeech 2023; TMLR 2025). The same key, source and
    settings give the same curve, on one device bit for bit; on several, or over several processes,
    within rounding. Latents that span few of their dimensions are fitted in that span.

    Args:
      key: a PRNG key; another one gives another curve.
      source: an array [N, D], the path of an .npy of any size, a `LatentModel`, a pure function
        (key, n) -> [n, D], or any other source (`sfvq_jax.sources`).
      bits: 2 or more, or as many as `start` has.
      solver: `LeastSquares`, `Adam` as published, or your own.
      weights: of the rows of an array or a file, [N]: a row of weight 2 counts as two. Other
        sources give theirs with the latents.
      start: a curve to go on from, which is refined, mended and doubled up to 2**bits codewords; or
        a function (key, x, weights, axis) that gives one.
      mesh: devices with one axis, "data" (`data_mesh`). By default one device, but all of them in
        fits of several processes, or where accelerators get blocks of 1024 samples each.
      checkpoint: a folder that keeps the state of the fit. If it holds one, the fit goes on from
        there and ends in the same curve, bit for bit, as one that was not interrupted; it may also
        be given more bits or more rounds than before.
      checkpoint_seconds: time between saves; the end of a stage is saved too.
      on_report: called with a `Report`; `io.progress.Progress` prints it.

    Raises:
      TypeError: an argument of another kind than these.
      ValueError: bits below 2, fewer latents than codewords, latents that are not finite or do not
        differ, a fit that diverged, or a checkpoint that is damaged or of another fit.
      OSError: a checkpoint that cannot be written; the one before is whole.

    >>> import jax
    >>> x = jax.random.normal(jax.random.key(0), (4096, 2))
    >>> result = fit(jax.random.key(1), x, bits=3)
    >>> result.curve.codewords.shape, result.dead
    ((8, 2), 0)
    """
    key, sizes = _checked_key(key), _checked_sizes(bits, start)
    _check_solver(solver)
    source = as_source(source, weights)
    if source.num_latents is not None and source.num_latents < sizes[-1]:
        raise ValueError(
            f"{source.num_latents} latents are fewer than the {sizes[-1]} codewords of bits={bits}:"
            " give more latents or fewer bits"
        )
    mesh = _mesh(mesh, solver, sizes[-1], source)
    source = source.placed(mesh)
    measuring = _measuring_samples(key_of(key, 0), source, sizes[-1], mesh)
    x, weight = measuring.block
    first = _start(start, replicate(key_of(key, 1), mesh), measuring.block)
    low = _low_rank(measuring, mesh)
    here = low.span.on_host()  # of a curve, which is small and not on the mesh
    stages = Stages(
        key_of(key, 2),
        low.source,
        low.reading,
        solver,
        sizes,
        mesh,
        Block(low.span.enter(x), weight),
        source.latent_dim,
        on_report,
    )
    description = {} if checkpoint is None else _description(key, stages, measuring, solver)
    with Checkpoints.open(checkpoint, description, checkpoint_seconds) as checkpoints:
        curve, health = stages.run(Curve(here.enter(np.asarray(first.codewords))), checkpoints)
    curve = Curve(here.leave(curve.codewords))
    outside = low.outside
    if outside is None:
        fresh = sample(measuring.source, key_of(key, 3), len(x), mesh)
        outside = low.span.share_outside(*fresh)
    load = np.asarray(health.load)[: sizes[-1]]
    warnings = warnings_of(
        np.asarray(curve.codewords),
        load,
        converged=stages.converged,
        sizes=sizes,
        rounds=solver.rounds,
        judged=float(solver.tolerance) >= 0,
        rank=low.span.rank,
        outside=outside,
    )
    return FitResult(
        curve,
        history_of(stages.records),
        tuple(stages.converged),
        int((load == 0).sum()),
        measuring.name,
        low.span.rank,
        outside,
        warnings,
    )


def _start(start: Start | None, key: Array, block: Block) -> Curve:
    """What the first stage begins with."""
    width = block.x.shape[1]
    if start is None or callable(start):
        found = _started(partial(default_start if start is None else start), key, block)
        if not isinstance(found, Curve):
            raise TypeError(f"start gives a {type(found).__name__}; expected a Curve")
    else:
        found = trimmed(start)
    if found.codewords.ndim != 2 or found.codewords.shape[1] != width:
        raise ValueError(
            f"the start has codewords of shape {found.codewords.shape}, but the latents have width"
            f" {width}"
        )
    return found


@jax.jit
def _started(start: Any, key: Array, block: Block) -> Curve:
    return start(key, *block, None)


def _description(
    key: Array, stages: Stages, measuring: "_Measuring", solver: Solver
) -> dict[str, Any]:
    """What tells a fit from others: its key and solver, the samples of each stage, the latents."""
    settings, defaults = solver_settings(solver), {}
    if dataclasses.is_dataclass(solver):
        defaults = {
            field.name: field.default
            for field in dataclasses.fields(solver)
            if field.default is not dataclasses.MISSING
        }
    source, (x, weight) = measuring.source, measuring.block
    return {
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        SOLVER: {"solver": type(solver).__name__} | settings,
        DEFAULTS: defaults,
        "latents": [source.num_latents, source.latent_dim],
        SKETCH: _sketch(np.asarray(x), np.asarray(weight)),
        "rank": stages.held.x.shape[1],
        STAGES: stages.plan(),
        # the blocks of a source that each process has for itself depend on them
        "devices": [jax.process_count(), stages.mesh.size] if source.per_process else None,
    }


def solver_settings(solver: Solver) -> dict[str, Any]:
    """The fields of a solver; but for the number of rounds, which says only how far to go."""
    fields = (
        [field.name for field in dataclasses.fields(solver)]
        if dataclasses.is_dataclass(solver)
        else list(vars(solver))
    )
    return {name: getattr(solver, name) for name in fields if name != "rounds"}


def _sketch(latents: np.ndarray, weight: np.ndarray) -> list[float]:
    """A few random projections that change with any row, but little with a device's rounding."""
    random = np.random.default_rng(0)
    latents, weight = latents[weight > 0], weight[weight > 0] / weight.max()
    n, d = latents.shape
    rows = random.choice([-1.0, 1.0], (8, n)) / n**0.5
    columns = random.choice([-1.0, 1.0], (8, d)) / d**0.5
    size = np.log(np.mean(np.square(latents, dtype=np.float64)))
    centred = latents - latents.mean(0, dtype=np.float64)
    rows = rows * weight
    sketch = np.einsum("sn,nd,sd->s", rows, centred / centred.std(), columns, optimize=True)
    return [round(float(value), 6) for value in (size, *sketch)]


# What is asked for.


def _checked_key(key: Any) -> Array:
    if isinstance(key, jax.Array | np.ndarray):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
            return key  # pyright: ignore[reportReturnType]
        if key.dtype == np.uint32 and key.shape == (2,):  # as jax.random.PRNGKey makes them
            return jax.random.wrap_key_data(jax.device_put(key))
    shape = f" of shape {key.shape}" if hasattr(key, "shape") else ""
    raise TypeError(
        f"key is a {type(key).__name__}{shape}; fit(key, source, bits=…) takes a PRNG key first,"
        " such as jax.random.key(0)"
    )


def _checked_sizes(bits: Any, start: Any) -> list[int]:
    """Codewords of each stage."""
    try:
        bits = operator.index(bits)
    except TypeError as error:
        raise TypeError(f"bits is {bits!r}; expected a whole number") from error
    first = 4
    if isinstance(start, Curve):
        first = trimmed(start).codewords.shape[0]
    elif start is not None and not callable(start):
        hint = ": pass its .curve" if hasattr(start, "curve") else ""
        raise TypeError(f"start is a {type(start).__name__}; expected a Curve or a function{hint}")
    if bits < 2:
        raise ValueError(
            f"bits is {bits}; a curve starts with four codewords, so bits must be >= 2"
        )
    return stage_sizes(first, 2**bits)


def _check_solver(solver: Any) -> None:
    if isinstance(solver, Solver):
        return
    if isinstance(solver, type) and issubclass(solver, Solver):
        raise TypeError(
            f"solver is the class {solver.__name__}; pass one of it, solver={solver.__name__}()"
        )
    raise TypeError(
        f"solver is {solver!r}; expected a solver, such as solver=sfvq_jax.LeastSquares() or"
        " solver=sfvq_jax.Adam()"
    )


def _mesh(mesh: Mesh | None, solver: Solver, size: int, source: Source) -> Mesh:
    if mesh is None:
        plan = plan_round(solver, size, source, data_mesh(jax.devices()[:1]))
        return default_mesh(plan.batch)
    check_mesh(mesh)
    return mesh


# What a fit measures with.


class _Measuring(NamedTuple):
    """Measuring samples on every device, what they are, and the source that a fit then reads."""

    block: Block
    name: str
    source: Source


def _measuring_samples(key: Array, source: Source, size: int, mesh: Mesh) -> _Measuring:
    """A whole small source; some of others, held out of the rounds if there are enough."""
    more = min(MEASURING_A_CODEWORD * size, MEASURING_FLOATS // source.latent_dim)
    count, n = max(MEASURING_SAMPLES, more), source.num_latents
    block = sample(source, key, count, mesh)
    present = np.asarray(block.weight) > 0
    _check_samples(np.asarray(block.x), present)
    count = int(present.sum())
    if n is None and not source.per_process:
        if source.on_device:
            check_differ(block.x, sample(source, key_of(key, 0), len(present), mesh).x)
        return _Measuring(block, f"{count} fresh draws", source)
    if n is None:
        return _Measuring(block, f"the first {count} latents, which were fitted too", source)
    if n <= len(present):
        return _Measuring(block, f"all {count} latents, which were fitted", source)
    rest = source.held_out(key, len(present)) if n >= HOLD_OUT * len(present) else None
    if rest is None:
        return _Measuring(block, f"{count} of the latents that were fitted", source)
    return _Measuring(block, f"{count} latents held out of the rounds", rest)


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
        raise ValueError("all latents are the same point, and no curve goes through one point")
    if spread < SMALLEST:
        raise ValueError(
            f"the latents differ by {spread:.1g} at most, whose square float32 does not know:"
            " scale them"
        )


class _LowRank(NamedTuple):
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


def _low_rank(measuring: _Measuring, mesh: Mesh) -> _LowRank:
    """An array is mapped at once, so that nothing wide is left; other sources block by block."""
    source, (x, weight) = measuring.source, measuring.block
    present = np.asarray(weight) > 0
    span = find_span(np.asarray(x) if present.all() else np.asarray(x)[present])
    if span.basis is None:
        return _LowRank(span, source, span, 0.0)
    span = Span(replicate(span.basis, mesh))
    whole = source.whole()
    if whole is None:
        return _LowRank(span, source, span, None)
    outside = span.share_outside(*whole)
    mapped = source.mapped(span.enter)
    if outside > OUTSIDE or mapped is None:  # a few latents that no measuring sample stands for
        return _LowRank(Span(), source, Span(), 0.0)
    return _LowRank(span, mapped, Span(), outside)
