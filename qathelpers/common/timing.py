"""Compare the speed of several ways of doing the same work: run them in turn, and take the medians."""

import statistics
import time
from collections.abc import Callable, Iterator

REPEATS = 3


def alternate(ways: dict[str, Callable[[], Iterator]], repeats: int = REPEATS) -> dict[str, list[float]]:
    """Time all `ways` in turn, `repeats` times each.

    Taking turns exposes all ways to the same changes in the machine's speed, such as those from a processor that heats
    up or from a background job.

    Args:
        ways: Functions by name. Each returns an iterator; what is timed is iterating to its end.
        repeats: How many turns each way gets.

    Returns:
        For each name, the seconds that each of its turns took.
    """
    times = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            for _ in way():
                pass
            times[name].append(time.perf_counter() - start)
    return times


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    """Return the median of each way's `times`, in seconds."""
    return {name: statistics.median(values) for name, values in times.items()}
