"""Degradations of training images: downsampling, blur, noise, masks and crops."""

import math
import random

import torch
import torch.nn.functional as F
from torch import Tensor

from ..nn.noise import TrainingStream, normal, uniform


def downsample(image: Tensor, factor: int, seeds: Tensor, blur: float = 0.0, noise: float = 0.0) -> Tensor:
    """Return images downsampled by area, blurred, with noise, rounded to the 256 levels of a file.

    image: (B, 3, H, W) in [-1, 1]. seeds: (B,), one for each image. blur: maximum standard deviation of the blur, in
    pixels of the small image. noise: maximum standard deviation of the noise. Both are uniform from 0 to the maximum:
    generated images are neither as sharp nor as clean as downsampled photographs (Ho et al. 2021, section 4; Ramesh et
    al. 2022, section 2.2).
    """
    small = F.avg_pool2d(image, factor)
    degree = uniform(seeds, 2, stream=TrainingStream.AUGMENTATION)
    if blur:
        small = gaussian_blur(small, (blur * degree[:, 0]).clamp(min=1e-3), blur)
    if noise:
        small = small + (noise * degree[:, 1]).view(-1, 1, 1, 1) * normal(
            seeds, *small.shape[1:], stream=TrainingStream.DEGRADATION
        )
    return quantize(small)


def quantize(image: Tensor) -> Tensor:
    """Return an image rounded to the 256 levels of a file."""
    return ((image.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def gaussian_blur(image: Tensor, sigma: Tensor, max_sigma: float) -> Tensor:
    """Return each image blurred by a Gaussian of its own width, with the border repeated.

    image: (B, C, H, W). sigma: (B,), pixels, positive. max_sigma: upper bound of sigma; all kernels are cut off at its
    reach, so that the result does not depend on the other images of the batch.
    """
    batch, channels, height, width = image.shape
    reach = min(math.ceil(3 * max_sigma), height - 1, width - 1)
    taps = torch.exp(-(torch.arange(-reach, reach + 1, device=image.device) ** 2) / (2 * sigma[:, None] ** 2))
    taps = (taps / taps.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)  # (B C, taps)
    planes = F.pad(image.reshape(1, batch * channels, height, width), [reach] * 4, mode="replicate")
    planes = F.conv2d(planes, taps[:, None, :, None], groups=len(taps))
    return F.conv2d(planes, taps[:, None, None, :], groups=len(taps)).view_as(image)


def known_mask(size: int, rng: random.Random, all_erased: float = 0.1) -> Tensor:
    """Return a mask of one to three random rectangles: (1, size, size), 1 where an image is known, 0 where it is not.

    all_erased: probability that nothing is known, so that the network still learns to generate whole images.
    Nichol et al. 2022, section 2.3, which says only "random regions".
    """
    keep = torch.ones(1, size, size)
    if rng.random() < all_erased:
        return keep.zero_()
    for _ in range(rng.randint(1, 3)):
        height, width = (rng.randint(max(1, size // 8), max(1, 3 * size // 4)) for _ in range(2))
        top, left = rng.randint(0, size - height), rng.randint(0, size - width)
        keep[:, top : top + height, left : left + width] = 0
    return keep


def seeded_crop(image: Tensor, side: int, seed: int) -> Tensor:
    """Return a square crop of an image, (C, H, W) to (C, side, side), at a position that the seed determines."""
    rng = random.Random(seed)
    top, left = (rng.randint(0, length - side) for length in image.shape[-2:])
    return image[:, top : top + side, left : left + side]
