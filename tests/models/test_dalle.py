import math

import pytest
import torch
import torch.nn.functional as F

from dalle_cli.models import models
from dalle_cli.models.dalle import DALLE, token_losses
from dalle_cli.nn import masks

VOCAB, CONTEXT, CODES, GRID = 11, 4, 7, 4
PLACES = GRID**2


def build(attention="sparse", depth=3, **arguments):
    torch.manual_seed(0)
    numbers = {
        "vocab_size": VOCAB,
        "context_length": CONTEXT,
        "image_vocab_size": CODES,
        "grid_size": GRID,
        "width": 16,
        "heads": 2,
    }
    model = DALLE(**{**numbers, "depth": depth, "attention": attention, **arguments}).eval()
    for parameter in model.parameters():  # far enough from the start that every path counts
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def stream(batch=3):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCAB, (batch, CONTEXT), generator=generator)
    real = torch.arange(CONTEXT) < torch.randint(CONTEXT + 1, (batch, 1), generator=generator)
    return ids, real, torch.randint(CODES, (batch, PLACES), generator=generator)


def test_pad_tokens_are_per_position():
    model = build()
    ids, real, _ = stream()
    text = model.pad(ids, real)
    for row in range(3):
        for i in range(CONTEXT):
            assert text[row, i] == (ids[row, i] if real[row, i] else VOCAB + i)


def test_shapes_of_the_scores():
    model = build()
    ids, real, codes = stream()
    text_scores, code_scores = model(model.pad(ids, real), codes)
    assert text_scores.shape == (3, CONTEXT, VOCAB + CONTEXT)
    assert code_scores.shape == (3, PLACES, CODES)


@pytest.mark.parametrize("pattern", masks.PATTERNS)
def test_layer_follows_its_mask(pattern, monkeypatch):
    """Changing what stands at one place changes the scores of those that see it, and no others."""
    monkeypatch.setattr(masks, "layer_patterns", lambda kind, depth: [pattern] * depth)
    model = build(depth=1)
    ids, real, codes = stream(1)
    text = model.pad(ids, real)
    words = CONTEXT + 1
    sees = torch.ones(words + PLACES, words + PLACES, dtype=torch.bool).tril()  # of start token, text and codes
    sees[words:, words:] = masks.PATTERNS[pattern](GRID, GRID)
    before = [scores[0] for scores in model(text, codes)]
    for changed in range(1, CONTEXT + PLACES + 1):  # places of the stream; 0 is the start token
        other_text, other_codes = text.clone(), codes.clone()
        if changed <= CONTEXT:
            other_text[0, changed - 1] = (text[0, changed - 1] + 1) % VOCAB
        else:
            other_codes[0, changed - CONTEXT - 1] = (codes[0, changed - CONTEXT - 1] + 1) % CODES
        after = [scores[0] for scores in model(other_text, other_codes)]
        differs = torch.cat([(a - b).abs().amax(-1) > 1e-6 for a, b in zip(after, before)])
        assert torch.equal(differs, sees[:-1, changed]), changed


