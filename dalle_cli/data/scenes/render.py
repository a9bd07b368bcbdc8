"""Rendering of scenes: the position of every object, and the pixels."""

import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .grammar import Scene, SceneObject
from .objects import BACKGROUNDS, WHITE, sprite

# Side of an object as a fraction of the image, by the number of objects; and the cell of the grid that corners lie on.
# Whole cells keep the number of ways to cut an object into patches small, which small models learn quickly.
SIZES = {1: 0.75, 2: 0.375, 3: 0.375}
CELL = 1 / 8


@dataclass(frozen=True)
class PlacedObject:
    """An object and its position. x, y: center; size: side; all as fractions of the image."""

    obj: SceneObject
    x: float
    y: float
    size: float


def place(scene: Scene, rng: random.Random, random_positions: bool = True) -> list[PlacedObject]:
    """Return positions for all objects of a scene: apart, inside the image, in the stated relation or a random one.

    random_positions: anywhere in their part of the image; otherwise one object is in the middle and two are at
    opposite edges, from left to right if the scene states no relation.
    """
    objects = [obj for obj in scene.objects for _ in range(obj.count)]
    size = SIZES[len(objects)]
    slack = 1 - size  # where the left or upper edge can be

    def cell(low: float, high: float, fixed: float = 0.5) -> float:
        if not random_positions:
            low = high = fixed
        return CELL * rng.randint(round(low * slack / CELL), round(high * slack / CELL))

    if len(objects) == 1:
        corners = [(cell(0, 1), cell(0, 1))]
    elif len(objects) == 3:
        corners = [(0.3, 0.0), (0.0, 1.0), (1.0, 1.0)]
        corners = [(cell(x, x, x), cell(y, y, y)) for x, y in corners]
    else:
        free = rng.choice(("left of", "right of", "above", "below")) if random_positions else "left of"
        relation = scene.relation or free
        first, second, across = cell(0, 0.2, 0), cell(0.8, 1, 1), cell(0.3, 0.7)
        if relation in ("right of", "below"):
            first, second = second, first
        vertical = relation in ("above", "below")
        corners = [(across, edge) if vertical else (edge, across) for edge in (first, second)]
    return [PlacedObject(obj, x + size / 2, y + size / 2, size) for obj, (x, y) in zip(objects, corners)]


def render(scene: Scene, placed: list[PlacedObject], size: int, drawn: bool = False) -> np.ndarray:
    """Return the image of a scene: uint8 (size, size, 3). drawn: with shapes drawn by Pillow, not the font's emoji."""
    canvas = np.empty((size, size, 3), dtype=np.uint8)
    canvas[:] = BACKGROUNDS[scene.background] if scene.background else WHITE
    for item in placed:
        side = max(4, round(item.size * size))
        obj = item.obj
        if obj.says:
            pixels = signboard(obj.name, obj.says, side, drawn)
        else:
            pixels = sprite(obj.name, side, obj.color, obj.texture, drawn)
        left, top = round(item.x * size - side / 2), round(item.y * size - side / 2)
        left, top = max(0, min(left, size - side)), max(0, min(top, size - side))
        under = canvas[top : top + side, left : left + side]
        alpha = pixels[..., 3:].astype(np.uint16)
        under[:] = (pixels[..., :3] * alpha + under * (255 - alpha) + 127) // 255
    return canvas


@lru_cache(maxsize=1024)
def signboard(board: str, word: str, size: int, drawn: bool) -> np.ndarray:
    """Return a board with a word on it: uint8 (size, size, 4)."""
    scale = 4
    side = size * scale
    base = Image.fromarray(sprite(board, side, drawn=drawn))
    x, y, w, h = (0.1, 0.1, 0.8, 0.8) if drawn else (0.06, 0.06, 0.88, 0.52)  # the free area of the two boards
    pen = ImageDraw.Draw(base)
    pen.rectangle((x * side, y * side, (x + w) * side, (y + h) * side), fill=(250, 250, 250, 255))
    points = 10
    while points < side:
        left, top, right, bottom = pen.textbbox((0, 0), word, font=ImageFont.load_default(points + 4))
        if right - left > 0.9 * w * side or bottom - top > 0.8 * h * side:
            break
        points += 4
    center = ((x + w / 2) * side, (y + h / 2) * side)
    pen.text(
        center, word, font=ImageFont.load_default(points), fill=(30, 30, 30, 255), anchor="mm", stroke_width=side / 200
    )
    out = np.asarray(base.resize((size, size), Image.Resampling.BOX)).copy()
    out.setflags(write=False)
    return out
