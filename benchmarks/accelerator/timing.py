"""Times of work on a device: synchronised, warm, the median of several."""

import statistics
import time
from collections.abc import Callable
from typing import Any

SAMPLE_SECONDS = 0.02  # calls that are shorter are timed several together
MOST_CALLS = 50  # in a sample
SAMPLES = (3, 15)  # at least and at most

trial = False  # whether times do not matter, and are to be had soon


def timed(
    run: Callable[[], Any], wait: Callable[[Any], Any], *, seconds: float = 0.25
) -> dict[str, float]:
    """Milliseconds of a call.

    Args:
      run: starts the work, and gives what `wait` waits for.
      wait: returns when the device has done it.
      seconds: to go on for, after a call that compiles and one that warms up.

    Returns:
      `ms`, the median; `least ms`; `first s`, of the first call, with what it compiles.
    """
    first = _once(run, wait)
    once = _once(run, wait)
    if trial:
        return {"ms": 1e3 * once, "least ms": 1e3 * once, "first s": first}
    calls = max(1, min(MOST_CALLS, round(SAMPLE_SECONDS / max(once, 1e-6))))
    least, most = (1, 2) if once > 1 else SAMPLES  # seconds a call leave no time for more
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or (len(times) < most and time.perf_counter() < end):
        start = time.perf_counter()
        for _ in range(calls):
            result = run()
        wait(result)
        times.append((time.perf_counter() - start) / calls)
    return {"ms": 1e3 * statistics.median(times), "least ms": 1e3 * min(times), "first s": first}


def _once(run: Callable[[], Any], wait: Callable[[Any], Any]) -> float:
    start = time.perf_counter()
    wait(run())
    return time.perf_counter() - start
