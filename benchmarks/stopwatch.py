"""Timing, and the rows that the benchmarks print."""

import time
from collections.abc import Callable


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the median time of several runs, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def line(what: str, how: str, value: float, unit: str, target: str = "") -> None:
    """Print a row: what was measured, how, the figure with its unit, and the target it should reach."""
    shown = f"{value:,.2f}" if value >= 1 else f"{value:.3f}"
    print(f"{what:<22} {how:<28} {shown:>12} {unit:<14} {'target: ' + target if target else ''}".rstrip())
