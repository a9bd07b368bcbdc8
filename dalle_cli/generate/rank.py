"""Scoring pictures against prompts with CLIP, and keeping the best."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import checkpoint, images
from ..nn.hardware import free_memory
from ..nn.meter import FEW, SHARE, together
from ..tasks.clip import CLIPTask
from ..tasks.noised_clip import NoisedCLIPTask
from .device import Device

BATCH = 256  # pictures scored together


class Scorer:
    """A CLIP checkpoint, noised or not, that gives the cosine of pictures and texts."""

    def __init__(self, device: Device, model: str):
        task = device.load(model, ("clip", "noised-clip"))
        assert isinstance(task, CLIPTask | NoisedCLIPTask)
        self.task = task
        self.device = device
        self.size = task.model.visual.size
        self.file = checkpoint.resolve(model)
        self._texts: dict[str, Tensor] = {}
        self._together: int | None = None

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Unit features of prompts, (B, e); each is computed once."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        for start in range(0, len(new), BATCH):
            with self.device.turn(self.task), self.device.autocast():
                features = self.task.embed_texts(new[start : start + BATCH]).cpu()
            self._texts.update(zip(new[start : start + BATCH], features))
        return torch.stack([self._texts[prompt] for prompt in prompts])

    @torch.no_grad()
    def pictures(self, batch: Tensor, watch: Callable[[int], Any] | None = None) -> Tensor:
        """Unit features of square pictures of any size, (B, 3, S, S) in [-1, 1] to (B, e)."""
        if len(batch) > FEW and self._together is None:
            room = int(SHARE * free_memory(self.device.name))
            self._together = together(self.try_scoring, BATCH, BATCH, room)
        features = []
        for part in batch.split(self._together or BATCH):
            if part.shape[-1] != self.size:
                part = F.interpolate(part, self.size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
            features.append(self._embed(part))
            if watch:
                watch(len(part))
        return torch.cat(features)

    def try_scoring(self, count: int) -> None:
        """Score so many blank pictures, to see what that takes."""
        self._embed(torch.zeros(count, 3, self.size, self.size))

    def _embed(self, batch: Tensor) -> Tensor:
        with self.device.turn(self.task), self.device.autocast():
            return self.task.embed_images(batch.to(self.device.name)).cpu()

    def read(self, path: str) -> Tensor:
        """A picture file as the tower wants it: (3, size, size). Raises BadPicture."""
        return images.to_tensor(images.square(images.decode(path), self.size))
