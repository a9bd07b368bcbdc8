import torch

from dalle_cli.models.conditions.label import LabelCondition


def test_label_is_an_embedding():
    condition = LabelCondition(4)
    condition.connect(8)
    output = condition(torch.tensor([2, 0]))["embedding"]
    assert torch.equal(output, condition.label_emb.weight[[2, 0]])
