"""Coarse to fine: start with four codewords, refine, subdivide, refine, … up to 2**bits."""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sfvq_jax import sharding
from sfvq_jax.curve import Curve, initial_curve, subdivide
from sfvq_jax.projection import project
from sfvq_jax.quality import line_use, perplexity
from sfvq_jax.resume import SKETCH, Checkpoints
from sfvq_jax.solvers import LeastSquares, Plan, Solver
from sfvq_jax.sources import ArraySource, IteratorSource, Source, as_source, check_latents

Array = jax.Array

DEFAULT_SOLVER = LeastSquares()
START_SAMPLES = 2**14  # the start and the history use so many
CALL_SECONDS = 0.5  # a call for blocks that are drawn on the device takes about so long


class History(NamedTuple):
    """What happened, one entry a round: R entries. All NumPy.

    Attributes:
      bits: of the stage, [R] int32.
      loss: what the solver minimises, as it was before the round (least squares) or in its mean
        (Adam), a dimension, [R] float32.
      distortion: by exact projection of the same held samples after the round, [R] float32.
      perplexity: exp of the entropy of the use of lines, at most K - 1, [R] float32.
      use: share of the samples on each line, [R, K - 1] float32, zero beyond a stage's own lines.
      samples: seen up to here, [R] float64.
    """

    bits: np.ndarray
    loss: np.ndarray
    distortion: np.ndarray
    perplexity: np.ndarray
    use: np.ndarray
    samples: np.ndarray


class FitResult(NamedTuple):
    """A fitted curve and how it came about."""

    curve: Curve
    history: History


class Report(NamedTuple):
    """How far a fit is; given to `on_report` now and then within a round, and at its end.

    Attributes:
      bits: of the stage.
      last_bits: of the last stage.
      round: of the stage, from 1.
      rounds: in the stage, at most.
      share: of the round that is done, 1 at its end.
      samples: seen up to here.
      samples_per_second: of this round.
      seconds: since this process began the fit.
      seconds_left: at most, if each round goes on as this one and later stages cost as their size
        says; NaN where nothing is known.
      loss: at the round's end, else NaN; see `History`.
      distortion: likewise.
      perplexity: likewise.
    """

    bits: int
    last_bits: int
    round: int
    rounds: int
    share: float
    samples: int
    samples_per_second: float
    seconds: float
    seconds_left: float
    loss: float
    distortion: float
    perplexity: float


def fit(
    key: Array,
    source: Any,
    *,
    bits: int,
    solver: Solver = DEFAULT_SOLVER,
    mesh: Mesh | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 600.0,
    on_report: Callable[[Report], None] | None = None,
) -> FitResult:
    """Fits a curve of 2**bits codewords to latents.

    Four codewords (`initial_curve`) are refined by `solver`, then doubled (`subdivide`) and refined
    again until there are 2**bits (Vali & Bäckström, Interspeech 2023; TMLR 2025). The same key,
    source and settings give the same curve, on one device bit for bit; on several, or over several
    processes, within rounding.

    Args:
      key: a PRNG key.
      source: an array [N, D], the path of an .npy of any size, a `LatentModel`, a pure function
        (key, n) -> [n, D], or any other `Source`.
      bits: 2 or more.
      solver: `LeastSquares` or, as published, `Adam`.
      mesh: devices with one axis, "data" (`data_mesh`). By default one device, but all of them in
        fits of several processes, or where accelerators get blocks of 1024 samples each.
      checkpoint: a folder that keeps the state of the fit. If it holds one, the fit goes on from
        there and ends in the same curve, bit for bit, as one that was not interrupted.
      checkpoint_seconds: time between saves; the end of a stage is saved too.
      on_report: called with a `Report`; `progress.Progress` prints it.

    Returns:
      FitResult(curve, history).

    Raises:
      ValueError: bits below 2, fewer latents than codewords, latents that are not finite or do not
        differ, a fit that diverged, or a checkpoint that is damaged or of another fit.
      OSError: a checkpoint that cannot be written; the one before is whole.

    >>> import jax
    >>> x = jax.random.normal(jax.random.key(0), (4096, 2))
    >>> result = fit(jax.random.key(1), x, bits=3)
    >>> result.curve.codewords.shape
    (8, 2)
    """
    if bits < 2:
        raise ValueError(
            f"bits is {bits}; a curve starts with four codewords, so bits must be >= 2"
        )
    source = as_source(source)
    if source.num_latents is not None and source.num_latents < 2**bits:
        raise ValueError(
            f"{source.num_latents} latents are fewer than the {2**bits} codewords of bits={bits}:"
            " give more latents or fewer bits"
        )
    mesh = _mesh(mesh, solver, bits, source)
    source = sharding.place_source(source, mesh)
    start_key, held_key, stages_key = jax.random.split(key, 3)
    held = _held_samples(held_key, source, mesh)
    start = _initial_curve(_held_samples(start_key, source, mesh))
    fitting = _Fit(stages_key, source, bits, solver, mesh, held, on_report)
    description = {} if checkpoint is None else fitting.description(key)
    with Checkpoints.open(checkpoint, description, checkpoint_seconds) as checkpoints:
        return fitting.run(start, checkpoints)


