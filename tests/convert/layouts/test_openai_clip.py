import pytest
import torch

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.layouts import all_layouts
from dalle_cli.convert.recognition import export_state, import_state
from tests.convert.miniatures import state_of

VIT = {"type": "vit", "size": 16, "patch_size": 8, "width": 64, "depth": 2, "heads": 1}


RESNET = {"type": "modified-resnet", "size": 64, "layers": [1, 2, 3, 1], "width": 8, "heads": 4}


TEXT = {"type": "clip-text", "vocab_size": 50, "context_length": 10, "width": 128, "depth": 3, "heads": 2}


def node(image):
    return {"type": "clip", "embed_dim": 12, "image": image, "text": TEXT}


def published(image=VIT):
    return export_state("openai-clip", node(image), state_of(node(image)))


@pytest.mark.parametrize("image", [VIT, RESNET], ids=["vit", "resnet"])
def test_round_trip(image):
    state = state_of(node(image))
    model, back = import_state(export_state("openai-clip", node(image), state))
    assert model == node(image)
    assert back.keys() == state.keys()
    for key, tensor in state.items():
        assert torch.equal(back[key], tensor), key


def test_keys_are_the_published_ones():
    shapes = {key: tuple(tensor.shape) for key, tensor in published().items()}
    blocks = {
        f"{tower}transformer.resblocks.{i}.{name}"
        for tower, depth in (("visual.", 2), ("", 3))
        for i in range(depth)
        for name in (
            *("attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias"),
            *("ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias"),
            *("mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias"),
        )
    }
    rest = {
        "positional_embedding": (10, 128),
        "text_projection": (128, 12),
        "logit_scale": (),
        "token_embedding.weight": (50, 128),
        "ln_final.weight": (128,),
        "ln_final.bias": (128,),
        "visual.class_embedding": (64,),
        "visual.positional_embedding": (5, 64),
        "visual.proj": (64, 12),
        "visual.conv1.weight": (64, 3, 8, 8),
        "visual.ln_pre.weight": (64,),
        "visual.ln_pre.bias": (64,),
        "visual.ln_post.weight": (64,),
        "visual.ln_post.bias": (64,),
    }
    assert shapes.keys() == blocks | rest.keys()
    assert {key: shapes[key] for key in rest} == rest


def test_resnet_keys_are_the_published_ones():
    shapes = {key: tuple(tensor.shape) for key, tensor in published(RESNET).items()}
    assert shapes["visual.attnpool.c_proj.weight"] == (12, 256)
    assert shapes["visual.attnpool.c_proj.bias"] == (12,)
    assert shapes["visual.attnpool.positional_embedding"] == (5, 256)
    assert shapes["visual.layer1.0.downsample.0.weight"] == (32, 8, 1, 1)
    assert shapes["visual.layer2.0.downsample.1.running_var"] == (64,)
    assert "visual.proj" not in shapes


def test_archives_in_half_precision():
    state = {key: tensor.half() for key, tensor in published().items()}
    state |= {key: torch.tensor(1) for key in ("input_resolution", "context_length", "vocab_size")}
    model, ours = import_state(state)
    assert model == node(VIT)
    assert all(tensor.dtype == torch.float16 for tensor in ours.values())


def test_wrapper_prefix_is_removed():
    model, _ = import_state({f"module.{key}": tensor for key, tensor in published().items()})
    assert model == node(VIT)


def test_unknown_and_missing_keys_are_named():
    state = published() | {"logit_bias": torch.zeros(())}
    del state["visual.ln_post.bias"]
    with pytest.raises(ConvertError, match=r"openai-clip: .*1 missing: visual.ln_post.bias; 1 unknown: logit_bias"):
        import_state(state)


@pytest.mark.parametrize("key", ["text_projection", "visual.conv1.weight", "positional_embedding"])
def test_missing_size_keys_are_named(key):
    state = published()
    del state[key]
    with pytest.raises(ConvertError, match=f"'{key}' is missing"):
        import_state(state)


def test_non_square_grids_are_refused():
    state = published()
    state["visual.positional_embedding"] = torch.zeros(7, 64)
    with pytest.raises(ConvertError, match=r"visual.positional_embedding 7x64 instead of 5x64"):
        import_state(state)


def test_unstored_heads_are_not_exported():
    model = node({**VIT, "heads": 4})
    with pytest.raises(ConvertError, match=r"model.image.heads is 4, would be read as 1"):
        export_state("openai-clip", model, state_of(model))


def test_other_models_are_not_exported():
    with pytest.raises(ConvertError, match="openai-clip holds a model of type 'clip', not 'dvae'"):
        export_state("openai-clip", {"type": "dvae"}, {})
    with pytest.raises(ConvertError, match="'efficientnet'"):
        export_state("openai-clip", node({"type": "efficientnet"}), {})


def test_heads_in_the_config():
    model = node({**VIT, "heads": 4, "activation": "gelu"})
    model["text"] = TEXT | {"activation": "gelu"}
    state = export_state("openai-clip", model, state_of(model), with_config=True)
    config = all_layouts()["openai-clip"].config
    assert import_state(state, config.write(model))[0] == model
    with pytest.raises(ConvertError, match=r"model.image.heads is 4.*activation is gelu, would be read as quick"):
        export_state("openai-clip", model, state_of(model))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_cfg": {"timm_model_name": "convnext"}}, "vision_cfg.timm_model_name: convnext"),
        ({"text_cfg": {"heads": 2, "no_causal_mask": True}}, "text_cfg.no_causal_mask: True"),
        ({"vision_cfg": None}, "does not belong to these weights"),
    ],
)
def test_config_of_another_model_is_refused(changes, message):
    config = {"model_cfg": {"vision_cfg": {}, "text_cfg": {"heads": 2}} | changes}
    with pytest.raises(ConvertError, match=rf"open_clip_config\.json: .*{message}"):
        import_state(published(), config)
    other = {"model_cfg": {"vision_cfg": {}, "text_cfg": {"heads": 2}}, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5]}}
    with pytest.raises(ConvertError, match=r"preprocess_cfg\.mean"):
        import_state(published(), other)


def test_nested_wrapper_prefixes_are_removed():
    inside = {f"module.model.{key}": tensor for key, tensor in published().items()}
    assert import_state(inside)[0] == node(VIT)
