"""Scenes: the built-in data. Pictures of glyphs with exact captions, drawn on demand, needing no download."""

import random
from collections.abc import Iterable, Mapping

from .. import sources
from .draw import draw, place
from .glyphs import glyph_set
from .grammar import KINDS, RELATIONS, caption, held_out, invent


@sources.register("scenes")
class Scenes:
    """Endless captioned scenes; sample i is a function of (seed, i).

    glyphs: "shapes", "everyday", "words" or "emoji". kinds: weights of single, texture, pair, relation, count, sign;
    those left out are 0. relations: the same of "left of", "right of", "above" and "below"; None is all alike.
    background, colour: chances of a coloured ground and of a tint. held_out: False leaves out the combinations kept for
    evaluation, True draws only scenes that hold one. wording: vary the captions' wording. scatter: vary where things
    stand; the same places always are learned several times sooner.
    """

    def __init__(
        self,
        size: int,
        glyphs: str = "everyday",
        samples: int = 1_000_000,
        kinds: dict[str, float] | None = None,
        relations: dict[str, float] | None = None,
        background: float = 0.4,
        colour: float = 0.3,
        held_out: bool = False,
        wording: bool = True,
        scatter: bool = True,
        seed: int = 0,
    ):
        self.size = size
        self.glyphs = glyph_set(glyphs)
        self.kinds = _weights("kinds", KINDS if kinds is None else kinds, KINDS)
        self.relations = relations and _weights("relations", relations, RELATIONS)
        self.background, self.colour = background, colour
        self.held_out, self.wording, self.scatter, self.seed = held_out, wording, scatter, seed
        self.blocks = [samples]

    def read(self, block: int, index: int, picture: bool = True) -> dict:
        rng = random.Random(f"{self.seed}/{index}")
        scene = self.scene(rng)
        text = caption(scene, rng if self.wording else None)
        image = draw(scene, place(scene, rng, self.scatter), self.size, self.glyphs.drawn) if picture else None
        return {"image": image, "text": text, "key": f"scene-{index:09d}"}

    def scene(self, rng: random.Random):
        """A scene on the right side of the split between training and held-out combinations."""
        for _ in range(10_000):
            scene = invent(rng, self.glyphs, self.kinds, self.background, self.colour, self.relations)
            if held_out(scene) == self.held_out:
                return scene
        raise ValueError(
            f"data.held_out={str(self.held_out).lower()} leaves no scenes: give data.kinds others than "
            f"{', '.join(kind for kind, weight in self.kinds.items() if weight > 0)}"
        )


def _weights(name: str, given: Mapping[str, float], known: Iterable[str]) -> dict[str, float]:
    """Weights by name. Raises ValueError for an unknown name, and where there is nothing to choose from."""
    unknown = set(given) - set(known)
    if unknown or not sum(given.values()) > 0:
        raise ValueError(f"data.{name} takes weights of {', '.join(known)}; got {', '.join(sorted(unknown)) or 'none'}")
    return dict(given)
