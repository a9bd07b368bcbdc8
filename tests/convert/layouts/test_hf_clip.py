import pytest
import torch

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.layouts import all_layouts
from dalle_cli.convert.recognition import export_state, import_state
from dalle_cli.models import models

VIT = {"type": "vit", "size": 16, "patch_size": 8, "width": 64, "depth": 2, "heads": 1}
TEXT = {"type": "clip-text", "vocab_size": 50, "context_length": 10, "width": 128, "depth": 3, "heads": 2}
NODE = {"type": "clip", "embed_dim": 12, "image": VIT, "text": TEXT}
CONFIG = {"vision_config": {"num_attention_heads": 1}, "text_config": {"num_attention_heads": 2}}


def state_of(node=NODE):
    torch.manual_seed(0)
    return models.build(node).state_dict()


def published(node=NODE):
    return export_state("hf-clip", node, state_of(node))


def test_round_trip():
    model, back = import_state(published())
    assert model == NODE
    assert back.keys() == state_of().keys()
    for key, tensor in state_of().items():
        assert torch.equal(back[key], tensor), key


def test_keys_are_the_published_ones():
    shapes = {key: tuple(tensor.shape) for key, tensor in published().items()}
    assert len(shapes) == 398 - 16 * (24 - 5)  # spec of the default CLIPModel: 24 blocks; here 5, of 16 entries each
    assert shapes["visual_projection.weight"] == (12, 64)
    assert shapes["text_projection.weight"] == (12, 128)
    assert shapes["vision_model.pre_layrnorm.weight"] == (64,)
    assert shapes["vision_model.embeddings.class_embedding"] == (64,)
    assert shapes["text_model.encoder.layers.2.self_attn.k_proj.bias"] == (128,)
    assert shapes["text_model.encoder.layers.2.mlp.fc1.weight"] == (512, 128)


def test_queries_keys_and_values_are_joined():
    joined = state_of()["text.transformer.resblocks.1.attn.in_proj_weight"]
    parts = [published()[f"text_model.encoder.layers.1.self_attn.{part}_proj.weight"] for part in "qkv"]
    assert torch.equal(torch.cat(parts), joined)


def test_published_size():
    node = {
        **{"type": "clip", "embed_dim": 512},
        "image": {"type": "vit", "size": 224, "patch_size": 32, "width": 768, "depth": 12, "heads": 12},
        "text": {"type": "clip-text", "vocab_size": 49408, "context_length": 77, "width": 512, "depth": 12, "heads": 8},
    }
    with torch.device("meta"):
        theirs = export_state("hf-clip", node, models.build(node).state_dict())
    assert (len(theirs), sum(tensor.numel() for tensor in theirs.values())) == (398, 151_277_313)


def test_position_ids_are_ignored():
    old = {f"{tower}_model.embeddings.position_ids": torch.arange(10)[None] for tower in ("text", "vision")}
    assert import_state(published() | old)[0] == NODE


def test_config_gives_heads_and_activation():
    config = {
        "vision_config": {"num_attention_heads": 4, "hidden_act": "gelu"},
        "text_config": {"num_attention_heads": 16, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    }
    model, _ = import_state(published(), config)
    assert model["image"] == VIT | {"heads": 4, "activation": "gelu"}
    assert model["text"] == TEXT | {"heads": 16}
    with pytest.raises(ConvertError, match="width 64 is not divisible by heads 12"):
        import_state(published(), {})  # transformers' default


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"vision_config": {"hidden_act": "relu"}}, "vision_config.hidden_act: 'relu'"),
        ({"text_config": {"layer_norm_eps": 1e-6}}, "text_config.layer_norm_eps: 1e-06"),
        ({"text_config": "none"}, "does not belong"),
        ({"vision_config": {"hidden_act": []}}, "does not belong"),
    ],
)
def test_config_of_another_model_is_refused(config, message):
    with pytest.raises(ConvertError, match=rf"config\.json: .*{message}"):
        import_state(published(), config)


@pytest.mark.parametrize("tower", ["text", "image"])
def test_round_trip_of_one_tower(tower):
    node = {"type": "clip", "embed_dim": 12, tower: NODE[tower], "fixed_logit_scale": 100.0}
    state = state_of(node)
    published = export_state("hf-clip", node, state)
    assert all(key.startswith(("text_", "vis")) for key in published)
    model, back = import_state(published)
    assert model == node
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)
    source = all_layouts()["hf-clip"]
    flat = source.config.write(node)
    assert flat["architectures"] == [f"CLIP{'Text' if tower == 'text' else 'Vision'}ModelWithProjection"]
    assert source.config.read(node, flat | {"num_attention_heads": 4})[tower]["heads"] == 4


def test_missing_towers_are_named():
    for tower, other in (("text", "vision"), ("vision", "text")):
        tower_state = {key: value for key, value in published().items() if key.startswith((tower[:3], "logit_scale"))}
        with pytest.raises(ConvertError, match=f"hf-clip: the {other} tower is missing"):
            import_state(tower_state)


def test_round_trip_of_configs():
    node = NODE | {"image": VIT | {"heads": 8, "activation": "gelu"}, "text": TEXT | {"heads": 1}}
    source = all_layouts()["hf-clip"]
    assert source.config.read(NODE, source.config.write(node)) == node
    state = state_of(node)
    with pytest.raises(ConvertError, match=r"model.image.heads is 8.*activation is gelu"):
        export_state("hf-clip", node, state)  # keys tower_state do not tell
    assert export_state("hf-clip", node, state, with_config=True).keys() == published().keys()


def test_resnets_are_refused():
    image = {"type": "modified-resnet", "size": 64, "layers": [1, 1, 1, 1], "width": 8, "heads": 4}
    node = NODE | {"image": image}
    with pytest.raises(ConvertError, match="hf-clip: this layout cannot hold an image tower of type 'modified-resnet'"):
        export_state("hf-clip", node, state_of(node))
