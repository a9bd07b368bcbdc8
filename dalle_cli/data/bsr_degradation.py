"""Realistic degradations of images: blur, noise, a camera sensor, JPEG, mixed interpolations.

Those of BSRGAN (Zhang et al. 2021, section 3), in random order, which unCLIP's second upsampler learns to undo (Ramesh
et al. 2022, section 2.1). Their strengths are moderate: the images are still worth enlarging.
"""

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from ..images import BICUBIC, BOX

FILTERS = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, BICUBIC, BOX)
CLEAN = 0.25  # fraction of images that are only downsampled, by area
PROBABILITY = 0.5  # of each degradation, for the others
BLUR = 1.2  # maximum standard deviation, in pixels of the small image
NOISE = 0.06  # maximum standard deviation of Gaussian noise, for pixels in [0, 1]
QUALITY = 35, 95  # of JPEG
SHOT, READ = 0.02, 0.02  # of a camera: variance of its noise in full light, standard deviation in the dark
GAMMA = 2.2

Random = np.random.Generator
Step = Callable[[Image.Image, Random], Image.Image]


def degrade(image: Tensor, factor: int, seed: int, clean: float = CLEAN) -> Tensor:
    """Return an image, uint8 (3, H, W), `factor` times smaller and degraded by its seed: uint8 (3, H / factor, ...).

    clean: probability that it is only downsampled.
    """
    rng = np.random.Generator(np.random.SFC64(seed))
    pil = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    small = pil.width // factor, pil.height // factor
    if rng.random() < clean:
        return torch.from_numpy(np.array(pil.resize(small, BOX))).permute(2, 0, 1).contiguous()

    def shrink(pil: Image.Image, rng: Random) -> Image.Image:
        """At once, or in two steps by different interpolations."""
        if rng.random() < PROBABILITY:
            between = rng.uniform(1, factor)
            pil = pil.resize((round(between * small[0]), round(between * small[1])), _filter(rng))
        return pil.resize(small, _filter(rng))

    def blur(pil: Image.Image, rng: Random) -> Image.Image:
        """Blur by a Gaussian that may be wider in one direction."""
        across, down = rng.uniform(0, BLUR * pil.width / small[0], 2)
        return pil.filter(ImageFilter.GaussianBlur((float(across), float(down))))

    befall: list[Step] = [step for step in (blur, noise, camera, jpeg) if rng.random() < PROBABILITY]
    steps = [*befall, shrink]
    for number in rng.permutation(len(steps)):
        pil = steps[number](pil, rng)
    return torch.from_numpy(np.array(pil)).permute(2, 0, 1).contiguous()


def noise(image: Image.Image, rng: Random) -> Image.Image:
    """Add Gaussian noise: per channel or, half of the time, the same in all channels."""
    height, width = image.height, image.width
    gray = rng.random() < PROBABILITY
    added = rng.uniform(0, NOISE) * rng.standard_normal((height, width, 1 if gray else 3))
    return _to_image(_to_array(image) + added)


def camera(image: Image.Image, rng: Random) -> Image.Image:
    """Simulate a sensor: noise that grows with the light, one color at each position, the others interpolated."""
    light = _to_array(image) ** GAMMA
    shot, read = rng.uniform(0, SHOT), rng.uniform(0, READ)
    light = light + np.sqrt(shot * light + read**2) * rng.standard_normal(light.shape)
    sampled = np.zeros_like(light)
    sampled[0::2, 0::2, 0] = sampled[0::2, 1::2, 1] = sampled[1::2, 0::2, 1] = sampled[1::2, 1::2, 2] = 1
    light = _neighborhood(light * sampled) / _neighborhood(sampled).clip(1e-6)
    return _to_image(light.clip(0, 1) ** (1 / GAMMA))


def jpeg(image: Image.Image, rng: Random) -> Image.Image:
    """Compress as JPEG of random quality."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(rng.integers(*QUALITY, endpoint=True)))
    return Image.open(file).convert("RGB")


def _filter(rng: Random) -> Image.Resampling:
    return FILTERS[rng.integers(len(FILTERS))]


def _neighborhood(planes: np.ndarray) -> np.ndarray:
    """Sum each position and its eight neighbors, weighted 1, 1/2 (edges) and 1/4 (corners). (H, W, C) to the same."""
    for axis in (0, 1):
        wide = np.pad(planes, [(1, 1) if other == axis else (0, 0) for other in range(3)])
        before, after = (np.take(wide, np.arange(planes.shape[axis]) + k, axis) for k in (0, 2))
        planes = planes + (before + after) / 2
    return planes


def _to_array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float32) / 255


def _to_image(values: np.ndarray) -> Image.Image:
    return Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8))
