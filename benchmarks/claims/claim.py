"""What a claim is: a question and a sentence, whose figures are read from benchmarks/results."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.report import Row


@dataclass(frozen=True)
class Claim:
    """A question and its answer.

    Attributes:
      question: as both tables have it.
      answer: for docs/results/index.md.
      rows: by page (below docs, without .md), the row that the answer rests on, which gets an
        anchor there; None where a page is linked as a whole.
      readme: a shorter answer for README, whose links are [words](PAGE), or [words](PAGE#CLAIM) for
        the row of another claim; None for claims that are not there.
    """

    question: str
    answer: str
    rows: Mapping[str, Row | None]
    readme: str | None = None


CLAIMS: dict[str, Callable[[], Claim]] = {}


def claim(function: Callable[[], Claim]) -> Callable[[], Claim]:
    """Puts a claim below the others, under the function's name."""
    CLAIMS[function.__name__.replace("_", "-")] = function
    return function


def holds(condition: bool, what: str) -> None:
    """Fails where the results no longer say what a sentence does."""
    if not condition:
        raise SystemExit(f"the results no longer say that {what}: change benchmarks/claims")
