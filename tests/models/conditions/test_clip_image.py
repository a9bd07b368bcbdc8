import torch

from dalle_cli.models.conditions.clip_image import ClipImageCondition


def test_tokens_have_the_published_order():
    torch.manual_seed(0)
    condition = ClipImageCondition(embed_dim=8, tokens=4, width=6)
    condition.connect(16)
    torch.nn.init.normal_(condition.cf_param)
    embedding = torch.randn(2, 8)
    output = condition(embedding)
    torch.testing.assert_close(output["embedding"], condition.clip_emb(embedding))
    projected = condition.clip_tok_proj(embedding)
    for token in range(4):
        torch.testing.assert_close(output["tokens"][:, token], projected[:, token::4])  # element d of token j: 4 d + j
    dropped = condition(embedding, torch.tensor([True, False]))
    for part in ("embedding", "tokens"):
        torch.testing.assert_close(dropped[part][0], output[part][0])
        torch.testing.assert_close(dropped[part][1], condition(condition.cf_param[None])[part][0])


def test_input_may_have_another_dtype():
    condition = ClipImageCondition(4, tokens=2, width=8)
    condition.connect(16)
    output = condition.to(torch.bfloat16)(torch.randn(1, 4))
    assert output["embedding"].dtype == output["tokens"].dtype == torch.bfloat16
