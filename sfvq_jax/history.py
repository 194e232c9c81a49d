"""What a fit tells: of each round, of the result, and while it is under way. Only looked at."""

from typing import Any, NamedTuple

import numpy as np

from sfvq_jax.short import short_repr


class History(NamedTuple):
    """What led to the curve, one entry a round: R entries. All NumPy.

    The rounds of a move that was not kept are not among them, but the samples that they saw are
    counted.

    Attributes:
      codewords: of the stage, [R] int32.
      loss: what the solver lowers, as it was before the round (least squares) or in its mean
        (Adam), a dimension, on the samples of the round, [R] float32.
      objective: the same after the round on the measuring samples, by exact projection, [R]
        float32; NaN in files that were written before it was kept.
      distortion: its part that is error, [R] float32.
      perplexity: exp of the entropy of the use of lines, at most K - 1, [R] float32.
      use: share of the measuring samples on each line, [R, K - 1] float32, zero beyond a stage's
        own lines.
      samples: seen up to here, [R] float64.
    """

    codewords: np.ndarray
    loss: np.ndarray
    objective: np.ndarray
    distortion: np.ndarray
    perplexity: np.ndarray
    use: np.ndarray
    samples: np.ndarray

    __repr__ = short_repr


class Report(NamedTuple):
    """How far a fit is; given to `on_report` now and then within a round, and at its end.

    Attributes:
      codewords: of the stage.
      last_codewords: of the last stage.
      move: of the stage whose rounds these are: "reseed", "reorder"; "" for its first rounds.
      round: of the stage or move, from 1.
      rounds: in it, at most.
      share: of the round that is done, 1 at its end.
      samples: seen up to here.
      samples_per_second: of this round.
      seconds: since this process began the fit.
      seconds_left: if each round goes on as this one (after its first block, where that was
        compiled for), every stage has all its rounds, no move is worth trying, and later stages
        cost as their size says; NaN where nothing is known.
      loss: at the round's end, else NaN; see `History`.
      objective: likewise.
      distortion: likewise.
      perplexity: likewise.
    """

    codewords: int
    last_codewords: int
    move: str
    round: int
    rounds: int
    share: float
    samples: int
    samples_per_second: float
    seconds: float
    seconds_left: float
    loss: float
    objective: float
    distortion: float
    perplexity: float


Record = dict[str, Any]  # one entry of a history

_TYPES = {
    "codewords": np.int32,
    "loss": np.float32,
    "objective": np.float32,
    "distortion": np.float32,
    "perplexity": np.float32,
    "samples": np.float64,
}


def history_of(records: list[Record]) -> History:
    """The history that records, one or more, make."""
    lines = max(len(record["use"]) for record in records)
    columns = {
        name: np.array([record[name] for record in records], dtype)
        for name, dtype in _TYPES.items()
    }
    use = [np.pad(record["use"], (0, lines - len(record["use"]))) for record in records]
    return History(**columns, use=np.stack(use).astype(np.float32))


def records_of(history: History) -> list[Record]:
    """The records that made a history."""
    records = []
    for row in range(len(history.codewords)):
        record = {name: column[row] for name, column in history._asdict().items()}
        records.append(record | {"use": record["use"][: int(record["codewords"]) - 1]})
    return records


def empty_history(rounds: int, lines: int) -> History:
    """One of zeros that takes no memory, however many rounds it is said to have."""
    one = history_of([{"use": np.zeros(lines)} | dict.fromkeys(_TYPES, 0)])
    return History(*(np.broadcast_to(column[0], (rounds, *column.shape[1:])) for column in one))
