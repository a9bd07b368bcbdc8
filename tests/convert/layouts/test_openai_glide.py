import pytest
import torch

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.recognition import export_state, import_state
from dalle_cli.models import models
from tests.convert.miniatures import UNET, round_trip, state_of

TEXT = {"type": "text-condition", "vocab_size": 40, "context_length": 6, "width": 128, "depth": 2, "heads": 2}


INPAINT = {"inpaint": {"type": "inpaint-condition"}}


LOW_RES = {"low_res": {"type": "low-res-condition", "factor": 4, "resize": "bilinear"}}


@pytest.mark.parametrize("more", [{}, LOW_RES, INPAINT, INPAINT | LOW_RES], ids=lambda more: "+".join(more) or "base")
def test_round_trip(more):
    published = round_trip("openai-glide", UNET | {"conditions": {"text": TEXT} | more})
    assert published["positional_embedding"].shape == (6, 128)
    assert published["transformer.resblocks.1.attn.c_proj.weight"].shape == (128, 128)
    assert published["transformer_proj.weight"].shape == (256, 128)
    assert published["middle_block.1.encoder_kv.weight"].shape == (256, 128, 1)


@pytest.mark.parametrize(
    ("more", "changes", "count", "keys"),
    [
        ({}, {"num_res_blocks": 3, "channel_mult": [1, 2, 3, 4], "attention_factors": [2, 4, 8]}, 385_030_726, 783),
        (
            INPAINT,
            {"num_res_blocks": 3, "channel_mult": [1, 2, 3, 4], "attention_factors": [2, 4, 8]},
            385_037_638,
            783,
        ),
        (
            LOW_RES,
            {"num_res_blocks": 2, "channel_mult": [1, 1, 2, 2, 4, 4], "attention_factors": [8, 16, 32]},
            398_361_286,
            797,
        ),
        (
            INPAINT | LOW_RES,
            {"num_res_blocks": 2, "channel_mult": [1, 1, 2, 2, 4, 4], "attention_factors": [8, 16, 32]},
            398_368_198,
            797,
        ),
    ],
    ids=["base", "base-inpaint", "upsample", "upsample-inpaint"],
)
def test_published_sizes(more, changes, count, keys):
    text = TEXT | {"vocab_size": 50257, "context_length": 128, "width": 512, "depth": 16, "heads": 8}
    node = UNET | {"base_channels": 192} | changes | {"conditions": {"text": text} | more}
    with torch.device("meta"):
        network = models.build(node)
        published = export_state("openai-glide", node, network.state_dict())
    assert sum(tensor.numel() for tensor in published.values()) == count
    assert sum(tensor.numel() for tensor in network.conditions["text"].parameters()) == 76_695_808
    assert len(published) == keys
    assert import_state(published)[0] == node


def test_unknown_input_channels_are_refused():
    node = UNET | {"conditions": {"text": TEXT}}
    published = export_state("openai-glide", node, state_of(node))
    published["input_blocks.0.0.weight"] = torch.zeros(64, 5, 3, 3)
    with pytest.raises(ConvertError, match="the shapes of the weights fit no size of this model"):
        import_state(published)


def test_other_conditions_are_refused():
    node = UNET | {"conditions": {"label": {"type": "label-condition", "classes": 3}}}
    with pytest.raises(ConvertError, match="this layout cannot hold a condition of type 'label-condition'"):
        export_state("openai-glide", node, state_of(node))
