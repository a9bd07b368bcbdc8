import pytest
import torch

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.layouts import all_layouts
from dalle_cli.convert.recognition import export_state, import_state, recognize
from tests.convert.miniatures import LARGE_PRIOR, PRIOR, assert_size, round_trip, shapes_of, state_of


def test_round_trip():
    published = round_trip("diffusers-prior", PRIOR)
    assert recognize(published)[0].name == "diffusers-prior"
    config = all_layouts()["diffusers-prior"].config
    assert config.read(PRIOR, config.write(PRIOR)) == PRIOR


def test_keys_are_the_published_ones():
    shapes = shapes_of("diffusers-prior", PRIOR)
    assert shapes["prd_embedding"] == (1, 1, 128)
    assert shapes["clip_mean"] == shapes["clip_std"] == (1, 24)
    assert shapes["transformer_blocks.1.attn1.to_v.bias"] == (128,)


def test_published_size():
    assert_size("diffusers-prior", LARGE_PRIOR, 1_022_030_080, 338)


def test_heads_are_split():
    joined = state_of(PRIOR)["transformer.resblocks.1.attn.c_qkv.weight"]  # 2 heads x (q, k, v) x 64 rows
    published = export_state("diffusers-prior", PRIOR, state_of(PRIOR))
    for i, part in enumerate("qkv"):
        rows = torch.cat([joined[192 * head + 64 * i : 192 * head + 64 * (i + 1)] for head in (0, 1)])
        assert torch.equal(published[f"transformer_blocks.1.attn1.to_{part}.weight"], rows)


def test_weights_equal_those_of_karlo():
    state = state_of(PRIOR)
    first, second = (import_state(export_state(name, PRIOR, state)) for name in ("karlo-prior", "diffusers-prior"))
    assert first[0] == second[0]
    assert all(torch.equal(first[1][key], second[1][key]) for key in state)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"added_emb_type": None}, "config.json: added_emb_type: None"),
        ({"attention_head_dim": 48}, "attention_head_dim: 48 does not divide the width 128"),
    ],
)
def test_config_of_another_model_is_refused(config, message):
    with pytest.raises(ConvertError, match=message):
        import_state(export_state("diffusers-prior", PRIOR, state_of(PRIOR)), config)


def test_text_states_of_another_width_are_refused():
    prior = PRIOR | {"text_width": 20}
    with pytest.raises(ConvertError, match="text states of another width, 20"):
        export_state("diffusers-prior", prior, state_of(prior), with_config=True)
