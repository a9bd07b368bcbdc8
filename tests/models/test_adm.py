import pytest
import torch
import torch.nn.functional as F

from dalle_cli.models.adm import (
    Attention,
    Downsample,
    GroupNorm32,
    Layers,
    ResBlock,
    TimeEmbedding,
    Upsample,
    encoder,
    level_widths,
    split_heads,
    timestep_embedding,
    zero,
)

LAYERS = Layers(32, None, 32, None, "legacy", dropout=0.0, scale_shift=True, resample="resblock")


def awake(module):
    """The same module with no parameter zero, so that every branch adds something."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module


def test_times_have_the_published_embedding():
    places = [0, 1, 95, 96, 97, 191]
    told = timestep_embedding(torch.tensor([500, 999]), 192)[:, places]
    torch.testing.assert_close(
        told,
        torch.tensor(
            [
                [-0.883849273431, -0.294229642969, 0.998485972628, -0.467771805322, 0.955734752532, 0.055006931073],
                [0.999649852981, -0.951961053684, 0.993960559875, -0.026460752737, 0.306219124600, 0.109737894153],
            ]
        ),
        rtol=0,
        atol=1e-4,
    )


def test_time_embedding_is_float32_under_autocast():
    embed, t = TimeEmbedding(64, 128), torch.tensor([3, 998])
    with torch.autocast("cpu", torch.bfloat16):
        mixed = embed(t)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, embed(t))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_group_norm_keeps_the_dtype(layout):
    torch.manual_seed(0)
    x = (torch.randn(2, 64, 4, 4) + 30).bfloat16().to(memory_format=layout).requires_grad_()
    out = GroupNorm32(64).bfloat16()(x)
    assert out.dtype == torch.bfloat16
    expected = F.group_norm(x.float(), 32)
    torch.testing.assert_close(out.float(), expected, rtol=2**-8, atol=1e-2)
    given = torch.randn_like(expected)
    (found,), (wanted,) = (torch.autograd.grad(one, x, given.to(one.dtype)) for one in (out, expected))
    torch.testing.assert_close(found.float(), wanted.float(), rtol=2**-7, atol=2e-2)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_group_norm_is_precise_for_large_means(layout):
    torch.manual_seed(0)
    x = (100 + 0.1 * torch.randn(2, 64, 16, 16)).to(memory_format=layout).requires_grad_()
    out, expected = GroupNorm32(64)(x), F.group_norm(x.double(), 32)
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=1e-3)
    given = torch.randn_like(expected)
    (found,), (wanted,) = (torch.autograd.grad(one, x, given.to(one.dtype)) for one in (out, expected))
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-3 * wanted.abs().max().item())


def test_indivisible_channels_are_refused():
    with pytest.raises(ValueError, match="a layer of 48 channels: not a multiple of 32"):
        GroupNorm32(48)


@pytest.mark.parametrize("scale_shift", [True, False])
def test_residual_block_by_hand(scale_shift):
    block = awake(ResBlock(32, 64, 16, 0.0, scale_shift))
    x, told = torch.randn(2, 32, 4, 4), torch.randn(2, 16)
    first, last = block.in_layers[2], block.out_layers[3]
    norms = [(norm.weight, norm.bias) for norm in (block.in_layers[0], block.out_layers[0])]
    h = first(F.silu(F.group_norm(x, 32, *norms[0])))
    linear = F.linear(F.silu(told), block.emb_layers[1].weight, block.emb_layers[1].bias)[:, :, None, None]
    if scale_shift:
        h = F.group_norm(h, 32, *norms[1]) * (1 + linear[:, :64]) + linear[:, 64:]
    else:
        h = F.group_norm(h + linear, 32, *norms[1])
    torch.testing.assert_close(block(x, told), block.skip_connection(x) + last(F.silu(h)))


def test_blocks_resize_both_ways_around():
    x, told = torch.randn(1, 32, 4, 4), torch.randn(1, 32)
    torch.testing.assert_close(LAYERS.down(32)(x, told), F.avg_pool2d(x, 2))  # the convolutions add nothing yet
    torch.testing.assert_close(LAYERS.up(32)(x, told), x.repeat_interleave(2, -1).repeat_interleave(2, -2))
    assert Downsample(32)(x).shape == (1, 32, 2, 2)
    assert Upsample(32)(x).shape == (1, 32, 8, 8)


@pytest.mark.parametrize("order", ["legacy", "new"])
def test_attention_by_hand(order):
    attention = awake(Attention(64, 2, 24, order))
    x, tokens = torch.randn(2, 64, 2, 3), torch.randn(2, 5, 24)
    mask = torch.tensor([[True, True, False, True, False], [False] * 5])
    h = F.group_norm(x, 32, attention.norm.weight, attention.norm.bias).flatten(2).mT
    own, told = attention.qkv(h), attention.encoder_kv(tokens)
    seen = []
    for head in range(2):
        if order == "legacy":
            q, k, v = own[..., 96 * head : 96 * (head + 1)].split(32, dim=-1)
            text_k, text_v = told[..., 64 * head : 64 * (head + 1)].split(32, dim=-1)
        else:
            q, k, v = (part[..., 32 * head : 32 * (head + 1)] for part in own.split(64, dim=-1))
            text_k, text_v = (part[..., 32 * head : 32 * (head + 1)] for part in told.split(64, dim=-1))
        scores = q @ torch.cat([text_k, k], dim=1).mT / 32**0.5
        scores[:, :, :5] = scores[:, :, :5].masked_fill(~mask[:, None], float("-inf"))
        seen.append(scores.softmax(dim=-1) @ torch.cat([text_v, v], dim=1))
    expected = x + attention.proj_out(torch.cat(seen, dim=-1)).mT.reshape(x.shape)
    torch.testing.assert_close(attention(x, tokens, mask), expected)


def test_orders_of_the_heads_differ():
    x = torch.arange(12).view(1, 1, 12)
    assert split_heads(x, 2, 3, "legacy")[0].flatten().tolist() == [0, 1, 6, 7]
    assert split_heads(x, 2, 3, "new")[0].flatten().tolist() == [0, 1, 2, 3]


def test_zero_branch_adds_nothing():
    assert (zero(torch.nn.Linear(3, 2))(torch.randn(4, 3)) == 0).all()


def test_encoder_lists_saved_widths():
    stages, saved = encoder(LAYERS, 3, [32, 64], num_res_blocks=2, attention_factors=[2])
    assert saved == [32, 32, 32, 32, 64, 64]
    x, told = torch.randn(1, 3, 8, 8), torch.randn(1, 32)
    shapes = []
    for stage in stages:
        x = stage(x, told, None, None, False)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(32, 8, 8)] * 3 + [(32, 4, 4)] + [(64, 4, 4)] * 2
    assert [any(isinstance(layer, Attention) for layer in stage) for stage in stages] == [False] * 4 + [True] * 2


def test_unknown_attention_factor_is_refused():
    assert level_widths(128, [0.5, 1, 2], [4]) == [64, 128, 256]
    with pytest.raises(ValueError, match=r"model.attention_factors: 8 is no level's factor; they are 1, 2, 4"):
        level_widths(128, [0.5, 1, 2], [8])


def test_indivisible_heads_are_refused():
    with pytest.raises(ValueError, match="an attention of 48 channels cannot be split into heads of 32"):
        LAYERS.attention(48)
    assert LAYERS.attention(96).heads == 3
