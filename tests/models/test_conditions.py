import pytest
import torch
import torch.nn.functional as F

from dalle_cli.models.conditions import (
    ClipCondition,
    ClipTextCondition,
    InpaintCondition,
    LabelCondition,
    LowResCondition,
    TextCondition,
    merge,
)


@pytest.fixture
def text():
    torch.manual_seed(0)
    condition = TextCondition(vocab_size=20, context_length=6, width=32, depth=2, heads=4)
    condition.connect(48)
    return condition


REAL = torch.tensor([[True, True, True, False, False, False]])


def test_text_gives_every_state_and_maps_the_last(text):
    told = text(torch.tensor([[4, 5, 6, 0, 0, 0]]), REAL)
    assert told["tokens"].shape == (1, 6, 32)
    torch.testing.assert_close(told["embedding"], text.transformer_proj(told["tokens"][:, -1]))
    torch.testing.assert_close(told["tokens"], text.final_ln(text.transformer(unread(text, [4, 5, 6]))[0]))
    assert "mask" not in told  # padding is read like any other token


def unread(text, ids):
    """What the transformer gets: token and position, and after the text the padding of each place."""
    own = text.token_embedding(torch.tensor([ids])) + text.positional_embedding[: len(ids)]
    return torch.cat([own, text.padding_embedding[None, len(ids) :]], dim=1)


def test_ids_of_padding_do_not_matter_and_words_do(text):
    one = text(torch.tensor([[4, 5, 6, 0, 0, 0]]), REAL)["embedding"]
    torch.testing.assert_close(text(torch.tensor([[4, 5, 6, 9, 8, 7]]), REAL)["embedding"], one)
    assert (text(torch.tensor([[4, 6, 5, 0, 0, 0]]), REAL)["embedding"] - one).abs().max() > 1e-3


def test_text_of_another_length_is_refused(text):
    with pytest.raises(ValueError, match="text of 5 tokens for an encoder of 6"):
        text(torch.zeros(1, 5, dtype=torch.long), torch.ones(1, 5, dtype=torch.bool))


def test_label_is_a_vector_of_its_own():
    condition = LabelCondition(4)
    condition.connect(8)
    told = condition(torch.tensor([2, 0]))["embedding"]
    assert torch.equal(told, condition.label_emb.weight[[2, 0]])


@pytest.mark.parametrize("resize", ["bilinear", "bicubic"])
def test_low_resolution_is_enlarged(resize):
    image = torch.randn(2, 3, 4, 5)
    condition = LowResCondition(3, resize)
    told = condition(image)["channels"]
    assert told.shape == (2, 3, 12, 15)
    torch.testing.assert_close(condition(torch.full((1, 3, 4, 4), 0.3))["channels"], torch.full((1, 3, 12, 12), 0.3))
    if resize == "bilinear":
        torch.testing.assert_close(told, F.interpolate(image, scale_factor=3, mode="bilinear", align_corners=False))


