import torch
from torch import nn

from dalle_cli.nn.unset import Unset


def test_nothing_is_drawn_for_parameters():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with Unset():
        layers = [nn.Linear(8, 8), nn.Conv2d(3, 4, 3), nn.Embedding(5, 8), nn.LayerNorm(8), nn.BatchNorm2d(4)]
        nn.init.normal_(layers[0].weight, std=0.1)
        nn.init.zeros_(layers[1].weight)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(layers[4].running_var, torch.ones(4))  # buffers are as ever


def test_other_tensors_are_drawn():
    with Unset():
        noise = torch.empty(100).normal_()
        filled = nn.init.ones_(torch.empty(3))
    assert noise.std() > 0.5
    assert filled.tolist() == [1, 1, 1]
    assert nn.Linear(64, 64).weight.std() > 0.01
