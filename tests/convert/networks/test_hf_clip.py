import pytest
import torch

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.networks.hf_clip import has_clip_keys, key_table, read_config

VIT = {"type": "vit", "size": 32, "patch_size": 8, "width": 64, "depth": 1, "heads": 1}


def test_one_tower_is_enough_to_be_recognized():
    for tower in ("text", "vision"):
        assert has_clip_keys({f"{tower}_model.embeddings.position_embedding.weight": torch.ones(1)})
    assert not has_clip_keys({"text_model.encoder.layers.0.layer_norm1.weight": torch.ones(1)})


def test_config_of_one_tower_is_flat():
    model = read_config({"image": VIT}, {"num_attention_heads": 4, "hidden_act": "gelu"})
    assert model["image"] == VIT | {"heads": 4, "activation": "gelu"}


def test_residual_towers_are_refused():
    with pytest.raises(ConvertError, match="modified-resnet"):
        key_table({"image": VIT | {"type": "modified-resnet"}})
