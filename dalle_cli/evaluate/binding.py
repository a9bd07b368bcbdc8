"""Whether a system binds attributes: two objects, two colours, and which of them goes with which.

Ramesh et al. 2022, section 7 (figures 14 and 15): "a red cube on top of a blue cube" comes out with its colours
exchanged, as an embedding of the whole does not say what belongs to what.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ..data.scenes.glyphs import TINTS, GlyphSet
from ..data.scenes.grammar import Scene, Thing, held_out
from .checker import Judge
from .grouped import opened
from .suite import Share

OUTCOMES = ("bound", "exchanged", "objects")


def scenes(glyphs: GlyphSet, count: int, seed: int = 0) -> list[Scene]:
    """`count` scenes of two things in two colours, nothing of them held out of training; the same for the same seed.

    Raises ValueError where a set has not so many.
    """
    rng = random.Random(f"binding/{seed}")
    found: dict[Scene, None] = {}
    for _ in range(40 * count):
        if len(found) == count:
            break
        names, colours = rng.sample(glyphs.names, 2), rng.sample(list(TINTS), 2)
        scene = Scene(tuple(Thing(name, colour) for name, colour in zip(names, colours)))
        if not held_out(scene):
            found[scene] = None
    if len(found) < count:
        raise ValueError(f"'{glyphs.name}' has {len(found)} scenes of two colours, not {count}: lower the count")
    return list(found)


def exchanged(scene: Scene) -> Scene:
    """The scene with the colours of its two things exchanged."""
    one, other = scene.things
    return Scene((Thing(one.glyph, other.colour), Thing(other.glyph, one.colour)))


def outcome(judge: Judge, scene: Scene, picture: Image.Image | np.ndarray | Tensor) -> dict[str, bool]:
    """What a picture shows of a scene: both things as they are coloured (`bound`), both in the other's colour
    (`exchanged`), both in any colour (`objects`)."""
    found = judge.verdict(picture, scene)
    bound = found.holds("object", "colour")
    other = not bound and judge.verdict(picture, exchanged(scene)).holds("object", "colour")
    return {"bound": bound, "exchanged": other, "objects": found.holds("object")}


def outcomes(
    judge: Judge, scenes: Sequence[Scene], paths: Sequence[Sequence[str]], watch: Callable[[], Any] | None = None
) -> list[list[dict[str, bool]]]:
    """The outcomes of picture files, some of each scene."""
    found = []
    for scene, own in zip(scenes, paths, strict=True):
        found.append([outcome(judge, scene, opened(path)) for path in own])
        if watch:
            watch()
    return found


def name(found: Mapping[str, bool]) -> str:
    """An outcome in a word or two."""
    return next((key for key in OUTCOMES if found[key]), "not both objects")


def shares(outcomes: Iterable[Mapping[str, bool]]) -> dict[str, Share]:
    """Each outcome's share of all pictures."""
    rows = list(outcomes)
    return {name: Share(sum(row[name] for row in rows), len(rows)) for name in OUTCOMES}


def table(found: Mapping[str, Mapping[str, Share]]) -> Sequence[str]:
    """Lines of text: a row for each system, its shares with their 95 % intervals."""
    head = f"{'system':<12} " + " ".join(f"{name:<24}" for name in OUTCOMES)
    rows = [f"{system:<12} " + " ".join(f"{share!s:<24}" for share in row.values()) for system, row in found.items()]
    return [line.rstrip() for line in (head, *rows)]
