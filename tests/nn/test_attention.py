import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dalle_cli.nn import attention, masks
from dalle_cli.nn.attention import SelfAttention, attend, attend_by_line, attend_unfused


def naive(q, k, v, mask):
    scores = torch.einsum("bhnd,bhmd->bhnm", q, k) / q.shape[-1] ** 0.5
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v


@pytest.fixture
def qkv():
    torch.manual_seed(0)
    return torch.randn(3, 2, 4, 6, 8)


def test_attend_is_masked_softmax(qkv):
    mask = torch.rand(2, 1, 6, 6) < 0.5
    mask |= torch.eye(6, dtype=torch.bool)
    torch.testing.assert_close(attend(*qkv, mask=mask), naive(*qkv, mask))


def test_causal_flag(qkv):
    mask = torch.ones(6, 6, dtype=torch.bool).tril()
    torch.testing.assert_close(attend(*qkv, causal=True), naive(*qkv, mask))


def test_different_query_and_key_lengths(qkv):
    q, k, v = qkv
    mask = torch.ones(1, 6, dtype=torch.bool)
    torch.testing.assert_close(attend(q[:, :, :1], k, v), naive(q[:, :, :1], k, v, mask))


@pytest.mark.parametrize("hidden", [False, True])
def test_unfused_equals_fused(qkv, hidden):
    mask = torch.rand(2, 1, 6, 6) < 0.5
    mask |= torch.eye(6, dtype=torch.bool)
    mask = mask if hidden else None
    found = []
    for how in (attend, attend_unfused):
        given = qkv.clone().requires_grad_()
        out = how(*given, mask)
        out.square().sum().backward()
        found.append((out.detach(), given.grad))
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize(
    ("side", "grad", "kind", "fused"),
    [
        (512, True, torch.bfloat16, False),
        (513, True, torch.bfloat16, True),
        (513, False, torch.bfloat16, False),
        (1537, False, torch.bfloat16, True),
        (16, False, torch.float32, True),
    ],
)
def test_cpu_bf16_is_unfused_up_to_a_size(monkeypatch, side, grad, kind, fused):
    calls = []
    real = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or real(*a, **k))
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, side, 16)
    expected = naive(q, k, v, torch.ones(side, side, dtype=torch.bool).tril())
    found = attend(q.to(kind).requires_grad_(grad), k.to(kind), v.to(kind), causal=True)
    assert bool(calls) == fused
    assert found.dtype == kind
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("shape", [None, (6, 6), (4, 6, 6), (1, 1, 6, 6), (3, 1, 1, 6), (3, 4, 6, 6)])
def test_large_batches_are_split(monkeypatch, rows, shape):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 3, 4, 6, 8).bfloat16()
    mask = None if shape is None else torch.rand(shape) < 0.5
    if mask is not None:
        mask[..., 0] = True
    monkeypatch.setattr(attention, "MAX_HELD_LOGITS", rows * 4 * 6 * 6)
    assert torch.equal(attend(q, k, v, mask), attend_unfused(q, k, v, mask))


@pytest.mark.parametrize("hidden", [False, True])
def test_unfused_bf16_error_is_bounded(hidden):
    """Whose scores stay in float32; sharp ones, 4 times as far apart as at a network's start."""
    torch.manual_seed(0)
    mask = torch.ones(50, 50, dtype=torch.bool).tril() if hidden else None
    whole = torch.randn(3, 2, 4, 50, 64)
    whole[0] *= 4
    weight = torch.randn(2, 4, 50, 64)

    def found(how, kind):
        given = whole.bfloat16().to(kind).requires_grad_()
        out = how(*given, mask)
        (out * weight.to(kind)).sum().backward()
        return out.detach().double(), given.grad.double()

    exact = found(attend_unfused, torch.float64)
    fused = found(lambda *a: F.scaled_dot_product_attention(*a[:3], attn_mask=a[3]), torch.bfloat16)
    for ours, theirs, right in zip(found(attend_unfused, torch.bfloat16), fused, exact):
        error, other = ((one - right).norm() / right.norm() for one in (ours, theirs))
        assert error < min(0.02, 6 * other)


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_equals_torch(causal):
    torch.manual_seed(0)
    ours, torchs = SelfAttention(32, 4), nn.MultiheadAttention(32, 4, batch_first=True)
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 6, 32)
    mask = torch.ones(6, 6, dtype=torch.bool).triu(1) if causal else None  # torch's module marks what is hidden
    expected, _ = torchs(x, x, x, attn_mask=mask, need_weights=False)
    torch.testing.assert_close(ours(x, causal=causal), expected)


def test_indivisible_heads_are_refused():
    with pytest.raises(ValueError, match="width 30 is not divisible by heads 4"):
        SelfAttention(30, 4)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("pattern", ["row", "convolution", "full"])
def test_attention_by_line_equals_full_mask(pattern, transposed):
    side, text = 6, 4
    image = masks.PATTERNS[pattern](side, side)
    q, k, v = torch.randn(3, 2, 3, text + side**2, 8, dtype=torch.float64).requires_grad_()
    order = torch.arange(side**2)
    if transposed:
        order = order.view(side, side).T.flatten()
    whole = torch.ones(text + side**2, text + side**2, dtype=torch.bool).tril()
    whole[text:, :text] = True
    whole[text + order[:, None], text + order] = image
    found = attend_by_line(q, k, v, text, masks.band(image, side), transposed)
    torch.testing.assert_close(found, attend(q, k, v, whole))
