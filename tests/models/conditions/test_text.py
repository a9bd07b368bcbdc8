import pytest
import torch

from dalle_cli.models.conditions.text import TextCondition


@pytest.fixture
def text():
    torch.manual_seed(0)
    condition = TextCondition(vocab_size=20, context_length=6, width=32, depth=2, heads=4)
    condition.connect(48)
    return condition


REAL = torch.tensor([[True, True, True, False, False, False]])


def test_states_become_tokens_and_the_last_is_projected(text):
    output = text(torch.tensor([[4, 5, 6, 0, 0, 0]]), REAL)
    assert output["tokens"].shape == (1, 6, 32)
    torch.testing.assert_close(output["embedding"], text.transformer_proj(output["tokens"][:, -1]))
    torch.testing.assert_close(output["tokens"], text.final_ln(text.transformer(unread(text, [4, 5, 6]))[0]))
    assert "mask" not in output  # padding is read like any other token


def unread(text, ids):
    """What the transformer gets: token and position, and after the text the padding of each place."""
    extended = text.token_embedding(torch.tensor([ids])) + text.positional_embedding[: len(ids)]
    return torch.cat([extended, text.padding_embedding[None, len(ids) :]], dim=1)


def test_padding_ids_are_ignored(text):
    one = text(torch.tensor([[4, 5, 6, 0, 0, 0]]), REAL)["embedding"]
    torch.testing.assert_close(text(torch.tensor([[4, 5, 6, 9, 8, 7]]), REAL)["embedding"], one)
    assert (text(torch.tensor([[4, 6, 5, 0, 0, 0]]), REAL)["embedding"] - one).abs().max() > 1e-3


def test_wrong_length_is_refused(text):
    with pytest.raises(ValueError, match="text of 5 tokens for an encoder of 6"):
        text(torch.zeros(1, 5, dtype=torch.long), torch.ones(1, 5, dtype=torch.bool))
