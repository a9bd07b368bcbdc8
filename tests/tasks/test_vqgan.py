import pytest

from dalle_cli import checkpoint
from dalle_cli.registry import RecipeError
from dalle_cli.training.start import train

RECIPE = """
model: {type: vqgan, vocab_size: 4, embed_dim: 4, base_channels: 32, channel_mult: [1, 1], attention_factors: [2],
  latent_channels: 4}
task: {type: vqgan}
data: {type: scenes, objects: shapes, size: 16}
optim: {lr: 0.001}
train: {steps: 1, batch_size: 2}
"""


def test_it_is_loaded_frozen():
    recipe = {
        "model": {
            "type": "vqgan",
            "vocab_size": 4,
            "base_channels": 32,
            "channel_mult": [1, 1],
            "attention_factors": [2],
            "latent_channels": 4,
        },
        "task": {"type": "vqgan"},
    }
    task = checkpoint.compose(recipe)
    assert not any(parameter.requires_grad for parameter in task.parameters())
    assert task.model.vocab_size == 4


def test_it_is_not_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    with pytest.raises(RecipeError, match=r"task\.type: 'vqgan' cannot be trained here, only imported"):
        train("dvae", "mine.yaml", [], None, "auto", 1, None, False, True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
