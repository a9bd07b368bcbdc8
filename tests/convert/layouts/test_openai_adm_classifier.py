import pytest

from tests.convert.miniatures import assert_size, round_trip

CLASSIFIER = {
    **{
        "type": "classifier",
        "size": 32,
        "classes": 9,
        "base_channels": 64,
        "channel_mult": [1, 2, 2],
        "num_res_blocks": 2,
    },
    **{"attention_factors": [2, 4], "head_dim": 64, "attention_order": "legacy"},
}


@pytest.mark.parametrize(
    "changes", [{}, {"num_res_blocks": 4, "attention_factors": [4]}, {"channel_mult": [1, 1, 2, 2]}], ids=str
)
def test_round_trip(changes):
    published = round_trip("openai-adm-classifier", CLASSIFIER | changes)
    assert published["out.2.qkv_proj.weight"].dim() == published["out.2.c_proj.weight"].dim() == 3


@pytest.mark.parametrize(
    ("size", "blocks", "multiples", "attention", "count"),
    [
        (64, 4, [1, 2, 3, 4], [2, 4, 8], 65_438_568),
        (128, 2, [1, 1, 2, 3, 4], [4, 8, 16], 42_568_040),
        (256, 2, [1, 1, 2, 2, 4, 4], [8, 16, 32], 54_096_360),
        (512, 2, [0.5, 1, 1, 2, 2, 4, 4], [16, 32, 64], 54_448_360),
    ],
)
def test_published_sizes(size, blocks, multiples, attention, count):
    node = CLASSIFIER | {"size": size, "classes": 1000, "base_channels": 128}
    node |= {"num_res_blocks": blocks, "channel_mult": multiples, "attention_factors": attention}
    assert_size("openai-adm-classifier", node, count, None)
