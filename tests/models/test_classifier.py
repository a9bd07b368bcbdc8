import pytest
import torch

from dalle_cli.models.classifier import AttentionPool, Classifier

from .test_adm import awake


def build(**changes):
    size = {
        "size": 8,
        "classes": 5,
        "base_channels": 32,
        "channel_mult": [1, 2],
        "num_res_blocks": 1,
        "attention_factors": [2],
    }
    torch.manual_seed(0)
    return awake(Classifier(**size | {"head_dim": 32} | changes)).eval()


def test_logits_depend_on_image_and_timestep():
    classifier, x, t = build(), torch.randn(2, 3, 8, 8), torch.tensor([3, 700])
    scores = classifier(x, t)
    assert scores.shape == (2, 5)
    assert (classifier(x.flip(-1), t) - scores).abs().amax(dim=1).min() > 1e-3
    assert (classifier(x, t + 50) - scores).abs().amax(dim=1).min() > 1e-3
    torch.testing.assert_close(classifier(x[1:], t[1:]), scores[1:], rtol=1e-4, atol=1e-4)


def test_pool_by_hand():
    pool = awake(AttentionPool(positions=4, width=64, head_dim=32, classes=7))
    x = torch.randn(2, 64, 2, 2)
    tokens = x.flatten(2).mT
    tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + pool.positional_embedding.T
    q, k, v = pool.qkv_proj(tokens).split(64, dim=-1)
    seen = []
    for head in (slice(0, 32), slice(32, 64)):
        weights = (q[:, :1, head] @ k[..., head].mT / 32**0.5).softmax(dim=-1)
        seen.append((weights @ v[..., head])[:, 0])
    torch.testing.assert_close(pool(x), pool.c_proj(torch.cat(seen, dim=-1)))


def test_gradient_checkpointing_keeps_gradients():
    gradients = []
    for checkpointing in (False, True):
        classifier = build(gradient_checkpointing=checkpointing)
        torch.manual_seed(1)
        classifier(torch.randn(2, 3, 8, 8), torch.tensor([3, 700])).square().mean().backward()
        gradients.append([parameter.grad for parameter in classifier.parameters()])
    for plain, recomputed in zip(*gradients):
        torch.testing.assert_close(recomputed, plain)


def test_invalid_sizes_are_refused():
    with pytest.raises(ValueError, match=r"model.size: 9 does not divide by 2"):
        build(size=9)
    with pytest.raises(ValueError, match="pictures of 16x8 px for a classifier of 8 px"):
        build()(torch.zeros(1, 3, 8, 16), torch.tensor([0]))
