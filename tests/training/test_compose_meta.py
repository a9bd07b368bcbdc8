import pytest
import torch

from dalle_cli import checkpoint
from dalle_cli.training.compose_meta import compose_meta

CODEC = {"type": "dvae", "vocab_size": 32, "n_hid": 4, "n_init": 4, "groups": 2, "num_res_blocks": 1}
PRIOR = {
    "tokenizer": {"type": "dalle", "path": "nowhere.json"},
    "model": {
        "type": "dalle",
        "vocab_size": 600,
        "context_length": 8,
        "image_vocab_size": 32,
        "grid_size": 4,
        "width": 8,
        "depth": 2,
        "heads": 1,
    },
    "task": {"type": "dalle"},
    "frozen": {"dvae": "nowhere"},
}


def test_what_is_not_here_is_a_need_and_stands_in():
    needs = []
    found = compose_meta(PRIOR, needs)
    assert [need.partition(":")[0] for need in needs] == ["frozen.dvae"]
    assert found.frozen == {"dvae": None}
    assert (found.task.tokenizer.vocab_size, found.task.dvae.vocab_size) == (600, 32)
    assert found.substitutes[0] == "a vocabulary of 600 entries, which the run learns from its captions"
    assert found.substitutes[1].startswith("the published dvae of ")
    assert found.model is found.task.model
    assert {parameter.device.type for parameter in found.task.parameters()} == {"meta"}


def test_a_companion_that_is_here_is_the_one_taken(tmp_path):
    codec = checkpoint.compose({"model": CODEC, "task": {"type": "dvae"}}).model
    checkpoint.save(tmp_path / "codec.safetensors", codec.state_dict(), {"model": CODEC})
    needs = []
    found = compose_meta(PRIOR | {"frozen": {"dvae": str(tmp_path / "codec.safetensors")}}, needs)
    count = sum(parameter.numel() for parameter in codec.parameters())
    assert sum(parameter.numel() for parameter in found.task.dvae.parameters()) == count
    assert found.substitutes == ["a vocabulary of 600 entries, which the run learns from its captions"]
    assert found.frozen["dvae"] is found.task.dvae


def test_an_open_place_is_no_new_need():
    needs = ["tokenizer.path", "frozen.dvae"]
    found = compose_meta(PRIOR | {"frozen": {"dvae": "???"}}, needs)
    assert needs == ["tokenizer.path", "frozen.dvae"]
    assert found.task is not None


def test_parts_that_do_not_fit_are_found():
    with pytest.raises(ValueError, match="image_vocab_size: 16 is not the dVAE's"):
        compose_meta(
            PRIOR | {"model": {**PRIOR["model"], "image_vocab_size": 16}, "frozen": {"dvae": "starter/dvae"}}, []
        )


def test_for_a_companion_of_no_known_kind_nothing_stands_in():
    found = compose_meta(PRIOR | {"frozen": {"dvae": "nowhere", "clip": "nowhere"}}, [])
    assert found.task is None
    assert sum(parameter.numel() for parameter in found.model.parameters()) > 0
    assert isinstance(found.model, torch.nn.Module)


def test_for_a_prior_s_clip_the_published_one_of_its_width_stands_in():
    sizes = {"embed_dim": 768, "context_length": 77, "text_width": 768, "width": 8, "depth": 1, "heads": 1}
    recipe = {
        "tokenizer": {"type": "clip", "path": "nowhere.json"},
        "model": {"type": "diffusion-prior", **sizes},
        "task": {"type": "diffusion-prior"},
        "frozen": {"clip": "nowhere"},
    }
    found = compose_meta(recipe, [])
    assert found.substitutes == [
        "a vocabulary of 49408 entries, which the run learns from its captions",
        "the published clip of 427.6M parameters",
    ]
    assert found.task.clip.visual.size == 224
    other = {**recipe, "model": {**recipe["model"], "embed_dim": 5}}
    assert compose_meta(other, []).task is None
