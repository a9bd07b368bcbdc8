import pytest
import torch

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.layouts import all_layouts
from dalle_cli.convert.recognition import export_state, import_state
from tests.convert.miniatures import state_of

VIT = {"type": "vit", "size": 16, "patch_size": 8, "width": 64, "depth": 2, "heads": 1}


TEXT = {"type": "clip-text", "vocab_size": 50, "context_length": 10, "width": 128, "depth": 3, "heads": 2}


NODE = {"type": "clip", "embed_dim": 12, "image": VIT, "text": TEXT}


def test_round_trip():
    node = NODE | {"fixed_logit_scale": 100.0}
    state = state_of(node)
    published = export_state("diffusers-clip", node, state)
    assert "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.weight" in published
    assert "image_encoder.visual_projection.weight" in published
    model, back = import_state(published)
    assert (model, back.keys()) == (node, state.keys())
    assert all(torch.equal(back[key], state[key]) for key in state)
    source = all_layouts()["diffusers-clip"]
    assert source.config.read(node, source.config.write(node)) == node
    with pytest.raises(ConvertError, match=r"cannot hold 'logit_scale'"):
        export_state("diffusers-clip", NODE, state_of(NODE))
