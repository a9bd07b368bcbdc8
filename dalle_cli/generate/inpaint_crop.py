"""The crop that an inpainting model sees: the mask of an image, a square around it, and the seam of the result.

Shapes: H, W of the image; masks are bool (H, W), true where the image is to be generated.
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
from ..tasks.decoder import KnownRegion

CONTEXT = 2.0  # side of the crop in sides of the masked region
SEAM = 1 / 32  # standard deviation, in sides of the crop, of the blur that carries colors across the seam
MASK_LEVEL = 128  # gray level from which a mask without transparency is light

Box = tuple[int, int, int, int]  # left, top, width, height


def inpaint_mask(path: str, size: tuple[int, int], mask: str | None = None, box: Box | None = None) -> np.ndarray:
    """Return the mask of an image: a box, the light or transparent part of a mask file, or its own transparent part.

    size: width and height of the image. Parts of a box beyond the image are ignored. Raises Failure for a mask of
    another size and for an empty one, BadImage.
    """
    width, height = size
    if mask and box:
        raise Failure(f"{path}: give a mask or a box, not both", USAGE)
    if box:
        left, top, box_width, box_height = box
        region = np.zeros((height, width), dtype=bool)
        if box_width > 0 and box_height > 0 and left + box_width > 0 and top + box_height > 0:
            region[max(top, 0) : top + box_height, max(left, 0) : left + box_width] = True
        if not region.any():
            raise Failure(f"{path}: box {_text(box)} lies outside the image of {width}x{height} px", BAD_INPUT)
        return region
    region = _mask_of_file(path, size, mask) if mask else images.transparency_mask(path)
    if region is None:
        raise Failure(
            f"{path}: which part is to be inpainted? Give --mask, --box, or an image with a transparent part", BAD_INPUT
        )
    if not region.any():
        raise Failure(f"mask {mask}: no part of it is light or transparent, so there is nothing to inpaint", BAD_INPUT)
    return region


def clipping_note(path: str, size: tuple[int, int], box: Box) -> str | None:
    """Return what to tell the user about a box that reaches beyond the image, or None where it does not."""
    width, height = size
    left, top, box_width, box_height = box
    if left >= 0 and top >= 0 and left + box_width <= width and top + box_height <= height:
        return None
    return (
        f"{path}: box {_text(box)} reaches beyond the image of {width}x{height} px: only the part inside is inpainted"
    )


def _text(box: Box) -> str:
    return ",".join(map(str, box))


def _mask_of_file(path: str, size: tuple[int, int], mask: str) -> np.ndarray:
    image = images.open_image(mask, "mask")
    if image.size != size:
        raise Failure(
            f"mask {mask} has {image.width}x{image.height} px and {path} {size[0]}x{size[1]}: "
            "give a mask of the image's size",
            BAD_INPUT,
        )
    transparent = images.transparency_mask(mask)
    return transparent if transparent is not None else np.asarray(image.convert("L")) >= MASK_LEVEL


@dataclass(frozen=True)
class InpaintCrop:
    """A square of an image around its masked region, which reaches beyond the image where the region is too wide.

    pixels: uint8 (side, side, 3), the border repeated beyond the image; known: bool (side, side); left, top: position
    of the square in the image.
    """

    image: Image.Image
    mask: np.ndarray
    pixels: np.ndarray
    known: np.ndarray
    left: int
    top: int

    @property
    def side(self) -> int:
        return len(self.pixels)

    def at_size(self, size: int) -> KnownRegion:
        """Return the square at a model's size, (1, 3, size, size), and its known part, (1, 1, size, size).

        A pixel of the model is known if all pixels that it covers are.
        """
        resample = images.BOX if size < self.side else images.BICUBIC  # a box filter does not read masked neighbors
        small = Image.fromarray(self.pixels).resize((size, size), resample)
        unknown = torch.from_numpy(~self.known).float()[None, None]
        if size < self.side:
            unknown = F.adaptive_max_pool2d(unknown, size)
        else:
            unknown = F.interpolate(unknown, size, mode="nearest")
        return images.to_tensor(small)[None], 1 - unknown

    def paste(self, generated: Tensor) -> Image.Image:
        """Return the image with its masked region replaced by that of a generated square, (3, S, S).

        Outside the mask nothing changes. Inside, the difference between the image and the generated square at the seam
        is carried on and fades, so that neither colors nor edges of the old content remain.
        """
        size = (self.side, self.side)
        new = F.interpolate(generated[None].float(), size, mode="bicubic", antialias=True, align_corners=False)[0]
        old = images.to_float(torch.from_numpy(self.pixels.copy())).permute(2, 0, 1)
        known = torch.from_numpy(self.known).float()[None]
        blurred = _blur(torch.cat([known * (old - new), known]), max(1.0, SEAM * self.side))
        weight = blurred[3:]
        new = new + blurred[:3] / weight.clamp(min=1e-4) * (2 * weight).clamp(max=1)
        out = np.array(self.image)
        right, bottom = min(self.left + self.side, out.shape[1]), min(self.top + self.side, out.shape[0])
        x, y = max(self.left, 0), max(self.top, 0)
        inside = np.asarray(images.to_pil(new))[y - self.top : bottom - self.top, x - self.left : right - self.left]
        region = self.mask[y:bottom, x:right]
        out[y:bottom, x:right][region] = inside[region]
        return Image.fromarray(out)


def crop_around(image: Image.Image, mask: np.ndarray, size: int) -> InpaintCrop:
    """Return the square around a mask: of twice its side, at least the model's `size`, within the image if it fits."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    longest = max(bottom - top, right - left)
    side = int(max(longest, min(max(math.ceil(CONTEXT * longest), size), *image.size)))

    def start(low: int, high: int, length: int) -> int:
        centered = (low + high - side) // 2
        return int(centered if side > length else min(max(centered, 0), length - side))

    x, y = start(left, right, image.width), start(top, bottom, image.height)
    row_indices = np.arange(y, y + side)
    column_indices = np.arange(x, x + side)
    row_inside = (row_indices >= 0) & (row_indices < image.height)
    column_inside = (column_indices >= 0) & (column_indices < image.width)
    row_indices, column_indices = row_indices.clip(0, image.height - 1), column_indices.clip(0, image.width - 1)
    pixels = np.asarray(image)[row_indices][:, column_indices]
    known = row_inside[:, None] & column_inside & ~mask[row_indices][:, column_indices]
    return InpaintCrop(image, mask, pixels, known, x, y)


def restore_alpha(path: str, inpainted: Image.Image, mask: np.ndarray) -> Image.Image:
    """Return an inpainted image with the transparency of the file at `path` outside its mask.

    Decoding has composited that on white.
    """
    original = images.decode_rgba(path)
    if original is None:
        return inpainted
    out = np.array(original)
    out[mask] = np.dstack([np.asarray(inpainted), np.full_like(mask, 255, np.uint8)])[mask]
    return Image.fromarray(out) if (out[:, :, 3] < 255).any() else inpainted


def _blur(planes: Tensor, sigma: float) -> Tensor:
    """Blur planes (C, H, W) with a Gaussian; beyond the border they are zero."""
    radius = math.ceil(3 * sigma)
    kernel = torch.exp(-(torch.arange(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    planes = F.conv2d(planes[:, None], kernel.view(1, 1, -1, 1), padding=(radius, 0))
    return F.conv2d(planes, kernel.view(1, 1, 1, -1), padding=(0, radius))[:, 0]
