"""Overlay renderings of objects on an image and measure how well they match.

Everything is computed on the difference between the image and its own background, so that empty areas are 0. A window
is the box of an object and a ring around it, in which an object larger than the expected one shows; it is resampled to
WIDTH x WIDTH cells, whatever its size in the image. A rendering is an object painted into such a window on the same
background.

Boxes are tensors (n, 3): center x, center y and side of an object's box, in pixels of the CANVAS x CANVAS image.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..data.scenes.grammar import SceneObject
from ..data.scenes.objects import ObjectSet, sprite
from ..data.scenes.render import signboard

CANVAS = 64  # pixels: the size to which every image is resampled
PAD = 20  # pixels by which a window may extend over the border
SIDE, RING = 24, 2  # cells of an object's box, and of the ring on each side; the search halves both
WIDTH = SIDE + 2 * RING
SIZES = [0.27 * 1.08**step for step in range(17)]  # sides of the boxes to search, as fractions of the canvas
MAX_BOXES = 6  # boxes that a search returns


class ImageOnBackground:
    """An image split into its background color and the difference from it.

    image: PIL, uint8 (H, H, 3), or float (3, H, H) in [-1, 1]. background: the most common color of the border, RGB in
    [0, 1]. uniformity: the fraction of the border that has it. difference: (3, S, S) with S = CANVAS.
    """

    def __init__(self, image: Image.Image | np.ndarray | Tensor):
        pixels = _pixels(image)
        inner = F.pad(torch.zeros(CANVAS - 4, CANVAS - 4), (2,) * 4, value=1.0)
        border = pixels[:, inner == 1].T  # (N, 3)
        close = torch.cdist(border, border) < 0.12
        cluster = close[close.sum(1).argmax()]
        self.background = border[cluster].mean(0)
        self.uniformity = cluster.float().mean().item()
        self.difference = pixels - self.background[:, None, None]

    def windows(self, boxes: Tensor, scales: Sequence[float], shifts: Sequence[float], halved: bool = False) -> Tensor:
        """Return windows around each box at all scales and at all shifts (in cells), vertically and horizontally.

        halved: at half the resolution. Shape: (boxes, scales * shifts * shifts, 3, width, width).
        """
        width = WIDTH // 2 if halved else WIDTH
        steps = boxes[:, 2, None] * torch.tensor(scales) / SIDE  # (n, k) pixels
        cells = steps[..., None].expand(-1, -1, len(shifts)) * (WIDTH / width)
        taps = []
        for axis in (1, 0):
            start = (boxes[:, axis, None] - steps * WIDTH / 2)[..., None] + steps[..., None] * torch.tensor(shifts)
            taps.append(_taps(start, cells, width, CANVAS))
        vertical, horizontal = taps  # (n, k, j, width, S)
        rows = torch.einsum("nkiys,cst->nkicyt", vertical, self.difference)
        return torch.einsum("nkicyt,nkjxt->nkijcyx", rows, horizontal).flatten(1, 3)

    def search(self, renderings: Tensor) -> Tensor:
        """Return the MAX_BOXES boxes of the whole image that match any of the renderings best, best first."""
        renderings = F.avg_pool2d(renderings, 2)
        norms = renderings.square().sum((1, 2, 3))[:, None, None]
        similarities, boxes = [], []
        for size in SIZES:
            cell = CANVAS * size / (SIDE // 2)
            start = -(RING + 1) / 2 * cell
            count = math.ceil((CANVAS - 2 * start) / cell)
            taps = _taps(torch.tensor(start), torch.tensor(cell), count, CANVAS)
            level = (taps @ self.difference @ taps.T)[None]  # (1, 3, count, count)
            energy = F.avg_pool2d(level.square(), WIDTH // 2, 1, divisor_override=1).sum(1)
            similar = 2 * F.conv2d(level, renderings)[0] / (energy + norms).clamp(min=1e-6)
            centers = start + cell * (torch.arange(similar.shape[1]) + WIDTH / 4)
            y, x = torch.meshgrid(centers, centers, indexing="ij")
            similarities.append(similar.amax(0).flatten())
            boxes.append(torch.stack([x, y, torch.full_like(x, CANVAS * size)], dim=-1).flatten(0, 1))
        remaining, candidates = torch.cat(similarities), torch.cat(boxes)
        selected = []
        for _ in range(MAX_BOXES):
            best = candidates[remaining.argmax()]
            selected.append(best)
            near = ((candidates[:, :2] - best[:2]).abs() < best[2] / 4).all(1)
            remaining[near & ((candidates[:, 2] / best[2]).log().abs() < 0.25)] = -1
        return torch.stack(selected)

    def refine(self, boxes: Tensor, renderings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move each box to where it matches any of the renderings best.

        Returns the boxes, the windows there (n, 3, WIDTH, WIDTH), and their similarity to each rendering (n, m).
        """
        for reach in (1.0, 0.5, 0.25):
            scales, shifts = (1 - 0.04 * reach, 1.0, 1 + 0.04 * reach), (-reach, 0.0, reach)
            windows = self.windows(boxes, scales, shifts)
            similar = similarity(windows, renderings)
            best = similar.amax(2).argmax(1)
            size = boxes[:, 2] * torch.tensor(scales)[best // 9]
            move = torch.stack([torch.tensor(shifts)[best % 3], torch.tensor(shifts)[best // 3 % 3]], dim=1)
            boxes = torch.cat([boxes[:, :2] + move * size[:, None] / SIDE, size[:, None]], dim=1)
        index = torch.arange(len(boxes))
        return boxes, windows[index, best], similar[index, best]

    def best_near(self, box: Tensor, renderings: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the `count` renderings that match the image best at or near a box (3,): indices and similarities."""
        shifts = (-0.16, -0.08, 0.0, 0.08, 0.16)
        moves = torch.tensor([[x, y] for x in shifts for y in shifts]) * box[2]
        boxes = torch.cat([box.repeat(len(moves), 1)[:, :2] + moves, box[2].repeat(len(moves), 1)], dim=1)
        scales = (0.7, 0.8, 0.9, 1.0, 1.1, 1.25)
        windows = self.windows(boxes, scales, (0.0,), halved=True).flatten(0, 1)
        similar, position = similarity(windows, F.avg_pool2d(renderings, 2)).max(0)
        best = similar.topk(count).indices
        position = position[best]
        near = boxes[position // len(scales)] * torch.tensor([1, 1, 0])
        near[:, 2] = box[2] * torch.tensor(scales)[position % len(scales)]
        _, _, similar = self.refine(near, renderings[best])
        return best, similar.diagonal()


class Renderings:
    """Objects rendered into windows. Recently used sets are cached, because the same ones are requested repeatedly."""

    def __init__(self, object_set: ObjectSet):
        self.object_set = object_set
        self._variants = lru_cache(maxsize=256)(self._render)
        self._all = lru_cache(maxsize=max(12, 4000 // len(object_set.names)))(self._render)

    def on(self, background: Tensor, objects: tuple[SceneObject, ...]) -> Tensor:
        """Return the differences of a few objects from a background: (m, 3, WIDTH, WIDTH)."""
        return _over(self._variants(objects), background)

    def all_on(self, background: Tensor, variant: SceneObject) -> Tensor:
        """Return the same of every object of the set in one appearance, in the order of the set."""
        return _over(self._all(tuple(replace(variant, name=name) for name in self.object_set.names)), background)

    def _render(self, objects: tuple[SceneObject, ...]) -> Tensor:
        """Return colors times opacity, and opacity: (m, 4, WIDTH, WIDTH)."""
        scale = 2  # pixels per cell, so that images and renderings are averaged alike
        size = SIDE * scale
        taps = _taps(torch.tensor(-1.0 * RING * scale), torch.tensor(1.0 * scale), WIDTH, size)
        out = torch.empty(len(objects), 4, WIDTH, WIDTH)
        for window, obj in zip(out, objects):
            if obj.says:
                pixels = signboard(obj.name, obj.says, size, self.object_set.drawn)
            else:
                pixels = sprite(obj.name, size, obj.color, obj.texture, self.object_set.drawn)
            rgba = torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)
            paint = torch.cat([rgba[:3] * rgba[3:], rgba[3:]])
            window[:] = taps @ paint @ taps.T
        return out


def _over(rendered: Tensor, background: Tensor) -> Tensor:
    return rendered[:, :3] - rendered[:, 3:] * background[:, None, None]


def similarity(windows: Tensor, renderings: Tensor) -> Tensor:
    """Return 1 where a window equals a rendering, 0 where they are orthogonal: 1 - |w - r|^2 / (|w|^2 + |r|^2).

    windows: (..., 3, w, w); renderings: (m, 3, w, w); returns (..., m).
    """
    windows, renderings = windows.flatten(-3), renderings.flatten(-3)
    energy = windows.square().sum(-1, keepdim=True) + renderings.square().sum(-1)
    return 2 * (windows @ renderings.mT) / energy.clamp(min=1e-6)


def path_position(window: Tensor, rendering: Tensor, others: Tensor, min_difference: float) -> tuple[Tensor, Tensor]:
    """Project a window on the straight path from a rendering (0) to each of others (1).

    window, rendering: (3, w, w); others: (m, 3, w, w). Returns (m,) for the whole window and (m,) for the maximum over
    its left, right, upper and lower halves; -inf where the two differ in less than `min_difference` of their energy.
    """
    half = torch.arange(WIDTH) < WIDTH // 2
    left = half.expand(WIDTH, WIDTH)
    regions = torch.stack([torch.ones_like(left), left, ~left, left.T, ~left.T]).float().flatten(1).repeat(1, 3)
    step = (others - rendering).flatten(1)
    along = step @ (regions * (window - rendering).flatten()).T  # (m, regions)
    length = step.square() @ regions.T
    energy = others.square().sum((1, 2, 3)) + rendering.square().sum()
    indistinct = length < min_difference * energy[:, None]
    position = (along / length.clamp(min=1e-6)).masked_fill(indistinct, -math.inf)
    return position[:, 0], position[:, 1:].amax(1)


def blurred(renderings: Tensor, sigma: float) -> Tensor:
    """Return renderings (..., 3, w, w) blurred by `sigma` cells."""
    if not sigma:
        return renderings
    taps = torch.exp(-(torch.arange(WIDTH)[:, None] - torch.arange(WIDTH)).square() / (2 * sigma**2))
    taps = taps / taps.sum(1).amax()
    return taps @ renderings @ taps


def _pixels(image: Image.Image | np.ndarray | Tensor) -> Tensor:
    """Return any image as float (3, CANVAS, CANVAS) in [0, 1]. Raises ValueError for images that are not square."""
    if isinstance(image, Tensor):
        pixels = (image.detach().float().cpu().clamp(-1, 1) + 1) / 2
    else:
        array = np.array(image.convert("RGB") if isinstance(image, Image.Image) else image)
        pixels = torch.from_numpy(array).movedim(-1, 0).float() / 255
    if pixels.ndim != 3 or pixels.shape[0] != 3 or pixels.shape[1] != pixels.shape[2]:
        raise ValueError(
            f"the scene checker needs square RGB images, got shape {tuple(pixels.shape)}: crop to a square"
        )
    size = pixels.shape[1]
    if size == CANVAS:
        return pixels
    taps = _taps(torch.tensor(0.0), torch.tensor(size / CANVAS), CANVAS, size)
    taps = taps / taps.sum(1, keepdim=True)  # the weights at the border also add up to 1
    return taps @ pixels @ taps.T


def _taps(start: Tensor, step: Tensor, count: int, size: int) -> Tensor:
    """Return the matrix (..., count, size) that resamples `size` pixels into `count` cells of `step` pixels.

    The first cell begins at pixel `start`. The filter is a triangle as wide as a cell, or as a pixel if that is more:
    it interpolates when enlarging and averages when reducing. Values outside of the pixels are 0.
    """
    reach = step.clamp(min=1)[..., None, None]
    center = start[..., None] + step[..., None] * (torch.arange(count) + 0.5)
    pixel = torch.arange(-PAD, size + PAD) + 0.5
    weight = (1 - (pixel - center[..., None]).abs() / reach).clamp(min=0)
    return (weight / weight.sum(-1, keepdim=True).clamp(min=1e-6))[..., PAD : PAD + size]
