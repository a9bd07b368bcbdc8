import pytest
import torch

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.networks.diffusers_unet import blocks, check_values, join_heads, split_heads


@pytest.mark.parametrize("heads", [(None, 16), (2, 64)], ids=["head_dim", "heads"])
def test_heads_are_joined_and_split(heads):
    parts = [torch.full((32, 3), float(i)) for i in range(3)]
    joined = join_heads(*heads)(*parts)
    assert joined[::16, 0].tolist() == [0, 1, 2, 0, 1, 2]  # head by head
    for part, original in zip(split_heads(3, *heads)(joined), parts):
        assert torch.equal(part, original)


def test_every_block_has_one_published_name():
    model = {"channel_mult": [1, 2, 3], "num_res_blocks": 2, "attention_factors": [2, 4], "middle_attention": True}
    names = list(blocks(model))
    assert len({ours for ours, _, _ in names}) == len({theirs for _, theirs, _ in names}) == len(names)
    published = {ours: theirs for ours, theirs, _ in names}
    assert published["input_blocks.3.0"] == "down_blocks.0.downsamplers.0"
    assert published["input_blocks.5.1"] == "down_blocks.1.attentions.1"
    assert published["output_blocks.2.2"] == "up_blocks.0.upsamplers.0"
    assert published["output_blocks.8.0"] == "up_blocks.2.resnets.2"
    assert published["middle_block.2"] == "mid_block.resnets.1"


def test_unsupported_values_are_named():
    check_values({"a": 1, "other": 2}, {"a": 1, "b": 3})
    with pytest.raises(ConvertError, match="b: 4 is not supported, only 3"):
        check_values({"b": 4}, {"b": 3})
