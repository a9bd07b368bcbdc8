"""Data whose best denoiser is known: each number is normal with mean 0.1 and deviation 0.3."""

import math

import pytest
import torch

from dalle_cli.diffusion.process import Process
from dalle_cli.diffusion.schedules import linear

MEAN, DEVIATION = 0.1, 0.3


def best_x0(process, x, t):
    """What data is expected in x, by Bayes' rule."""
    alpha_bar = process.alpha_bar[t].view(-1, *[1] * (x.dim() - 1))
    spread = alpha_bar * DEVIATION**2 + 1 - alpha_bar
    return MEAN + alpha_bar.sqrt() * DEVIATION**2 / spread * (x - alpha_bar.sqrt() * MEAN)


def best_network(process):
    """The same as a network that predicts eps."""

    def network(x, t):
        alpha_bar = process.alpha_bar[t].view(-1, *[1] * (x.dim() - 1))
        return (x - alpha_bar.sqrt() * best_x0(process, x, t)) / (1 - alpha_bar).sqrt()

    return network


def flow(process, x, t):
    """Where the way without noise leads from x at step t: to the same quantile of the data."""
    alpha_bar = process.alpha_bar[t].item()
    spread = math.sqrt(alpha_bar * DEVIATION**2 + 1 - alpha_bar)
    return MEAN + DEVIATION * (x - math.sqrt(alpha_bar) * MEAN) / spread


@pytest.fixture
def process():
    return Process(linear(1000))


@pytest.fixture
def denoise(process):
    return process.denoiser(best_network(process))


@pytest.fixture
def x():
    return torch.randn(4, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
