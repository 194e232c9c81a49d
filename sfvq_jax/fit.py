"""`fit`: a curve through latents from anywhere; sources, files and reports around stages.

Coarse to fine: start with four codewords, refine, subdivide, refine, … up to 2**bits.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh

from sfvq_jax.blocks import plan_round, sample
from sfvq_jax.curve import Curve, trimmed
from sfvq_jax.devices import (
    LINES,
    check_mesh,
    data_mesh,
    default_mesh,
    lines_axis,
    parts,
    replicate,
)
from sfvq_jax.history import Report, history_of
from sfvq_jax.io.checkpoints import Checkpoints
from sfvq_jax.io.output import library_version
from sfvq_jax.io.states import DEFAULTS, SKETCH, SOLVER, STAGES, STAMP
from sfvq_jax.least_squares import LeastSquares
from sfvq_jax.likeness import hash_of, likeness, sketch, stamp_of
from sfvq_jax.measuring import MEASURING_SAMPLES, Measuring, low_rank, measuring_samples
from sfvq_jax.processes import check_alike, in_every_process
from sfvq_jax.projection import project
from sfvq_jax.result import MANY, MOST, FitResult, warnings_of
from sfvq_jax.rows.samplers import partial
from sfvq_jax.rows.source import Block, Source, check_key, key_of
from sfvq_jax.solver import Solver, check_solver
from sfvq_jax.sources import as_source
from sfvq_jax.stage import check_start, checked_bits, default_start, stage_sizes
from sfvq_jax.stages import Stages

Array = jax.Array
Start = Curve | Callable[[Array, Array, Array, str | None], Curve]

DEFAULT_SOLVER = LeastSquares()
TOLD = {"samples", "block", "rounds"}  # by the plan of each stage; how far to go is left open


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
    stop: Callable[[], bool] | None = None,
    on_report: Callable[[Report], None] | None = None,
) -> FitResult:
    """Fits a curve of 2**bits codewords to latents.

    Four codewords (`initial_curve`) are refined by the solver, then doubled and refined again until
    there are 2**bits (Vali & Bäckström, Interspeech 2023; TMLR 2025). `LeastSquares` lowers
    equation 5 of docs/explanation/equations.md, `Adam` equation 10. The same key, source and
    settings give the same curve: bit for bit on one device with the same number of cores, within
    rounding on others or over several processes. Latents that span only a few of their dimensions
    are fitted in that span.

    Args:
      key: a PRNG key; another one gives another curve.
      source: an array [N, D]; a path or URI of rows, which may be larger than memory, such as
        "s3://bucket/embs.zarr" (`sfvq_jax.rows.opening.open_rows`); a `LatentModel`; a pure
        function (key, n) -> [n, D]; or any other source (`sfvq_jax.sources`).
      bits: the curve has 2**bits codewords; 2 or more. With `start`, at least as many as it has.
      solver: `LeastSquares`, `Adam` as published, or your own.
      weights: weights of the rows of an array or a file, [N], or a path or URI of them. A row of
        weight 2 counts as two rows. Other sources give weights together with latents.
      start: a curve to continue from, which is refined, repaired and doubled up to 2**bits
        codewords; or a function (key, x, weights, axis) that returns one.
      mesh: devices over which the samples are divided (`data_mesh`); the codewords too, if it has
        an axis "curve". The default is one device; it is all devices in fits of several
        processes, and if accelerators get blocks of 1024 samples each.
      checkpoint: a folder, a path or a URI (gs://, s3://), that keeps the state of the fit. If it
        holds a state, the fit continues from it, and ends in the same curve, bit for bit, as a fit
        without interruption; bits and rounds may be larger than before. On a disk, a second fit
        cannot use the folder. At a URI, the later fit takes over, and the earlier one ends at its
        next save.
      checkpoint_seconds: seconds between saves; the end of each stage is saved too.
      stop: function that is called after every block, in every process, if there is a checkpoint.
        If one returns true, the state is saved and all raise `io.checkpoints.Stopped`.
      on_report: called with a `Report`; `io.progress.Progress` prints it.

    Raises:
      TypeError: an argument of another kind.
      ValueError: bits below 2, fewer latents than codewords, latents that are not finite or do not
        differ, a fit that diverged, a checkpoint that is damaged, belongs to another fit or is in
        use, or processes with different arguments.
      OSError: a checkpoint cannot be written; the one before is whole.

    >>> import jax
    >>> x = jax.random.normal(jax.random.key(0), (4096, 2))
    >>> result = fit(jax.random.key(1), x, bits=3)
    >>> result.curve.codewords.shape, result.dead
    ((8, 2), 0)
    """
    _check_untraced(key, source, weights, start, solver)
    key, last = _checked_key(key), 2 ** checked_bits(bits)
    check_solver(solver)
    if not (on_report is None or callable(on_report)):
        raise TypeError(
            f"on_report is {on_report!r}; expected a function of a Report, such as"
            " sfvq_jax.io.progress.Progress()"
        )
    source = as_source(source, weights)
    if source.num_latents is not None and source.num_latents < last:
        raise ValueError(
            f"{source.num_latents} latents are fewer than the {last} codewords of bits={bits}:"
            " give more latents or fewer bits"
        )
    mesh = _mesh(mesh, solver, last, source)
    if jax.process_count() > 1:
        check_alike(_facts(key, source, last, solver, start, mesh, checkpoint))
    far = source.look_through()
    source = source.placed(mesh)
    measuring = measuring_samples(key_of(key, 0), source, last, mesh)
    x, weight = measuring.block
    first = _start(start, replicate(key_of(key, 1), mesh), measuring.block)
    sizes = stage_sizes(first.codewords.shape[0], last)
    plan = plan_round(solver, last, source, mesh)
    samples = (plan.blocks or 1) * plan.block_samples
    low = low_rank(key_of(key, 4), measuring, samples, mesh)
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
    with Checkpoints.open(checkpoint, description, checkpoint_seconds, stop) as checkpoints:
        curve, health = stages.run(Curve(here.enter(np.asarray(first.codewords))), checkpoints)
    curve = Curve(here.leave(curve.codewords))
    outside = low.outside
    if outside is None:
        fresh = sample(measuring.source, key_of(key, 3), MEASURING_SAMPLES, mesh, again=True)
        outside = low.span.share_outside(*fresh)
    in_every_process(source.check_unchanged)
    load, use = np.asarray(health.load)[: sizes[-1]], np.asarray(health.use)[: sizes[-1] - 1]
    warnings = warnings_of(
        np.asarray(curve.codewords),
        load,
        use,
        converged=stages.converged,
        sizes=sizes,
        rounds=solver.rounds,
        judged=float(solver.tolerance) >= 0,
        rank=low.span.rank,
        outside=outside,
        distinct=measuring.distinct,
        far=far,
        worst=_worst(curve, measuring, float(health.worst)),
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


def _worst(curve: Curve, measuring: Measuring, share: float) -> tuple[float, int | None]:
    """The largest share of the distortion that one measuring sample has, and its row's number."""
    weight = np.asarray(measuring.block.weight)
    if share <= MOST or (weight > 0).sum() < MANY:
        return 0.0, None
    x = np.asarray(measuring.block.x)
    index = int((weight * np.asarray(project(curve, jnp.asarray(x)).squared_distance)).argmax())
    rows = measuring.rows()
    return share, None if rows is None else int(rows[index])


def _start(start: Start | None, key: Array, block: Block) -> Curve:
    """What the first stage begins with."""
    width = block.x.shape[1]
    check_start(start)
    if start is None or not isinstance(start, Curve):
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


def _facts(
    key: Array,
    source: Source,
    size: int,
    solver: Solver,
    start: Start | None,
    mesh: Mesh,
    checkpoint: str | Path | None,
) -> dict[str, Any]:
    """What the processes of a fit must have alike; nothing here waits for another process."""
    codewords = np.asarray(start.codewords) if isinstance(start, Curve) else np.zeros(0)
    facts = {
        "version": f"{library_version()} with JAX {jax.__version__}",
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "number of codewords": size,
        "solver": type(solver).__name__,
        "start": None if start is None else hash_of(codewords),
        "devices": [str(device) for device in mesh.devices.flat],
        "mesh": list(mesh.devices.shape),
        "checkpoint": checkpoint is not None,
        "width of latents": source.latent_dim,
    }
    facts |= {f"solver's {name}": value for name, value in vars(solver).items()}
    if source.per_process:
        return facts
    facts["number of latents"] = source.num_latents
    return facts | {"latents": likeness(source)}


def _description(
    key: Array, stages: Stages, measuring: Measuring, solver: Solver
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
        SKETCH: sketch(np.asarray(x), np.asarray(weight)),
        STAMP: [source.name, stamp_of(source)],
        "rank": stages.held.x.shape[1],
        STAGES: stages.plan(),
        # the blocks of a source that each process has for itself depend on them
        "devices": [jax.process_count(), parts(stages.mesh)] if source.per_process else None,
    }


def solver_settings(solver: Solver) -> dict[str, Any]:
    """The fields of a solver; but for those that a plan tells, and the number of rounds."""
    fields = (
        [field.name for field in dataclasses.fields(solver)]
        if dataclasses.is_dataclass(solver)
        else list(vars(solver))
    )
    return {name: getattr(solver, name) for name in fields if name not in TOLD}


# What is asked for.


def _check_untraced(*arguments: Any) -> None:
    leaves = jax.tree.leaves(arguments, is_leaf=lambda node: isinstance(node, Iterator))
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        raise TypeError(
            "fit reads, reports and saves, so that jit, vmap and grad cannot trace it; call"
            " fit_array(key, x, bits=…) within them"
        )


def _checked_key(key: Any) -> Array:
    check_key(key, "fit(key, source, bits=…)")
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    return jax.random.wrap_key_data(jax.device_put(key))


def _mesh(mesh: Mesh | None, solver: Solver, size: int, source: Source) -> Mesh:
    if mesh is None:
        plan = plan_round(solver, size, source, data_mesh(jax.devices()[:1]))
        return default_mesh(plan.batch)
    check_mesh(mesh)
    if lines_axis(mesh) and "curve_axis" not in inspect.signature(solver.statistics).parameters:
        raise ValueError(
            f"{type(solver).__name__} needs the whole curve on every device: give a mesh without"
            f' the axis "{LINES}", such as sfvq_jax.data_mesh(), or solver=sfvq_jax.LeastSquares()'
        )
    return mesh
