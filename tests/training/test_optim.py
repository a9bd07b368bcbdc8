import math

import pytest
import torch
from torch import nn

from dalle_cli.registry import RecipeError
from dalle_cli.training.optim import Optim, build, lr_at


def test_gains_and_biases_are_spared_from_decay_and_frozen_weights_from_everything():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2).requires_grad_(False))
    optimizer = build(Optim(lr=1e-3, weight_decay=0.2), model)
    decayed, spared = optimizer.param_groups
    assert [p.shape for p in decayed["params"]] == [torch.Size([4, 3])]
    assert len(spared["params"]) == 3
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.2, 0.0)


def test_the_rate_warms_up_and_falls_along_half_a_cosine_to_its_share():
    options = Optim(lr=1.0, warmup_steps=10, schedule="cosine", final_lr_ratio=0.1)
    assert [lr_at(options, step, 110) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    for step, done in ((10, 0.0), (60, 0.5), (109, 0.99), (200, 1.0)):
        assert lr_at(options, step, 110) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2)


@pytest.mark.parametrize(("schedule", "middle"), [("constant", 2.0), ("linear", 1.0)])
def test_other_schedules(schedule, middle):
    assert lr_at(Optim(lr=2.0, schedule=schedule), 50, 100) == pytest.approx(middle)


def test_a_schedule_may_end_before_the_run():
    assert lr_at(Optim(lr=1.0, schedule_steps=50), 75, 100) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"lr": 0.0}, "optim.lr: 0.0 is not a positive number"),
        ({"lr": float("nan")}, "optim.lr: nan is not a positive number"),
        ({"lr": 1.0, "betas": [0.9, 1.0]}, r"optim.betas: \[0.9, 1.0\] are not two numbers"),
        ({"lr": 1.0, "warmup_steps": -1}, "optim.warmup_steps: -1 must be a number, at least 0"),
        ({"lr": 1.0, "schedule_steps": 0}, "optim.schedule_steps: 0 is not at least 1"),
    ],
)
def test_numbers_that_make_no_optimiser_are_refused(numbers, said):
    with pytest.raises(RecipeError, match=said):
        Optim(**numbers)
