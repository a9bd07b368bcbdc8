"""Objects of the scenes: geometric shapes drawn with Pillow, or the emoji of the system's color emoji font.

An object is a name and a square RGBA image. `sprite` renders it at a size, with another object's texture or recolored;
this is the one place where attributes become pixels.
"""

import math
import os
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...registry import RecipeError, suggest

ART = 128  # px, side of the artwork before it is scaled; Noto's emoji are bitmaps of this size

# Colors of recolored objects, and of backgrounds: the latter are lighter, so that a red tomato stays visible on a red
# background. The names are words of captions.
COLORS = {
    "red": (222, 45, 38),
    "orange": (245, 140, 30),
    "yellow": (250, 215, 50),
    "green": (60, 170, 75),
    "blue": (50, 110, 220),
    "purple": (140, 70, 190),
    "pink": (245, 130, 180),
    "brown": (130, 85, 50),
}
BACKGROUNDS = {
    "red": (235, 95, 90),
    "orange": (248, 170, 80),
    "yellow": (252, 228, 120),
    "green": (120, 200, 120),
    "blue": (115, 170, 240),
    "purple": (175, 130, 220),
    "pink": (250, 180, 210),
    "brown": (165, 120, 85),
    "black": (40, 40, 44),
    "grey": (170, 170, 175),
}
WHITE = (255, 255, 255)

FONTS = (
    "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf",
    "/usr/share/fonts/noto/NotoColorEmoji.ttf",
    "/usr/share/fonts/google-noto-emoji/NotoColorEmoji.ttf",
    "/usr/share/fonts/google-noto-color-emoji-fonts/NotoColorEmoji.ttf",
    "/System/Library/Fonts/Apple Color Emoji.ttc",
)

EVERYDAY = (
    "cat, dog, pig, rabbit, elephant, tiger, leopard, monkey, rooster, whale, snail, snake, octopus, lady beetle, "
    "fish, turtle, penguin, butterfly, crab, duck, owl, avocado, banana, pineapple, grapes, watermelon, tangerine, "
    "lemon, pear, cherries, strawberry, tomato, carrot, mushroom, hamburger, doughnut, cookie, cheese wedge, "
    "cupcake, kiwifruit, chair, umbrella, balloon, key, bell, books, crown, guitar, rocket, automobile, bus, "
    "sailboat, hammer, teapot, alarm clock, teddy bear, top hat, t-shirt, cactus, sunflower, maple leaf, snowman, "
    "brick, ball of yarn"
)
TEXTURES = (
    "avocado, strawberry, watermelon, kiwifruit, cookie, cheese wedge, brick, ball of yarn, leopard, tiger, "
    "sunflower, lady beetle"
)
BODIES = (
    "chair, teapot, automobile, top hat, guitar, snail, duck, t-shirt, bus, bell, umbrella, elephant, whale, fish, "
    "turtle, rocket"
)


class MissingFont(ValueError):
    """This machine has no color emoji font."""


@dataclass(frozen=True)
class ObjectSet:
    """A set of objects.

    textures: objects whose surface others can have. bodies: objects that can have such a surface. natural_colors:
    whether an object without a named color makes sense (a cat has colors of its own, a circle has none). sign: the
    object that serves as the board of a sign. drawn: whether Pillow draws the objects; otherwise the emoji font does.
    """

    name: str
    names: tuple[str, ...]
    textures: tuple[str, ...]
    bodies: tuple[str, ...]
    natural_colors: bool
    sign: str
    drawn: bool


@lru_cache
def load_object_set(name: str) -> ObjectSet:
    """Return a set: `shapes` (12, drawn), `everyday` (64 emoji), `words` (some 440 emoji of one word) or `emoji`
    (every emoji of the font that is a single code point).

    Raises MissingFont for a set of emoji on a machine without a color emoji font.
    """
    if name == "shapes":
        names = tuple(SHAPES)
        return ObjectSet(
            name, names, ("star", "circle", "cross", "heart"), names, natural_colors=False, sign="square", drawn=True
        )
    if name == "everyday":
        font()  # fails now rather than in a worker
        words = (tuple(names.split(", ")) for names in (EVERYDAY, TEXTURES, BODIES))
        return ObjectSet(name, *words, natural_colors=True, sign="placard", drawn=False)
    if name in ("words", "emoji"):
        names = tuple(known for known in _font_names() if name == "emoji" or known.isalpha())
        return ObjectSet(name, names, names, names, natural_colors=True, sign="placard", drawn=False)
    raise RecipeError(f"no objects '{name}'{suggest(name, ('shapes', 'everyday', 'words', 'emoji'))}")


