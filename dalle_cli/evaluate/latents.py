"""Figures of what is done with the latents of pictures: redrawn, varied, edited. Ramesh et al. 2022, section 3.

Scenes are unseen; what pictures show is judged by a program.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from PIL import Image

from ..data.scenes.draw import draw, place
from ..data.scenes.glyphs import BACKGROUNDS, TINTS, GlyphSet
from ..data.scenes.grammar import Scene, caption, held_out, invent
from .checker import Judge, Verdict
from .diversity import Mean, mean
from .suite import Share
from .unseen_scenes import SEED

NEAR = 25.0  # dB of PSNR over which a picture counts as given back
TRIES = 10_000


@dataclass(frozen=True)
class Return:
    """How near pictures come back: PSNR in dB, the mean over pictures, and how many are over NEAR."""

    psnr: Mean
    near: Share

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON; one picture has no interval."""
        shares = {"near": self.near.true / max(self.near.count, 1), "near_interval": self.near.interval}
        interval = self.psnr.interval if self.psnr.count > 1 else None
        return {"psnr": self.psnr.value, "psnr_interval": interval, "near_db": NEAR, **shares}

    def __str__(self) -> str:
        return f"PSNR {self.psnr.value:.2f} ± {self.psnr.reach:.2f} dB on average; over {NEAR:g} dB: {self.near}"


def returned(ratios: Sequence[float]) -> Return:
    """Of the PSNR of each picture, dB."""
    return Return(mean(ratios), Share(sum(one > NEAR for one in ratios), len(ratios)))


def shown(verdicts: Iterable[Verdict]) -> Share:
    """In how many pictures every object is there."""
    rows = [one.holds("object") for one in verdicts]
    return Share(sum(rows), len(rows))


def both(verdicts: Sequence[Verdict]) -> Share:
    """Of the ways from each picture to the next, how many show their objects at both ends."""
    rows = [one.holds("object") for one in verdicts]
    return Share(sum(a and b for a, b in pairwise(rows)), max(len(rows) - 1, 0))


@dataclass(frozen=True)
class Edit:
    """A picture of a single thing, uint8 (S, S, 3), and the attribute of it that is to change."""

    part: Literal["colour", "background"]
    before: Scene
    after: Scene
    picture: np.ndarray

    @property
    def captions(self) -> tuple[str, str]:
        """Of the picture as it is, and as it is to become."""
        return caption(self.before), caption(self.after)


@dataclass(frozen=True)
class Outcome:
    """What an edit did. turned: the attribute is as asked; kept: the object is the same."""

    part: str
    turned: bool
    kept: bool


def edits(count: int, size: int, glyphs: GlyphSet, scatter: bool = True) -> Iterator[Edit]:
    """`count` unseen scenes of one thing with an edit each, of its tint or of the ground in turn.

    scatter: as the data source takes it. Neither end is a combination that was held out of training. Raises ValueError
    where a set has no such scenes.
    """
    for number in range(count):
        rng = random.Random(f"{SEED}/edit/{number}")
        part: Literal["colour", "background"] = "colour" if number % 2 == 0 else "background"
        for _ in range(TRIES):
            before = invent(rng, glyphs, {"single": 1.0}, part == "background", part == "colour")
            (thing,) = before.things
            if part == "colour":
                after = Scene((replace(thing, colour=rng.choice([one for one in TINTS if one != thing.colour])),))
            else:
                taken = {before.background, thing.colour}
                after = replace(before, background=rng.choice([one for one in BACKGROUNDS if one not in taken]))
            if not held_out(before) and not held_out(after):
                break
        else:
            raise ValueError(f"'{glyphs.name}' has no scenes to edit that training may show")
        yield Edit(part, before, after, draw(before, place(before, rng, scatter), size, glyphs.drawn))


def outcome(judge: Judge, edit: Edit, picture: Image.Image) -> Outcome:
    """Judge a picture by what it was to become."""
    found = judge.verdict(picture, edit.after)
    return Outcome(edit.part, found.holds(edit.part), found.holds("object"))


def turned(outcomes: Sequence[Outcome]) -> dict[str, Share]:
    """Shares of edits: `edited` (turned and kept), these two alone, and `edited` of each attribute."""
    rows = list(outcomes)
    done = [one.turned and one.kept for one in rows]
    found = {
        "edited": Share(sum(done), len(rows)),
        "turned": Share(sum(one.turned for one in rows), len(rows)),
        "kept": Share(sum(one.kept for one in rows), len(rows)),
    }
    for part in dict.fromkeys(one.part for one in rows):
        own = [ok for ok, one in zip(done, rows) if one.part == part]
        found[part] = Share(sum(own), len(own))
    return found
