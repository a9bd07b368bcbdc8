import pytest
import torch
import torch.nn.functional as F

from dalle_cli.models.transformer import Attention, Block, Transformer


def build(depth=2):
    torch.manual_seed(0)
    return Transformer(32, depth, 4)


def test_block_by_hand_with_each_head_together():
    torch.manual_seed(0)
    block, x = Block(32, 2), torch.randn(2, 5, 32)
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    seen = []
    for head in block.attn.c_qkv(block.ln_1(x)).split(48, dim=-1):
        q, k, v = head.split(16, dim=-1)
        scores = (q @ k.mT / 4).masked_fill(~mask, float("-inf"))
        seen.append(scores.softmax(dim=-1) @ v)
    y = x + block.attn.c_proj(torch.cat(seen, dim=-1))
    expected = y + block.mlp.c_proj(F.gelu(block.mlp.c_fc(block.ln_2(y))))
    torch.testing.assert_close(block(x, mask)[0], expected)


def test_past_equals_one_pass():
    transformer, x = build(), torch.randn(2, 7, 32)
    causal = torch.ones(7, 7, dtype=torch.bool).tril()
    whole, _ = transformer(x, causal)
    first, kept = transformer(x[:, :4], causal[:4, :4])
    past = torch.stack([torch.stack(layer, dim=1) for layer in kept], dim=1)
    assert past.shape == (2, 2, 2, 4, 4, 8)
    rest, _ = transformer(x[:, 4:], causal[4:], past)
    torch.testing.assert_close(torch.cat([first, rest], dim=1), whole, rtol=1e-4, atol=1e-5)


def test_gradient_checkpointing_keeps_gradients():
    x, gradients = torch.randn(2, 3, 32), []
    for checkpointing in (False, True):
        transformer = build()
        transformer(x, gradient_checkpointing=checkpointing)[0].square().mean().backward()
        gradients.append([parameter.grad for parameter in transformer.parameters()])
    for plain, recomputed in zip(*gradients):
        torch.testing.assert_close(recomputed, plain)


def test_initial_deviations():
    torch.manual_seed(0)
    width, depth = 256, 3
    for name, parameter in Transformer(width, depth, 4).named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all()
        elif "ln_" not in name:
            expected = (2 * width * depth) ** -0.5 if "c_proj" in name else width**-0.5
            assert parameter.std().item() == pytest.approx(expected, rel=0.02), name


def test_indivisible_heads_are_refused():
    with pytest.raises(ValueError, match="width 32 is not divisible by heads 5"):
        Attention(32, 5)
