"""Figures of `dalle probe`: groups of drawn pictures, judged by their captions, beside each other."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from .. import images
from ..data.scenes.glyphs import GlyphSet
from ..data.scenes.grammar import parse
from .checker import Judge
from .diversity import Mean, mean
from .suite import Item, Share, category_of, score


@dataclass(frozen=True)
class Figures:
    """Of a group of pictures: how many are as asked, of those with captions of the scenes' grammar, and the scores."""

    asked: Share
    score: Mean | None

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON; what could not be measured is null."""
        asked = (
            {"asked": self.asked.true / self.asked.count, "interval": self.asked.interval} if self.asked.count else {}
        )
        scored = {"score": self.score.value, "score_interval": self.score.interval} if self.score else {}
        return {"judged": self.asked.count, **asked, **scored}


def opened(path: str) -> Image.Image:
    """The square of a picture file, as the judge wants it. Raises BadImage."""
    try:
        picture = images.decode(path)
    except images.BadImage as error:
        raise images.BadImage(f"{path}: {error}") from None
    return images.center_crop(picture, min(picture.size))


def judged(court: Judge, results: Iterable[Mapping[str, Any]]) -> Share:
    """How many of the pictures of results show what the category of their prompt asks."""
    items, pictures = [], []
    for result in results:
        scene = parse(result.get("prompt") or "", court.glyphs)
        if scene is not None and "error" not in result:
            items.append(Item(category_of(scene), scene, result["prompt"]))
            pictures.append(opened(result["path"]))
    found = score(court, items, pictures).figures().values()
    return Share(sum(share.true for share in found), sum(share.count for share in found))


def by_kind(results: Sequence[Mapping[str, Any]], key: str, glyphs: GlyphSet) -> dict[str, Figures]:
    """Figures of results grouped by a field."""
    court, found = Judge(glyphs), {}
    for kind in dict.fromkeys(result[key] for result in results if key in result):
        group = [result for result in results if result.get(key) == kind]
        scores = [result["score"] for result in group if isinstance(result.get("score"), float)]
        found[kind] = Figures(judged(court, group), mean(scores) if scores else None)
    return found


def table(title: str, found: Mapping[str, Figures]) -> list[str]:
    """Lines of text: a row for each group."""
    lines = [f"{title:<16} {'pictures':>8}  {'as asked (95 % interval)':<26} {'score':<16}"]
    for name, one in found.items():
        asked = str(one.asked) if one.asked.count else "outside the grammar"
        lines.append(f"{name:<16} {one.asked.count:>8}  {asked:<26} {one.score or ''!s:<16}")
    return [line.rstrip() for line in lines]
