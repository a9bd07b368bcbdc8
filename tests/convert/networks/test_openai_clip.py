import pytest

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.networks.openai_clip import has_clip_keys, read_config, write_config

VIT = {"type": "vit", "size": 32, "patch_size": 8, "width": 160, "depth": 1, "heads": 2}
TEXT = {"type": "clip-text", "vocab_size": 9, "context_length": 4, "width": 64, "depth": 1, "heads": 1}
CLIP = {"type": "clip", "embed_dim": 8, "image": VIT, "text": TEXT}


def test_text_tower_is_recognized_by_its_prefix():
    state = dict.fromkeys(("visual.proj", "text.token_embedding.weight"))
    assert has_clip_keys("text.")(state)
    assert not has_clip_keys("")(state)


def test_config_gives_head_widths_that_weights_do_not():
    config = write_config(CLIP)
    assert config["model_cfg"]["vision_cfg"]["head_width"] == 80
    assumed = CLIP | {"image": VIT | {"heads": 160 // 64}}
    assert read_config(assumed, config) == CLIP


def test_towers_of_different_activations_are_refused():
    with pytest.raises(ConvertError, match="activations"):
        write_config(CLIP | {"text": TEXT | {"activation": "gelu"}})