class _At(NamedTuple):
    """Where a fit is, between two blocks: with the state, all that is needed to go on."""

    bits: int
    round: int  # of the stage, from 0
    block: int  # of the round: the next one
    read: int  # latents so far
    previous: float | None  # the objective after the round before, in the same stage


class _Fit:
    """A fit under way: what stays the same, and `run`, which goes from stage to stage."""

    def __init__(
        self,
        key: Array,
        source: Source,
        bits: int,
        solver: Solver,
        mesh: Mesh,
        held: Array,
        on_report: Callable[[Report], None] | None,
    ):
        self.key, self.source, self.bits, self.solver = key, source, bits, solver
        self.mesh, self.held, self.on_report = mesh, held, on_report
        self.started = time.monotonic()
        self.records: list[dict[str, Any]] = []

    def description(self, key: Array) -> dict[str, Any]:
        """What tells this fit from others."""
        description = {
            "key": np.asarray(jax.random.key_data(key)).tolist(),
            "bits": self.bits,
            "solver": type(self.solver).__name__,
            **vars(self.solver),
            "latents": [self.source.num_latents, self.source.latent_dim],
            SKETCH: _sketch(np.asarray(self.held)),
        }
        if isinstance(self.source, IteratorSource):  # whose blocks depend on them
            description |= {"processes": jax.process_count(), "devices": self.mesh.size}
        return description

    def run(self, start: Curve, checkpoints: Checkpoints) -> FitResult:
        restored = self._restore(checkpoints)
        at, state = restored or (
            _At(2, 0, 0, 0, None),
            sharding.init(self.solver, self.mesh, start),
        )
        while at.bits <= self.bits:
            at, state = self._round(at, state, checkpoints)
        # on one device again, wherever it was fitted
        return FitResult(
            Curve(jnp.asarray(np.asarray(state.curve.codewords))), _history(self.records)
        )

    def _round(self, at: _At, state: Any, checkpoints: Checkpoints) -> tuple[_At, Any]:
        """The rest of a round, and the step to the next one."""
        plan = self._plan(state.curve)
        began, before = time.monotonic(), at
        blocks = self._add_blocks(at, state, plan)
        for at, state in blocks:
            if checkpoints.due():
                self._save(checkpoints, at, state)
            self._report(began, before, at, None)
        state, loss = sharding.finish(self.solver, self.mesh, state)
        record = _record(self.solver, state.curve, self.held, float(loss))
        if not np.isfinite(record["distortion"]):
            raise ValueError(
                f"the fit diverged at {at.bits} bits, round {at.round + 1}: scale the latents to"
                " unit size, or, with Adam, use a learning rate below the present one"
            )
        self.records.append({"bits": at.bits, "samples": at.read, **record})
        self._report(began, before, at, record)
        done = at.round + 1 == self.solver.rounds or (
            at.previous is not None and self.solver.converged(at.previous, record["objective"])
        )
        if not done:
            return at._replace(round=at.round + 1, block=0, previous=record["objective"]), state
        at = _At(at.bits + 1, 0, 0, at.read, None)
        if at.bits <= self.bits:
            state = sharding.init(self.solver, self.mesh, state.curve, subdivide)
        self._save(checkpoints, at, state)
        return at, state

    def _add_blocks(self, at: _At, state: Any, plan: Plan) -> Iterator[tuple[_At, Any]]:
        """Takes in the blocks of a round from `at.block` on; yields now and then."""
        of_round = jax.random.fold_in(jax.random.fold_in(self.key, at.bits), at.round)
        keys = sharding.replicate(jax.random.split(of_round), self.mesh)
        if not self.source.on_device:
            yield from self._add_host_blocks(at, state, plan, keys[1])
        elif plan.whole:
            assert isinstance(self.source, ArraySource)
            if at.block == 0:
                block = sharding.whole_block(self.source, self.mesh)
                state = sharding.add_block(self.solver, self.mesh, state, keys[1], block)
                yield at._replace(block=1, read=at.read + self.source.num_latents), state
        else:
            calls = 1
            while at.block < plan.blocks:
                stop = min(at.block + calls, plan.blocks)
                began = time.monotonic()
                state = sharding.add_drawn(
                    self.solver, self.mesh, plan, state, self.source, keys, at.block, stop
                )
                jax.block_until_ready(state)
                if time.monotonic() - began < CALL_SECONDS:
                    calls *= 2
                read = at.read + (stop - at.block) * plan.block_samples
                at = at._replace(block=stop, read=read)
                yield at, state

    def _add_host_blocks(
        self, at: _At, state: Any, plan: Plan, key: Array
    ) -> Iterator[tuple[_At, Any]]:
        """Reads the next block while the device works on this one."""

        def read(block: int, read: int) -> sharding.HostBlock:
            count, start, order = plan.block_samples, read, self.key
            if plan.whole:
                start, order = block * count, None
                if self.source.num_latents is not None:
                    count = min(count, self.source.num_latents - start)
            return sharding.read_block(self.source, order, start, count, plan, self.mesh)

        endless = plan.whole and self.source.num_latents is None
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(read, at.block, at.read)
            while endless or at.block < plan.blocks:
                block, found = ahead.result()
                found = sharding.found_by_all(found) if plan.whole else plan.block_samples
                if endless and found == 0:
                    return
                after = at._replace(block=at.block + 1, read=at.read + found)
                if endless or after.block < plan.blocks:
                    ahead = reader.submit(read, after.block, after.read)
                jax.block_until_ready(state)  # no more than two blocks are in memory
                of_block = jax.random.fold_in(key, at.block)
                state = sharding.add_block(self.solver, self.mesh, state, of_block, block)
                at = after
                yield at, state

    def _plan(self, curve: Curve) -> Plan:
        plan = self.solver.plan(curve.num_codewords, curve.latent_dim, self.source.num_latents)
        if plan.whole and self.source.on_device:
            if not isinstance(self.source, ArraySource):
                raise ValueError('samples is "all", but a sampler has no end: give a number')
            return plan._replace(blocks=1)
        if isinstance(self.source, IteratorSource):  # of which each device reads as many
            return plan._replace(batch=plan.batch + -plan.batch % self.mesh.size)
        return plan

    def _save(self, checkpoints: Checkpoints, at: _At, state: Any) -> None:
        history = _history(self.records) if self.records else None
        about = {"at": at._asdict(), "devices": self.mesh.size, "rounds": len(self.records)}
        checkpoints.save({"state": state, "history": history}, about)

    def _restore(self, checkpoints: Checkpoints) -> tuple[_At, Any] | None:
        def template(about: dict[str, Any]) -> Any:
            # the curve of the last stage stays when all is done
            bits, rounds = min(about["at"]["bits"], self.bits), about["rounds"]
            codewords = jax.ShapeDtypeStruct((2**bits, self.source.latent_dim), jnp.float32)
            state = jax.eval_shape(
                lambda codewords: self.solver.init(Curve(codewords), about["devices"]), codewords
            )
            state = sharding.with_layout(state, self.solver, self.mesh, about["devices"])
            # a stage that has just begun has no rounds of its own
            last = bits if about["at"]["round"] or about["at"]["bits"] > self.bits else bits - 1
            history = jax.tree.map(
                np.zeros_like, _history([_empty_record(2**last - 1)] * rounds) if rounds else None
            )
            return {"state": state, "history": history}

        restored = checkpoints.restore(template)
        if restored is None:
            return None
        arrays, about = restored
        history = arrays["history"]
        for row in range(about["rounds"]):
            record = {name: column[row] for name, column in history._asdict().items()}
            self.records.append(record | {"use": record["use"][: 2 ** int(record["bits"]) - 1]})
        return _At(**about["at"]), sharding.adopt(arrays["state"], self.solver, self.mesh)

    def _report(self, began: float, before: _At, at: _At, record: dict[str, Any] | None) -> None:
        """Reports on a round that began at a time, at a place; with a record if it has ended."""
        if self.on_report is None:
            return
        now = time.monotonic()
        work = [self._samples_a_round(bits) * (2**bits + 64) for bits in range(2, self.bits + 1)]
        of_round = work[at.bits - 2]
        share = 1.0 if record else (at.read - before.read) / self._samples_a_round(at.bits)
        left = of_round * (self.solver.rounds - at.round - share)
        left += self.solver.rounds * sum(work[at.bits - 1 :])
        seconds = max(now - began, 1e-9)
        record = record or dict.fromkeys(("loss", "distortion", "perplexity"), math.nan)
        self.on_report(
            Report(
                bits=at.bits,
                last_bits=self.bits,
                round=at.round + 1,
                rounds=self.solver.rounds,
                share=share,
                samples=at.read,
                samples_per_second=(at.read - before.read) / seconds,
                seconds=now - self.started,
                seconds_left=left / of_round * seconds / share if share else math.nan,
                loss=record["loss"],
                distortion=record["distortion"],
                perplexity=record["perplexity"],
            )
        )

    def _samples_a_round(self, bits: int) -> float:
        """NaN where only the end of an iterator tells."""
        plan = self.solver.plan(2**bits, self.source.latent_dim, self.source.num_latents)
        if plan.whole:
            return self.source.num_latents or math.nan
        return plan.blocks * plan.block_samples


