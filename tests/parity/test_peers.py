import sys

import pytest
import torch
from torch import nn

from tests.parity.peers import TORCHVISION, Missing, absent, fill, peer, unfilled


def test_missing_packages_are_named():
    with pytest.raises(Missing, match=r"^nowhere: No module named 'nowhere'"):
        peer("nowhere.deep")


def test_stand_ins_are_temporary():
    before = {name: module for name, module in sys.modules.items() if name.startswith("torchvision")}
    with absent(*TORCHVISION):
        import torchvision.transforms.functional as functional  # pyright: ignore
        from torchvision.ops.misc import FrozenBatchNorm2d  # pyright: ignore
        from torchvision.transforms import InterpolationMode, Resize  # pyright: ignore

        assert functional.pad
        assert InterpolationMode.BICUBIC
        assert issubclass(type("Mine", (Resize,), {}), Resize)
        assert not isinstance(nn.BatchNorm2d(2), FrozenBatchNorm2d)
    if not before:
        assert not any(name.startswith("torchvision") for name in sys.modules)


def test_networks_are_built_unfilled():
    with unfilled():
        network = nn.Sequential(nn.Linear(300, 200), nn.BatchNorm1d(200))
    assert network[0].weight.is_meta
    assert not network[1].running_mean.is_meta
    fill(network)
    weight, (gain, bias) = network[0].weight, (network[1].weight, network[1].bias)
    assert weight.std() == pytest.approx(300**-0.5, rel=0.05)
    assert (gain - 1).abs().max() < 0.2
    assert bias.abs().max() < 0.2
    assert network[1].running_var.min() >= 1
    assert network[1].num_batches_tracked == 0
    same = fill(nn.Sequential(nn.Linear(300, 200), nn.BatchNorm1d(200)))
    assert torch.equal(same[0].weight, weight)
