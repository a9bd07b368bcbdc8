import math

import pytest
import torch

from dalle_cli.diffusion.schedules import SCHEDULES, cosine, linear


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (linear, {0: 9.999e-01, 10: 9.978065725078e-01, 500: 7.779665836502e-02, 999: 4.035829765376e-05}),
        (cosine, {0: 9.999587157752e-01, 10: 9.992789037733e-01, 500: 4.922851724488e-01, 999: 2.428766907035e-09}),
    ],
)
def test_published_levels(schedule, values):
    alpha_bar = schedule(1000)
    assert alpha_bar.shape == (1000,)
    assert alpha_bar.dtype == torch.float64
    for t, value in values.items():
        assert alpha_bar[t].item() == pytest.approx(value, rel=1e-11)


def test_linear_betas_are_evenly_spaced():
    alpha_bar = linear(4000)
    beta = 1 - alpha_bar[1:] / alpha_bar[:-1]
    torch.testing.assert_close(beta.diff(), torch.full((3998,), (5e-3 - 2.5e-5) / 3999).double(), rtol=1e-6, atol=0)
    assert 1 - alpha_bar[0].item() == pytest.approx(2.5e-5)
    assert beta[-1].item() == pytest.approx(5e-3)


def test_cosine_schedule():
    alpha_bar = cosine(50)
    start = math.cos(math.pi / 2 * 0.008 / 1.008) ** 2
    for t in range(49):
        level = math.cos(math.pi / 2 * ((t + 1) / 50 + 0.008) / 1.008) ** 2 / start
        assert alpha_bar[t].item() == pytest.approx(level, rel=1e-9)
    assert (alpha_bar[49] / alpha_bar[48]).item() == pytest.approx(0.001)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [21, 100, 1000, 4000])
def test_levels_decrease(name, steps):
    alpha_bar = SCHEDULES[name](steps)
    assert 0 < alpha_bar[-1] < alpha_bar[0] < 1
    assert (alpha_bar.diff() < 0).all()


def test_linear_refuses_few_steps():
    with pytest.raises(ValueError, match="20 steps leave nothing"):
        linear(20)
