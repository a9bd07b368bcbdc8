"""Noise schedules: tables of alpha-bar, the fraction of the data's variance that is left after each step."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor


def linear(steps: int) -> Tensor:
    """Betas evenly spaced from 1e-4 to 0.02 when there are 1000, scaled to as much noise for any other number.

    Returns alpha-bar, (steps,) float64. Raises ValueError for 20 steps or fewer, where a beta would reach one.
    Ho et al. 2020, section 4.
    """
    if steps <= 20:
        raise ValueError(f"schedule linear: {steps} steps leave nothing of the data; take more than 20, or cosine")
    scale = 1000 / steps
    beta = torch.linspace(1e-4 * scale, 0.02 * scale, steps, dtype=torch.float64)
    return torch.cumprod(1 - beta, dim=0)


def cosine(steps: int) -> Tensor:
    """Alpha-bar along a squared cosine, each beta at most 0.999.

    Returns alpha-bar, (steps,) float64. Nichol and Dhariwal 2021, section 3.2; published as `squaredcos_cap_v2` too.
    """
    level = [math.cos(math.pi / 2 * (i / steps + 0.008) / 1.008) ** 2 for i in range(steps + 1)]
    beta = [min(1 - after / before, 0.999) for before, after in pairwise(level)]
    return torch.cumprod(1 - torch.tensor(beta, dtype=torch.float64), dim=0)


SCHEDULES: dict[str, Callable[[int], Tensor]] = {"linear": linear, "cosine": cosine}
