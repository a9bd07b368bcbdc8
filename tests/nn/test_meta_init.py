import subprocess
import sys

import pytest
import torch
from torch import nn

from dalle_cli.nn.meta_init import NoInit, normal, on_meta_device


def test_nothing_is_drawn_for_parameters():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with NoInit():
        layers = [nn.Linear(8, 8), nn.Conv2d(3, 4, 3), nn.Embedding(5, 8), nn.LayerNorm(8), nn.BatchNorm2d(4)]
        nn.init.normal_(layers[0].weight, std=0.1)
        nn.init.zeros_(layers[1].weight)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(layers[4].running_var, torch.ones(4))  # buffers are as ever


def test_normal_parameters_have_their_spread():
    found = normal(100, 100, std=0.3)
    assert found.requires_grad
    assert abs(found.std() - 0.3) < 0.01
    torch.manual_seed(5)
    expected = 0.3 * torch.randn(2, 3)
    torch.manual_seed(5)
    torch.testing.assert_close(normal(2, 3, std=0.3).data, expected)


def test_other_tensors_are_drawn():
    with NoInit():
        noise = torch.empty(100).normal_()
        filled = nn.init.ones_(torch.empty(3))
    assert noise.std() > 0.5
    assert filled.tolist() == [1, 1, 1]
    assert nn.Linear(64, 64).weight.std() > 0.01


def test_shapes_are_those_of_the_network():
    with on_meta_device():
        found = nn.Sequential(nn.Linear(8, 4), nn.Embedding(5, 8))
        found.extra = normal(2, 3, std=0.1)
        inner = torch.arange(3, device="cpu")
    assert {key: tuple(value.shape) for key, value in found.state_dict().items()} == {
        **{"0.weight": (4, 8), "0.bias": (4,), "1.weight": (5, 8), "extra": (2, 3)}
    }
    assert all(value.is_meta for value in found.state_dict().values())
    assert inner.tolist() == [0, 1, 2]


BUILD = """
import sys
from dalle_cli import recipe
from dalle_cli.models import models
from dalle_cli.nn.meta_init import on_meta_device
found = ["dvae/openai", "clip/vit-b32", "prior/dalle1-12b", "decoder/karlo-decoder", "classifier/tiny"]
for family, name in (one.split("/") for one in found):
    with on_meta_device():
        models.build(recipe.load(name, family, [], complete=False)["model"], "model")
    assert "torch._dynamo" not in sys.modules, (family, name)
"""
DRAW = """
import sys
from dalle_cli.generate.sample import SampleOptions, sample
sample(["zebra"], SampleOptions(rerank=2, quiet=True))
assert "torch._dynamo" not in sys.modules
"""


@pytest.mark.parametrize("program", [BUILD, DRAW])
def test_compiler_is_not_loaded(program, tmp_path):
    """Which takes a second, before anything is there."""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, cwd=tmp_path)
