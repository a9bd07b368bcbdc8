import torch

from dalle_cli.models.conditions.clip_text import ClipTextCondition


def test_padding_is_masked():
    condition = ClipTextCondition(embed_dim=8, text_width=12, width=6)
    condition.connect(16)
    embedding, states, real = torch.randn(2, 8), torch.randn(2, 5, 12), torch.rand(2, 5) > 0.5
    output = condition(embedding, states, real)
    assert output["embedding"].shape == (2, 16)
    assert torch.equal(output["mask"], real)
    torch.testing.assert_close(output["tokens"].mean(dim=-1), torch.zeros(2, 5), atol=1e-5, rtol=0)  # normalised


def test_layers_start_as_identity_and_are_bidirectional():
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


def test_own_token_embedding_separates_tokens():
    torch.manual_seed(0)
    plain, extended = (
        ClipTextCondition(embed_dim=8, text_width=12, width=16, vocab_size=vocab) for vocab in (None, 20)
    )
    plain.connect(16), extended.connect(16)
    extended.load_state_dict(plain.state_dict(), strict=False)
    embedding, real, ids = torch.randn(1, 8), torch.ones(1, 3).bool(), torch.tensor([[3, 7, 5]])
    states = torch.randn(1, 1, 12).expand(1, 3, 12)
    tokens = extended(embedding, states, real, ids)["tokens"]
    read = plain(embedding, states, real, ids)["tokens"]
    torch.testing.assert_close(tokens - read, extended.token_embedding(ids))
    assert torch.pdist(tokens[0]).min() > 0.5
    assert torch.pdist(read[0]).max() < 1e-5


def test_input_may_have_another_dtype():
    condition = ClipTextCondition(4, text_width=6, width=8)
    condition.connect(16)
    output = condition.to(torch.bfloat16)(torch.randn(1, 4), torch.randn(1, 3, 6), torch.ones(1, 3).bool())
    assert output["embedding"].dtype == output["tokens"].dtype == torch.bfloat16
