"""From a scene to a picture: where each thing stands, and its pixels."""

import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .glyphs import BACKGROUNDS, WHITE, sprite
from .grammar import Scene, Thing

# Sides of a thing as shares of the canvas, by how many stand in the scene; and the grid that corners lie on. Whole
# cells keep the number of ways to cut an object into patches small, which is what small models learn quickly.
SIZES = {1: 0.75, 2: 0.375, 3: 0.375}
CELL = 1 / 8


@dataclass(frozen=True)
class Placed:
    """A thing in its place. x, y: centre; size: side; all as shares of the canvas."""

    thing: Thing
    x: float
    y: float
    size: float


def place(scene: Scene, rng: random.Random, scatter: bool = True) -> list[Placed]:
    """Places for everything in a scene: apart, inside the canvas, in the stated relation or in a free one.

    scatter: anywhere in their part of the canvas; else one thing stands in the middle, two at opposite edges, in the
    order of reading where nothing is said.
    """
    things = [thing for thing in scene.things for _ in range(thing.count)]
    size = SIZES[len(things)]
    room = 1 - size  # for the left or upper edge

    def cell(low: float, high: float, usual: float = 0.5) -> float:
        if not scatter:
            low = high = usual
        return CELL * rng.randint(round(low * room / CELL), round(high * room / CELL))

    if len(things) == 1:
        corners = [(cell(0, 1), cell(0, 1))]
    elif len(things) == 3:
        corners = [(0.3, 0.0), (0.0, 1.0), (1.0, 1.0)]
        corners = [(cell(x, x, x), cell(y, y, y)) for x, y in corners]
    else:
        free = rng.choice(("left of", "right of", "above", "below")) if scatter else "left of"
        relation = scene.relation or free
        first, second, across = cell(0, 0.2, 0), cell(0.8, 1, 1), cell(0.3, 0.7)
        if relation in ("right of", "below"):
            first, second = second, first
        vertical = relation in ("above", "below")
        corners = [(across, edge) if vertical else (edge, across) for edge in (first, second)]
    return [Placed(thing, x + size / 2, y + size / 2, size) for thing, (x, y) in zip(things, corners)]


def draw(scene: Scene, placed: list[Placed], size: int, drawn: bool = False) -> np.ndarray:
    """The picture: uint8 (size, size, 3). drawn: with the shapes drawn by Pillow rather than the font's emoji."""
    canvas = np.empty((size, size, 3), dtype=np.uint8)
    canvas[:] = BACKGROUNDS[scene.background] if scene.background else WHITE
    for item in placed:
        side = max(4, round(item.size * size))
        thing = item.thing
        if thing.says:
            pixels = signboard(thing.glyph, thing.says, side, drawn)
        else:
            pixels = sprite(thing.glyph, side, thing.colour, thing.texture, drawn)
        left, top = round(item.x * size - side / 2), round(item.y * size - side / 2)
        left, top = max(0, min(left, size - side)), max(0, min(top, size - side))
        under = canvas[top : top + side, left : left + side]
        alpha = pixels[..., 3:].astype(np.uint16)
        under[:] = (pixels[..., :3] * alpha + under * (255 - alpha) + 127) // 255
    return canvas


@lru_cache(maxsize=1024)
def signboard(board: str, word: str, size: int, drawn: bool) -> np.ndarray:
    """A board with a word on it: uint8 (size, size, 4)."""
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
    centre = ((x + w / 2) * side, (y + h / 2) * side)
    pen.text(
        centre, word, font=ImageFont.load_default(points), fill=(30, 30, 30, 255), anchor="mm", stroke_width=side / 200
    )
    out = np.asarray(base.resize((size, size), Image.Resampling.BOX)).copy()
    out.setflags(write=False)
    return out