def _mesh(mesh: Mesh | None, solver: Solver, bits: int, source: Source) -> Mesh:
    if mesh is None:
        plan = solver.plan(2**bits, source.latent_dim, source.num_latents)
        return sharding.default_mesh(plan.batch)
    sharding.check_mesh(mesh)
    return mesh


def _held_samples(key: Array, source: Source, mesh: Mesh) -> Array:
    """Samples to start from or to measure with: a whole small array, or some of the source."""
    latents = sharding.read_samples(source, key, START_SAMPLES, mesh)
    check_latents(latents, "what the source draws")
    if (np.asarray(latents) == np.asarray(latents[:1])).all():
        raise ValueError("all latents are the same point, and no curve goes through one point")
    return latents


_initial_curve = jax.jit(initial_curve)


def _sketch(latents: np.ndarray) -> list[float]:
    """A few random projections that change with any row, but little with a device's rounding."""
    random = np.random.default_rng(0)
    n, d = latents.shape
    rows = random.choice([-1.0, 1.0], (8, n)) / n**0.5
    columns = random.choice([-1.0, 1.0], (8, d)) / d**0.5
    size = np.log(np.mean(np.square(latents, dtype=np.float64)))
    centred = latents - latents.mean(0, dtype=np.float64)
    sketch = np.einsum("sn,nd,sd->s", rows, centred / centred.std(), columns, optimize=True)
    return [round(float(value), 6) for value in (size, *sketch)]


