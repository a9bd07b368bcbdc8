import math

import pytest
import torch

from dalle_cli.evaluate import diversity
from dalle_cli.evaluate.diversity import Mean, Point, mean, spread
from dalle_cli.evaluate.suite import Share

POINTS = [
    Point("unclip", 1.0, Share(1, 4), Mean(0.5, 0.1, 3)),
    Point("unclip", 3.0, Share(3, 4), Mean(0.4, 0.1, 3)),
    Point("glide", 1.0, Share(2, 4), Mean(0.3, math.inf, 1)),
    Point("glide", 3.0, Share(4, 4), Mean(-0.01, 0.1, 3)),
]


def test_spread_is_the_mean_over_pairs():
    same = torch.tensor([[0.6, 0.8]]).expand(3, 2)
    assert spread(same) == pytest.approx(0, abs=1e-6)
    assert spread(torch.eye(4)) == pytest.approx(1)
    assert spread(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="at least two"):
        spread(torch.eye(1))


def test_intervals_hold_the_truth_as_often_as_they_say():
    generator = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(400):
        low, high = mean((2 + torch.randn(50, generator=generator)).tolist()).interval
        held += low < 2 < high
    assert 0.91 < held / 400 < 0.98
    assert mean([1.0, 3.0]).value == 2
    assert mean([1.0]).reach == math.inf
    assert str(Mean(0.5, 0.25, 3)) == "0.500 ± 0.250"


def test_points_are_lines_rows_and_curves():
    assert [line.split()[:3] for line in diversity.table(POINTS)[1:]] == [
        ["unclip", "1", "25.0%"], ["unclip", "3", "75.0%"], ["glide", "1", "50.0%"], ["glide", "3", "100.0%"],
    ]  # fmt: skip
    assert diversity.curves(POINTS) == {
        "unclip, asked": [0.25, 0.75],
        "unclip, diversity": [0.5, 0.4],
        "glide, asked": [0.5, 1.0],
        "glide, diversity": [0.3, 0.0],
    }
    plain = POINTS[0].plain
    assert (plain["recipe"], plain["scale"], plain["asked"], plain["diversity"]) == ("unclip", 1.0, 0.25, 0.5)
    assert plain["asked_interval"] == Share(1, 4).interval
    assert plain["diversity_interval"] == (0.4, 0.6)
    assert POINTS[2].plain["diversity_interval"] is None
