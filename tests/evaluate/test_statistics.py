import math

import pytest
import torch

from dalle_cli.evaluate.statistics import Mean, Proportion, mean, proportion, to_json


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (40, 40, 0.9124, 1.0), (0, 0, 0, 1)],
)
def test_wilson_interval(successes, trials, low, high):
    assert Proportion(successes, trials).interval == pytest.approx((low, high), abs=2e-4)


def test_proportion_counts_outcomes():
    figure = proportion(one > 1 for one in (1, 2, 3))
    assert (figure, figure.value) == (Proportion(2, 3), 2 / 3)
    assert str(Proportion(1, 4)) == " 25.0% (4.6% to 69.9%)"
    assert proportion([]).value == 0


def test_intervals_cover_the_mean_as_often_as_stated():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):
        low, high = mean((2 + torch.randn(50, generator=generator)).tolist()).interval
        covered += low < 2 < high
    assert 0.91 < covered / 400 < 0.98
    assert mean([1.0, 3.0]).value == 2
    assert mean([1.0]).half_width == math.inf
    assert str(Mean(0.5, 0.25, 3)) == "0.500 ± 0.250"


def test_json_has_intervals():
    fields = to_json({"kept": Proportion(1, 2), "psnr": Mean(20.0, 1.0, 3), "single": Mean(1.0, math.inf, 1)})
    assert fields["kept"] == 0.5
    assert fields["kept_interval"] == Proportion(1, 2).interval
    assert fields["psnr_interval"] == (19.0, 21.0)
    assert (fields["single"], fields["single_interval"]) == (1.0, None)
