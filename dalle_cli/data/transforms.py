"""Crops: from an image of any size to the square that is trained on, as in the papers.

Each takes (image, size, generator) and returns an image of `size` by `size`. All randomness comes from the
generator, so a sample is the same at any number of workers and processes. Mirroring is separate (`data.flip`).
"""

import math
import random
from collections.abc import Callable

from PIL import Image, ImageOps

from ..images import BICUBIC, BOX, pad_to_square, random_crop, square

Crop = Callable[[Image.Image, int, random.Random], Image.Image]


def center(image: Image.Image, size: int, rng: random.Random) -> Image.Image:
    """The middle square."""
    return square(image, size)


def random_square(image: Image.Image, size: int, rng: random.Random) -> Image.Image:
    """Shorter side to `size`, a random square: the only augmentation of CLIP (Radford et al. 2021, section 2.3)."""
    return random_crop(image, size, rng, size)


def dvae(image: Image.Image, size: int, rng: random.Random) -> Image.Image:
    """DALL-E 1's dVAE: a random square, its side to 9/8-12/8 of `size` by area, a random crop of that.

    Ramesh et al. 2021, appendix A.2, listing 1; there with `flip: true`.
    """
    square = random_crop(image, min(image.size), rng)
    return _area_then_crop(square, size, (round(9 / 8 * size), round(12 / 8 * size)), rng)


def dalle(image: Image.Image, size: int, rng: random.Random) -> Image.Image:
    """DALL-E 1's transformer: a square near the middle, its side to 1-9/8 of `size` by area, a random crop of that.

    Ramesh et al. 2021, appendix B.1, listing 2; there without mirroring, which would contradict the captions.
    """
    side = min(image.size)
    left, top = (_middle(length - side, rng) for length in image.size)
    square = image.crop((left, top, left + side, top + side))
    return _area_then_crop(square, size, (size, round(9 / 8 * size)), rng)


def adm(image: Image.Image, size: int, rng: random.Random) -> Image.Image:
    """Halved by area while twice as large as needed, then bicubic, the middle square (guided-diffusion)."""
    return square(_halve(image, size), size)


def adm_random(image: Image.Image, size: int, rng: random.Random) -> Image.Image:
    """As `adm`, but a random square that is 0.8 to 1 of the shorter side (guided-diffusion, `random_crop`)."""
    short = rng.randint(size, math.ceil(size / 0.8))
    return random_crop(_halve(image, short), size, rng, short)


def align(image: Image.Image, size: int, rng: random.Random) -> Image.Image:
    """Shorter side to 346/289 of `size`, a random square of that (Jia et al. 2021, section 5)."""
    return random_crop(image, size, rng, round(size * 346 / 289))


def pad(image: Image.Image, size: int, rng: random.Random) -> Image.Image:
    """The whole image on a white square: nothing is cut off, which suits cut-outs, logos and products."""
    width, height = (max(1, round(side * size / max(image.size))) for side in image.size)
    return pad_to_square(image if image.size == (width, height) else image.resize((width, height), BICUBIC))


CROPS: dict[str, Crop] = {
    "center": center,
    "random": random_square,
    "dvae": dvae,
    "dalle": dalle,
    "adm": adm,
    "adm-random": adm_random,
    "align": align,
    "pad": pad,
}


def mirror(image: Image.Image, rng: random.Random) -> Image.Image:
    """Return the image mirrored, with probability 1/2."""
    return ImageOps.mirror(image) if rng.random() < 0.5 else image


def _area_then_crop(square: Image.Image, size: int, sides: tuple[int, int], rng: random.Random) -> Image.Image:
    side = square.width
    if side < size:  # the papers had no images this small
        return square.resize((size, size), BICUBIC)
    target = rng.randint(min(side, sides[0]), min(side, sides[1]))
    return random_crop(square.resize((target, target), BOX), size, rng)


def _middle(slack: int, rng: random.Random) -> int:
    return rng.randint(math.floor(3 / 8 * slack), math.floor(5 / 8 * slack))


def _halve(image: Image.Image, size: int) -> Image.Image:
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), BOX)
    return image


def held_out_crop(crop: str) -> Crop:
    """Return the crop of samples that validate a model trained on `crop`: the same at every visit."""
    return pad if crop == "pad" else center
