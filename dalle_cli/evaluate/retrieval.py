"""How well a CLIP tells the captions of unseen scenes apart."""

from dataclasses import dataclass
from typing import Any

import torch

from .. import checkpoint
from ..exits import USAGE, Failure
from ..hardware.capabilities import fast_bf16
from . import unseen_scenes


@dataclass(frozen=True)
class Report:
    """Shares of pictures whose caption comes first, and of captions whose picture does, among `among` of them."""

    pictures: int
    among: int
    caption_first: float
    picture_first: float


@torch.no_grad()
def evaluate(model: str, count: int, glyphs: str, among: int = 100) -> Report:
    """Score unseen scenes with distinct captions in groups of `among`. Raises CheckpointError."""
    if count < among:
        raise Failure(f"--count {count} is less than --among {among}: nothing to choose from", USAGE)
    task: Any = checkpoint.load(model, ("clip", "noised-clip"))
    size = task.model.visual.size
    found = list(unseen_scenes.scenes(count - count % among, size, glyphs, distinct=True))
    images, texts = [], []
    for start in range(0, len(found), among):
        group = found[start : start + among]
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
            images.append(task.embed_images(unseen_scenes.batch([picture for _, _, picture in group])))
            texts.append(task.embed_texts([text for _, text, _ in group]))
    scores = torch.stack(images) @ torch.stack(texts).mT  # (groups, pictures, captions)
    right = torch.arange(among)
    captions = (scores.argmax(dim=2) == right).float().mean().item()
    pictures = (scores.argmax(dim=1) == right).float().mean().item()
    return Report(len(found), among, captions, pictures)
