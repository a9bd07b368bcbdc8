"""Pictures made smaller and worse as they are in the world: blur, noise, a camera, JPEG, mixed interpolations.

The degradations of BSRGAN (Zhang et al. 2021, section 3), in random order, which unCLIP's second upsampler learns to
undo (Ramesh et al. 2022, section 2.1). Strengths are those of a picture that one would still want enlarged.
"""

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from ..images import BICUBIC, BOX

FILTERS = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, BICUBIC, BOX)
CLEAN = 0.25  # of the pictures are only made smaller, by area
SHARE = 0.5  # of the others that each degradation befalls
BLUR = 1.2  # greatest deviation, in pixels of the small picture
NOISE = 0.06  # greatest deviation of Gaussian noise, of pixels in [0, 1]
QUALITY = 35, 95  # of JPEG
SHOT, READ = 0.02, 0.02  # of a camera: variance of its noise for full light, deviation of that in the dark
GAMMA = 2.2

Random = np.random.Generator
Step = Callable[[Image.Image, Random], Image.Image]


def worse(image: Tensor, factor: int, seed: int, clean: float = CLEAN) -> Tensor:
    """A picture, uint8 (3, H, W), `factor` times smaller and degraded by its own seed: uint8 (3, H / factor, ...).

    clean: the chance that it is only made smaller.
    """
    rng = np.random.Generator(np.random.SFC64(seed))
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    small = picture.width // factor, picture.height // factor
    if rng.random() < clean:
        return torch.from_numpy(np.array(picture.resize(small, BOX))).permute(2, 0, 1).contiguous()

    def shrink(picture: Image.Image, rng: Random) -> Image.Image:
        """At once, or in two steps by different interpolations."""
        if rng.random() < SHARE:
            between = rng.uniform(1, factor)
            picture = picture.resize((round(between * small[0]), round(between * small[1])), _filter(rng))
        return picture.resize(small, _filter(rng))

    def blur(picture: Image.Image, rng: Random) -> Image.Image:
        """By a Gaussian that may be wider in one direction."""
        across, down = rng.uniform(0, BLUR * picture.width / small[0], 2)
        return picture.filter(ImageFilter.GaussianBlur((float(across), float(down))))

    befall: list[Step] = [step for step in (blur, noise, camera, jpeg) if rng.random() < SHARE]
    steps = [*befall, shrink]
    for number in rng.permutation(len(steps)):
        picture = steps[number](picture, rng)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def noise(picture: Image.Image, rng: Random) -> Image.Image:
    """Gaussian noise, of each channel its own or, half of the times, of all the same."""
    height, width = picture.height, picture.width
    grey = rng.random() < SHARE
    added = rng.uniform(0, NOISE) * rng.standard_normal((height, width, 1 if grey else 3))
    return _picture(_numbers(picture) + added)


def camera(picture: Image.Image, rng: Random) -> Image.Image:
    """What a sensor makes of it: noise that grows with the light, one colour at each place, the others guessed."""
    light = _numbers(picture) ** GAMMA
    shot, read = rng.uniform(0, SHOT), rng.uniform(0, READ)
    light = light + np.sqrt(shot * light + read**2) * rng.standard_normal(light.shape)
    seen = np.zeros_like(light)
    seen[0::2, 0::2, 0] = seen[0::2, 1::2, 1] = seen[1::2, 0::2, 1] = seen[1::2, 1::2, 2] = 1
    light = _around(light * seen) / _around(seen).clip(1e-6)
    return _picture(light.clip(0, 1) ** (1 / GAMMA))


def jpeg(picture: Image.Image, rng: Random) -> Image.Image:
    """Through a JPEG file of random quality."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(rng.integers(*QUALITY, endpoint=True)))
    return Image.open(file).convert("RGB")


def _filter(rng: Random) -> Image.Resampling:
    return FILTERS[rng.integers(len(FILTERS))]


def _around(planes: np.ndarray) -> np.ndarray:
    """Each place and its eight neighbours, those aside by half, those across by a quarter. (H, W, C) to the same."""
    for axis in (0, 1):
        wide = np.pad(planes, [(1, 1) if own == axis else (0, 0) for own in range(3)])
        before, after = (np.take(wide, np.arange(planes.shape[axis]) + k, axis) for k in (0, 2))
        planes = planes + (before + after) / 2
    return planes


def _numbers(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, dtype=np.float32) / 255


def _picture(numbers: np.ndarray) -> Image.Image:
    return Image.fromarray((numbers.clip(0, 1) * 255).round().astype(np.uint8))
