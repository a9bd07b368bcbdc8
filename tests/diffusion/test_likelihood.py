import math

import pytest
import torch

from dalle_cli.diffusion.likelihood import bits_per_dimension
from dalle_cli.diffusion.process import Process
from dalle_cli.diffusion.schedules import linear
from dalle_cli.nn.noise import noise_source

from .conftest import DEVIATION, MEAN, best_network


def pictures(count):
    """Normal numbers in 256 levels."""
    numbers = MEAN + DEVIATION * torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    return ((numbers.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def test_best_denoiser_reaches_the_entropy():
    torch.manual_seed(0)
    process = Process(linear(1000), variance="large")  # nearly that of the true step where the data is broad
    data = pictures(40)
    bits = bits_per_dimension(process, process.denoiser(best_network(process)), data, range(1000))
    assert bits.shape == (40,)
    entropy = math.log2(127.5 * DEVIATION * math.sqrt(2 * math.pi * math.e))  # of the normal, in levels of 1/127.5
    assert entropy - 0.25 < bits.mean().item() < entropy + 0.25


def test_known_data_costs_only_the_prior():
    process = Process(linear(1000), prediction_type="x0")
    data = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    data += 1 / 255  # a level
    bits = bits_per_dimension(process, process.denoiser(lambda x, t: data), data, range(1000))
    alpha_bar = process.alpha_bar[-1].item()
    prior = (alpha_bar / 255**2 - alpha_bar - math.log(1 - alpha_bar)) / 2 / math.log(2)
    deviation = math.exp(process.log_variance[0].item() / 2)
    share = math.erf(1 / 255 / deviation / math.sqrt(2))
    assert bits.tolist() == pytest.approx([prior - math.log2(share)] * 2, abs=1e-3)


def test_worse_denoiser_costs_more():
    process = Process(linear(1000))
    best, data = best_network(process), pictures(4)
    good, bad = (
        bits_per_dimension(process, process.denoiser(network), data, range(1000), noise=noise_source(torch.arange(4)))
        for network in (best, lambda x, t: best(x, t) + 0.3)
    )
    assert (bad > good + 0.1).all()
