"""Proportions and means with their 95 % confidence intervals."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Proportion:
    """`successes` of `trials`, with the Wilson score interval at 95 % (Wilson 1927)."""

    successes: int
    trials: int

    @property
    def value(self) -> float:
        """The fraction; 0 of no trials."""
        return self.successes / max(self.trials, 1)

    @property
    def interval(self) -> tuple[float, float]:
        if not self.trials:
            return 0.0, 1.0
        n, p, z = self.trials, self.successes / self.trials, 1.96
        middle, margin = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, (middle - margin) / (1 + z * z / n)), min(1.0, (middle + margin) / (1 + z * z / n))

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:6.1%} ({low:.1%} to {high:.1%})"


@dataclass(frozen=True)
class Mean:
    """The mean of `count` independent values; `half_width` is half of its 95 % interval under normality."""

    value: float
    half_width: float
    count: int

    @property
    def interval(self) -> tuple[float, float]:
        return self.value - self.half_width, self.value + self.half_width

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.half_width:.3f}"


def proportion(outcomes: Iterable[bool]) -> Proportion:
    """Count how many outcomes are true."""
    outcomes = list(outcomes)
    return Proportion(sum(outcomes), len(outcomes))


def mean(values: Sequence[float]) -> Mean:
    """Return the mean of independent values. A single value has no interval: its half width is infinite."""
    numbers = torch.tensor(values, dtype=torch.float64)
    half_width = 1.96 * numbers.std().item() / math.sqrt(len(numbers)) if len(numbers) > 1 else math.inf
    return Mean(numbers.mean().item(), half_width, len(numbers))


def to_json(figures: Mapping[str, Proportion | Mean]) -> dict[str, Any]:
    """Return `NAME` and `NAME_interval` of each figure; the interval of a single value is null."""
    fields: dict[str, Any] = {}
    for name, figure in figures.items():
        single = isinstance(figure, Mean) and figure.count < 2
        fields |= {name: figure.value, f"{name}_interval": None if single else figure.interval}
    return fields
