"""The suite of held-out captions that measures composition, and the scores of a system on it.

Every caption of the suite holds exactly one combination that training never shows, the one that its category is about.
The scores say in what share of the pictures the judge found what the category asks, and in what share all of the
caption. `shuffled` gives the control: each picture judged by another caption of its category.
"""

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from .. import distributed
from ..data.folder import Folder
from ..data.scenes.glyphs import GlyphSet
from ..data.scenes.grammar import HELD_OUT, Scene, Thing, caption, invent, parse, withheld
from .checker import Judge, Verdict


@dataclass(frozen=True)
class Category:
    """What a part of the suite asks.

    held: the kind of combination that is held out; kind: of scene; ground, tint: the chances of a coloured background
    and of a colour; parts: the claims that the category's figure counts.
    """

    held: str
    kind: str
    ground: float
    tint: float
    parts: tuple[str, ...]


CATEGORIES = {
    "single": Category("tint", "single", 0, 1, ("object", "colour", "texture")),
    "background": Category("ground", "single", 1, 0, ("background",)),
    "pair": Category("pair", "pair", 0, 0, ("object",)),
    "relation": Category("pair", "relation", 0, 0, ("object", "relation")),
    "combination": Category("wear", "texture", 0, 0, ("object", "texture")),
}
PARTS = {name: category.parts for name, category in CATEGORIES.items()}
PARTS |= {"count": ("object", "count"), "sign": ("object", "sign")}  # captions that are not from the suite


@dataclass(frozen=True)
class Item:
    """A caption to judge by. scene: what it says, or None where that is outside the grammar of the scenes."""

    category: str
    scene: Scene | None
    caption: str


@dataclass(frozen=True)
class Share:
    """`true` of `count`, with Wilson's 95 % interval (Wilson 1927)."""

    true: int
    count: int

    @property
    def interval(self) -> tuple[float, float]:
        if not self.count:
            return 0.0, 1.0
        n, p, z = self.count, self.true / self.count, 1.96
        middle, reach = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, (middle - reach) / (1 + z * z / n)), min(1.0, (middle + reach) / (1 + z * z / n))

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.true / max(self.count, 1):6.1%} ({low:.1%} to {high:.1%})"


@dataclass(frozen=True)
class Report:
    """Verdicts by item, in the same order."""

    items: tuple[Item, ...]
    verdicts: tuple[Verdict, ...]

    def figures(self) -> dict[str, Share]:
        """By category: how often everything that the category asks is there."""
        return {
            name: Share(sum(verdict.holds(*PARTS[name]) for verdict in group), len(group))
            for name, group in self._groups().items()
        }

    def wholes(self) -> dict[str, Share]:
        """By category: how often all of the caption is true, and nothing else is in the picture."""
        return {
            name: Share(sum(verdict.true for verdict in group), len(group)) for name, group in self._groups().items()
        }

    def claims(self) -> dict[str, Share]:
        """By part of the caption: how often what it says is so."""
        parts = Counter(claim.part for verdict in self.verdicts for claim in verdict.claims)
        true = Counter(claim.part for verdict in self.verdicts for claim in verdict.claims if claim.true)
        return {part: Share(true[part], count) for part, count in parts.items() if part != "caption"}

    def __str__(self) -> str:
        wholes, outside = self.wholes(), len(self.items) - sum(share.count for share in self.wholes().values())
        lines = [f"{'category':<12} {'pictures':>8}  {'as asked (95 % interval)':<26} {'whole caption':<26}"]
        lines += [f"{name:<12} {s.count:>8}  {s!s:<26} {wholes[name]!s:<26}" for name, s in self.figures().items()]
        lines += ["", f"{'claim':<12} {'claims':>8}  {'true (95 % interval)':<26}"]
        lines += [f"{part:<12} {share.count:>8}  {share}" for part, share in self.claims().items()]
        if outside:
            lines += ["", f"{outside} captions are outside the grammar of the scenes and were not judged"]
        return "\n".join(line.rstrip() for line in lines)

    def _groups(self) -> dict[str, list[Verdict]]:
        names = [name for name in PARTS if any(item.category == name for item in self.items)]
        pairs = list(zip(self.items, self.verdicts))
        return {name: [verdict for item, verdict in pairs if item.category == name] for name in names}


def suite(glyphs: GlyphSet, count: int = 200, seed: int = 0) -> list[Item]:
    """`count` held-out captions, as many of each category; the same for the same seed.

    Where a set has too few held-out combinations for that, they come again on coloured grounds. Raises ValueError when
    that does not suffice either.
    """
    items = []
    for number, name in enumerate(CATEGORIES):
        wanted = count // len(CATEGORIES) + (number < count % len(CATEGORIES))
        scenes: dict[Scene, None] = {}
        candidates = _candidates(CATEGORIES[name], glyphs, 60 * wanted, random.Random(f"{seed}/{name}"))
        while len(scenes) < wanted and (scene := next(candidates, None)):
            scenes[scene] = None
        if len(scenes) < wanted:
            raise ValueError(
                f"'{glyphs.name}' has {len(scenes)} held-out scenes for '{name}', not {wanted}: lower count"
            )
        items += [Item(name, scene, caption(scene)) for scene in scenes]
    return items


def _candidates(category: Category, glyphs: GlyphSet, tries: int, rng: random.Random) -> Iterator[Scene]:
    """Scenes for a category, the known ones first, those on a ground that the category is not about last."""
    if category.held == "wear" and glyphs.own_colours:
        yield from (Scene((Thing(body, texture=texture),)) for _, texture, body in sorted(HELD_OUT))
    for ground in (category.ground, 1):
        for _ in range(tries):
            scene = invent(rng, glyphs, {category.kind: 1.0}, ground, category.tint)
            if {combination[0] for combination in withheld(scene)} == {category.held}:
                yield scene


def score(judge: Judge, items: Iterable[Item], images: Iterable[Image.Image | np.ndarray | Tensor]) -> Report:
    """Judge pictures by the items in the same order. images: as `Judge.verdict` takes them."""
    items = tuple(items)

    def verdicts(pairs: Iterable[tuple[Item, Any]]) -> Iterator[Verdict]:
        return (judge.verdict(image, item.scene or item.caption) for item, image in pairs)

    return Report(items, tuple(distributed.distributed_map(zip(items, images, strict=True), verdicts)))


def shuffled(items: Iterable[Item]) -> list[Item]:
    """The items with captions moved on by one within each category: what is true of them is coincidence."""
    items = list(items)
    places: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        places.setdefault(item.category, []).append(i)
    moved = {a: b for group in places.values() for a, b in zip(group, group[1:] + group[:1])}
    return [items[moved[i]] for i in range(len(items))]


def from_folder(path: str, glyphs: GlyphSet) -> Iterator[tuple[Item, Image.Image]]:
    """Items and pictures of a folder in the layout of data source `folder`; the first caption of each counts.

    Raises DataError or BadSample for what cannot be read.
    """
    folder = Folder(path)
    for block, size in enumerate(folder.blocks):
        for index in range(size):
            sample = folder.read(block, index)
            text = sample["text"] if isinstance(sample["text"], str) else next(iter(sample["text"]), "")
            scene = parse(text, glyphs)
            yield Item(category_of(scene), scene, text), sample["image"]


def category_of(scene: Scene | None) -> str:
    """The category that a scene belongs to, whether or not anything in it is held out."""
    if scene is None:
        return "outside"
    if scene.kind == "single":
        return "background" if scene.background else "single"
    return {"texture": "combination"}.get(scene.kind, scene.kind)
