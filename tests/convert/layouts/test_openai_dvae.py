import pytest
import torch

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.layouts import all_layouts
from dalle_cli.convert.recognition import export_state, import_state
from dalle_cli.models import models


@pytest.mark.parametrize(("groups", "blocks"), [(4, 2), (3, 1)])
def test_round_trip(groups, blocks):
    node = {"type": "dvae", "vocab_size": 24, "n_hid": 8, "n_init": 4, "groups": groups, "num_res_blocks": blocks}
    state = models.build(node).state_dict()
    published = export_state("openai-dvae", node, state)
    assert published.keys() == state.keys()
    model, back = import_state(published)
    assert model == node
    for key, tensor in state.items():
        assert torch.equal(back[key], tensor), key


def test_published_size():
    with torch.device("meta"):
        model = models.build({"type": "dvae"})
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    for half, parameters, entries in (("encoder.", 53_786_240, 74), ("decoder.", 43_829_766, 76)):
        part = {key: shape for key, shape in shapes.items() if key.startswith(half)}
        assert len(part) == entries
        assert sum(torch.Size(shape).numel() for shape in part.values()) == parameters
    assert shapes["encoder.blocks.group_1.block_1.res_path.conv_1.w"] == (64, 256, 3, 3)
    assert shapes["encoder.blocks.group_1.block_1.res_path.conv_4.w"] == (256, 64, 1, 1)
    assert shapes["decoder.blocks.group_1.block_1.res_path.conv_1.w"] == (512, 128, 1, 1)
    assert shapes["decoder.blocks.group_1.block_1.res_path.conv_4.w"] == (2048, 512, 3, 3)
    assert shapes["decoder.blocks.output.conv.w"] == (6, 256, 1, 1)
    assert all_layouts()["openai-dvae"].model(model.state_dict()) == {
        **{"type": "dvae", "vocab_size": 8192, "n_hid": 256, "n_init": 128, "groups": 4, "num_res_blocks": 2}
    }


def test_missing_half_is_refused():
    node = {"type": "dvae", "vocab_size": 24, "n_hid": 8, "n_init": 4, "groups": 4, "num_res_blocks": 1}
    state = {key: tensor for key, tensor in models.build(node).state_dict().items() if key.startswith("encoder.")}
    with pytest.raises(ConvertError, match=r"openai-dvae: the key 'decoder.blocks.input.w' is missing"):
        import_state(state)


def test_unstored_values_are_not_exported():
    node = {"type": "dvae", "vocab_size": 24, "n_hid": 8, "n_init": 4, "groups": 2, "num_res_blocks": 1, "gain": 1.0}
    with pytest.raises(ConvertError, match=r"model.gain is 1.0, would be read as None"):
        export_state("openai-dvae", node, models.build(node).state_dict())