@pytest.mark.parametrize("pattern", [*masks.PATTERNS, "sparse"])
def test_cached_steps_equal_forward(pattern, monkeypatch):
    if pattern != "sparse":
        monkeypatch.setattr(masks, "layer_patterns", lambda kind, depth: [pattern] * depth)
    model = build(depth=4)
    prompts, candidates = 2, 3
    ids, real, _ = stream(prompts)
    text = model.pad(ids, real)
    codes = torch.randint(CODES, (prompts, candidates, PLACES), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        whole = model(text.repeat_interleave(candidates, 0), codes.flatten(0, 1))[1]
        whole = whole.view(prompts, candidates, PLACES, CODES)
        scores, cache = model.prefill(text, candidates)
        for place in range(PLACES):
            torch.testing.assert_close(scores, whole[:, :, place], rtol=1e-4, atol=1e-5)
            if place < PLACES - 1:
                scores = model.step(codes[:, :, place], place, cache)


@pytest.mark.parametrize("pattern", [*masks.PATTERNS, "sparse"])
def test_position_may_be_a_tensor(pattern, monkeypatch):
    """So that a GPU's graph, which does the same whatever the place is, draws the same."""
    if pattern != "sparse":
        monkeypatch.setattr(masks, "layer_patterns", lambda kind, depth: [pattern] * depth)
    model = build(depth=4)
    ids, real, codes = stream(2)
    caches = [model.prefill(model.pad(ids, real), 3)[1] for _ in range(2)]
    with torch.no_grad():
        for place in range(PLACES - 1):
            latest = codes[:2, place, None].expand(-1, 3)
            by_number, by_tensor = (
                model.step(latest, at, cache) for at, cache in zip((place, torch.tensor([place])), caches)
            )
            torch.testing.assert_close(by_tensor, by_number, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pattern", [*masks.PATTERNS, "sparse"])
def test_later_positions_are_masked(pattern, monkeypatch):
    if pattern != "sparse":
        monkeypatch.setattr(masks, "layer_patterns", lambda kind, depth: [pattern] * depth)
    model = build(depth=4)
    ids, real, codes = stream(1)
    found = []
    with torch.no_grad():
        for left in (0.0, 1e4):  # in the cache
            _, cache = model.prefill(model.pad(ids, real), 1)
            for layer in cache.image:
                layer.fill_(left)
            found.append([model.step(codes[:, None, place], place, cache) for place in range(PLACES - 1)])
    assert torch.equal(torch.stack(found[0]), torch.stack(found[1]))


def test_cache_drops_unneeded_rows():
    model = build(depth=4)
    ids, real, _ = stream(1)
    _, cache = model.prefill(model.pad(ids, real), 1)
    assert model.patterns == ["row", "column", "row", "convolution"]
    assert [layer.shape[-2] for layer in cache.image] == [GRID + 1, PLACES + GRID, GRID + 1, PLACES]


@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_bf16_halves_the_cache(how):
    model = build(depth=4)
    ids, real, codes = stream(1)
    text = model.pad(ids, real)

    def draw(model):
        _, cache = model.prefill(text, 1)
        return [model.step(codes[:, None, place], place, cache) for place in range(PLACES - 1)][-1], cache.image[
            0
        ].dtype

    with torch.no_grad():
        exact, full = draw(model)
        with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
            coarse, half = draw(model if how == "autocast" else model.to(torch.bfloat16))
    assert (full, half) == (torch.float32, torch.bfloat16)
    assert 0 < (coarse.float() - exact).abs().max() < 0.1 * exact.abs().max()


def test_recomputing_blocks_changes_no_gradient():
    ids, real, codes = stream()
    gradients = []
    for checkpointing in (False, True):
        model = build(gradient_checkpointing=checkpointing)
        text = model.pad(ids, real)
        sum(token_losses(*model(text, codes), text, codes)).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        assert torch.equal(gradient, gradients[1][name]), name


def test_a_fresh_model_knows_nothing():
    torch.manual_seed(0)
    model = DALLE(vocab_size=500, context_length=8, image_vocab_size=300, grid_size=4, width=64, depth=4, heads=2)
    text, codes = torch.randint(508, (8, 8)), torch.randint(300, (8, 16))
    text_loss, code_loss = token_losses(*model(text, codes), text, codes)
    assert abs(text_loss - math.log(508)) < 0.1
    assert abs(code_loss - math.log(300)) < 0.1


def test_losses_are_mean_cross_entropies():
    text_scores, code_scores = torch.randn(2, 3, 5), torch.randn(2, 4, 6)
    text, codes = torch.randint(5, (2, 3)), torch.randint(6, (2, 4))
    for found, scores, wanted in zip(
        token_losses(text_scores, code_scores, text, codes), (text_scores, code_scores), (text, codes)
    ):
        log_p = F.log_softmax(scores, -1)
        expected = [-log_p[b, i, wanted[b, i]] for b in range(2) for i in range(wanted.shape[1])]
        torch.testing.assert_close(found, torch.stack(expected).mean())


def test_paper_size_has_12b_parameters():
    node = {"type": "dalle", "vocab_size": 16384, "context_length": 256, "image_vocab_size": 8192, "grid_size": 32}
    with torch.device("meta"):
        model = models.build({**node, "width": 3968, "depth": 64, "heads": 62})
    assert 12.0e9 < sum(parameter.numel() for parameter in model.parameters()) < 12.5e9
    assert model.row_band.shape == (32, 32, 2 * 32)
    assert model.row_band.device.type == "cpu"
    assert not any("band" in name for name in model.state_dict())


@pytest.mark.parametrize("numbers", [{"heads": 3}, {"heads": 0}, {"depth": 0}, {"grid_size": 0}, {"context_length": 0}])
def test_invalid_sizes_are_refused(numbers):
    node = {
        "type": "dalle",
        "vocab_size": 9,
        "context_length": 4,
        "image_vocab_size": 9,
        "grid_size": 2,
        "width": 16,
        "depth": 1,
        "heads": 2,
    }
    with pytest.raises(ValueError, match="model: width 16 must divide by heads"):
        models.build({**node, **numbers})
