"""Scenes that no training run has seen: a seed of their own, and combinations held out or not."""

import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..data.scenes import Scenes
from ..data.scenes.draw import draw, place
from ..data.scenes.grammar import Scene, caption
from ..images import to_float

SEED = "unseen"  # training seeds are numbers


def scenes(
    count: int,
    size: int,
    glyphs: str,
    distinct: bool = False,
    kinds: dict[str, float] | None = None,
    scatter: bool = True,
) -> Iterator[tuple[Scene, str, np.ndarray]]:
    """`count` scenes with their plain captions and pictures, uint8 (size, size, 3).

    distinct: no caption twice. kinds, scatter: of the scenes, as the data source takes them.
    """
    source = Scenes(size, glyphs, kinds=kinds)
    seen: set[str] = set()
    number = 0
    while count:
        rng = random.Random(f"{SEED}/{number}")
        number += 1
        scene = source.scene(rng)
        text = caption(scene)
        if distinct and text in seen:
            continue
        seen.add(text)
        count -= 1
        yield scene, text, draw(scene, place(scene, rng, scatter), size, source.glyphs.drawn)


def again(found: Sequence[Scene], size: int, glyphs: str) -> Iterator[np.ndarray]:
    """Second pictures of scenes, which their captions fit as well: the same things elsewhere."""
    source = Scenes(size, glyphs)
    for number, scene in enumerate(found):
        rng = random.Random(f"{SEED}/again/{number}")
        yield draw(scene, place(scene, rng), size, source.glyphs.drawn)


def batch(pictures: list[np.ndarray]) -> Tensor:
    """Pictures as a network wants them: (B, 3, S, S) in [-1, 1]."""
    return to_float(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous())
