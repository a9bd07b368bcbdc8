"""Scoring images against texts with one CLIP or several."""

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

BATCH = 256  # images scored at once, at most
DIGITS = 5  # of a score


class Scorer:
    """CLIP checkpoints, noised or not, that score images against texts with the mean of their cosines.

    models: one checkpoint or several. Their features, concatenated and divided by the root of their number, are unit
    vectors whose product is that mean. files: the checkpoint files, by the name that image metadata has for them.
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
        self._batch_size: int | None = None

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Return unit features of prompts, (B, e); each prompt is encoded once."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            features = _concatenate([self._run(task, task.embed_texts, batch) for task in self.tasks])
            self._texts.update(zip(batch, features))
        return torch.stack([self._texts[prompt] for prompt in prompts])

    @torch.no_grad()
    def images(self, batch: Tensor, on_images: Callable[[int], Any] | None = None) -> Tensor:
        """Return unit features of square images of any size, (B, 3, S, S) in [-1, 1] to (B, e)."""
        if len(batch) > SMALL_BATCH and self._batch_size is None:
            budget = int(MEMORY_FRACTION * free_memory(self.device.name)) - self.prepacked_bytes()
            self._batch_size = choose_batch_size(self.rehearse, BATCH, BATCH, budget)
        features = []
        with self._prepacked():
            for part in batch.split(self._batch_size or BATCH):
                features.append(self._embed(part))
                if on_images:
                    on_images(len(part))
        return torch.cat(features)

    def _prepacked(self) -> AbstractContextManager:
        """Prepack the weights of all models, unless they are offloaded."""
        stack = ExitStack()
        if not self.device.offload:
            with self.device.autocast():
                stack.enter_context(prepacked(*self._towers()))
        return stack

    def prepacked_bytes(self) -> int:
        """Return the bytes of the prepacked weights."""
        with self.device.autocast():
            return 0 if self.device.offload or self.device.name != "cpu" else prepacked_bytes(*self._towers())

    def _towers(self) -> list[nn.Module]:
        return [task.model.visual for task in self.tasks]

    def rehearse(self, count: int) -> None:
        """Score `count` blank images, to measure the memory that it takes."""
        self._embed(torch.zeros(count, 3, self.size, self.size))

    def _embed(self, batch: Tensor) -> Tensor:
        resized = [_resize(batch, task.model.visual.size).to(self.device.name) for task in self.tasks]
        return _concatenate([self._run(task, task.embed_images, part) for task, part in zip(self.tasks, resized)])

    def _run(self, task: CLIPTask | NoisedCLIPTask, embed: Callable[[Any], Tensor], batch: Any) -> Tensor:
        with self.device.inference(task, prepack=False):
            return embed(batch).cpu()

    def read(self, path: str) -> Tensor:
        """Return an image file at the size of the largest tower, (3, size, size). Raises BadImage."""
        return images.to_tensor(images.square(images.decode(path), self.size))


def _resize(batch: Tensor, size: int) -> Tensor:
    if batch.shape[-1] == size:
        return batch
    return F.interpolate(batch, size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)


def _concatenate(features: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(features), dim=1) / len(features) ** 0.5
