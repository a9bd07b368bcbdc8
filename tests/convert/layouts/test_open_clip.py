import pytest

from dalle_cli.convert.layouts import all_layouts
from dalle_cli.convert.recognition import export_state, import_state, recognize
from tests.convert.miniatures import state_of

VIT = {"type": "vit", "size": 16, "patch_size": 8, "width": 64, "depth": 2, "heads": 1}


RESNET = {"type": "modified-resnet", "size": 64, "layers": [1, 2, 3, 1], "width": 8, "heads": 4}


TEXT = {"type": "clip-text", "vocab_size": 50, "context_length": 10, "width": 128, "depth": 3, "heads": 2}


def node(image):
    return {"type": "clip", "embed_dim": 12, "image": image, "text": TEXT}


@pytest.mark.parametrize("image", [VIT, RESNET], ids=["vit", "resnet"])
def test_text_tower_has_a_prefix(image):
    plain, prefixed = (export_state(name, node(image), state_of(node(image))) for name in ("openai-clip", "open-clip"))
    assert {key for key in prefixed if key.startswith("text.")} == {
        f"text.{key}" for key in plain.keys() - prefixed.keys()
    }
    assert prefixed["text.text_projection"].shape == (128, 12)
    assert import_state(prefixed, all_layouts()["open-clip"].config.write(node(image)))[0] == node(image)
    assert recognize(prefixed)[0].name == "open-clip"
