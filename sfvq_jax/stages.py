"""A fit under way: from stage to stage and round to round, whatever the source; its checkpoints."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from sfvq_jax.blocks import Draws, Reader, feeds, plan_round
from sfvq_jax.curve import Curve, padded
from sfvq_jax.devices import (
    by_columns,
    by_rows,
    lines_axis,
    on_host,
    parts,
    place_curve,
    replicate,
)
from sfvq_jax.history import Record, Report, empty_history, history_of, records_of
from sfvq_jax.io.checkpoints import Checkpoints
from sfvq_jax.processes import of_all_processes
from sfvq_jax.quality import Health
from sfvq_jax.rounds import (
    Measured,
    absorb,
    end_round,
    measure,
    search_on,
    sum_shapes,
    zero_sums,
)
from sfvq_jax.rows.source import Block, Source
from sfvq_jax.solver import Solver
from sfvq_jax.span import Span
from sfvq_jax.stage import better, propose, stage_rows
from sfvq_jax.state import At, Now, adopt, shapes_of

Array = jax.Array

BOOKMARKS = "bookmarks"  # in a checkpoint's about: of the source, one a process
MOST_BOOKMARKS = 2**19  # bytes; where they are more, the source is read again up to there


class Stages:
    """A fit: what stays the same, and `run`, which goes from stage to stage.

    Args:
      key: names the order of the source and all that is drawn.
      source: placed on the mesh.
      span: that its latents are mapped to.
      solver: of the last stage.
      sizes: codewords of each stage.
      mesh: devices.
      held: measuring samples in the span, on every device.
      latent_dim: D, of which the span may be a part.
      on_report: called with a `Report`.
    """

    def __init__(
        self,
        key: Array,
        source: Source,
        span: Span,
        solver: Solver,
        sizes: list[int],
        mesh: Mesh,
        held: Block,
        latent_dim: int,
        on_report: Callable[[Report], None] | None,
    ):
        self.key, self.source, self.span, self.solver = key, source, span, solver
        self.key_everywhere = replicate(key, mesh)
        self.sizes, self.mesh, self.held, self.on_report = sizes, mesh, held, on_report
        self.plans = [plan_round(solver, size, source, mesh) for size in sizes]
        self.solvers = [solver.anneal(len(sizes) - 1 - i, size) for i, size in enumerate(sizes)]
        self.scale = held.x.shape[1] / latent_dim  # of a mean over the dimensions
        self.started = time.monotonic()
        self.cold = True  # in the first round of this process, which compiles
        self.warm: tuple[float, int] | None = None  # when its first block ended, and samples read
        self.records: list[Record] = []
        self.converged: list[bool] = []
        self.reader = Reader(source, key, mesh)
        self.bookmark: Any = None  # of the source, after the last block that was taken in

    def run(self, start: Curve, checkpoints: Checkpoints) -> tuple[Curve, Health]:
        """The curve in the span, and its health by the measuring samples."""
        restored = self._restore(checkpoints)
        at, now = restored or (At(), self._first(start))
        with self.reader:
            while at.stage < len(self.sizes):
                at, now = self._move(at, now, checkpoints)
        # a copy on the default device, wherever it was fitted; `jnp.asarray` would compile
        codewords = jax.device_put(on_host(now.curve.codewords)[: self.sizes[-1]])
        measured = measure(self.mesh, self.solver, now.curve, now.state, self.held)
        return Curve(codewords), measured.health

    def _first(self, start: Curve) -> Now:
        curve = place_curve(self._in_rows(start, 0), self.mesh)
        return Now(curve, None, None, None)

    def _in_rows(self, curve: Curve, stage: int) -> Curve:
        """The curve in the rows of a stage, made on the host, where it compiles nothing."""
        codewords, size = np.asarray(curve.codewords), curve.size
        size = np.int32(len(codewords) if size is None else size)
        rows = stage_rows(self.solver, self.sizes[stage])
        padding = ((0, rows - len(codewords)), (0, 0))
        return Curve(np.pad(codewords, padding, mode="edge"), size)  # pyright: ignore

    def _more_rows(self, curve: Curve, stage: int) -> Curve:
        if lines_axis(self.mesh) is None:
            return place_curve(self._in_rows(curve, stage), self.mesh)
        return _padded(self.mesh, curve, stage_rows(self.solver, self.sizes[stage]))

    def _move(self, at: At, now: Now, checkpoints: Checkpoints) -> tuple[At, Now]:
        """The rest of a stage's first rounds or of a move's, and the step to what comes next."""
        solver = self.solvers[at.stage]
        if not at.begun:
            curve = now.curve
            if at.move == 0 and len(curve.codewords) < stage_rows(solver, self.sizes[at.stage]):
                curve = self._more_rows(curve, at.stage)
            new, state, worthwhile = _propose(
                self.mesh,
                solver,
                np.int32(at.move),
                curve,
                np.int32(self.sizes[at.stage]),
                self.held,
            )
            if not worthwhile:
                return self._after(at, now, checkpoints)
            if solver.batch is not None:  # whose many steps need no size
                new = Curve(new.codewords)
            kept = (now.curve, now.state) if at.move else None
            now = Now(new, state, self._zeros(new, state), kept)
            at = at._replace(begun=True, round=0, block=0, distortion=None, converged=False)
        measured = None
        while at.round < solver.rounds and not at.converged:
            at, now, measured = self._round(at, now, checkpoints)
        if now.kept is not None:
            if measured is None:
                measured = measure(self.mesh, solver, now.curve, now.state, self.held)
            curve, state = now.kept
            before = measure(self.mesh, solver, curve, state, self.held).health
            if not _better(solver, state, (curve, before), (now.curve, measured.health)):
                del self.records[len(self.records) - at.round :]
                now = now._replace(curve=curve, state=state)
                return self._after(at, now, checkpoints)
        self.converged[at.stage :] = [at.converged]
        return self._after(at, now, checkpoints)

    def _after(self, at: At, now: Now, checkpoints: Checkpoints) -> tuple[At, Now]:
        """The next move, or the next stage, at whose beginning the fit is saved."""
        now = now._replace(kept=None)
        if at.move < len(self.solver.moves):
            return At(at.stage, at.move + 1, read=at.read), now
        at = At(at.stage + 1, read=at.read)
        self._save(checkpoints, at, now)
        return at, now

    def _round(self, at: At, now: Now, checkpoints: Checkpoints) -> tuple[At, Now, Measured]:
        """The rest of a round, and the step to the next one."""
        began, before = time.monotonic(), at
        solver, plan = self.solvers[at.stage], self.plans[at.stage]
        size, (curve, state, sums, kept) = self.sizes[at.stage], now
        draws = Draws(self.key_everywhere, np.array([size, at.move, at.round], np.int32))
        source = (self.source, self.span, plan, draws, self.key)
        for feed in feeds(*source, at.block, at.read, self.mesh, self.reader):
            curve, state, sums = absorb(
                self.mesh, solver, plan.steps, curve, state, sums, draws, feed
            )
            jax.block_until_ready((state, sums))
            self.bookmark = feed.bookmark
            at = at._replace(block=feed.stop, read=at.read + feed.samples)
            if self.cold and self.warm is None:
                self.warm = time.monotonic(), at.read
            if checkpoints.due():
                self._save(checkpoints, at, Now(curve, state, sums, kept))
            self._report(began, before, at, None)
        updated = end_round(self.mesh, solver, curve, state, sums, at.block)
        curve, state = updated.curve, updated.state
        measured = measure(self.mesh, solver, curve, state, self.held)
        # what is looked at is fetched in one go: an accelerator would be waited for each time
        (loss, penalty_before), seen = jax.device_get((updated.seen, measured.seen))
        record = self._record(at, seen, float(loss))
        self.records.append(record)
        self._report(began, before, at, record)
        self.cold, self.warm = False, None
        distortion, converged = float(seen[0]), False
        if at.distortion is not None:  # both curves by the terms of the same update
            objective = at.distortion + float(penalty_before)
            gain = objective - (distortion + float(seen[1]))
            converged = 0 <= gain <= float(solver.tolerance) * objective
        at = at._replace(round=at.round + 1, block=0, distortion=distortion, converged=converged)
        return at, Now(curve, state, updated.sums, kept), measured

    def _zeros(self, curve: Curve, state: Any) -> Any:
        return zero_sums(
            self.mesh, self.solver, sum_shapes(self.solver, curve, state, parts(self.mesh))
        )

    def _record(self, at: At, seen: np.ndarray, loss: float) -> Record:
        size, (distortion, penalty, perplexity), use = self.sizes[at.stage], seen[:3], seen[3:]
        distortion = float(distortion) * self.scale
        if not np.isfinite(distortion):
            raise ValueError(
                f"the fit diverged at {size} codewords, round {at.round + 1}: scale the latents to"
                " unit size, or, with Adam, use a learning rate below the present one"
            )
        use = use[: size - 1]
        return {
            "codewords": size,
            "loss": loss * self.scale,
            "objective": distortion + float(penalty) * self.scale,
            "distortion": distortion,
            "perplexity": float(perplexity),
            "use": use / use.sum(),
            "samples": at.read,
        }

    # Checkpoints.

    def _save(self, checkpoints: Checkpoints, at: At, now: Now) -> None:
        about = {
            "at": at._asdict(),
            "devices": parts(self.mesh),
            "rounds": len(self.records),
            "converged": self.converged,
            BOOKMARKS: of_all_processes(self.bookmark, MOST_BOOKMARKS),
        }
        checkpoints.save(
            {"now": now, "history": history_of(self.records) if self.records else None}, about
        )

    def _restore(self, checkpoints: Checkpoints) -> tuple[At, Now] | None:
        restored = checkpoints.restore(self._shapes)
        if restored is None:
            return None
        arrays, about = restored
        at, now = At(**about["at"]), Now(*arrays["now"])
        if arrays["history"] is not None:
            self.records = records_of(arrays["history"])
        self.converged = about["converged"]
        if bookmarks := about.get(BOOKMARKS):
            self.bookmark = bookmarks[jax.process_index()]
            self.source.go_to(self.bookmark)
        if at.begun and now.sums is not None:
            now = now._replace(sums=adopt(now.sums, self.solver, self.mesh))
        return self._go_on(at, now)

    def _go_on(self, at: At, now: Now) -> tuple[At, Now]:
        """A fit that has ended is resumed where more rounds are allowed than its last stage had."""
        last = len(self.sizes) - 1
        of_stage = [record for record in self.records if record["codewords"] == self.sizes[last]]
        if at.stage != last + 1 or self.converged[last] or len(of_stage) >= self.solver.rounds:
            return at, now
        sums = self._zeros(now.curve, now.state)
        at = At(last, begun=True, round=len(of_stage), read=at.read)
        return at, now._replace(sums=sums)

    def _shapes(self, about: dict[str, Any]) -> Any:
        """Those of what was saved, by what was noted with it."""
        at, width = At(**about["at"]), self.held.x.shape[1]
        now = shapes_of(at, self.solver, self.sizes, width, self.mesh, about["devices"])
        # a stage that has just begun has no rounds of its own
        fresh = at.begun and not at.move and at.round == 0
        lines = self.sizes[max(at.reached - fresh, 0)] - 1
        history = empty_history(about["rounds"], lines) if about["rounds"] else None
        return {"now": now, "history": history}

    def plan(self) -> list[list[int | None]]:
        """Codewords and samples of each stage, as a checkpoint's description keeps them."""
        return [
            [size, plan.blocks, plan.batch, plan.steps, plan.whole]
            for size, plan in zip(self.sizes, self.plans, strict=True)
        ]

    # Reports.

    def _report(self, began: float, before: At, at: At, record: Record | None) -> None:
        """Reports on a round that began at a time, at a place; with a record if it has ended."""
        if self.on_report is None:
            return
        now, rounds = time.monotonic(), self.solver.rounds
        work = [self._samples_a_round(stage) * (size + 64) for stage, size in enumerate(self.sizes)]
        of_round, samples = work[at.stage], self._samples_a_round(at.stage)
        share = 1.0 if record else (at.read - before.read) / samples
        left = of_round * (rounds - at.round - share) + rounds * sum(work[at.stage + 1 :])
        seconds = max(now - began, 1e-9)
        since, read = self.warm or (began, before.read)  # how long a round takes once compiled
        seconds_a_round = samples * (now - since) / (at.read - read) if at.read > read else math.nan
        names = ("loss", "objective", "distortion", "perplexity")
        values = {name: math.nan if record is None else record[name] for name in names}
        self.on_report(
            Report(
                codewords=self.sizes[at.stage],
                last_codewords=self.sizes[-1],
                move=self.solver.moves[at.move - 1] if at.move else "",
                round=at.round + 1,
                rounds=rounds,
                share=share,
                samples=at.read,
                samples_per_second=(at.read - before.read) / seconds,
                seconds=now - self.started,
                seconds_left=left / of_round * seconds_a_round,
                **values,
            )
        )

    def _samples_a_round(self, stage: int) -> float:
        """NaN where only the end of an iterator tells."""
        plan = self.plans[stage]
        if plan.whole:
            return self.source.num_latents or math.nan
        return (plan.blocks or math.nan) * plan.block_samples


@functools.partial(jax.jit, static_argnames="mesh")
def _propose(
    mesh: Mesh, solver: Solver, move: Array, curve: Curve, size: Array, held: Block
) -> tuple[Curve, Any, Array]:
    curve = by_columns(curve, mesh)
    proposal = propose(solver, move, curve, size, *held, search=search_on(mesh))
    new = by_columns(proposal.curve, mesh)
    return by_rows(new, mesh), solver.init(new), proposal.worthwhile


@functools.partial(jax.jit, static_argnames=("mesh", "rows"))
def _padded(mesh: Mesh, curve: Curve, rows: int) -> Curve:
    return by_rows(padded(by_columns(curve, mesh), rows), mesh)


_better = jax.jit(better)
