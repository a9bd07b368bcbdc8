import pytest
import torch
import torch.nn.functional as F

from dalle_cli.models.conditions.low_res import LowResCondition


@pytest.mark.parametrize("resize", ["bilinear", "bicubic"])
def test_small_image_is_enlarged(resize):
    image = torch.randn(2, 3, 4, 5)
    condition = LowResCondition(3, resize)
    output = condition(image)["channels"]
    assert output.shape == (2, 3, 12, 15)
    torch.testing.assert_close(condition(torch.full((1, 3, 4, 4), 0.3))["channels"], torch.full((1, 3, 12, 12), 0.3))
    if resize == "bilinear":
        torch.testing.assert_close(output, F.interpolate(image, scale_factor=3, mode="bilinear", align_corners=False))
