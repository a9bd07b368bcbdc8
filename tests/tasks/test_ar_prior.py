import pytest
import torch

from dalle_cli.models import embedding
from tests.tasks.priors import AR, CAPTIONS, prior, samples


@pytest.fixture(scope="module")
def task():
    return prior(AR)


def test_cached_sampling_equals_naive_loop(task):
    torch.testing.assert_close(task.sample(CAPTIONS, [1, 2]), task.sample_without_cache(CAPTIONS, [1, 2]))


def test_sampling_asks_for_high_similarity(task):
    _, upper = task._chances(range(400), 1, 6, 0.5)
    assert (upper.min(), upper.max()) == (4, 7)
    assert (torch.bincount(upper)[4:] > 70).all()
    _, top = task._chances(range(50), 1, 6, 0.9)
    assert set(top.tolist()) == {7}
    assert not torch.equal(
        task.sample(CAPTIONS, [1, 2], min_fit_quantile=0.9), task.sample(CAPTIONS, [1, 2], min_fit_quantile=0.0)
    )
    with pytest.raises(ValueError, match="min_fit_quantile 1 is not in"):
        task.sample(CAPTIONS, [1, 2], min_fit_quantile=1)


def test_guidance_extrapolates(task):
    drawn = {scale: task.sample(CAPTIONS[:1], [3], scale, temperature=0.0) for scale in (1.0, 1.0001, 8.0)}
    assert torch.equal(drawn[1.0], drawn[1.0001])
    assert not torch.equal(drawn[8.0], drawn[1.0])


def test_zero_temperature_is_greedy(task):
    same = [task.sample(CAPTIONS[:1], [seed], temperature=0.0, min_fit_quantile=0.9) for seed in (1, 2)]
    assert torch.equal(*same)


def test_unused_components_are_ignored():
    one = prior(AR | {"explained_variance": 0.6})
    kept = int(one.model.kept)
    assert 1 <= kept < 6
    seen = []
    one.sample(CAPTIONS, [1, 2], on_progress=lambda done, total: seen.append(total))
    assert seen == [kept] * kept
    batch = one.collate(samples())
    before, _ = one(batch, 0)
    with torch.no_grad():
        one.model.basis[kept:] = 0  # what they would be changes nothing
    torch.testing.assert_close(one(batch, 0)[0], before)


def test_dropped_texts_have_no_similarity_token():
    one = prior(AR)
    one.drop_text = 1.0
    batch = one.collate(samples())
    before, _ = one(batch, 0)
    with torch.no_grad():
        one.model.product_embedding.weight[:-1] += 1
    assert torch.equal(one(batch, 0)[0], before)
    with torch.no_grad():
        one.model.product_embedding.weight[-1] += torch.randn(16)
    assert not torch.equal(one(batch, 0)[0], before)


def test_dropped_texts_do_not_affect_fit():
    """Products with the empty text are smaller, and would fill the lower buckets."""
    one = prior(AR, text_drop_prob=0.5)
    batch = one.collate(samples(640))
    text = embedding.read_texts(one.clip, (batch["ids"], batch["real"]))[0]
    one.prepare(iter([batch] * 9))
    product = one.model.product(one.truth(batch), text)[~batch["dropped"]]
    counts = product.bincount(minlength=one.model.buckets)
    assert counts.max() - counts.min() <= 0.2 * counts.float().mean() + 2
    with pytest.raises(ValueError, match=r"task\.text_drop_prob: 1\.0 is not in \[0, 1\)"):
        prior(AR, text_drop_prob=1.0)
