import pytest
import torch

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.recognition import export_state, import_state
from dalle_cli.models import models
from tests.convert.miniatures import round_trip, state_of

UNET = {
    **{
        "type": "unet",
        "base_channels": 64,
        "channel_mult": [1, 2, 2],
        "num_res_blocks": 2,
        "attention_factors": [2, 4],
        "conditions": {},
    },
    **{"head_dim": 64, "heads": None, "attention_order": "legacy", "middle_attention": True, "scale_shift": True},
    **{"resample": "resblock", "learned_variance": True},
}


LABEL = {"label": {"type": "label-condition", "classes": 7}}


LOW_RES = {"low_res": {"type": "low-res-condition", "factor": 4, "resize": "bilinear"}}


ADM = {"type": "unet", "base_channels": 256, "num_res_blocks": 2}


CLASSES = {"label": {"type": "label-condition", "classes": 1000}}


def shapes_of(node, layout):
    """The recipe that an import of a model's published weights makes, the number of its parameters and of its keys."""
    with torch.device("meta"):
        published = export_state(layout, node, models.build(node).state_dict())
    node, _ = import_state(published)
    return node, sum(tensor.numel() for tensor in published.values()), len(published)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"conditions": LABEL},
        {"conditions": LABEL | LOW_RES},
        {"conditions": LOW_RES, "attention_factors": [], "middle_attention": False},
        {"scale_shift": False, "resample": "conv", "learned_variance": False},
        {"channel_mult": [1, 1.5, 2], "num_res_blocks": 1, "attention_factors": [4]},
        {"channel_mult": [0.5, 1], "num_res_blocks": 3, "attention_factors": [2]},
        {"channel_mult": [2], "attention_factors": [1]},
    ],
    ids=str,
)
def test_round_trip(changes):
    round_trip("openai-adm", UNET | changes)


def test_keys_are_the_published_ones():
    state = state_of(UNET | {"conditions": LABEL})
    published = export_state("openai-adm", UNET | {"conditions": LABEL}, state)
    shapes = {key: tuple(tensor.shape) for key, tensor in published.items()}
    assert shapes["input_blocks.4.1.qkv.weight"] == (384, 128, 1)
    assert shapes["middle_block.1.proj_out.weight"] == (128, 128, 1)
    assert shapes["label_emb.weight"] == (7, 256)
    assert shapes["time_embed.0.weight"] == (256, 64)
    assert shapes["output_blocks.2.2.in_layers.2.weight"] == (128, 128, 3, 3)


@pytest.mark.parametrize(
    ("node", "count", "keys"),
    [
        (
            ADM | {"base_channels": 192, "num_res_blocks": 3, "channel_mult": [1, 2, 3, 4],
                   "attention_factors": [2, 4, 8], "attention_order": "new", "conditions": CLASSES},
            295_904_454, 541,
        ),
        (
            ADM | {"channel_mult": [1, 1, 2, 3, 4], "attention_factors": [4, 8, 16], "heads": 4, "conditions": CLASSES},
            421_529_606, 493,
        ),
        (
            ADM | {"channel_mult": [1, 1, 2, 2, 4, 4], "attention_factors": [8, 16, 32], "conditions": CLASSES},
            553_838_086, 567,
        ),
        (ADM | {"channel_mult": [1, 1, 2, 2, 4, 4], "attention_factors": [8, 16, 32]}, 552_814_086, 566),
        (
            ADM | {"channel_mult": [0.5, 1, 1, 2, 2, 4, 4], "attention_factors": [16, 32, 64], "conditions": CLASSES},
            558_997_638, 645,
        ),
        (
            ADM | {"base_channels": 192, "channel_mult": [1, 1, 2, 2, 4, 4], "attention_factors": [8, 16, 32],
                   "heads": 4, "conditions": CLASSES | LOW_RES},
            311_795_910, None,
        ),
        (
            ADM | {"base_channels": 192, "channel_mult": [1, 1, 2, 2, 4, 4], "attention_factors": [16, 32],
                   "conditions": CLASSES | LOW_RES},
            308_835_270, None,
        ),
    ],
    ids=["64", "128", "256", "256-free", "512", "64-256", "128-512"],
)  # fmt: skip
def test_published_sizes(node, count, keys):
    imported, numbers, names = shapes_of(node, "openai-adm")
    assert numbers == count
    assert keys in (None, names)
    assert {key: imported[key] for key in node} == node
    assert imported["heads"] == node.get("heads")
    assert imported["attention_order"] == node.get("attention_order", "legacy")


def test_unstored_values_are_not_exported():
    for change, message in (
        ({"head_dim": 32}, "model.head_dim is 32, would be read as 64"),
        ({"heads": 2}, "model.heads is 2, would be read as None"),
        ({"attention_order": "new"}, "model.attention_order is new, would be read as legacy"),
        ({"conditions": {"text": {"type": "clip-condition", "embed_dim": 8, "tokens": 4, "width": 8}}},
         "this layout cannot hold a condition of type 'clip-condition'"),
    ):  # fmt: skip
        node = UNET | change
        with pytest.raises(ConvertError, match=message):
            export_state("openai-adm", node, state_of(node))


def test_missing_keys_are_named():
    published = export_state("openai-adm", UNET, state_of(UNET))
    del published["middle_block.1.norm.bias"]
    with pytest.raises(ConvertError, match=r"openai-adm: .*1 missing: middle_block.1.norm.bias"):
        import_state(published)


def test_patches_are_refused():
    node = UNET | {"patch_size": 2}
    with pytest.raises(ValueError, match=r"patches of pixels \(model\.patch_size\)"):
        export_state("openai-adm", node, models.build(node).state_dict())
