import pytest
import torch

from dalle_cli.models.dalle import DALLE, token_losses
from dalle_cli.models.dvae import DVAE
from dalle_cli.tasks import dalle as module
from dalle_cli.tasks.dalle import DALLETask
from dalle_cli.text.learn import learn

GRID, CODES, CONTEXT = 4, 16, 8
CAPTIONS = ["a red circle", "a blue square on a green background"]


def task(**options):
    torch.manual_seed(0)
    tokenizer = learn(CAPTIONS * 2, 520, "dalle")
    model = DALLE(tokenizer.vocab_size, CONTEXT, CODES, GRID, width=32, depth=4, heads=2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)  # so that what stands before matters
    return DALLETask(
        model, DVAE(CODES, n_hid=8, n_init=8, groups=3, num_res_blocks=1).eval(), tokenizer, **options
    ).eval()


def samples(count=3):
    generator = torch.Generator().manual_seed(0)
    return [
        {"image": torch.rand(3, 16, 16, generator=generator) * 2 - 1, "text": CAPTIONS[i % 2], "seed": i, "key": str(i)}
        for i in range(count)
    ]


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7}, {"top_k": 3}, {"top_p": 0.8}, {"temperature": 0}])
def test_cached_sampling_equals_naive_loop(options):
    one = task()
    seeds = [[1, 2, 3], [4, 5, 6]]
    assert torch.equal(one.sample(CAPTIONS, seeds, **options), one.sample_without_cache(CAPTIONS, seeds, **options))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_cuda_graph_changes_nothing(scale, monkeypatch):
    one, seeds = task().cuda(), [[1, 2, 3], [4, 5, 6]]
    found = one.sample(CAPTIONS, seeds, guidance_scale=scale)
    monkeypatch.setattr(module, "as_cuda_graph", lambda work: work)
    assert torch.equal(one.sample(CAPTIONS, seeds, guidance_scale=scale), found)


def test_failed_cuda_graph_falls_back(monkeypatch):
    def fails(work):
        raise RuntimeError("no graph here")

    one, seeds = task(), [[1, 2]]
    expected = one.sample(CAPTIONS[:1], seeds)
    monkeypatch.setattr(module, "as_cuda_graph", fails)
    monkeypatch.setattr(module, "RECORDED", "cpu")
    with pytest.warns(UserWarning, match="drawn without a CUDA graph, more slowly: no graph here"):
        assert torch.equal(one.sample(CAPTIONS[:1], seeds), expected)
    monkeypatch.setattr(module, "as_cuda_graph", lambda work: work)
    assert torch.equal(one.sample(CAPTIONS[:1], seeds), expected)


def test_candidates_are_independent():
    one = task()
    together = one.sample(CAPTIONS, [[1, 2], [3, 4]])
    assert together.shape == (2, 2, GRID, GRID)
    assert torch.equal(one.sample([CAPTIONS[1]], [[4]])[0, 0], together[1, 1])
    assert not torch.equal(one.sample([CAPTIONS[1]], [[5]])[0, 0], together[1, 1])
    assert not torch.equal(one.sample([CAPTIONS[0]], [[4]])[0, 0], together[1, 1])


def test_guidance_extrapolates_logits():
    one = task()
    with_text, without = (one.sample([text], [[7]], temperature=0) for text in (CAPTIONS[0], ""))
    assert torch.equal(one.sample([CAPTIONS[0]], [[7]], temperature=0, guidance_scale=0.0), without)
    assert torch.equal(one.sample([CAPTIONS[0]], [[7]], temperature=0, guidance_scale=1.0), with_text)
    assert not torch.equal(one.sample([CAPTIONS[0]], [[7]], temperature=0, guidance_scale=8.0), with_text)


def test_prefix_is_continued():
    one = task()
    whole = one.sample(CAPTIONS, [[1], [2]])
    first = whole[:, 0].flatten(1)[:, : 2 * GRID]
    assert torch.equal(one.sample(CAPTIONS, [[1], [2]], prefix=first), whole)
    other = (first + 1) % CODES
    drawn = one.sample(CAPTIONS, [[1], [2]], prefix=other)[:, 0].flatten(1)
    assert torch.equal(drawn[:, : 2 * GRID], other)
    assert not torch.equal(drawn, whole[:, 0].flatten(1))


def test_loss_weights_text_one_eighth():
    one = task()
    batch = one.collate(samples())
    total, logs = one(batch, 0)
    text = one.model.pad(batch["ids"], batch["real"])
    codes = one.dvae.encode(batch["image"]).flatten(1)
    expected = token_losses(*one.model(text, codes), text, codes)
    torch.testing.assert_close((logs["text"], logs["image"]), expected)
    torch.testing.assert_close(total, expected[0] / 8 + expected[1] * 7 / 8)


def test_cached_tokens_replace_images():
    one = task()
    batch = one.collate(samples())
    cached = {key: value for key, value in batch.items() if key != "image"}
    cached["image_tokens"] = one.encode(batch["image"])
    assert torch.equal(one(cached, 0)[0], one(batch, 0)[0])


def test_captions_are_dropped_by_sample_seed():
    one = task(text_drop_prob=0.5, bpe_dropout=0.3)
    many = samples(64)
    batch = one.collate(many)
    empty = ~batch["real"].any(dim=1)
    assert 16 < empty.sum() < 48
    backwards = one.collate(many[::-1])
    assert torch.equal(backwards["ids"].flip(0), batch["ids"])
    assert len({tuple(row) for row in batch["ids"][2::2].tolist()}) > 3  # one caption, merged in many ways
    assert all(task(bpe_dropout=0.0).collate(many)["real"].any(dim=1))
    whole = task(bpe_dropout=0.0).collate(many)["ids"]
    assert torch.equal(task(bpe_dropout=0.3).collator(held_out=True)(many)["ids"], whole)


def test_wrong_image_size_names_the_right_one():
    with pytest.raises(ValueError, match=r"draws 16 px pictures, not 24: set data\.size=16"):
        task().encode(torch.zeros(1, 3, 24, 24))


def test_mismatched_parts_are_refused():
    good = task()
    with pytest.raises(ValueError, match=r"model\.image_vocab_size: 16 is not the dVAE's 8"):
        DALLETask(good.model, DVAE(8, n_hid=8, n_init=8, groups=3, num_res_blocks=1), good.tokenizer)
    with pytest.raises(ValueError, match=r"model\.vocab_size: 520 is not the tokenizer's 521"):
        DALLETask(good.model, good.dvae, learn(CAPTIONS * 2, 521, "dalle"))


def test_companions_stay_in_evaluation_mode():
    one = task()
    one.train()
    assert one.model.training
    assert not one.dvae.training  # as checkpoint.compose left it


def test_the_preview_draws_the_captions():
    one = task()
    pictures, captions, _ = one.preview({"text": CAPTIONS})
    assert captions == CAPTIONS
    assert [picture.shape for picture in pictures] == [(3, 16, 16)] * 2
