"""The judge of scenes: a program that decides whether a picture shows what its caption asks. Nothing is learned.

The scenes are drawn by a program, so what was asked for can be drawn again and laid over the picture:

1. The background is the commonest colour along the border.
2. The asked glyph, in every colour, is slid over the picture at every size; the best places are kept.
3. At such a place the picture must be like the glyph in one of its dresses (`LIKENESS`), and it must not lie on the way
   from there to any other glyph (`WAY`: 0 is the asked one itself, 1 the other, 0.5 half of each), be it as a whole or
   in one half of it, nor to a smear. No other glyph near that place may be more like the picture.
4. Colour, texture and word are judged there in the same manner: not on the way to another colour, texture or word.

What is compared with the picture is drawn as blurred as the picture is: blur, like place and size, is not asked for.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..data.scenes.glyphs import BACKGROUNDS, TINTS, WHITE, GlyphSet
from ..data.scenes.grammar import Scene, Thing, parse, sign_words
from .matching import CANVAS, Picture, Renderings, blurred, likeness, way

LIKENESS = 0.75  # of the picture and the asked glyph in its best dress, at least
BETTER = 0.01  # by which another glyph must be more like the picture to be what stands there
WAY = 0.35  # how far on the way to another glyph, colour, texture or word the picture may lie
HALF_WAY = 0.5  # the same of one half of the glyph, and on the way to its smear
SMEAR = 4.0  # cells of blur that leave only the colours and the rough outline
BLURS = 0.0, 0.7, 1.4  # cells of blur that are forgiven
# Renderings that differ in less than this share of their energy are not told apart. Colours have more, as an object
# may have the named colour by itself: "a yellow banana" is hardly another picture than "a banana".
SAME, SAME_COLOUR = 0.002, 0.02
GROUND_REACH = 0.2  # distance in RGB (each 0 to 1) within which a background has its name
GROUND_EVEN = 0.4  # share of the border that must have the background's colour
APART = 0.12  # of the picture: least distance of two centres along the stated direction
REST = 0.1  # of the area that differs from the background, the most that may lie outside of what was asked
MOST_TEXTURES = 32  # with which a worn texture is compared


@dataclass(frozen=True)
class Claim:
    """One thing that a caption says, and whether it is so. instead: what is seen, where it is not.

    part: object, colour, texture, sign, count, relation, background, rest (nothing else is there) or caption.
    """

    part: str
    asked: str
    true: bool
    instead: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a picture shows of its caption. boxes: (left, top, side) of the things found, as shares of the picture."""

    claims: tuple[Claim, ...]
    boxes: tuple[tuple[float, float, float], ...] = ()

    @property
    def true(self) -> bool:
        """Whether all of the caption is true."""
        return all(claim.true for claim in self.claims)

    def holds(self, *parts: str) -> bool:
        """Whether every claim about these parts is true."""
        return all(claim.true for claim in self.claims if claim.part in parts)


@dataclass(frozen=True)
class Sighting:
    """What stands at a place (3,). window: the picture there; blur: its blur; instead: "" for the asked glyph."""

    place: Tensor
    window: Tensor
    blur: float
    instead: str


