import pytest
import torch

from dalle_cli.models.text import TextTransformer

END = 49


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return TextTransformer(vocab_size=50, context_length=10, width=32, depth=2, heads=4).eval()


def test_feature_is_the_end_token(tower):
    ids = torch.tensor([[48, 5, 7, END, 0, 0], [48, END, 0, 0, 0, 0]])
    states = tower.states(ids)
    torch.testing.assert_close(tower(ids), torch.stack([states[0, 3], states[1, 1]]))


def test_padding_is_ignored(tower):
    feature = tower(torch.tensor([[48, 5, 7, END]]))
    torch.testing.assert_close(tower(torch.tensor([[48, 5, 7, END, 0, 0]])), feature)
    torch.testing.assert_close(tower(torch.tensor([[48, 5, 7, END, 3, 9, 2]])), feature)


def test_order_of_the_words_matters(tower):
    one, other = tower(torch.tensor([[48, 5, 7, END], [48, 7, 5, END]]))
    assert (one - other).abs().max() > 1e-3


def test_too_many_tokens_are_refused(tower):
    with pytest.raises(ValueError, match="11 tokens are more than the text encoder's 10"):
        tower(torch.zeros(1, 11, dtype=torch.long))


def test_published_initialization():
    torch.manual_seed(0)
    width, depth = 256, 3
    tower = TextTransformer(vocab_size=500, context_length=77, width=width, depth=depth, heads=4)
    expected = {
        "token_embedding.weight": 0.02,
        "positional_embedding": 0.01,
        "attn.in_proj_weight": width**-0.5,
        "attn.out_proj.weight": width**-0.5 * (2 * depth) ** -0.5,
        "mlp.c_fc.weight": (2 * width) ** -0.5,
        "mlp.c_proj.weight": width**-0.5 * (2 * depth) ** -0.5,
    }
    for end, deviation in expected.items():
        found = [parameter for name, parameter in tower.named_parameters() if name.endswith(end)]
        assert len(found) == (1 if "embedding" in end else depth)
        for parameter in found:
            assert parameter.std().item() == pytest.approx(deviation, rel=0.03), end
