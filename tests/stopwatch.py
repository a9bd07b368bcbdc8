"""How `make bench` times and prints."""

import time
from collections.abc import Callable


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """The median of some runs after one that warms up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return sorted(times)[repeats // 2]


def line(what: str, how: str, value: float, unit: str, target: str = "") -> None:
    shown = f"{value:,.2f}" if value >= 1 else f"{value:.3f}"
    print(f"{what:<22} {how:<28} {shown:>12} {unit:<14} {'promised: ' + target if target else ''}".rstrip())
