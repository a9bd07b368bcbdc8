import pytest
import torch

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.recognition import export_state, import_state
from dalle_cli.models import models
from tests.convert.miniatures import round_trip, state_of

CLIP = {
    **{"type": "noised-clip", "embed_dim": 24, "fixed_logit_scale": 100.0},
    "image": {"type": "noised-vit", "size": 16, "patch_size": 4, "width": 64, "depth": 3, "heads": 1, "steps": 50},
    "text": {"type": "noised-clip-text", "vocab_size": 30, "context_length": 9, "width": 128, "depth": 2, "heads": 2},
}


def test_round_trip():
    published = round_trip("openai-noised-clip", CLIP)
    assert published["image_encoder.blocks.input.w_t"].shape == (50, 64)
    assert published["text_encoder.blocks.input.w_voc"].shape == (30, 128)
    assert published["text_encoder.blocks.output.f.w"].shape == (24, 128)
    assert "image_encoder.blocks.block_2.f_attn.f_k.b" not in published


def test_published_size():
    node = CLIP | {
        "embed_dim": 512,
        "image": {
            "type": "noised-vit",
            "size": 64,
            "patch_size": 4,
            "width": 768,
            "depth": 12,
            "heads": 12,
            "steps": 1000,
        },
        "text": {
            "type": "noised-clip-text",
            "vocab_size": 65536,
            "context_length": 77,
            "width": 512,
            "depth": 12,
            "heads": 8,
        },
    }
    with torch.device("meta"):
        published = export_state("openai-noised-clip", node, models.build(node).state_dict())
    for half, count, keys in (("image_encoder.", 86_443_776, 188), ("text_encoder.", 71_679_488, 185)):
        sizes = [tensor.numel() for key, tensor in published.items() if key.startswith(half)]
        assert (sum(sizes), len(sizes)) == (count, keys)
    assert import_state(published)[0] == node


def test_missing_half_is_refused():
    published = export_state("openai-noised-clip", CLIP, state_of(CLIP))
    half = {key: tensor for key, tensor in published.items() if key.startswith("image_encoder.")}
    with pytest.raises(ConvertError, match=r"the key 'text_encoder.blocks.input.w_voc' is missing"):
        import_state(half)


def test_learned_logit_scale_is_not_exported():
    node = {key: value for key, value in CLIP.items() if key != "fixed_logit_scale"}
    with pytest.raises(ConvertError, match="cannot hold 'logit_scale'"):
        export_state("openai-noised-clip", node, state_of(node))
