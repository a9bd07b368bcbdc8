"""A picture with a hole: found, cut out with what surrounds it at a model's size, and filled with a soft seam.

Shapes: H, W of the picture; a hole is bool (H, W), true where the picture is to be drawn anew.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .. import images
from ..exits import BAD_INPUT, USAGE, Failure
from ..tasks.decoder import Known

AROUND = 2.0  # sides of the hole that the square around it has
SEAM = 1 / 32  # of the square: deviation of the blur that carries colours across the seam

Box = tuple[int, int, int, int]  # left, top, width, height


def inpaint_mask(path: str, size: tuple[int, int], mask: str | None = None, box: Box | None = None) -> np.ndarray:
    """What is to be drawn anew: a box, what is light or transparent in a mask, or what is transparent in the picture.

    size: width and height of the picture. Raises Failure for a mask of another size, and where there is no hole.
    """
    width, height = size
    if mask and box:
        raise Failure(f"{path}: give a mask or a box, not both", USAGE)
    found = np.zeros((height, width), dtype=bool)
    if box:
        left, top, across, down = box
        if across < 1 or down < 1 or left >= width or top >= height or left + across <= 0 or top + down <= 0:
            raise Failure(f"{path}: the box {','.join(map(str, box))} holds nothing of {width}x{height} px", BAD_INPUT)
        found[max(top, 0) : top + down, max(left, 0) : left + across] = True
    elif mask:
        try:
            clear = images.transparency_mask(mask)
            picture = images.decode(mask)
        except images.BadImage as error:
            raise images.BadImage(f"mask {mask}: {error}") from None
        if picture.size != size:
            other = f"{picture.width}x{picture.height}"
            raise Failure(f"mask {mask} has {other} px and {path} {width}x{height}: give one of its size", BAD_INPUT)
        found = clear if clear is not None else np.asarray(picture.convert("L")) >= 128
    else:
        clear = images.transparency_mask(path)
        if clear is None:
            raise Failure(f"{path}: what to draw anew? Give --mask, --box, or a picture with a clear part", BAD_INPUT)
        found = clear
    if not found.any():
        raise Failure(f"mask {mask}: nothing in it is light or transparent: nothing is to be drawn anew", BAD_INPUT)
    return found


@dataclass(frozen=True)
class InpaintCrop:
    """A square of a picture around its hole, which may reach beyond the picture where the hole is wider than it.

    pixels: uint8 (side, side, 3), the border repeated beyond; known: bool (side, side); left, top: of the square.
    """

    picture: Image.Image
    hole: np.ndarray
    pixels: np.ndarray
    known: np.ndarray
    left: int
    top: int

    @property
    def side(self) -> int:
        return len(self.pixels)

    def at_size(self, size: int) -> Known:
        """The square at a model's size, (1, 3, size, size), and where it is known, (1, 1, size, size).

        A pixel is known if all that it covers is.
        """
        how = images.BOX if size < self.side else images.BICUBIC  # a box looks at nothing else, such as the hole
        small = Image.fromarray(self.pixels).resize((size, size), how)
        unknown = torch.from_numpy(~self.known).float()[None, None]
        if size < self.side:
            unknown = F.adaptive_max_pool2d(unknown, size)
        else:
            unknown = F.interpolate(unknown, size, mode="nearest")
        return images.to_tensor(small)[None], 1 - unknown

    def paste(self, drawn: Tensor) -> Image.Image:
        """The picture with its hole filled from what was drawn of the square, (3, S, S).

        Outside the hole nothing changes. Inside, the difference between old and new at the seam is carried on and
        fades, so that neither shines through.
        """
        size = (self.side, self.side)
        new = F.interpolate(drawn[None].float(), size, mode="bicubic", antialias=True, align_corners=False)[0]
        old = images.to_float(torch.from_numpy(self.pixels.copy())).permute(2, 0, 1)
        known = torch.from_numpy(self.known).float()[None]
        near = _blur(torch.cat([known * (old - new), known]), max(1.0, SEAM * self.side))
        weight = near[3:]
        new = new + near[:3] / weight.clamp(min=1e-4) * (2 * weight).clamp(max=1)
        out = np.array(self.picture)
        right, bottom = min(self.left + self.side, out.shape[1]), min(self.top + self.side, out.shape[0])
        x, y = max(self.left, 0), max(self.top, 0)
        inside = np.asarray(images.to_pil(new))[y - self.top : bottom - self.top, x - self.left : right - self.left]
        where = self.hole[y:bottom, x:right]
        out[y:bottom, x:right][where] = inside[where]
        return Image.fromarray(out)


def crop_around(picture: Image.Image, hole: np.ndarray, size: int) -> InpaintCrop:
    """The square around a hole: twice its side, at least a model's `size`, at most what the picture has."""
    rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    longest = max(bottom - top, right - left)
    side = int(max(longest, min(max(math.ceil(AROUND * longest), size), *picture.size)))

    def start(low: int, high: int, length: int) -> int:
        wanted = (low + high - side) // 2
        return int(wanted if side > length else min(max(wanted, 0), length - side))

    x, y = start(left, right, picture.width), start(top, bottom, picture.height)
    down = np.arange(y, y + side)
    across = np.arange(x, x + side)
    inside = ((down >= 0) & (down < picture.height))[:, None] & ((across >= 0) & (across < picture.width))
    down, across = down.clip(0, picture.height - 1), across.clip(0, picture.width - 1)
    pixels = np.asarray(picture)[down][:, across]
    return InpaintCrop(picture, hole, pixels, inside & ~hole[down][:, across], x, y)


def restore_alpha(path: str, filled: Image.Image, hole: np.ndarray) -> Image.Image:
    """A filled picture, as transparent outside its hole as the picture at `path`: decoding has laid that on white."""
    original = images.decode_rgba(path)
    if original is None:
        return filled
    out = np.array(original)
    out[hole] = np.dstack([np.asarray(filled), np.full_like(hole, 255, np.uint8)])[hole]
    return Image.fromarray(out) if (out[:, :, 3] < 255).any() else filled


def _blur(planes: Tensor, sigma: float) -> Tensor:
    """Planes (C, H, W) under a Gaussian; beyond the border there is nothing."""
    reach = math.ceil(3 * sigma)
    taps = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    taps = taps / taps.sum()
    planes = F.conv2d(planes[:, None], taps.view(1, 1, -1, 1), padding=(reach, 0))
    return F.conv2d(planes, taps.view(1, 1, 1, -1), padding=(0, reach))[:, 0]
