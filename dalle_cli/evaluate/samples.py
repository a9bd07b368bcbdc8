"""Captioned images to evaluate on: scenes that no training run has seen, or the user's own data."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import loader
from ..data.scenes import Scenes
from ..data.scenes.grammar import Scene, caption
from ..data.scenes.render import place, render
from ..images import to_float

SEED = "unseen"  # training seeds are numbers
BATCH = 64  # images of the user's own data that are read at once


@dataclass(frozen=True)
class Sample:
    """A caption and its image, uint8 (S, S, 3)."""

    caption: str
    image: np.ndarray


@dataclass(frozen=True)
class SceneSample(Sample):
    """A sample that a program rendered from a scene."""

    scene: Scene


def unseen(
    count: int,
    size: int,
    objects: str,
    distinct: bool = False,
    scene_weights: dict[str, float] | None = None,
    random_positions: bool = True,
) -> Iterator[SceneSample]:
    """Yield `count` unseen scenes of `size` pixels with their plain captions; the same ones at every call.

    distinct: no caption twice. scene_weights, random_positions: as the data source `scenes` takes them.
    """
    source = Scenes(size, objects, scene_weights=scene_weights)
    captions: set[str] = set()
    number = 0
    while count:
        rng = random.Random(f"{SEED}/{number}")
        number += 1
        scene = source.scene(rng)
        text = caption(scene)
        if distinct and text in captions:
            continue
        captions.add(text)
        count -= 1
        yield SceneSample(
            text, render(scene, place(scene, rng, random_positions), size, source.object_set.drawn), scene
        )


def second_images(scenes: Sequence[Scene], size: int, objects: str) -> Iterator[np.ndarray]:
    """Yield second images of scenes, which their captions fit as well: the same objects in other positions."""
    source = Scenes(size, objects)
    for number, scene in enumerate(scenes):
        rng = random.Random(f"{SEED}/again/{number}")
        yield render(scene, place(scene, rng), size, source.object_set.drawn)


def from_data(data: Mapping[str, Any], count: int, size: int, captions: bool = True) -> list[Sample]:
    """Read up to `count` samples of a `data` section, cropped to `size` pixels, in the order of seed 0.

    captions: whether a sample without a caption is bad; else its caption is "". Raises RecipeError, DataError.
    """
    source = loader.build(loader.check({"require_captions": captions, **data, "size": size, "val_samples": 0}))
    count = min(count, source.samples)
    samples: list[Sample] = []
    for batch in source.train(min(BATCH, count)):
        samples += map(Sample, batch["text"], _to_uint8(batch["image"]))
        if len(samples) >= count:
            return samples[:count]
    return samples


def load(
    count: int,
    size: int,
    objects: str,
    data: Mapping[str, Any] | None = None,
    distinct: bool = False,
    captions: bool = True,
) -> Sequence[Sample]:
    """Return samples of a `data` section, see `from_data`, or unseen scenes where there is none, see `unseen`."""
    return from_data(data, count, size, captions) if data else list(unseen(count, size, objects, distinct))


def batch(images: Sequence[np.ndarray]) -> Tensor:
    """Stack images as a network takes them: (B, 3, S, S) in [-1, 1]."""
    return to_float(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous())


def _to_uint8(image: Tensor) -> np.ndarray:
    """(B, 3, S, S) in [-1, 1] to uint8 (B, S, S, 3)."""
    return ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
