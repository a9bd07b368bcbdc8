import pytest
import torch

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.layouts import all_layouts
from dalle_cli.convert.recognition import export_state, import_state, recognize
from tests.convert.miniatures import DECODER, LARGE_DECODER, assert_size, round_trip, shapes_of, state_of


@pytest.mark.parametrize(
    "changes", [{}, {"channel_mult": [1, 2, 2], "attention_factors": [2, 4], "num_res_blocks": 2}], ids=str
)
def test_round_trip(changes):
    node = DECODER | changes
    published = round_trip("diffusers-decoder", node)
    assert recognize(published)[0].name == "diffusers-decoder"
    config = all_layouts()["diffusers-decoder"].config
    assert config.read(node, config.write(node)) == node


def test_keys_are_the_published_ones():
    shapes = shapes_of("diffusers-decoder", DECODER)
    assert shapes["text_proj.learned_classifier_free_guidance_embeddings"] == (24,)
    assert shapes["text_proj.clip_extra_context_tokens_proj.weight"] == (64, 24)
    assert shapes["decoder.down_blocks.1.attentions.0.add_v_proj.weight"] == (128, 16)
    assert shapes["decoder.up_blocks.0.upsamplers.0.time_emb_proj.weight"] == (256, 256)
    assert shapes["decoder.mid_block.resnets.1.norm2.bias"] == (128,)


def test_published_size():
    assert_size("diffusers-decoder", LARGE_DECODER, 893_318_086, 716 + 11)


def test_heads_are_split():
    joined = state_of(DECODER)["middle_block.1.encoder_kv.weight"]  # 2 heads x (k, v) x 64 rows
    published = export_state("diffusers-decoder", DECODER, state_of(DECODER))
    keys = joined[[*range(64), *range(128, 192)]]
    assert torch.equal(published["decoder.mid_block.attentions.0.add_k_proj.weight"], keys)


def test_weights_equal_those_of_karlo():
    state = state_of(DECODER)
    first, second = (
        import_state(export_state(name, DECODER, state)) for name in ("karlo-decoder", "diffusers-decoder")
    )
    assert first[0] == second[0]
    assert all(torch.equal(first[1][key], second[1][key]) for key in state)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"decoder": {"attention_head_dim": "wide"}}, "does not belong"),
        ({"decoder": {"down_block_types": ["DownBlock2D"]}}, "DownBlock2D is not supported"),
        ({"decoder": []}, "does not belong"),
    ],
)
def test_config_of_another_model_is_refused(config, message):
    with pytest.raises(ConvertError, match=message):
        import_state(export_state("diffusers-decoder", DECODER, state_of(DECODER)), config)


def test_other_conditions_are_refused():
    label = DECODER | {"conditions": {"label": {"type": "label-condition", "classes": 3}}}
    with pytest.raises(ConvertError, match="this layout cannot hold a condition of type 'label-condition'"):
        export_state("diffusers-decoder", label, state_of(label))
