import pytest
import torch

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.layouts import all_layouts
from dalle_cli.convert.recognition import export_state, import_state, recognize
from dalle_cli.models import models
from tests.convert.layouts.test_karlo import DECODER, HALF, PRIOR, UPSAMPLER

PRIOR = PRIOR | {"states": 24}
CONDITIONS = DECODER["conditions"]
DECODER = DECODER | {"conditions": CONDITIONS | {"text": CONDITIONS["text"] | {"states": 24}}}
DEEP = DECODER | {"multiples": [1, 2, 2], "attention": [2, 4], "blocks": 2}
LAYOUTS = {"diffusers-prior": [PRIOR], "diffusers-decoder": [DECODER, DEEP], "diffusers-upsampler": [UPSAMPLER]}
CASES = [(layout, node) for layout, nodes in LAYOUTS.items() for node in nodes]


def state_of(node):
    torch.manual_seed(0)
    return models.build(node).state_dict()


@pytest.mark.parametrize(("layout", "node"), CASES)
def test_recipe_and_every_bit_come_back(layout, node):
    state = state_of(node)
    published = export_state(layout, node, state)
    assert recognize(published)[0].name == layout
    model, back = import_state(dict(published))
    assert model == node
    assert back.keys() == state.keys()
    for key, tensor in state.items():
        assert torch.equal(back[key], tensor), key
    source = all_layouts()[layout]
    assert source.config.read(node, source.config.write(node)) == node


def test_keys_are_the_published_ones():
    shapes = {}
    for layout, node in CASES[:2] + CASES[3:]:
        shapes |= {key: tuple(tensor.shape) for key, tensor in export_state(layout, node, state_of(node)).items()}
    assert shapes["prd_embedding"] == (1, 1, 128)
    assert shapes["clip_mean"] == shapes["clip_std"] == (1, 24)
    assert shapes["transformer_blocks.1.attn1.to_v.bias"] == (128,)
    assert shapes["text_proj.learned_classifier_free_guidance_embeddings"] == (24,)
    assert shapes["text_proj.clip_extra_context_tokens_proj.weight"] == (64, 24)
    assert shapes["decoder.down_blocks.1.attentions.0.add_v_proj.weight"] == (128, 16)
    assert shapes["decoder.up_blocks.0.upsamplers.0.time_emb_proj.weight"] == (256, 256)
    assert shapes["decoder.mid_block.resnets.1.norm2.bias"] == (128,)
    assert shapes["super_res_first.conv_in.weight"] == (64, 6, 3, 3)
    assert shapes["super_res_last.up_blocks.1.resnets.1.conv_shortcut.weight"] == (64, 128, 1, 1)


def test_heads_are_taken_apart():
    whole = state_of(PRIOR)["transformer.resblocks.1.attn.c_qkv.weight"]  # 2 heads x (q, k, v) x 64 rows
    published = export_state("diffusers-prior", PRIOR, state_of(PRIOR))
    for i, part in enumerate("qkv"):
        rows = torch.cat([whole[192 * head + 64 * i : 192 * head + 64 * (i + 1)] for head in (0, 1)])
        assert torch.equal(published[f"transformer_blocks.1.attn1.to_{part}.weight"], rows)
    whole = state_of(DECODER)["middle_block.1.encoder_kv.weight"]
    published = export_state("diffusers-decoder", DECODER, state_of(DECODER))
    assert torch.equal(
        published["decoder.mid_block.attentions.0.add_k_proj.weight"], whole[[*range(64), *range(128, 192)]]
    )


SIZES = {"channels": 320, "blocks": 3, "multiples": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("layout", "node", "keys", "count"),
    [
        (
            "diffusers-prior",
            PRIOR | {"embed_dim": 768, "context": 77, "states": 768, "width": 2048, "depth": 20, "heads": 32},
            338,
            1_022_030_080,
        ),
        (
            "diffusers-decoder",
            DECODER
            | SIZES
            | {
                "attention": [2, 4, 8],
                "conditions": {
                    "clip": {"type": "clip-condition", "embed_dim": 768, "tokens": 4, "width": 1536},
                    "text": {"type": "clip-text-condition", "embed_dim": 768, "states": 768, "width": 1536},
                },
            },
            716 + 11,
            893_318_086,
        ),
        (
            "diffusers-upsampler",
            {"type": "last-step", "first": HALF | SIZES, "last": HALF | SIZES},
            816,
            2 * 691_579_523,
        ),
    ],
)
def test_published_sizes_have_the_published_counts(layout, node, keys, count):
    with torch.device("meta"):
        published = export_state(layout, node, models.build(node).state_dict())
    assert len(published) == keys
    assert sum(tensor.numel() for tensor in published.values()) == count
    assert import_state(published)[0] == node


def test_karlo_and_diffusers_give_the_same_weights():
    for node, one, two in ((PRIOR, "karlo-prior", "diffusers-prior"), (DECODER, "karlo-decoder", "diffusers-decoder")):
        state = state_of(node)
        first, second = (import_state(export_state(layout, node, state)) for layout in (one, two))
        assert first[0] == second[0]
        assert all(torch.equal(first[1][key], second[1][key]) for key in state)


@pytest.mark.parametrize(
    ("layout", "node", "config", "said"),
    [
        ("diffusers-prior", PRIOR, {"added_emb_type": None}, "config.json: added_emb_type: None"),
        ("diffusers-prior", PRIOR, {"attention_head_dim": 32}, "attention_head_dim: 32, where ours are 64"),
        ("diffusers-decoder", DECODER, {"decoder": {"attention_head_dim": 32}}, "attention_head_dim: 32"),
        ("diffusers-decoder", DECODER, {"decoder": {"down_block_types": ["DownBlock2D"]}}, "a DownBlock2D is nothing"),
        ("diffusers-decoder", DECODER, {"decoder": []}, "not what belongs"),
        ("diffusers-upsampler", UPSAMPLER, {"super_res_last": {"norm_eps": 1e-6}}, "norm_eps: 1e-06"),
    ],
)
def test_configurations_that_ours_cannot_be_are_refused(layout, node, config, said):
    with pytest.raises(ConvertError, match=said):
        import_state(export_state(layout, node, state_of(node)), config)


def test_what_has_no_place_is_not_exported():
    other = PRIOR | {"states": 20}
    with pytest.raises(ConvertError, match="text states of another width, 20"):
        export_state("diffusers-prior", other, state_of(other), configured=True)
    label = DECODER | {"conditions": {"label": {"type": "label-condition", "classes": 3}}}
    with pytest.raises(ConvertError, match="no place for a condition of type 'label-condition'"):
        export_state("diffusers-decoder", label, state_of(label))
