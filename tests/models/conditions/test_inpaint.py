import torch

from dalle_cli.models.conditions.inpaint import InpaintCondition


def test_unknown_region_is_zero():
    image, mask = torch.randn(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    output = InpaintCondition()(image, mask)["channels"]
    assert InpaintCondition.channels == output.shape[1] == 4
    assert torch.equal(output[:, :3, :, :2], image[..., :2])
    assert (output[:, :3, :, 2:] == 0).all()
    assert torch.equal(output[:, 3:], mask)