def test_unknown_part_of_a_picture_is_not_seen():
    image, mask = torch.randn(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    told = InpaintCondition()(image, mask)["channels"]
    assert InpaintCondition.channels == told.shape[1] == 4
    assert torch.equal(told[:, :3, :, :2], image[..., :2])
    assert (told[:, :3, :, 2:] == 0).all()
    assert torch.equal(told[:, 3:], mask)


def test_clip_embedding_is_added_and_becomes_tokens_in_the_published_order():
    torch.manual_seed(0)
    condition = ClipCondition(embed_dim=8, tokens=4, width=6)
    condition.connect(16)
    torch.nn.init.normal_(condition.cf_param)
    embedding = torch.randn(2, 8)
    told = condition(embedding)
    torch.testing.assert_close(told["embedding"], condition.clip_emb(embedding))
    projected = condition.clip_tok_proj(embedding)
    for token in range(4):
        torch.testing.assert_close(told["tokens"][:, token], projected[:, token::4])  # element d of token j: 4 d + j
    dropped = condition(embedding, torch.tensor([True, False]))
    for part in ("embedding", "tokens"):
        torch.testing.assert_close(dropped[part][0], told[part][0])
        torch.testing.assert_close(dropped[part][1], condition(condition.cf_param[None])[part][0])


def test_clip_text_is_mapped_and_its_padding_told():
    condition = ClipTextCondition(embed_dim=8, text_width=12, width=6)
    condition.connect(16)
    embedding, states, real = torch.randn(2, 8), torch.randn(2, 5, 12), torch.rand(2, 5) > 0.5
    told = condition(embedding, states, real)
    assert told["embedding"].shape == (2, 16)
    assert torch.equal(told["mask"], real)
    torch.testing.assert_close(told["tokens"].mean(dim=-1), torch.zeros(2, 5), atol=1e-5, rtol=0)  # normalised


def test_layers_over_clip_text_start_as_none_and_let_a_word_see_the_later_ones():
    torch.manual_seed(0)
    plain, deep = (ClipTextCondition(embed_dim=8, text_width=12, width=16, depth=depth) for depth in (0, 2))
    plain.connect(16), deep.connect(16)
    deep.load_state_dict(plain.state_dict(), strict=False)
    embedding, states, real = torch.randn(1, 8), torch.randn(1, 5, 12), torch.tensor([[True, True, True, True, False]])
    torch.testing.assert_close(deep(embedding, states, real)["tokens"], plain(embedding, states, real)["tokens"])
    for block in deep.transformer.resblocks:
        torch.nn.init.normal_(block.attn.c_proj.weight)
    before = deep(embedding, states, real)["tokens"]
    for place, seen in ((3, True), (4, False)):  # the last one is padding
        other = states.clone()
        other[:, place] += 1
        after = deep(embedding, other, real)["tokens"]
        assert torch.equal(after[:, :3], before[:, :3]) != seen


def test_tokens_that_clip_hardly_tells_apart_have_an_embedding_of_their_own():
    torch.manual_seed(0)
    plain, own = (ClipTextCondition(embed_dim=8, text_width=12, width=16, vocab_size=vocab) for vocab in (None, 20))
    plain.connect(16), own.connect(16)
    own.load_state_dict(plain.state_dict(), strict=False)
    embedding, real, ids = torch.randn(1, 8), torch.ones(1, 3).bool(), torch.tensor([[3, 7, 5]])
    states = torch.randn(1, 1, 12).expand(1, 3, 12)
    tokens = own(embedding, states, real, ids)["tokens"]
    read = plain(embedding, states, real, ids)["tokens"]
    torch.testing.assert_close(tokens - read, own.token_embedding(ids))
    assert torch.pdist(tokens[0]).min() > 0.5
    assert torch.pdist(read[0]).max() < 1e-5


def test_conditions_together():
    one, two = torch.randn(2, 4), torch.randn(2, 4)
    a, b = torch.randn(2, 3, 6), torch.randn(2, 5, 6)
    mask = torch.zeros(2, 5, dtype=torch.bool)
    merged = merge([{"embedding": one, "tokens": a}, {"embedding": two, "tokens": b, "mask": mask}, {"channels": one}])
    torch.testing.assert_close(merged["embedding"], one + two)
    assert torch.equal(merged["tokens"], torch.cat([a, b], dim=1))
    assert merged["mask"].tolist() == [[True] * 3 + [False] * 5] * 2
    assert torch.equal(merged["channels"], one)
    assert merge([]) == {}
    assert "mask" not in merge([{"tokens": a}])


@pytest.mark.parametrize(
    ("condition", "given"),
    [
        (ClipCondition(4, tokens=2, width=8), (torch.randn(1, 4),)),
        (
            ClipTextCondition(4, text_width=6, width=8),
            (torch.randn(1, 4), torch.randn(1, 3, 6), torch.ones(1, 3).bool()),
        ),
    ],
)
def test_what_clip_gives_may_be_of_another_type_than_the_network(condition, given):
    condition.connect(16)
    told = condition.to(torch.bfloat16)(*given)
    assert told["embedding"].dtype == told["tokens"].dtype == torch.bfloat16
