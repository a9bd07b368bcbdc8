import pytest
import torch

from dalle_cli.models.ar_prior import ARPrior

REAL = torch.tensor([[True, True, True, False, False], [True] * 5])
SIZES = {"embed_dim": 8, "context_length": 5, "text_width": 12, "width": 32, "depth": 2, "heads": 4}


def embeddings(count=600):
    generator = torch.Generator().manual_seed(3)
    mixed = torch.randn(8, 8, generator=generator)
    return torch.randn(count, 8, generator=generator) * torch.linspace(2, 0.1, 8) @ mixed + 1


def texts(count=600):
    return embeddings(count) + torch.randn(count, 8, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def prior():
    torch.manual_seed(0)
    prior = ARPrior(components=6, buckets=16, **SIZES).eval()
    prior.fit(embeddings(), texts())
    with torch.no_grad():
        prior.out_proj.weight.mul_(4)
    return prior


@pytest.fixture
def given():
    torch.manual_seed(1)
    return torch.randn(2, 8), torch.randn(2, 5, 12), REAL


def test_buckets_are_balanced_and_invertible():
    prior = ARPrior(components=8, buckets=64, **SIZES)
    x = embeddings(6400)
    prior.fit(x, texts(6400))
    codes = prior.quantize(x)
    assert codes.shape == (6400, 8)
    assert all((torch.bincount(column, minlength=64) - 100).abs().max() <= 1 for column in codes.T)
    error = (prior.dequantize(codes) - x).square().sum()
    assert error < 0.01 * (x - x.mean(dim=0)).square().sum()
    fewer = prior.dequantize(codes[:, :2]) - x
    assert error < fewer.square().sum() < (x - x.mean(dim=0)).square().sum()


def test_first_component_has_most_variance(prior):
    along = (embeddings() - prior.mean) @ prior.basis.T
    assert (along.var(dim=0).diff() < 0).all()
    assert (prior.bounds.diff(dim=1) > 0).all()


def test_explained_variance_limits_components():
    prior = ARPrior(components=8, buckets=16, explained_variance=0.5, **SIZES)
    prior.fit(embeddings(), texts())
    whole = ARPrior(components=8, buckets=16, **SIZES)
    whole.fit(embeddings(), texts())
    assert 1 <= int(prior.kept) < int(whole.kept) == 8


def test_similarity_token_rises_with_cosine(prior):
    image, text = embeddings(), texts()
    token = prior.product(image, text)
    cosine = torch.cosine_similarity(image, text, dim=1)
    order = cosine.argsort()
    assert (token[order].diff() >= 0).all()
    assert (torch.bincount(token, minlength=16) - 600 / 16).abs().max() <= 1


def test_cached_steps_equal_forward(prior, given):
    codes = torch.randint(16, (2, 6), generator=torch.Generator().manual_seed(2))
    product = torch.tensor([3, 16])
    with torch.no_grad():
        whole = prior(codes, product, *given)
        scores, cache = prior.start(product, **prior.encode(*given))
        found = [scores] + [prior.step(codes[:, place], place, cache) for place in range(5)]
    torch.testing.assert_close(torch.stack(found, dim=1), whole, rtol=1e-4, atol=1e-4)


def test_logits_are_causal(prior, given):
    codes, product = torch.zeros(2, 6, dtype=torch.int64), torch.tensor([3, 3])
    scores = prior(codes, product, *given)
    assert scores.shape == (2, 6, 16)
    later = codes.clone()
    later[:, 3] = 9
    changed = (prior(later, product, *given) - scores).abs().amax(dim=(0, 2))
    assert changed[:4].max() == 0
    assert changed[4:].min() > 1e-4
    embedding, states, real = given
    padded = states.clone()
    padded[0, 3:] += 1
    torch.testing.assert_close(prior(codes, product, embedding, padded, real), scores)
    for other in (prior(codes, product + 1, *given), prior(codes, product, embedding + 1, states, real)):
        assert (other - scores).abs().amax(dim=(1, 2)).min() > 1e-4


def test_gradients_reach_every_weight(prior, given):
    prior(torch.tensor([[0, 1, 2, 3, 4, 5]] * 2), torch.tensor([0, 1]), *given).square().sum().backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"components": 9}, "components: 9 is not between 1 and embed_dim, 8"),
        ({"buckets": 1}, "buckets: 1"),
        ({"explained_variance": 0.0}, r"explained_variance: 0.0 is not in \(0, 1\]"),
    ],
)
def test_invalid_sizes_are_refused(change, says):
    with pytest.raises(ValueError, match=says):
        ARPrior(**{"components": 6, "buckets": 16, **SIZES, **change})


def test_too_few_embeddings_are_refused(prior):
    with pytest.raises(ValueError, match="5 embeddings for 16 buckets"):
        prior.fit(embeddings(5), texts(5))
