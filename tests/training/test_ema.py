import contextlib

import pytest
import torch
from torch import nn

from dalle_cli.training.ema import EMA


def test_the_average_warms_up_and_then_follows_its_decay():
    model = nn.Linear(1, 1, bias=False)
    ema = EMA(model, 0.5)
    expected = model.weight.item()
    for step in range(12):
        with torch.no_grad():
            model.weight.fill_(float(step))
        ema.update(model, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert ema.average["weight"].item() == pytest.approx(expected, rel=1e-5)


def test_whole_numbers_are_copied():
    model = nn.BatchNorm1d(2)
    ema = EMA(model, 0.9)
    model(torch.randn(4, 2))
    ema.update(model, 0)
    assert ema.average["num_batches_tracked"] == 1


def test_the_model_gets_its_own_weights_back_even_after_an_error():
    model = nn.Linear(2, 2)
    ema = EMA(model, 0.0)
    with torch.no_grad():
        model.weight.add_(1)
    raw = model.weight.clone()
    with contextlib.suppress(KeyError), ema.applied(model):
        assert not torch.equal(model.weight, raw)
        raise KeyError
    assert torch.equal(model.weight, raw)
