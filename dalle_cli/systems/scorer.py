"""Scoring pictures against prompts with CLIP, and keeping the best."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import checkpoint, images
from ..hardware.capabilities import free_memory
from ..hardware.memory_meter import MEMORY_FRACTION, SMALL_BATCH, choose_batch_size
from ..nn.prepacked import prepacked, prepacked_bytes
from ..tasks.clip import CLIPTask
from ..tasks.noised_clip import NoisedCLIPTask
from .device import Device

BATCH = 256  # pictures scored together
DIGITS = 5  # of a score


class Scorer:
    """CLIP checkpoints, noised or not, that score pictures of texts: with the mean of their cosines.

    models: one checkpoint or several. Their features side by side, divided by the root of their number, are unit
    vectors whose product is that mean.
    """

    def __init__(self, device: Device, models: str | Sequence[str]):
        names = [models] if isinstance(models, str) else list(dict.fromkeys(models))
        self.tasks: list[CLIPTask | NoisedCLIPTask] = []
        for name in names:
            task = device.load(name, ("clip", "noised-clip"))
            assert isinstance(task, CLIPTask | NoisedCLIPTask)
            self.tasks.append(task)
        self.device = device
        self.size = max(task.model.visual.size for task in self.tasks)
        self.files = {"reranker" + f"_{i + 1}" * (i > 0): checkpoint.resolve(name) for i, name in enumerate(names)}
        self._texts: dict[str, Tensor] = {}
        self._together: int | None = None

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Unit features of prompts, (B, e); each is computed once."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        for start in range(0, len(new), BATCH):
            some = new[start : start + BATCH]
            features = _side_by_side([self._run(task, task.embed_texts, some) for task in self.tasks])
            self._texts.update(zip(some, features))
        return torch.stack([self._texts[prompt] for prompt in prompts])

    @torch.no_grad()
    def pictures(self, batch: Tensor, watch: Callable[[int], Any] | None = None) -> Tensor:
        """Unit features of square pictures of any size, (B, 3, S, S) in [-1, 1] to (B, e)."""
        if len(batch) > SMALL_BATCH and self._together is None:
            room = int(MEMORY_FRACTION * free_memory(self.device.name)) - self.copies()
            self._together = choose_batch_size(self.try_scoring, BATCH, BATCH, room)
        features = []
        with self._packed():
            for part in batch.split(self._together or BATCH):
                features.append(self._embed(part))
                if watch:
                    watch(len(part))
        return torch.cat(features)

    def _packed(self) -> AbstractContextManager:
        """The models with their weights laid out; not where they come for their turn."""
        stack = ExitStack()
        if not self.device.offload:
            with self.device.autocast():
                stack.enter_context(prepacked(*self._towers()))
        return stack

    def copies(self) -> int:
        """Bytes of the weights that are laid out."""
        with self.device.autocast():
            return 0 if self.device.offload or self.device.name != "cpu" else prepacked_bytes(*self._towers())

    def _towers(self) -> list[nn.Module]:
        return [task.model.visual for task in self.tasks]

    def try_scoring(self, count: int) -> None:
        """Score so many blank pictures, to see what that takes."""
        self._embed(torch.zeros(count, 3, self.size, self.size))

    def _embed(self, batch: Tensor) -> Tensor:
        sized = [_resized(batch, task.model.visual.size).to(self.device.name) for task in self.tasks]
        return _side_by_side([self._run(task, task.embed_images, some) for task, some in zip(self.tasks, sized)])

    def _run(self, task: CLIPTask | NoisedCLIPTask, embed: Callable[[Any], Tensor], batch: Any) -> Tensor:
        with self.device.turn(task), self.device.autocast():
            return embed(batch).cpu()

    def read(self, path: str) -> Tensor:
        """A picture file as the largest tower wants it: (3, size, size). Raises BadImage."""
        return images.to_tensor(images.square(images.decode(path), self.size))


def _resized(batch: Tensor, size: int) -> Tensor:
    if batch.shape[-1] == size:
        return batch
    return F.interpolate(batch, size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)


def _side_by_side(features: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(features), dim=1) / len(features) ** 0.5
