"""The suite of held-out captions that measures composition, and the accuracy of a system on it.

Every caption of the suite holds exactly one combination that training never shows, the one that its category is about.
A category's accuracy is the fraction of its images in which the scene checker found what the category is about; its
exact match is the fraction in which the whole caption is correct. `shuffled` gives the control: each image checked
against another caption of its category.
"""

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
from ..data.scenes.grammar import HELD_OUT, Scene, SceneObject, caption, held_out_combinations, invent, parse
from ..data.scenes.objects import ObjectSet
from .checker import SceneChecker, SceneResult
from .statistics import Proportion, proportion


@dataclass(frozen=True)
class Category:
    """What a part of the suite is about.

    held_out: the kind of combination that is held out; scene: the kind of scene; background_prob, color_prob: the
    chances of a colored background and of a color; parts: the claims that the category's accuracy counts.
    """

    held_out: str
    scene: str
    background_prob: float
    color_prob: float
    parts: tuple[str, ...]


CATEGORIES = {
    "single": Category("tint", "single", 0, 1, ("object", "color", "texture")),
    "background": Category("ground", "single", 1, 0, ("background",)),
    "pair": Category("pair", "pair", 0, 0, ("object",)),
    "relation": Category("pair", "relation", 0, 0, ("object", "relation")),
    "combination": Category("wear", "texture", 0, 0, ("object", "texture")),
}
PARTS = {name: category.parts for name, category in CATEGORIES.items()}
PARTS |= {"count": ("object", "count"), "sign": ("object", "sign")}  # captions that are not from the suite


@dataclass(frozen=True)
class SuiteItem:
    """A caption to check images against. scene: what it says, or None where that is outside the grammar."""

    category: str
    scene: Scene | None
    caption: str


@dataclass(frozen=True)
class SceneReport:
    """The checker's results for the items, in the same order."""

    items: tuple[SuiteItem, ...]
    results: tuple[SceneResult, ...]

    def accuracy(self) -> dict[str, Proportion]:
        """Return by category how often everything that the category is about is correct."""
        return {name: proportion(r.correct(*PARTS[name]) for r in group) for name, group in self._groups().items()}

    def exact_match(self) -> dict[str, Proportion]:
        """Return by category how often the whole caption is correct and nothing else is in the image."""
        return {name: proportion(result.exact_match for result in group) for name, group in self._groups().items()}

    def claims(self) -> dict[str, Proportion]:
        """Return by part of the caption how often what it says is correct."""
        claims = [claim for result in self.results for claim in result.claims if claim.part != "caption"]
        trials = Counter(claim.part for claim in claims)
        correct = Counter(claim.part for claim in claims if claim.correct)
        return {part: Proportion(correct[part], count) for part, count in trials.items()}

    def to_json(self) -> dict[str, Any]:
        """Return accuracy and exact match by category, and the number of images."""
        accuracy = {name: figure.value for name, figure in self.accuracy().items()}
        exact_match = {name: figure.value for name, figure in self.exact_match().items()}
        return {"accuracy": accuracy, "exact_match": exact_match, "num_images": len(self.items)}

    def __str__(self) -> str:
        exact, accuracy = self.exact_match(), self.accuracy()
        lines = [f"{'category':<12} {'images':>8}  {'accuracy (95 % interval)':<26} {'exact match':<26}"]
        lines += [f"{name:<12} {one.trials:>8}  {one!s:<26} {exact[name]!s:<26}" for name, one in accuracy.items()]
        lines += ["", f"{'claim':<12} {'claims':>8}  {'correct (95 % interval)':<26}"]
        lines += [f"{part:<12} {one.trials:>8}  {one}" for part, one in self.claims().items()]
        if outside := len(self.items) - sum(one.trials for one in exact.values()):
            lines += ["", f"{outside} captions are outside the grammar of the scenes and were not checked"]
        return "\n".join(line.rstrip() for line in lines)

    def _groups(self) -> dict[str, list[SceneResult]]:
        names = [name for name in PARTS if any(item.category == name for item in self.items)]
        pairs = list(zip(self.items, self.results))
        return {name: [result for item, result in pairs if item.category == name] for name in names}


