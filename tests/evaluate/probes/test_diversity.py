import math

import pytest
import torch
from PIL import Image

from dalle_cli.evaluate.probes.diversity import Diversity, Point, spread
from dalle_cli.evaluate.statistics import Mean, Proportion
from tests.cli.conftest import one_line

POINTS = [
    Point("unclip", 1.0, Proportion(1, 4), Mean(0.5, 0.1, 3)),
    Point("unclip", 3.0, Proportion(3, 4), Mean(0.4, 0.1, 3)),
    Point("glide", 1.0, Proportion(2, 4), Mean(0.3, math.inf, 1)),
    Point("glide", 3.0, Proportion(4, 4), Mean(-0.01, 0.1, 3)),
]


def test_spread_is_the_mean_over_pairs():
    same = torch.tensor([[0.6, 0.8]]).expand(3, 2)
    assert spread(same) == pytest.approx(0, abs=1e-6)
    assert spread(torch.eye(4)) == pytest.approx(1)
    assert spread(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="at least two"):
        spread(torch.eye(1))


def test_points_are_lines_rows_and_curves():
    result = Diversity(tuple(POINTS))
    assert [line.split()[:3] for line in result.table()[1:]] == [
        ["unclip", "1", "25.0%"], ["unclip", "3", "75.0%"], ["glide", "1", "50.0%"], ["glide", "3", "100.0%"],
    ]  # fmt: skip
    assert result.curves() == {
        "unclip, accuracy": [0.25, 0.75],
        "unclip, diversity": [0.5, 0.4],
        "glide, accuracy": [0.5, 1.0],
        "glide, diversity": [0.3, 0.0],
    }
    first, _, single, _ = result.to_json()
    assert (first["recipe"], first["guidance_scale"], first["accuracy"], first["diversity"]) == ("unclip", 1, 0.25, 0.5)
    assert first["accuracy_interval"] == Proportion(1, 4).interval
    assert first["diversity_interval"] == (0.4, 0.6)
    assert single["diversity_interval"] is None


@pytest.mark.slow
def test_two_systems_are_compared(probe, unclip, glide, tiny):
    words = ("diversity", "--recipe", unclip.recipe, "--baseline", glide.decoder, "--num-captions", 5, "-n", 2)
    lines = probe(*words, "--guidance-scale", "1,2", "--clip", tiny.clip, "--sheet", "s.png").results
    assert [(one["recipe"], one["guidance_scale"], one["num_images"]) for one in lines] == [
        (name, scale, 10) for name in ("unclip", "decoder") for scale in (1.0, 2.0)
    ]
    assert all(one["diversity_interval"][0] < one["diversity"] < one["diversity_interval"][1] for one in lines)
    assert Image.open("s.png").size == (640, 400)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("-n", "1"), 2, "-n 1: diversity needs at least two images"),
        (("--clip", "none"), 3, "none"),
        (("--guidance-scale", "x"), 2, "expected numbers from 0 to 999"),
    ],
)
def test_usage_errors_are_one_line(probe, unclip, words, code, message):
    ended = probe("diversity", "--recipe", unclip.recipe, *words, code=code)
    assert one_line(ended.err)
    assert message in ended.err
