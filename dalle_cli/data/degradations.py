"""What is done to a picture before a network learns from it: made smaller and worse, erased in part, cropped."""

import math
import random

import torch
import torch.nn.functional as F
from torch import Tensor

from ..nn.noise import TrainingStream, normal, uniform


def reduced(image: Tensor, factor: int, seeds: Tensor, blur: float = 0.0, noise: float = 0.0) -> Tensor:
    """Pictures made `factor` times smaller by area, blurred, noised, and rounded to the 256 levels of a file.

    image: (B, 3, H, W) in [-1, 1]. seeds: (B,), each picture's own. blur: the greatest deviation of the blur, in pixels
    of the small picture; noise: that of the noise; both are drawn evenly from 0 up. What a network draws is neither as
    sharp nor as clean as a reduced photograph (Ho et al. 2021, section 4; Ramesh et al. 2022, section 2.2).
    """
    small = F.avg_pool2d(image, factor)
    degree = uniform(seeds, 2, stream=TrainingStream.AUGMENTATION)
    if blur:
        small = blurred(small, (blur * degree[:, 0]).clamp(min=1e-3), blur)
    if noise:
        small = small + (noise * degree[:, 1]).view(-1, 1, 1, 1) * normal(
            seeds, *small.shape[1:], stream=TrainingStream.DEGRADATION
        )
    return rounded(small)


def rounded(image: Tensor) -> Tensor:
    """A picture as a file of 256 levels holds it."""
    return ((image.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def blurred(image: Tensor, sigma: Tensor, most: float) -> Tensor:
    """Each picture under its own Gaussian, the border repeated.

    image: (B, C, H, W); sigma: (B,) pixels, positive, at most `most`, by which all are cut off: what becomes of a
    picture must not depend on the others of its batch.
    """
    batch, channels, height, width = image.shape
    reach = min(math.ceil(3 * most), height - 1, width - 1)
    taps = torch.exp(-(torch.arange(-reach, reach + 1, device=image.device) ** 2) / (2 * sigma[:, None] ** 2))
    taps = (taps / taps.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)  # (B C, taps)
    planes = F.pad(image.reshape(1, batch * channels, height, width), [reach] * 4, mode="replicate")
    planes = F.conv2d(planes, taps[:, None, :, None], groups=len(taps))
    return F.conv2d(planes, taps[:, None, None, :], groups=len(taps)).view_as(image)


def known(size: int, rng: random.Random, all_erased: float = 0.1) -> Tensor:
    """A mask of one to three random rectangles: (1, size, size), 1 where a picture is kept, 0 where it is erased.

    A share, all_erased, leaves nothing, so that the network goes on drawing whole pictures.

    Nichol et al. 2022, section 2.3, which says no more than random regions.
    """
    keep = torch.ones(1, size, size)
    if rng.random() < all_erased:
        return keep.zero_()
    for _ in range(rng.randint(1, 3)):
        height, width = (rng.randint(max(1, size // 8), max(1, 3 * size // 4)) for _ in range(2))
        top, left = rng.randint(0, size - height), rng.randint(0, size - width)
        keep[:, top : top + height, left : left + width] = 0
    return keep


def cropped(image: Tensor, side: int, seed: int) -> Tensor:
    """A square part of a picture, (C, H, W) to (C, side, side), at a place that its seed says."""
    rng = random.Random(seed)
    top, left = (rng.randint(0, length - side) for length in image.shape[-2:])
    return image[:, top : top + side, left : left + side]