def suite(object_set: ObjectSet, count: int = 200, seed: int = 0) -> list[SuiteItem]:
    """Return `count` held-out captions, equally many of each category; a function of the seed.

    A set with too few held-out combinations for that repeats them on colored backgrounds. Raises ValueError when these
    do not suffice either.
    """
    items = []
    for number, name in enumerate(CATEGORIES):
        wanted = count // len(CATEGORIES) + (number < count % len(CATEGORIES))
        scenes: dict[Scene, None] = {}
        candidates = _candidates(CATEGORIES[name], object_set, 60 * wanted, random.Random(f"{seed}/{name}"))
        while len(scenes) < wanted and (scene := next(candidates, None)):
            scenes[scene] = None
        if len(scenes) < wanted:
            raise ValueError(
                f"objects '{object_set.name}' give {len(scenes)} held-out scenes for '{name}', not {wanted}: lower "
                "--num-captions"
            )
        items += [SuiteItem(name, scene, caption(scene)) for scene in scenes]
    return items


def _candidates(category: Category, object_set: ObjectSet, tries: int, rng: random.Random) -> Iterator[Scene]:
    """Yield scenes for a category: known ones first, last those on a background that the category is not about."""
    if category.held_out == "wear" and object_set.natural_colors:
        yield from (Scene((SceneObject(body, texture=texture),)) for _, texture, body in sorted(HELD_OUT))
    for background_prob in (category.background_prob, 1):
        for _ in range(tries):
            scene = invent(rng, object_set, {category.scene: 1.0}, background_prob, category.color_prob)
            if {combination[0] for combination in held_out_combinations(scene)} == {category.held_out}:
                yield scene


def check_images(
    checker: SceneChecker, items: Iterable[SuiteItem], images: Iterable[Image.Image | np.ndarray | Tensor]
) -> SceneReport:
    """Check images against the items in the same order. images: as `SceneChecker.check` takes them."""
    items = tuple(items)

    def results(pairs: Iterable[tuple[SuiteItem, Any]]) -> Iterator[SceneResult]:
        return (checker.check(image, item.scene or item.caption) for item, image in pairs)

    return SceneReport(items, tuple(distributed.distributed_map(zip(items, images, strict=True), results)))


def shuffled(items: Iterable[SuiteItem]) -> list[SuiteItem]:
    """Return the items with captions rotated by one within each category: what is then correct is coincidence."""
    items = list(items)
    positions: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        positions.setdefault(item.category, []).append(i)
    moved = {a: b for group in positions.values() for a, b in zip(group, group[1:] + group[:1])}
    return [items[moved[i]] for i in range(len(items))]


def item_of(text: str, object_set: ObjectSet) -> SuiteItem:
    """Return the item of any caption."""
    scene = parse(text, object_set)
    return SuiteItem(category_of(scene), scene, text)


def from_folder(path: str, object_set: ObjectSet) -> Iterator[tuple[SuiteItem, Image.Image]]:
    """Yield items and images of a folder in the layout of data source `folder`, each with its first caption.

    Raises DataError or BadSample for what cannot be read.
    """
    folder = Folder(path)
    for block, size in enumerate(folder.blocks):
        for index in range(size):
            sample = folder.read(block, index)
            text = sample["text"] if isinstance(sample["text"], str) else next(iter(sample["text"]), "")
            yield item_of(text, object_set), sample["image"]


def category_of(scene: Scene | None) -> str:
    """Return the category that a scene belongs to, whether or not anything in it is held out."""
    if scene is None:
        return "outside"
    if scene.kind == "single":
        return "background" if scene.background else "single"
    return {"texture": "combination"}.get(scene.kind, scene.kind)
