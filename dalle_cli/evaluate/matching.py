"""Laying drawn things over a picture: windows of the picture, renderings of things, and how alike the two are.

All is done on the difference between the picture and its own background, so that what is empty is 0. A window is the
box of a glyph and a ring around it, in which a thing larger than the asked one shows; it is brought to WIDTH x WIDTH
cells, whatever its size in the picture. A rendering is a thing drawn into such a window on the same background.

Places are tensors (n, 3): centre x, centre y and side of the glyph's box, in pixels of the canvas.
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

from ..data.scenes.draw import signboard
from ..data.scenes.glyphs import GlyphSet, sprite
from ..data.scenes.grammar import Thing

CANVAS = 64  # px: the size to which every picture is brought
PAD = 20  # px by which a window may reach over the border
SIDE, RING = 24, 2  # cells of a glyph's box, and of the ring on each side; the search halves both
WIDTH = SIDE + 2 * RING
SIZES = [0.27 * 1.08**step for step in range(17)]  # of the things looked for, as shares of the canvas
KEPT = 6  # places that a search returns


class Picture:
    """A picture as its background and the difference from it.

    image: PIL, uint8 (H, H, 3), or float (3, H, H) in [-1, 1]. ground: the commonest colour of the border, RGB in
    [0, 1]. even: the share of the border that has it. difference: (3, S, S) with S = CANVAS.
    """

    def __init__(self, image: Image.Image | np.ndarray | Tensor):
        pixels = _pixels(image)
        inner = F.pad(torch.zeros(CANVAS - 4, CANVAS - 4), (2,) * 4, value=1.0)
        border = pixels[:, inner == 1].T  # (N, 3)
        near = torch.cdist(border, border) < 0.12
        crowd = near[near.sum(1).argmax()]
        self.ground = border[crowd].mean(0)
        self.even = crowd.float().mean().item()
        self.difference = pixels - self.ground[:, None, None]

    def windows(self, places: Tensor, scales: Sequence[float], shifts: Sequence[float], halved: bool = False) -> Tensor:
        """Windows about each place varied by all scales, and by all shifts (in cells) down and across.

        halved: of half as many cells. Returns (places, scales * shifts * shifts, 3, width, width).
        """
        width = WIDTH // 2 if halved else WIDTH
        steps = places[:, 2, None] * torch.tensor(scales) / SIDE  # (n, k) px
        cells = steps[..., None].expand(-1, -1, len(shifts)) * (WIDTH / width)
        taps = []
        for axis in (1, 0):
            start = (places[:, axis, None] - steps * WIDTH / 2)[..., None] + steps[..., None] * torch.tensor(shifts)
            taps.append(_taps(start, cells, width, CANVAS))
        down, across = taps  # (n, k, j, width, S)
        rows = torch.einsum("nkiys,cst->nkicyt", down, self.difference)
        return torch.einsum("nkicyt,nkjxt->nkijcyx", rows, across).flatten(1, 3)

    def search(self, things: Tensor) -> Tensor:
        """The places in all of the picture that are most like any of the things, best first. things: renderings."""
        things = F.avg_pool2d(things, 2)
        norms = things.square().sum((1, 2, 3))[:, None, None]
        scores, places = [], []
        for size in SIZES:
            cell = CANVAS * size / (SIDE // 2)
            start = -(RING + 1) / 2 * cell
            count = math.ceil((CANVAS - 2 * start) / cell)
            taps = _taps(torch.tensor(start), torch.tensor(cell), count, CANVAS)
            level = (taps @ self.difference @ taps.T)[None]  # (1, 3, count, count)
            energy = F.avg_pool2d(level.square(), WIDTH // 2, 1, divisor_override=1).sum(1)
            alike = 2 * F.conv2d(level, things)[0] / (energy + norms).clamp(min=1e-6)
            centres = start + cell * (torch.arange(alike.shape[1]) + WIDTH / 4)
            y, x = torch.meshgrid(centres, centres, indexing="ij")
            scores.append(alike.amax(0).flatten())
            places.append(torch.stack([x, y, torch.full_like(x, CANVAS * size)], dim=-1).flatten(0, 1))
        score, place = torch.cat(scores), torch.cat(places)
        kept = []
        for _ in range(KEPT):
            best = place[score.argmax()]
            kept.append(best)
            near = ((place[:, :2] - best[:2]).abs() < best[2] / 4).all(1)
            score[near & ((place[:, 2] / best[2]).log().abs() < 0.25)] = -1
        return torch.stack(kept)

    def refine(self, places: Tensor, things: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move each place to where it is most like any of the things. things: renderings.

        Returns the places, the windows there (n, 3, WIDTH, WIDTH), and the likeness of each thing there (n, m).
        """
        for reach in (1.0, 0.5, 0.25):
            scales, shifts = (1 - 0.04 * reach, 1.0, 1 + 0.04 * reach), (-reach, 0.0, reach)
            windows = self.windows(places, scales, shifts)
            alike = likeness(windows, things)
            best = alike.amax(2).argmax(1)
            size = places[:, 2] * torch.tensor(scales)[best // 9]
            move = torch.stack([torch.tensor(shifts)[best % 3], torch.tensor(shifts)[best // 3 % 3]], dim=1)
            places = torch.cat([places[:, :2] + move * size[:, None] / SIDE, size[:, None]], dim=1)
        index = torch.arange(len(places))
        return places, windows[index, best], alike[index, best]

    def around(self, place: Tensor, things: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The things that are most like the picture at or near a place (3,): their indices and likeness."""
        shifts = (-0.16, -0.08, 0.0, 0.08, 0.16)
        moves = torch.tensor([[x, y] for x in shifts for y in shifts]) * place[2]
        places = torch.cat([place.repeat(len(moves), 1)[:, :2] + moves, place[2].repeat(len(moves), 1)], dim=1)
        scales = (0.7, 0.8, 0.9, 1.0, 1.1, 1.25)
        windows = self.windows(places, scales, (0.0,), halved=True).flatten(0, 1)
        score, spot = likeness(windows, F.avg_pool2d(things, 2)).max(0)
        best = score.topk(count).indices
        spot = spot[best]
        near = places[spot // len(scales)] * torch.tensor([1, 1, 0])
        near[:, 2] = place[2] * torch.tensor(scales)[spot % len(scales)]
        _, _, alike = self.refine(near, things[best])
        return best, alike.diagonal()


class Renderings:
    """Things drawn into windows; the last sets of them are kept, as they are asked for again and again."""

    def __init__(self, glyphs: GlyphSet):
        self.glyphs = glyphs
        self._dressed = lru_cache(maxsize=256)(self._drawn)
        self._all = lru_cache(maxsize=max(12, 4000 // len(glyphs.names)))(self._drawn)

    def on(self, ground: Tensor, things: tuple[Thing, ...]) -> Tensor:
        """The differences of a few things from a background: (m, 3, WIDTH, WIDTH)."""
        return _over(self._dressed(things), ground)

    def glyphs_on(self, ground: Tensor, dress: Thing) -> Tensor:
        """The same of every glyph of the set in one dress, in the order of the set."""
        return _over(self._all(tuple(replace(dress, glyph=name) for name in self.glyphs.names)), ground)

    def _drawn(self, things: tuple[Thing, ...]) -> Tensor:
        """Colours times opacity, and opacity: (m, 4, WIDTH, WIDTH)."""
        scale = 2  # px a cell, so that pictures and renderings are averaged alike
        size = SIDE * scale
        taps = _taps(torch.tensor(-1.0 * RING * scale), torch.tensor(1.0 * scale), WIDTH, size)
        out = torch.empty(len(things), 4, WIDTH, WIDTH)
        for window, thing in zip(out, things):
            if thing.says:
                drawn = signboard(thing.glyph, thing.says, size, self.glyphs.drawn)
            else:
                drawn = sprite(thing.glyph, size, thing.colour, thing.texture, self.glyphs.drawn)
            rgba = torch.from_numpy(drawn.astype(np.float32) / 255).permute(2, 0, 1)
            paint = torch.cat([rgba[:3] * rgba[3:], rgba[3:]])
            window[:] = taps @ paint @ taps.T
        return out


def _over(drawn: Tensor, ground: Tensor) -> Tensor:
    return drawn[:, :3] - drawn[:, 3:] * ground[:, None, None]


def likeness(windows: Tensor, things: Tensor) -> Tensor:
    """1 where a window equals a thing, 0 where they have nothing in common: 1 - |w - t|^2 / (|w|^2 + |t|^2).

    windows: (..., 3, w, w); things: (m, 3, w, w); returns (..., m).
    """
    windows, things = windows.flatten(-3), things.flatten(-3)
    energy = windows.square().sum(-1, keepdim=True) + things.square().sum(-1)
    return 2 * (windows @ things.mT) / energy.clamp(min=1e-6)


def way(window: Tensor, thing: Tensor, others: Tensor, same: float) -> tuple[Tensor, Tensor]:
    """How far the window lies on the way from a thing to others: 0 at the thing, 1 at the other.

    window, thing: (3, w, w); others: (m, 3, w, w). Returns (m,) for the whole window and (m,) for the worst of its
    left, right, upper and lower halves; -inf where thing and other differ in less than a share `same` of their energy.
    """
    half = torch.arange(WIDTH) < WIDTH // 2
    left = half.expand(WIDTH, WIDTH)
    regions = torch.stack([torch.ones_like(left), left, ~left, left.T, ~left.T]).float().flatten(1).repeat(1, 3)
    step = (others - thing).flatten(1)
    along = step @ (regions * (window - thing).flatten()).T  # (m, regions)
    length = step.square() @ regions.T
    energy = others.square().sum((1, 2, 3)) + thing.square().sum()
    share = (along / length.clamp(min=1e-6)).masked_fill(length < same * energy[:, None], -math.inf)
    return share[:, 0], share[:, 1:].amax(1)


def blurred(things: Tensor, sigma: float) -> Tensor:
    """Renderings (..., 3, w, w) blurred by `sigma` cells."""
    if not sigma:
        return things
    taps = torch.exp(-(torch.arange(WIDTH)[:, None] - torch.arange(WIDTH)).square() / (2 * sigma**2))
    taps = taps / taps.sum(1).amax()
    return taps @ things @ taps


def _pixels(image: Image.Image | np.ndarray | Tensor) -> Tensor:
    """Any picture as float (3, CANVAS, CANVAS) in [0, 1]."""
    if isinstance(image, Tensor):
        pixels = (image.detach().float().cpu().clamp(-1, 1) + 1) / 2
    else:
        array = np.array(image.convert("RGB") if isinstance(image, Image.Image) else image)
        pixels = torch.from_numpy(array).movedim(-1, 0).float() / 255
    if pixels.ndim != 3 or pixels.shape[0] != 3 or pixels.shape[1] != pixels.shape[2]:
        raise ValueError(f"the judge takes square RGB pictures, got {tuple(pixels.shape)}: crop it to a square")
    size = pixels.shape[1]
    if size == CANVAS:
        return pixels
    taps = _taps(torch.tensor(0.0), torch.tensor(size / CANVAS), CANVAS, size)
    taps = taps / taps.sum(1, keepdim=True)  # the border's weights, too, add up to 1
    return taps @ pixels @ taps.T


def _taps(start: Tensor, step: Tensor, count: int, size: int) -> Tensor:
    """Resampling of `size` pixels into `count` cells of `step` px from `start` px, as a matrix (..., count, size).

    A triangle as wide as a cell, or as a pixel if that is more: interpolates when growing, averages when shrinking.
    What lies outside of the pixels counts as 0.
    """
    reach = step.clamp(min=1)[..., None, None]
    centre = start[..., None] + step[..., None] * (torch.arange(count) + 0.5)
    pixel = torch.arange(-PAD, size + PAD) + 0.5
    weight = (1 - (pixel - centre[..., None]).abs() / reach).clamp(min=0)
    return (weight / weight.sum(-1, keepdim=True).clamp(min=1e-6))[..., PAD : PAD + size]
