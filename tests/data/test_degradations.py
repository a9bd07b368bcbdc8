import random

import pytest
import torch
import torch.nn.functional as F

from dalle_cli.data.degradations import downsample, gaussian_blur, known_mask, quantize, seeded_crop

SEEDS = torch.tensor([5, 6, 7])


def pictures(size=16):
    return torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_without_blur_and_noise_a_picture_is_reduced_by_area_to_256_levels():
    image = pictures()
    small = downsample(image, 4, SEEDS)
    assert (small - image.unflatten(2, (4, 4)).unflatten(4, (4, 4)).mean(dim=(3, 5))).abs().max() <= 1 / 255 + 1e-6
    levels = (small + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("how", [{"blur": 1.0}, {"noise": 0.3}])
def test_a_picture_is_made_worse_by_its_own_seed_alone(how):
    image = pictures()
    worse = downsample(image, 2, SEEDS, **how)
    assert (worse - downsample(image, 2, SEEDS)).abs().amax(dim=(1, 2, 3)).median() > 0.02
    alone = downsample(image[1:2], 2, SEEDS[1:2], **how)
    assert (alone[0] - worse[1]).abs().max() <= 2 / 255 + 1e-6  # sums may round otherwise
    assert not torch.equal(downsample(image[1:2], 2, SEEDS[:1], **how)[0], worse[1])


def test_blur_is_gaussian_and_keeps_even_pictures():
    dot = torch.zeros(1, 1, 21, 21)
    dot[..., 10, 10] = 1
    row = gaussian_blur(dot, torch.tensor([1.5]), 1.5)[0, 0].sum(dim=0)
    places = torch.arange(21.0) - 10
    assert row.sum().item() == pytest.approx(1)
    assert (row * places**2).sum().sqrt().item() == pytest.approx(1.5, rel=0.03)
    even = torch.full((2, 3, 6, 6), 0.3)
    torch.testing.assert_close(gaussian_blur(even, torch.tensor([0.5, 3.0]), 3.0), even)


def test_rounding_is_that_of_a_file():
    assert quantize(torch.tensor([-3.0, 3.0, 0.1])).tolist() == pytest.approx([-1, 1, 140 / 127.5 - 1])


def test_masks_erase_rectangles_and_sometimes_everything():
    masks = torch.stack([known_mask(16, random.Random(i)) for i in range(300)])
    assert masks.shape == (300, 1, 16, 16)
    assert set(masks.unique().tolist()) == {0, 1}
    left = masks.mean(dim=(1, 2, 3))
    assert 10 < (left == 0).sum() < 60
    assert left.max() < 1  # something is always erased
    assert (left > 0.5).sum() > 50
    one = next(mask for mask, share in zip(masks, left) if share > 0.8)[0]
    assert torch.equal(known_mask(16, random.Random(3)), known_mask(16, random.Random(3)))
    assert F.max_pool2d(1 - one[None], 3, 1, 1).sum() > (1 - one).sum() > 3  # in one piece, not scattered


def test_crops_are_parts_of_the_picture_in_all_places():
    image = torch.arange(16 * 16).view(1, 16, 16)
    parts = [seeded_crop(image, 4, seed) for seed in range(100)]
    corners = {int(part[0, 0, 0]) for part in parts}
    assert len(corners) > 50
    assert {corner % 16 for corner in corners} == set(range(13))
    for part in parts:
        top, left = divmod(int(part[0, 0, 0]), 16)
        assert torch.equal(part, image[:, top : top + 4, left : left + 4])
    assert torch.equal(seeded_crop(image, 4, 7), parts[7])
    assert torch.equal(seeded_crop(image, 16, 7), image)
