import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from dalle_cli.hardware import memory_meter as module
from dalle_cli.hardware.memory_meter import MemoryMeter, PeakMemory, choose_batch_size, describe_bytes, fit_peak_memory
from dalle_cli.nn.attention import attend


class Network(nn.Module):
    """A convolution, attention and a product, some of it computed again for the gradient."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 64)

    def forward(self, x):
        x = self.conv(x).flatten(2).mT
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        x = x + attend(q, k, v, causal=True).transpose(1, 2).flatten(2)
        return checkpoint(lambda y: F.gelu(self.out(y)).square(), x, use_reentrant=False).mean()


def step(kind):
    network = Network()
    meter = MemoryMeter(network.parameters())
    for parameter in network.parameters():
        parameter.register_post_accumulate_grad_hook(lambda one: meter.call(one.grad, "gradients"))
    with meter:
        with torch.autocast("cpu", kind, enabled=kind != torch.float32):
            loss = network(torch.zeros(2, 3, 8, 8))
        loss.backward()
    return network, meter


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_fake_tensors_are_counted_like_real_ones(kind):
    network, real = step(kind)
    with FakeTensorMode():
        _, shapes = step(kind)
    assert shapes.flops == real.flops > 0
    assert shapes.peak == real.peak
    assert shapes.live == real.live
    weights = sum(parameter.nbytes for parameter in network.parameters())
    assert real.live["gradients"] == weights
    copied = sum(parameter.nbytes // 2 for parameter in network.parameters())
    assert real.peak["copies"] == (copied if kind == torch.bfloat16 else 0)


def test_flops_count_two_per_multiplication():
    with MemoryMeter() as meter:
        F.linear(torch.zeros(5, 7), torch.zeros(11, 7))
    assert meter.flops == 2 * 5 * 7 * 11
    q = torch.zeros(2, 3, 64, 16)
    with MemoryMeter() as meter:
        attend(q, q, q, causal=True)
    assert meter.flops == 2 * 2 * (2 * 3 * 64 * 64 * 16)


def test_views_and_freed_tensors():
    given = torch.zeros(1000)
    with MemoryMeter() as meter:
        given.add_(1).view(10, 100)  # nothing is made
        assert meter.live["all"] == 0
        one = given + 1
        other = one.view(10, 100)
        del one
        assert meter.live["all"] == 4000
        del other
        assert meter.live["all"] == 0
        given + 2
    assert meter.peak["all"] == 4000


def test_peak_memory_is_linear():
    def work(count):
        held = [torch.zeros(250), torch.zeros(count, 500)]
        del held

    assert fit_peak_memory(work) == PeakMemory(1000, 2000)
    assert PeakMemory(1000, 2000).of(3) == 7000
    assert [PeakMemory(1000, 2000).within(room) for room in (0, 6999, 7000)] == [1, 2, 3]


def test_batch_size_fits_the_budget(monkeypatch):
    monkeypatch.setattr(module, "SMALL_BATCH", 2)
    tried = []

    def work(count):
        tried.append(count)
        torch.zeros(count, 250)

    assert choose_batch_size(work, wanted=2, max_size=100, budget=0) == 2  # so few are not tried
    assert tried == []
    assert choose_batch_size(work, wanted=50, max_size=100, budget=10_000) == 10
    assert choose_batch_size(work, wanted=50, max_size=100, budget=1 << 30) == 50
    assert choose_batch_size(work, wanted=500, max_size=100, budget=1 << 30) == 100
    assert choose_batch_size(work, wanted=50, max_size=100, budget=0) == 1
    assert max(tried) == 3


def test_description_starts_with_the_total():
    parts = {"program": 400 << 20, "none": 0, "step": 3 << 29, "total": 2 << 30}
    assert describe_bytes(parts) == "2.00 GiB (program 400 MiB, step 1.50 GiB)"
