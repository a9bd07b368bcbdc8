"""Scoring pictures against prompts with CLIP, and keeping the best."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import checkpoint, images
from ..tasks.clip import CLIPTask
from .device import Device

BATCH = 256  # pictures scored together


class Scorer:
    """A CLIP checkpoint that gives the cosine of pictures and texts."""

    def __init__(self, device: Device, model: str):
        task = checkpoint.load(model, "clip")
        assert isinstance(task, CLIPTask)
        self.task = task.to(device.name)
        self.device = device
        self.size = task.model.visual.size
        self.file = checkpoint.resolve(model)
        self._texts: dict[str, Tensor] = {}

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Unit features of prompts, (B, e); each is computed once."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        for start in range(0, len(new), BATCH):
            with self.device.autocast():
                features = self.task.embed_texts(new[start : start + BATCH]).cpu()
            self._texts.update(zip(new[start : start + BATCH], features))
        return torch.stack([self._texts[prompt] for prompt in prompts])

    @torch.no_grad()
    def pictures(self, batch: Tensor, watch: Callable[[int], Any] | None = None) -> Tensor:
        """Unit features of square pictures of any size, (B, 3, S, S) in [-1, 1] to (B, e)."""
        features = []
        for part in batch.split(BATCH):
            if part.shape[-1] != self.size:
                part = F.interpolate(part, self.size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
            with self.device.autocast():
                features.append(self.task.embed_images(part.to(self.device.name)).cpu())
            if watch:
                watch(len(part))
        return torch.cat(features)

    def read(self, path: str) -> Tensor:
        """A picture file as the tower wants it: (3, size, size). Raises BadPicture."""
        return images.to_tensor(images.square(images.decode(path), self.size))
