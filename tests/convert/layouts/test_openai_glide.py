import pytest
import torch

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.recognition import export_state, import_state
from dalle_cli.models import models

TEXT = {"type": "text-condition", "vocab": 40, "context": 6, "width": 128, "depth": 2, "heads": 2}
INPAINT = {"inpaint": {"type": "inpaint-condition"}}
LOW_RES = {"low_res": {"type": "low-res-condition", "factor": 4, "resize": "bilinear"}}
UNET = {
    **{"type": "unet", "channels": 64, "multiples": [1, 2], "blocks": 1, "attention": [2], "head_width": 64},
    **{"heads": None, "attention_order": "legacy", "middle_attention": True, "scale_shift": True},
    **{"resample": "resblock", "learned_variance": True},
}
CLIP = {
    **{"type": "noised-clip", "embed_dim": 24, "scale": 100.0},
    "image": {"type": "noised-vit", "size": 16, "patch": 4, "width": 64, "depth": 3, "heads": 1, "steps": 50},
    "text": {"type": "noised-clip-text", "vocab": 30, "context": 9, "width": 128, "depth": 2, "heads": 2},
}


def state_of(node):
    torch.manual_seed(0)
    return models.build(node).state_dict()


def comes_back(node, layout):
    state = state_of(node)
    published = export_state(layout, node, state)
    model, back = import_state(published)
    assert model == node
    assert back.keys() == state.keys()
    for key, tensor in state.items():
        assert torch.equal(back[key], tensor), key
    return published


@pytest.mark.parametrize("more", [{}, LOW_RES, INPAINT, INPAINT | LOW_RES], ids=lambda more: "+".join(more) or "base")
def test_recipe_and_every_bit_come_back(more):
    published = comes_back(UNET | {"conditions": {"text": TEXT} | more}, "openai-glide")
    assert published["positional_embedding"].shape == (6, 128)
    assert published["transformer.resblocks.1.attn.c_proj.weight"].shape == (128, 128)
    assert published["transformer_proj.weight"].shape == (256, 128)
    assert published["middle_block.1.encoder_kv.weight"].shape == (256, 128, 1)


@pytest.mark.parametrize(
    ("more", "changes", "count", "keys"),
    [
        ({}, {"blocks": 3, "multiples": [1, 2, 3, 4], "attention": [2, 4, 8]}, 385_030_726, 783),
        (INPAINT, {"blocks": 3, "multiples": [1, 2, 3, 4], "attention": [2, 4, 8]}, 385_037_638, 783),
        (LOW_RES, {"blocks": 2, "multiples": [1, 1, 2, 2, 4, 4], "attention": [8, 16, 32]}, 398_361_286, 797),
        (INPAINT | LOW_RES, {"blocks": 2, "multiples": [1, 1, 2, 2, 4, 4], "attention": [8, 16, 32]}, 398_368_198, 797),
    ],
    ids=["base", "base-inpaint", "upsample", "upsample-inpaint"],
)
def test_published_sizes_have_the_published_counts(more, changes, count, keys):
    text = TEXT | {"vocab": 50257, "context": 128, "width": 512, "depth": 16, "heads": 8}
    node = UNET | {"channels": 192} | changes | {"conditions": {"text": text} | more}
    with torch.device("meta"):
        network = models.build(node)
        published = export_state("openai-glide", node, network.state_dict())
    assert sum(tensor.numel() for tensor in published.values()) == count
    assert sum(tensor.numel() for tensor in network.conditions["text"].parameters()) == 76_695_808
    assert len(published) == keys
    assert import_state(published)[0] == node


def test_an_unheard_of_number_of_input_channels_is_refused():
    node = UNET | {"conditions": {"text": TEXT}}
    published = export_state("openai-glide", node, state_of(node))
    published["input_blocks.0.0.weight"] = torch.zeros(64, 5, 3, 3)
    with pytest.raises(ConvertError, match="the shapes of the weights fit no size of this model"):
        import_state(published)


def test_other_conditions_are_not_exported():
    node = UNET | {"conditions": {"label": {"type": "label-condition", "classes": 3}}}
    with pytest.raises(ConvertError, match="no place for a condition of type 'label-condition'"):
        export_state("openai-glide", node, state_of(node))


def test_noised_clip_comes_back_from_its_two_files():
    published = comes_back(CLIP, "openai-noised-clip")
    assert published["image_encoder.blocks.input.w_t"].shape == (50, 64)
    assert published["text_encoder.blocks.input.w_voc"].shape == (30, 128)
    assert published["text_encoder.blocks.output.f.w"].shape == (24, 128)
    assert "image_encoder.blocks.block_2.f_attn.f_k.b" not in published


def test_published_noised_clip_has_the_published_counts():
    node = CLIP | {
        "embed_dim": 512,
        "image": {"type": "noised-vit", "size": 64, "patch": 4, "width": 768, "depth": 12, "heads": 12, "steps": 1000},
        "text": {"type": "noised-clip-text", "vocab": 65536, "context": 77, "width": 512, "depth": 12, "heads": 8},
    }
    with torch.device("meta"):
        published = export_state("openai-noised-clip", node, models.build(node).state_dict())
    for half, count, keys in (("image_encoder.", 86_443_776, 188), ("text_encoder.", 71_679_488, 185)):
        own = [tensor.numel() for key, tensor in published.items() if key.startswith(half)]
        assert (sum(own), len(own)) == (count, keys)
    assert import_state(published)[0] == node


def test_half_of_the_noised_clip_is_refused():
    published = export_state("openai-noised-clip", CLIP, state_of(CLIP))
    half = {key: tensor for key, tensor in published.items() if key.startswith("image_encoder.")}
    with pytest.raises(ConvertError, match=r"the key 'text_encoder.blocks.input.w_voc' is missing"):
        import_state(half)


def test_a_learned_scale_is_not_exported():
    node = {key: value for key, value in CLIP.items() if key != "scale"}
    with pytest.raises(ConvertError, match="'logit_scale' has no place in this layout"):
        export_state("openai-noised-clip", node, state_of(node))
