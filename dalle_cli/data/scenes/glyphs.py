"""Artwork of the scenes: geometric shapes drawn by Pillow, or the pictures of the system's colour emoji font.

A glyph is a name and a square RGBA picture. `sprite` gives it at a size, wearing another glyph's texture or tinted in a
named colour; this is the one place where attributes become pixels.
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

# What a tinted object is painted in, and what lies behind one: the second set is lighter, so that a red tomato
# stays visible on a red background.
TINTS = {
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
    """No colour emoji font on this machine."""


@dataclass(frozen=True)
class GlyphSet:
    """A vocabulary of pictures.

    textures, bodies: the glyphs whose surface others wear, and those that wear it. own_colours: whether an object
    without a named colour makes sense (a cat has colours of its own, a circle has none). sign: the board of a sign.
    drawn: whether the artwork is drawn by Pillow (otherwise it is the emoji font's).
    """

    name: str
    names: tuple[str, ...]
    textures: tuple[str, ...]
    bodies: tuple[str, ...]
    own_colours: bool
    sign: str
    drawn: bool


@lru_cache
def glyph_set(name: str) -> GlyphSet:
    """`shapes` (12, drawn), `everyday` (64 emoji), `words` (those with a name of one word, some 440), or `emoji` (every
    single-code-point picture of the font).

    Raises MissingFont when an emoji set is asked for on a machine without a colour emoji font.
    """
    if name == "shapes":
        names = tuple(SHAPES)
        return GlyphSet(
            name, names, ("star", "circle", "cross", "heart"), names, own_colours=False, sign="square", drawn=True
        )
    if name == "everyday":
        font()  # fails now rather than in a worker
        words = (tuple(names.split(", ")) for names in (EVERYDAY, TEXTURES, BODIES))
        return GlyphSet(name, *words, own_colours=True, sign="placard", drawn=False)
    if name in ("words", "emoji"):
        names = tuple(one for one in _font_names() if name == "emoji" or one.isalpha())
        return GlyphSet(name, names, names, names, own_colours=True, sign="placard", drawn=False)
    raise RecipeError(f"no glyph set '{name}'{suggest(name, ('shapes', 'everyday', 'words', 'emoji'))}")


@lru_cache
def font() -> ImageFont.FreeTypeFont:
    """The system's colour emoji font, or the one that DALLE_EMOJI_FONT names."""
    for path in (os.environ.get("DALLE_EMOJI_FONT"), *FONTS):
        if path and Path(path).is_file():
            for size in (109, 160, 96):  # bitmap fonts open only at their own sizes: Noto's, then Apple's
                try:
                    return ImageFont.truetype(path, size)
                except OSError:
                    continue
    raise MissingFont(
        "no colour emoji font found: install one (Debian, Ubuntu: apt install fonts-noto-color-emoji), "
        "name its file in DALLE_EMOJI_FONT, or use data.objects=shapes"
    )


@lru_cache
def _font_names() -> list[str]:
    """Names of all code points that the font draws as a picture."""
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
    """Artwork of a glyph: RGBA, ART px square, cropped to what is visible and centred."""
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
    glyph: str, size: int, colour: str | None = None, texture: str | None = None, drawn: bool = False
) -> np.ndarray:
    """A glyph at `size` px with its attributes: uint8 (size, size, 4), read-only.

    texture: the glyph whose surface is worn, shaded by this glyph's own light and dark. colour: a name of TINTS; light
    and dark are kept, hue is replaced.
    """
    body = np.asarray(art(glyph, drawn).resize((size, size), Image.Resampling.LANCZOS), dtype=np.float32) / 255
    rgb, alpha = body[..., :3], body[..., 3:]
    light = rgb @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    inside = alpha[..., 0] > 0.5
    shade = (light - (light[inside].mean() if inside.any() else 0.5))[..., None]
    if texture:
        surface = Image.fromarray(_surface(texture, drawn)).resize((size, size), Image.Resampling.BICUBIC)
        rgb = np.asarray(surface, dtype=np.float32) / 255 * np.clip(1 + 1.1 * shade, 0.45, 1.5)
        light = rgb @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        shade = (light - (light[inside].mean() if inside.any() else 0.5))[..., None]
    if colour:
        tint = np.array(TINTS[colour], dtype=np.float32) / 255
        level = np.clip(0.5 + 0.9 * shade, 0, 1)  # 0 dark, 0.5 the colour itself, 1 light
        rgb = np.where(level < 0.5, tint * (0.25 + 1.5 * level), tint + (1 - tint) * (2 * level - 1) * 0.8)
    out = (np.clip(np.concatenate([rgb, alpha], axis=-1), 0, 1) * 255 + 0.5).astype(np.uint8)
    out.setflags(write=False)
    return out


@lru_cache(maxsize=512)
def _surface(glyph: str, drawn: bool) -> np.ndarray:
    """The texture of a glyph: the most central, largest square that is nearly all artwork; uint8 (s, s, 3)."""
    if drawn:
        return _pattern(glyph)
    pixels = np.asarray(art(glyph))
    opaque = np.pad((pixels[..., 3] > 250).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    for side in range(ART - 4, 12, -4):
        filled = opaque[side:, side:] - opaque[:-side, side:] - opaque[side:, :-side] + opaque[:-side, :-side]
        corners = np.argwhere(filled >= 0.86 * side * side)
        if len(corners):
            y, x = corners[np.argmin(((corners + side / 2 - ART / 2) ** 2).sum(1))]
            return _fill(pixels[y : y + side, x : x + side])
    return _fill(pixels)


def _fill(pixels: np.ndarray) -> np.ndarray:
    """RGB with the transparent pixels painted over from their neighbours, by blurs of growing width."""
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
    """A lattice of small light copies of a shape on a dark ground: the texture of a drawn shape."""
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


# Outlines in the unit square; a callable draws what a polygon cannot.
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
    """A flat grey shape: tinting turns flat grey into the named colour."""
    scale = 4 * ART
    mask = Image.new("L", (scale, scale), 0)
    pen, outline = ImageDraw.Draw(mask), SHAPES[name]
    if callable(outline):
        outline(pen, scale)
    else:
        pen.polygon([(x * scale, y * scale) for x, y in outline], fill=255)
    picture = Image.new("RGBA", (ART, ART), (128, 128, 128, 0))
    picture.putalpha(mask.resize((ART, ART), Image.Resampling.BOX))
    return picture
