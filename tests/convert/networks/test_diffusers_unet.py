import pytest
import torch

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.networks import diffusers_unet as layout


def test_heads_are_joined_and_taken_apart():
    parts = [torch.full((2 * layout.HEAD, 3), float(i)) for i in range(3)]
    whole = layout.join(*parts)
    assert whole[:: layout.HEAD, 0].tolist() == [0, 1, 2, 0, 1, 2]  # head by head
    for one, other in zip(layout.split(3)(whole), parts):
        assert torch.equal(one, other)


def test_every_block_has_one_name_there():
    model = {"channel_mult": [1, 2, 3], "num_res_blocks": 2, "attention_factors": [2, 4], "middle_attention": True}
    stages = list(layout.stages(model))
    assert len({ours for ours, _, _ in stages}) == len({theirs for _, theirs, _ in stages}) == len(stages)
    names = {ours: theirs for ours, theirs, _ in stages}
    assert names["input_blocks.3.0"] == "down_blocks.0.downsamplers.0"
    assert names["input_blocks.5.1"] == "down_blocks.1.attentions.1"
    assert names["output_blocks.2.2"] == "up_blocks.0.upsamplers.0"
    assert names["output_blocks.8.0"] == "up_blocks.2.resnets.2"
    assert names["middle_block.2"] == "mid_block.resnets.1"


def test_values_that_differ_are_named():
    layout.check({"a": 1, "other": 2}, {"a": 1, "b": 3})
    with pytest.raises(ConvertError, match="b: 4, where our network has 3"):
        layout.check({"b": 4}, {"b": 3})
