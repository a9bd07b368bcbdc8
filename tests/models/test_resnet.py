import copy

import pytest
import torch
from torch import nn

from dalle_cli.models.resnet import AttentionPool, Bottleneck, ModifiedResNet


def test_block_starts_as_shortcut():
    block, x = Bottleneck(32, 8, stride=1), torch.rand(2, 32, 4, 4)
    torch.testing.assert_close(block(x), x)


def test_stride_is_average_pooling():
    block = Bottleneck(16, 8, stride=2).eval()
    x = torch.randn(2, 16, 4, 4)
    pooled = nn.functional.avg_pool2d(x, 2)
    torch.testing.assert_close(block(x), block.downsample(pooled).relu())


def test_pool_attends_from_the_mean():
    torch.manual_seed(0)
    pool, x = AttentionPool(tokens=6, width=16, heads=4), torch.randn(2, 16, 2, 3)
    oracle = nn.MultiheadAttention(16, 4, batch_first=True)
    projections = (pool.q_proj, pool.k_proj, pool.v_proj)
    oracle.in_proj_weight = nn.Parameter(torch.cat([layer.weight for layer in projections]))
    oracle.in_proj_bias = nn.Parameter(torch.cat([layer.bias for layer in projections]))
    nn.init.eye_(oracle.out_proj.weight)  # the output projection is CLIP's
    tokens = x.flatten(2).mT
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + pool.positional_embedding
    torch.testing.assert_close(pool(x), oracle(tokens[:, :1], tokens, tokens)[0].squeeze(1))


def test_gradient_checkpointing_keeps_running_means():
    torch.manual_seed(0)
    plain = ModifiedResNet(size=32, layers=[1, 2, 1, 1], width=4, heads=2).train()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.1)  # blocks that start as their shortcut would hide their gradients
    saving = copy.deepcopy(plain)
    image = torch.randn(4, 3, 32, 32)
    for tower, checkpointing in ((plain, False), (saving, True)):
        tower(image, gradient_checkpointing=checkpointing).square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, msg=name)
    for (name, one), other in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(one, other), name
    assert plain.layer1[0].bn1.num_batches_tracked == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 60}, "size 60 must be a multiple of 32"),
        ({"width": 5}, "width 5 even"),
        ({"layers": [1, 1, 1]}, "four stages"),
        ({"heads": 7}, "256 is not divisible by heads 7"),
    ],
)
def test_invalid_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ModifiedResNet(**{"size": 64, "layers": [1, 1, 1, 1], "width": 8, "heads": 4, **arguments})


def test_wrong_image_size_is_refused():
    with pytest.raises(ValueError, match="tower of 64 px"):
        ModifiedResNet(size=64, layers=[1, 1, 1, 1], width=8, heads=4)(torch.zeros(1, 3, 32, 32))