@lru_cache
def font() -> ImageFont.FreeTypeFont:
    """Return the system's color emoji font, or the one that DALLE_EMOJI_FONT names. Raises MissingFont."""
    for path in (os.environ.get("DALLE_EMOJI_FONT"), *FONTS):
        if path and Path(path).is_file():
            for size in (109, 160, 96):  # bitmap fonts open only at their own sizes: Noto's, then Apple's
                try:
                    return ImageFont.truetype(path, size)
                except OSError:
                    continue
    raise MissingFont(
        "no color emoji font found: install one (Debian, Ubuntu: apt install fonts-noto-color-emoji), "
        "name its file in DALLE_EMOJI_FONT, or use data.objects=shapes"
    )


@lru_cache
def _font_names() -> list[str]:
    """Return the names of all code points that the font has a name for."""
    face = font()
    names = []
    for point in (*range(0x2190, 0x3300), *range(0x1F000, 0x1FB00)):
        name = unicodedata.name(chr(point), "")
        left, top, right, bottom = face.getbbox(chr(point)) if name else (0, 0, 0, 0)
        if right > left and bottom > top:
            names.append(name.lower())
    return names


@lru_cache(maxsize=2048)
def art(name: str, drawn: bool = False) -> Image.Image:
    """Return the image of an object: RGBA, ART px square, cropped to its visible part and centered."""
    if drawn:
        return _shape(name)
    character = unicodedata.lookup(name)
    face = font()
    _, _, right, bottom = (int(v) for v in face.getbbox(character))
    page = Image.new("RGBA", (max(right, 1), max(bottom, 1)), (0, 0, 0, 0))
    ImageDraw.Draw(page).text((0, 0), character, font=face, embedded_color=True)
    visible = page.crop(page.getbbox())
    side = max(visible.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(visible, ((side - visible.width) // 2, (side - visible.height) // 2))
    return square.resize((ART, ART), Image.Resampling.LANCZOS)


@lru_cache(maxsize=8192)
def sprite(
    name: str, size: int, color: str | None = None, texture: str | None = None, drawn: bool = False
) -> np.ndarray:
    """Return an object at `size` px with its attributes: uint8 (size, size, 4), read-only.

    texture: the object whose surface it gets; its own light and dark are kept. color: a key of COLORS; light and dark
    are kept, the hue is replaced.
    """
    body = np.asarray(art(name, drawn).resize((size, size), Image.Resampling.LANCZOS), dtype=np.float32) / 255
    rgb, alpha = body[..., :3], body[..., 3:]
    light = rgb @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    inside = alpha[..., 0] > 0.5
    shade = (light - (light[inside].mean() if inside.any() else 0.5))[..., None]
    if texture:
        surface = Image.fromarray(_surface(texture, drawn)).resize((size, size), Image.Resampling.BICUBIC)
        rgb = np.asarray(surface, dtype=np.float32) / 255 * np.clip(1 + 1.1 * shade, 0.45, 1.5)
        light = rgb @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        shade = (light - (light[inside].mean() if inside.any() else 0.5))[..., None]
    if color:
        rgb_color = np.array(COLORS[color], dtype=np.float32) / 255
        level = np.clip(0.5 + 0.9 * shade, 0, 1)  # 0 is dark, 0.5 the color itself, 1 light
        lighter = rgb_color + (1 - rgb_color) * (2 * level - 1) * 0.8
        rgb = np.where(level < 0.5, rgb_color * (0.25 + 1.5 * level), lighter)
    out = (np.clip(np.concatenate([rgb, alpha], axis=-1), 0, 1) * 255 + 0.5).astype(np.uint8)
    out.setflags(write=False)
    return out


@lru_cache(maxsize=512)
def _surface(name: str, drawn: bool) -> np.ndarray:
    """Return the texture of an object: its largest, most central square that is nearly opaque; uint8 (s, s, 3)."""
    if drawn:
        return _pattern(name)
    pixels = np.asarray(art(name))
    opaque = np.pad((pixels[..., 3] > 250).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    for side in range(ART - 4, 12, -4):
        filled = opaque[side:, side:] - opaque[:-side, side:] - opaque[side:, :-side] + opaque[:-side, :-side]
        corners = np.argwhere(filled >= 0.86 * side * side)
        if len(corners):
            y, x = corners[np.argmin(((corners + side / 2 - ART / 2) ** 2).sum(1))]
            return _fill(pixels[y : y + side, x : x + side])
    return _fill(pixels)


def _fill(pixels: np.ndarray) -> np.ndarray:
    """Return RGB with the transparent pixels filled from their neighbors, by blurs of growing width."""
    rgb = pixels[..., :3].astype(np.float32)
    known = pixels[..., 3:].astype(np.float32) / 255
    while known.min() < 0.999:
        weight, total = known.copy(), rgb * known
        for axis in (0, 1):
            weight = weight + np.roll(weight, 1, axis) + np.roll(weight, -1, axis)
            total = total + np.roll(total, 1, axis) + np.roll(total, -1, axis)
        if weight.max() == 0:
            break
        spread = total / np.maximum(weight, 1e-6)
        rgb = rgb * known + spread * (1 - known)
        known = np.maximum(known, (weight > 0.05).astype(np.float32))
    return rgb.clip(0, 255).astype(np.uint8)


def _pattern(shape: str) -> np.ndarray:
    """Return a grid of small light copies of a shape on dark gray: the texture of a drawn shape."""
    small = (
        np.asarray(art(shape, drawn=True).resize((28, 28), Image.Resampling.LANCZOS), dtype=np.float32)[..., 3:] / 255
    )
    tile = np.full((32, 32, 3), 70, dtype=np.float32)
    tile[2:30, 2:30] += (235 - 70) * small
    return np.tile(tile, (ART // 32, ART // 32, 1)).astype(np.uint8)


def _star(points: int, inner: float, turn: float = -90) -> list[tuple[float, float]]:
    angles = [(turn + 180 * i / points, 0.5 if i % 2 == 0 else 0.5 * inner) for i in range(2 * points)]
    return [(0.5 + r * math.cos(math.radians(a)), 0.5 + r * math.sin(math.radians(a))) for a, r in angles]


def _polygon(sides: int, turn: float = -90) -> list[tuple[float, float]]:
    angles = [math.radians(turn + 360 * i / sides) for i in range(sides)]
    return [(0.5 + 0.5 * math.cos(a), 0.5 + 0.5 * math.sin(a)) for a in angles]


def _heart() -> list[tuple[float, float]]:
    angles = [2 * math.pi * i / 96 for i in range(96)]
    xs = [16 * math.sin(a) ** 3 for a in angles]
    ys = [13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a) for a in angles]
    return [(0.5 + x / 34, 0.46 - y / 34) for x, y in zip(xs, ys)]


# Outlines in the unit square; a callable draws what no polygon can.
SHAPES = {
    "circle": lambda pen, s: pen.ellipse((0.03 * s, 0.03 * s, 0.97 * s, 0.97 * s), fill=255),
    "square": [(0.08, 0.08), (0.92, 0.08), (0.92, 0.92), (0.08, 0.92)],
    "triangle": [(0.5, 0.05), (0.98, 0.92), (0.02, 0.92)],
    "star": _star(5, 0.42),
    "heart": _heart(),
    "diamond": _polygon(4),
    "cross": [
        *[(0.34, 0.04), (0.66, 0.04), (0.66, 0.34), (0.96, 0.34), (0.96, 0.66), (0.66, 0.66)],
        *[(0.66, 0.96), (0.34, 0.96), (0.34, 0.66), (0.04, 0.66), (0.04, 0.34), (0.34, 0.34)],
    ],
    "ring": lambda pen, s: pen.ellipse((0.03 * s, 0.03 * s, 0.97 * s, 0.97 * s), outline=255, width=int(0.2 * s)),
    "crescent": lambda pen, s: (
        pen.ellipse((0.03 * s, 0.03 * s, 0.97 * s, 0.97 * s), fill=255),
        pen.ellipse((0.33 * s, -0.02 * s, 1.17 * s, 0.82 * s), fill=0),
    ),
    "hexagon": _polygon(6, 0),
    "arrow": [(0.5, 0.03), (0.95, 0.48), (0.66, 0.48), (0.66, 0.97), (0.34, 0.97), (0.34, 0.48), (0.05, 0.48)],
    "bar": [(0.03, 0.34), (0.97, 0.34), (0.97, 0.66), (0.03, 0.66)],
}


def _shape(name: str) -> Image.Image:
    """Return a shape in flat gray, which recoloring turns into the named color."""
    scale = 4 * ART
    mask = Image.new("L", (scale, scale), 0)
    pen, outline = ImageDraw.Draw(mask), SHAPES[name]
    if callable(outline):
        outline(pen, scale)
    else:
        pen.polygon([(x * scale, y * scale) for x, y in outline], fill=255)
    image = Image.new("RGBA", (ART, ART), (128, 128, 128, 0))
    image.putalpha(mask.resize((ART, ART), Image.Resampling.BOX))
    return image
