"""Whether what is asked for is drawn into a hole, and nothing else is touched.

Of two things in an unseen scene one is to become another: its place is the hole, and the caption names the new thing. A
system that gives the picture back as it was therefore scores nothing.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..data.scenes import Scenes
from ..data.scenes.draw import CELL, Placed, draw, place
from ..data.scenes.grammar import Scene, Thing, caption, held_out
from .checker import Judge
from .suite import Share
from .unseen_scenes import SEED

Box = tuple[int, int, int, int]  # left, top, width, height in pixels
TRIES = 100  # new things tried before a scene is given up


@dataclass(frozen=True)
class Hole:
    """A picture, uint8 (S, S, 3), the box to fill, the scene that is then to be there, and which of it is new."""

    picture: np.ndarray
    box: Box
    scene: Scene
    thing: Thing

    @property
    def caption(self) -> str:
        """What the whole picture is to show."""
        return caption(self.scene)


@dataclass(frozen=True)
class Outcome:
    """inside: the asked object is in the box; asked: and of the asked colour; untouched: the rest is to the bit."""

    inside: bool
    asked: bool
    untouched: bool


def holes(count: int, size: int, glyphs: str, scatter: bool = True) -> Iterator[Hole]:
    """`count` unseen scenes of two things with a hole each; the same each time.

    scatter: as the data source takes it.
    """
    source = Scenes(size, glyphs, kinds={"pair": 1.0, "relation": 1.0})
    number = 0
    while count:
        rng = random.Random(f"{SEED}/inpaint/{number}")
        number += 1
        before = source.scene(rng)
        placed = place(before, rng, scatter)
        gone = rng.randrange(2)
        for _ in range(TRIES):
            name = rng.choice(
                [name for name in source.glyphs.names if name not in {one.glyph for one in before.things}]
            )
            thing = replace(before.things[gone], glyph=name)
            after = replace(before, things=(thing, before.things[1]) if gone == 0 else (before.things[0], thing))
            if not held_out(after):
                count -= 1
                yield Hole(draw(before, placed, size, source.glyphs.drawn), around(placed, gone, size), after, thing)
                break


def around(placed: list[Placed], which: int, size: int) -> Box:
    """The box of one of two things with half a cell of room, within its own half of the picture and the picture."""
    one, other = placed[which], placed[1 - which]
    apart = "x" if abs(one.x - other.x) > abs(one.y - other.y) else "y"
    ends = []
    for axis in ("x", "y"):
        centre, reach = getattr(one, axis), one.size / 2 + CELL / 2
        low, high = centre - reach, centre + reach
        if axis == apart:
            low, high = (low, min(high, 0.5)) if centre < getattr(other, axis) else (max(low, 0.5), high)
        ends.append((round(max(low, 0.0) * size), round(min(high, 1.0) * size)))
    (left, right), (top, bottom) = ends
    return left, top, right - left, bottom - top


def outcome(judge: Judge, hole: Hole, picture: Image.Image) -> Outcome:
    """What became of a hole. Raises ValueError for a picture of another size."""
    pixels = np.asarray(picture)
    if pixels.shape != hole.picture.shape:
        raise ValueError(f"a picture of {pixels.shape}, where the one to fill is of {hole.picture.shape}")
    left, top, width, height = hole.box
    outside = np.ones(pixels.shape[:2], dtype=bool)
    outside[top : top + height, left : left + width] = False
    found = judge.verdict(pixels, Scene((hole.thing,), None, hole.scene.background))
    centres = [(len(pixels) * (x + side / 2), len(pixels) * (y + side / 2)) for x, y, side in found.boxes]
    inside = any(left <= x < left + width and top <= y < top + height for x, y in centres)
    return Outcome(
        inside and found.holds("object"),
        inside and found.holds("object", "colour"),
        bool(np.array_equal(pixels[outside], hole.picture[outside])),
    )


def shares(outcomes: Iterable[Outcome]) -> dict[str, Share]:
    """Of all holes, how many had each outcome."""
    rows = list(outcomes)
    names = ("inside", "asked", "untouched")
    return {name: Share(sum(getattr(row, name) for row in rows), len(rows)) for name in names}