class Judge:
    """Decides whether pictures show what captions in the grammar of the scenes ask."""

    def __init__(self, glyphs: GlyphSet):
        self.glyphs = glyphs
        self.renderings = Renderings(glyphs)

    @torch.no_grad()
    def verdict(self, image: Image.Image | np.ndarray | Tensor, scene: Scene | str) -> Verdict:
        """Judge one picture. image: PIL, uint8 (H, H, 3), or float (3, H, H) in [-1, 1]; scene: or its caption.

        A caption outside the grammar gives one false claim, `caption`. Raises ValueError for a picture not square.
        """
        asked = parse(scene, self.glyphs) if isinstance(scene, str) else scene
        if asked is None:
            return Verdict((_claim("caption", str(scene), "outside the grammar of the scenes"),))
        picture = Picture(image)
        claims, found, taken = [_background(picture, asked.background)], [], []
        for thing in asked.things:
            seen = self._sightings(picture, thing, taken)
            there = [one for one in seen if not one.instead]
            instead = thing.glyph if there else seen[0].instead if seen else "nothing"
            claims.append(_claim("object", thing.glyph, instead))
            claims += self._attributes(picture, thing, there[: thing.count])
            claims.append(_claim("count", str(thing.count), str(len(there))))
            found.append([one.place for one in there])
            taken += found[-1][: thing.count]
        if asked.relation:
            claims.append(_relation(asked.relation, found))
        places = [place for group in found for place in group]
        claims.append(_rest(picture, places))
        boxes = [(torch.cat([place[:2] - place[2] / 2, place[2:]]) / CANVAS).tolist() for place in places]
        return Verdict(tuple(claims), tuple(map(tuple, boxes)))

    def _sightings(self, picture: Picture, thing: Thing, taken: list[Tensor]) -> list[Sighting]:
        """What stands at the places that are most like the thing's glyph in any dress, best first, none twice."""
        dresses = self._dresses(thing)
        drawn = self.renderings.on(picture.ground, dresses)
        plain = [i for i, dress in enumerate(dresses) if dress.texture in (None, thing.texture)]
        places, windows, alike = picture.refine(picture.search(drawn[plain]), drawn)
        seen, standing = [], list(taken)
        for i in alike.amax(1).argsort(descending=True).tolist():
            best = int(alike[i].argmax())
            if any(_overlap(places[i], place) for place in standing) or (seen and alike[i, best] < LIKENESS):
                continue
            blur = max(BLURS, key=lambda sigma: likeness(windows[i], blurred(drawn[None, best], sigma)).item())
            instead = self._instead(picture, thing, dresses[best], drawn[best], places[i], windows[i], blur)
            seen.append(Sighting(places[i], windows[i], blur, instead))
            standing.append(places[i])
        return seen

    def _instead(
        self, picture: Picture, thing: Thing, dress: Thing, drawn: Tensor, place: Tensor, window: Tensor, blur: float
    ) -> str:
        """What stands at a place instead of the asked glyph; "" where it does.

        dress, drawn: the glyph in the dress that is most like the window there, and its rendering.
        """
        names, others = self._others(picture, thing, dress)
        mine, others = blurred(drawn, blur), blurred(others, blur)
        alike = likeness(window, mine[None]).item()
        whole, half = way(window, mine, others, SAME)
        if whole.max() > WAY:
            return names[int(whole.argmax())]
        if half.max() > HALF_WAY:
            return f"partly {names[int(half.argmax())]}"
        if way(window, drawn, blurred(drawn, SMEAR)[None], SAME)[0].item() > HALF_WAY:
            return "a smear"
        index, rival = picture.around(place, others, count=4)
        if rival.max() > alike + BETTER:
            return names[int(index[rival.argmax()])]
        return "" if alike >= LIKENESS else "nothing like it"

    def _others(self, picture: Picture, thing: Thing, dress: Thing) -> tuple[list[str], Tensor]:
        """All other glyphs as the picture might show them: dressed as what was seen, as what was asked, and bare."""
        colours = TINTS if thing.says and not self.glyphs.own_colours else (dress.colour,)
        bare = [Thing("", None if self.glyphs.own_colours else colour) for colour in colours]
        worn = [] if thing.says else [replace(one, glyph="", count=1) for one in (dress, thing)]
        rivals = [self.renderings.glyphs_on(picture.ground, one) for one in dict.fromkeys(bare + worn)]
        names = self.glyphs.names * len(rivals)
        others = [i for i, name in enumerate(names) if name != thing.glyph]
        return [names[i] for i in others], torch.cat(rivals)[others]

    def _attributes(self, picture: Picture, thing: Thing, there: list[Sighting]) -> list[Claim]:
        """Colour, texture and word of the things that were found; no claim about what has no alternatives.

        Each is judged with the others left open: of all dresses that have it, the one that is most like the picture
        is compared with all dresses that do not.
        """
        dresses = self._dresses(thing)
        drawn = self.renderings.on(picture.ground, dresses)
        claims = []
        for part, field in (("colour", "colour"), ("texture", "texture"), ("sign", "says")):
            worn = [getattr(dress, field) or "none" for dress in dresses]
            asked = getattr(thing, field) or "none"
            mine, rivals = ([i for i, one in enumerate(worn) if (one == asked) is so] for so in (True, False))
            if not rivals:
                continue
            seen = asked if there else "nothing"
            for one in there:
                shown = blurred(drawn, one.blur)
                best = mine[int(likeness(one.window, shown[mine]).argmax())]
                whole, _ = way(one.window, shown[best], shown[rivals], SAME_COLOUR if field == "colour" else SAME)
                if whole.max() > WAY:
                    seen = worn[rivals[int(whole.argmax())]]
            claims.append(_claim(part, asked, seen))
        return claims

    def _dresses(self, thing: Thing) -> tuple[Thing, ...]:
        """The same glyph in every colour, in every texture that it may wear, or with every word."""
        one, glyphs = replace(thing, count=1), self.glyphs
        if thing.says:
            return tuple(dict.fromkeys((*(replace(one, says=word) for word in sign_words(glyphs)), one)))
        textures = [name for name in glyphs.textures if name != thing.glyph] if thing.glyph in glyphs.bodies else []
        textures = textures[:: 1 + len(textures) // MOST_TEXTURES]
        if glyphs.own_colours:
            dresses = [Thing(thing.glyph, colour) for colour in (None, *TINTS)]
            dresses += [Thing(thing.glyph, None, texture) for texture in textures]
        else:
            dresses = [Thing(thing.glyph, colour, texture) for texture in (None, *textures) for colour in TINTS]
        return tuple(dict.fromkeys((*dresses, one)))


def _claim(part: str, asked: str, seen: str) -> Claim:
    return Claim(part, asked, seen == asked, "" if seen == asked else seen)


def _overlap(a: Tensor, b: Tensor) -> bool:
    return bool(((a[:2] - b[:2]).abs() < max(a[2], b[2]) / 2).all())


def _background(picture: Picture, name: str | None) -> Claim:
    """Whether the border is even and its colour nearest to the named one; no name means white."""
    names = {"white": WHITE, **BACKGROUNDS}
    distances = (torch.tensor(list(names.values())) / 255 - picture.ground).norm(dim=1)
    seen = list(names)[int(distances.argmin())]
    if picture.even < GROUND_EVEN or distances.min() > GROUND_REACH:
        seen = "no known colour"
    return _claim("background", name or "white", seen)


def _relation(relation: str, found: list[list[Tensor]]) -> Claim:
    """Whether the first thing lies to the second as stated, and that more than another way."""
    if not all(found):
        return _claim("relation", relation, "not both")
    across, down = ((found[1][0] - found[0][0])[:2] / CANVAS).tolist()
    if max(abs(across), abs(down)) < APART:
        return _claim("relation", relation, "in the same place")
    if abs(across) > abs(down):
        return _claim("relation", relation, "left of" if across > 0 else "right of")
    return _claim("relation", relation, "above" if down > 0 else "below")


def _rest(picture: Picture, places: list[Tensor]) -> Claim:
    """Whether nothing else is in the picture: next to nothing differs from the background outside of the places."""
    differs = F.avg_pool2d(picture.difference, 2).norm(dim=0) > 0.1
    total = differs.sum().item()
    for x, y, size in [place.tolist() for place in places]:
        left, top = (max(0, math.floor((centre - 0.56 * size) / 2)) for centre in (x, y))
        right, bottom = (math.ceil((centre + 0.56 * size) / 2) for centre in (x, y))
        differs[top:bottom, left:right] = False
    return _claim("rest", "nothing", "nothing" if differs.sum().item() <= REST * total else "something")
