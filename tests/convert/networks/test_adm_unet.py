import pytest
import torch

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.networks.adm_unet import assumed, condition_rows, to_convolution, to_linear


def test_linear_weights_become_1x1_convolutions_and_back():
    weight = torch.randn(4, 3)
    assert to_convolution(weight).shape == (4, 3, 1)
    assert torch.equal(to_linear(to_convolution(weight)), weight)


def test_a_condition_without_rows_is_refused_by_type():
    model = {"conditions": {"text": {"type": "text-condition"}}}
    assert condition_rows(model, {"text-condition": lambda prefix: []}) == []
    with pytest.raises(ConvertError, match="text-condition"):
        condition_rows(model, {})


def test_only_unpublished_sizes_are_assumed():
    model = {"base_channels": 96, "attention_factors": [2]}
    assert assumed(model, 192) == ("model.head_dim", "model.attention_order")
    assert assumed(model | {"base_channels": 192}, 192) == ()
    assert assumed(model | {"attention_factors": [], "middle_attention": False}, 192) == ()
