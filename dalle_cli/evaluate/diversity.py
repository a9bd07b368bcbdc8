"""How different the pictures of one caption are: fidelity is bought with diversity where guidance grows.

Ramesh et al. 2022, section 5.4 (figures 9 to 11), by people there; here by CLIP's features and the judge of scenes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .suite import Share


@dataclass(frozen=True)
class Mean:
    """A mean over `count` captions, and half of its 95 % interval by the normal distribution."""

    value: float
    reach: float
    count: int

    @property
    def interval(self) -> tuple[float, float]:
        return self.value - self.reach, self.value + self.reach

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.reach:.3f}"


def spread(features: Tensor) -> float:
    """The mean of 1 - cosine over all pairs of pictures. features: (N, e), of unit length, N at least 2."""
    count = len(features)
    if count < 2:
        raise ValueError(f"diversity of {count} pictures: draw at least two of each caption")
    alike = features.double() @ features.double().T
    return 1 - ((alike.sum() - alike.diagonal().sum()) / (count * (count - 1))).item()


def mean(values: Sequence[float]) -> Mean:
    """Of numbers that are independent of each other. One number has no interval: its reach is infinite."""
    numbers = torch.tensor(values, dtype=torch.float64)
    reach = 1.96 * numbers.std().item() / math.sqrt(len(numbers)) if len(numbers) > 1 else math.inf
    return Mean(numbers.mean().item(), reach, len(numbers))


@dataclass(frozen=True)
class Point:
    """A system at a scale of guidance: how many pictures are as asked, and how different those of a caption are."""

    system: str
    scale: float
    asked: Share
    spread: Mean

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "recipe": self.system,
            "scale": self.scale,
            "pictures": self.asked.count,
            "asked": self.asked.true / max(self.asked.count, 1),
            "asked_interval": self.asked.interval,
            "diversity": self.spread.value,
            "diversity_interval": self.spread.interval if self.spread.count > 1 else None,
        }


def table(points: Sequence[Point]) -> list[str]:
    """Lines of text: a row for each system and scale."""
    lines = [f"{'system':<16} {'scale':>6}  {'as asked (95 % interval)':<26} diversity (1 - cosine)"]
    return lines + [f"{one.system:<16} {one.scale:>6g}  {one.asked!s:<26} {one.spread}" for one in points]


def curves(points: Sequence[Point]) -> dict[str, list[float]]:
    """By system and figure, its values in the order of the scales, for `curve.draw`."""
    found: dict[str, list[float]] = {}
    for one in points:
        found.setdefault(f"{one.system}, asked", []).append(one.asked.true / max(one.asked.count, 1))
        found.setdefault(f"{one.system}, diversity", []).append(min(max(one.spread.value, 0.0), 1.0))
    return found
