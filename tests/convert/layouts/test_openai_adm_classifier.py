import pytest

from tests.convert.miniatures import assert_size, round_trip

CLASSIFIER = {
    **{"type": "classifier", "size": 32, "classes": 9, "channels": 64, "multiples": [1, 2, 2], "blocks": 2},
    **{"attention": [2, 4], "head_width": 64, "attention_order": "legacy"},
}


@pytest.mark.parametrize("changes", [{}, {"blocks": 4, "attention": [4]}, {"multiples": [1, 1, 2, 2]}], ids=str)
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
    node = CLASSIFIER | {"size": size, "classes": 1000, "channels": 128}
    node |= {"blocks": blocks, "multiples": multiples, "attention": attention}
    assert_size("openai-adm-classifier", node, count, None)
