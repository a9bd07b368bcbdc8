from dataclasses import replace

import pytest
import torch

from dalle_cli.models.conditions.base import Condition, Request, Resources, merge
from dalle_cli.registry import RecipeError


def test_merge():
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


class Embedded(Condition):
    """A condition that is an embedding of a text's length."""

    def __init__(self):
        super().__init__()
        self.read = []

    def forward(self, lengths):
        self.read.append(len(lengths))
        return {"embedding": lengths[:, None].float()}


def test_each_distinct_text_is_encoded_once():
    condition = Embedded()
    output = condition.encode_distinct(["a", "bb", "a"], lambda texts: (torch.tensor([len(text) for text in texts]),))
    assert output["embedding"].flatten().tolist() == [1, 2, 1]
    assert condition.read == [2]


def test_null_rows_follow_when_guided():
    request = Request(["a", "b"], True, 8, torch.device("cpu"))
    assert request.all_texts() == ["a", "b", "", ""]
    assert request.repeat(torch.tensor([[1], [2]])).flatten().tolist() == [1, 2, 1, 2]
    plain = replace(request, guided=False)
    assert plain.all_texts() == ["a", "b"]
    assert len(plain.repeat(torch.zeros(2, 1))) == 2


def test_missing_resources_are_named():
    with pytest.raises(RecipeError, match=r"frozen\.clip: name the CLIP"):
        Resources(8).require_clip()
    with pytest.raises(ValueError, match="tokenizer: a model that reads text needs one"):
        Resources(8).require_tokenizer()
