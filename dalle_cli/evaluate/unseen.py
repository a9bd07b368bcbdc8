"""Scenes that no training run has seen: a seed of their own, and combinations held out or not."""

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..data.scenes import Scenes
from ..data.scenes.draw import draw, place
from ..data.scenes.grammar import Scene, caption
from ..images import to_float

SEED = "unseen"  # training seeds are numbers


def scenes(count: int, size: int, glyphs: str, distinct: bool = False) -> Iterator[tuple[Scene, str, np.ndarray]]:
    """`count` scenes with their plain captions and pictures, uint8 (size, size, 3). distinct: no caption twice."""
    source = Scenes(size, glyphs)
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
        yield scene, text, draw(scene, place(scene, rng), size, source.glyphs.drawn)


def batch(pictures: list[np.ndarray]) -> Tensor:
    """Pictures as a network wants them: (B, 3, S, S) in [-1, 1]."""
    return to_float(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous())
