import pytest
import torch

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.networks.adm_unet import rows_by_type, to_convolution, to_linear


def test_linear_weights_become_1x1_convolutions_and_back():
    weight = torch.randn(4, 3)
    assert to_convolution(weight).shape == (4, 3, 1)
    assert torch.equal(to_linear(to_convolution(weight)), weight)


def test_a_condition_without_rows_is_refused_by_type():
    model = {"conditions": {"text": {"type": "text-condition"}}}
    assert rows_by_type(model, {"text-condition": lambda prefix: []}) == []
    with pytest.raises(ConvertError, match="text-condition"):
        rows_by_type(model, {})
