import pytest
import torch

from dalle_cli import recipe as recipes
from dalle_cli.models import models
from dalle_cli.models.prior import DiffusionPrior

T = torch.tensor([3, 700])
REAL = torch.tensor([[True, True, True, False, False], [True] * 5])


@pytest.fixture
def prior():
    torch.manual_seed(0)
    return DiffusionPrior(embed_dim=8, context_length=5, text_width=12, width=32, depth=2, heads=4).eval()


@pytest.fixture
def given():
    torch.manual_seed(1)
    return torch.randn(2, 8), torch.randn(2, 5, 12), REAL


def naive(prior, x, t, embedding, states, real):
    """All tokens at once, at every time."""
    parts = [prior.text_enc_proj(states)]
    parts += [one[:, None] for one in (prior.text_emb_proj(embedding), prior.time_embed(t), prior.clip_img_proj(x))]
    parts.append(prior.prd_emb.expand(len(x), 1, -1))
    tokens = torch.cat(parts, dim=1) + prior.positional_embedding
    seen = torch.cat([real, torch.ones(len(x), 4, dtype=torch.bool)], dim=1)
    mask = torch.ones(9, 9, dtype=torch.bool).tril() & seen[:, None]
    mask |= torch.eye(9, dtype=torch.bool)
    return prior.out_proj(prior.final_ln(prior.transformer(tokens, mask[:, None])[0][:, -1]))


def test_encoding_once_equals_one_pass(prior, given):
    x = torch.randn(2, 8)
    torch.testing.assert_close(prior(x, T, **prior.encode(*given)), naive(prior, x, T, *given), rtol=1e-4, atol=1e-5)


def test_only_padding_is_ignored(prior, given):
    embedding, states, real = given
    x = torch.randn(2, 8)
    out = prior(x, T, **prior.encode(*given))
    padded = states.clone()
    padded[0, 3:] += 1
    torch.testing.assert_close(prior(x, T, **prior.encode(embedding, padded, real)), out)
    words = states.clone()
    words[:, 1] += 1
    for changed in (
        prior(x + 1, T, **prior.encode(*given)),
        prior(x, T + 50, **prior.encode(*given)),
        prior(x, T, **prior.encode(embedding + 1, states, real)),
        prior(x, T, **prior.encode(embedding, words, real)),
    ):
        assert (changed - out).abs().amax(dim=1).min() > 1e-4


def test_all_padding_is_finite(prior, given):
    embedding, states, real = given
    assert prior(torch.randn(2, 8), T, **prior.encode(embedding, states, torch.zeros_like(real))).isfinite().all()


def test_whitening_is_undone(prior):
    prior.mean.copy_(torch.randn(8))
    prior.std.copy_(torch.rand(8) + 0.5)
    embedding = torch.randn(3, 8)
    white = prior.whiten(embedding)
    torch.testing.assert_close(white, (embedding - prior.mean) / prior.std)
    torch.testing.assert_close(prior.unwhiten(white), embedding)
    assert {"mean", "std"} <= prior.state_dict().keys()


def test_gradients_reach_every_weight(prior, given):
    prior(torch.randn(2, 8), T, **prior.encode(*given)).square().sum().backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_wrong_context_length_is_refused(prior, given):
    embedding, states, real = given
    with pytest.raises(ValueError, match="states of 4 tokens for a prior of 5"):
        prior.encode(embedding, states[:, :4], real[:, :4])


def test_fit_sets_mean_and_std(prior):
    embedding = torch.randn(500, 8) * torch.linspace(0, 3, 8) + 2  # the first number never changes
    prior.fit(embedding)
    white = prior.whiten(embedding)
    assert white.isfinite().all()
    torch.testing.assert_close(white[:, 1:].std(dim=0, correction=0), torch.ones(7), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(prior.unwhiten(white), embedding, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("recipe", "parameters"),
    [("karlo-prior", 1_022_028_544), ("unclip-diffusion-1b", 1_225_559_040), ("unclip-ar-1b", 807_150_848)],
)
def test_the_published_sizes(recipe, parameters):
    with torch.device("meta"):
        model = models.build(recipes.load(recipe, "prior", complete=False)["model"])
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
