import pytest
import torch

from dalle_cli import checkpoint
from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.layouts import all_layouts
from dalle_cli.convert.recognition import export_state, import_state
from dalle_cli.models import models

UNET = {
    **{"type": "unet", "channels": 64, "multiples": [1, 2], "blocks": 1, "attention": [2], "head_width": 64},
    **{"heads": None, "attention_order": "legacy", "middle_attention": True, "scale_shift": True},
    **{"resample": "resblock", "learned_variance": True},
}
DECODER = UNET | {
    "conditions": {
        "clip": {"type": "clip-condition", "embed_dim": 24, "tokens": 4, "width": 16},
        "text": {"type": "clip-text-condition", "embed_dim": 24, "states": 20, "width": 16},
    }
}
PRIOR = {
    **{"type": "diffusion-prior", "embed_dim": 24, "context": 7, "states": 20, "width": 128, "depth": 2, "heads": 2},
}
HALF = UNET | {
    **{"attention": [], "middle_attention": False, "scale_shift": False, "learned_variance": False},
    "conditions": {"low_res": {"type": "low-res-condition", "factor": 4, "resize": "bicubic"}},
}
UPSAMPLER = {"type": "last-step", "first": HALF, "last": HALF}
NODES = {"karlo-prior": PRIOR, "karlo-decoder": DECODER, "karlo-upsampler": UPSAMPLER}


def state_of(node):
    torch.manual_seed(0)
    return models.build(node).state_dict()


@pytest.mark.parametrize("layout", NODES)
def test_recipe_and_every_bit_come_back(layout):
    state = state_of(NODES[layout])
    model, back = import_state(export_state(layout, NODES[layout], state))
    assert model == NODES[layout]
    assert back.keys() == state.keys()
    for key, tensor in state.items():
        assert torch.equal(back[key], tensor), key


def test_keys_are_the_published_ones():
    shapes = {}
    for layout, node in NODES.items():
        shapes |= {key: tuple(tensor.shape) for key, tensor in export_state(layout, node, state_of(node)).items()}
    assert shapes["model.prd_emb"] == (1, 1, 128)
    assert shapes["model.positional_embedding"] == (1, 11, 128)
    assert shapes["clip_mean"] == shapes["clip_std"] == (24,)
    assert shapes["model.cf_param"] == (24,)
    assert shapes["model.clip_tok_proj.weight"] == (64, 24)
    assert shapes["model.text_seq_proj.1.weight"] == (16,)
    assert shapes["model.middle_block.1.encoder_kv.weight"] == (256, 16, 1)
    assert shapes["model_first_steps.input_blocks.0.0.weight"] == (64, 6, 3, 3)
    assert shapes["model_last_step.middle_block.1.in_layers.0.weight"] == (128,)


@pytest.mark.parametrize(
    ("layout", "changes", "count", "keys"),
    [
        (
            "karlo-prior",
            {"embed_dim": 768, "context": 77, "states": 768, "width": 2048, "depth": 20, "heads": 32},
            1_022_028_544 + 2 * 768,
            256 + 2,
        ),
        (
            "karlo-decoder",
            {
                **{"channels": 320, "blocks": 3, "multiples": [1, 2, 3, 4], "attention": [2, 4, 8]},
                "conditions": {
                    "clip": {"type": "clip-condition", "embed_dim": 768, "tokens": 4, "width": 1536},
                    "text": {"type": "clip-text-condition", "embed_dim": 768, "states": 768, "width": 1536},
                },
            },
            893_318_086,
            595,
        ),
        (
            "karlo-upsampler",
            {half: HALF | {"channels": 320, "blocks": 3, "multiples": [1, 2, 3, 4]} for half in ("first", "last")},
            2 * 691_579_523,
            2 * 408,
        ),
    ],
)
def test_published_sizes_have_the_published_counts(layout, changes, count, keys):
    node = NODES[layout] | changes
    with torch.device("meta"):
        published = export_state(layout, node, models.build(node).state_dict())
    assert sum(tensor.numel() for tensor in published.values()) == count
    assert len(published) == keys
    assert import_state(published)[0] == node


def test_a_prior_without_its_statistics_is_refused_by_their_names():
    published = export_state("karlo-prior", PRIOR, state_of(PRIOR))
    del published["clip_mean"], published["clip_std"]
    with pytest.raises(ConvertError, match="2 missing: clip_mean, clip_std"):
        import_state(published)


def test_half_an_upsampler_is_refused():
    published = export_state("karlo-upsampler", UPSAMPLER, state_of(UPSAMPLER))
    half = {key: tensor for key, tensor in published.items() if key.startswith("model_first_steps.")}
    with pytest.raises(ConvertError, match="is missing; the file is not whole"):
        import_state(half)


def test_other_conditions_are_not_exported():
    told = {"label": {"type": "label-condition", "classes": 3}}
    decoder = DECODER | {"conditions": told}
    with pytest.raises(ConvertError, match="no place for a condition of type 'label-condition'"):
        export_state("karlo-decoder", decoder, state_of(decoder))
    with pytest.raises(ConvertError, match="no place for a condition of type 'label-condition'"):
        export_state("karlo-upsampler", UPSAMPLER | {"last": HALF | {"conditions": told}}, {})
    for own, message in ({"depth": 1}, "depth is 1, would be read as 0"), ({"vocab": 9}, "vocab is 9, would be"):
        text = DECODER["conditions"]["text"] | own
        decoder = DECODER | {"conditions": DECODER["conditions"] | {"text": text}}
        with pytest.raises(ConvertError, match=rf"conditions\.text\.{message}"):
            export_state("karlo-decoder", decoder, state_of(decoder))


def test_an_imported_prior_is_one_that_a_clip_makes_whole():
    recipe = {"model": PRIOR, "task": all_layouts()["karlo-prior"].task(PRIOR)}
    assert checkpoint.check(recipe)["task"] == {"type": "diffusion-prior", "schedule": "cosine", "drop_text": 0.2}
    task = checkpoint.compose(recipe)
    with pytest.raises(ValueError, match=r"frozen\.clip: name the CLIP"):
        task.draw(["a red circle"], [0])