def _record(solver: Solver, curve: Curve, held: Array, loss: float) -> dict[str, Any]:
    distortion, spread, use = _measure(curve, held)
    return {
        "loss": loss,
        # on held samples, since the loss of one round's may differ more than two rounds do
        "objective": float(distortion) + float(solver.penalty(curve)),
        "distortion": float(distortion),
        "perplexity": float(spread),
        "use": np.asarray(use),
    }


@jax.jit
def _measure(curve: Curve, held: Array) -> tuple[Array, Array, Array]:
    projection = project(curve, held)
    use = line_use(projection.line, curve.num_lines)
    return projection.squared_distance.mean() / curve.latent_dim, perplexity(use), use


def _empty_record(num_lines: int) -> dict[str, Any]:
    return {"use": np.zeros(num_lines)} | dict.fromkeys(_COLUMNS, 0)


def _history(records: list[dict[str, Any]]) -> History:
    num_lines = len(records[-1]["use"])
    columns = {
        name: np.array([record[name] for record in records], dtype)
        for name, dtype in _COLUMNS.items()
    }
    use = [np.pad(record["use"], (0, num_lines - len(record["use"]))) for record in records]
    return History(**columns, use=np.stack(use).astype(np.float32))


_COLUMNS = {
    "bits": np.int32,
    "samples": np.float64,
    "loss": np.float32,
    "distortion": np.float32,
    "perplexity": np.float32,
}
