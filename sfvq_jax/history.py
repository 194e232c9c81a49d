"""What a fit tells: of each round, of the result, and while it is under way. Only looked at."""

from typing import Any, NamedTuple

import numpy as np

from sfvq_jax.short import short_repr


class History(NamedTuple):
    """The rounds of a fit, one entry for each of R rounds; NumPy arrays.

    Rounds of a move that was not kept are left out, but their samples are counted.

    Attributes:
      codewords: number of codewords in the round, [R] int32.
      loss: objective of the solver per dimension on the samples of the round, [R] float32: before
        the round for least squares, the mean over the round for Adam.
      objective: the same after the round on the measuring samples, by exact projection, [R]
        float32; NaN in files of older versions.
      distortion: the part of the objective that is error, [R] float32.
      perplexity: exp of the entropy of the use of lines, at most K - 1, [R] float32.
      use: share of the measuring samples on each line, [R, K - 1] float32; 0 for lines that the
        stage does not have yet.
      samples: number of samples seen so far, [R] float64.
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
    """Progress of a fit, as `on_report` gets it from time to time and at the end of each round.

    Attributes:
      codewords: number of codewords in this stage.
      last_codewords: number of codewords in the last stage.
      move: the move that the rounds belong to, "reseed" or "reorder"; "" for a stage's first ones.
      round: number of the round in its stage or move, from 1.
      rounds: largest number of rounds in this stage or move.
      share: share of the round that is done, 1 at its end.
      samples: number of samples seen so far.
      samples_per_second: speed in this round.
      seconds: time since this process began the fit.
      seconds_left: time left, if each round takes as long as this one (without the first block if
        that was compiled), every stage has all its rounds, no move is tried, and later stages
        cost in proportion to their size; NaN if unknown.
      loss: at the end of the round, else NaN; see `History`.
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
