"""DALL-E 1 as a system: the transformer draws codes of candidates, the dVAE decodes them, CLIP chooses among them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import checkpoint, images
from ..hardware.capabilities import free_memory
from ..hardware.memory_meter import MEMORY_FRACTION, SMALL_BATCH, MemoryMeter, choose_batch_size
from ..registry import RecipeError
from ..tasks.dalle import DALLETask
from . import systems
from .device import Device
from .memory import Needs


@dataclass(frozen=True)
class Sampling:
    """The `sample` section. temperature: 0 is greedy. guidance_scale: classifier-free guidance, 1 disables it."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    guidance_scale: float = 1.0

    def __post_init__(self):
        if not 0 <= self.temperature < 100:
            raise RecipeError(f"temperature {self.temperature} is not between 0 and 100")
        if self.top_k is not None and self.top_k < 1:
            raise RecipeError(f"top-k {self.top_k} is not at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise RecipeError(f"top-p {self.top_p} is not in (0, 1]")


@systems.register("dalle1")
class DALLE1:
    """Draws pictures of prompts. transformer: a checkpoint; dvae: one to take instead of the transformer's own."""

    sampling = Sampling
    together = 128

    @staticmethod
    def check(options: Sampling, parts: Mapping[str, Any]) -> None:
        """Nothing of options depends on parts."""

    def __init__(self, device: Device, transformer: str, dvae: str | None = None):
        frozen = {"dvae": dvae} if dvae else None
        task = device.load(transformer, "dalle", frozen)
        assert isinstance(task, DALLETask)
        self.device = device
        self.task = task
        self.task.model.to(device.dtype)
        self.size = self.task.model.grid_size * self.task.dvae.factor
        self._transformer = checkpoint.resolve(transformer)
        self._decoding: int | None = None  # pictures decoded together

    def files(self, options: Sampling) -> dict[str, Path]:
        """The checkpoints that draw with these options, by name."""
        return {"transformer": self._transformer}

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[Sequence[int]],
        options: Sampling,
        batch: int,
        first: Tensor | None = None,
        watch: Callable[[int], Any] | None = None,
    ) -> Tensor:
        """Pictures, (prompts, candidates, 3, S, S) in [-1, 1], on the CPU.

        seeds: of each candidate of each prompt, as many for all. batch: candidates of a prompt drawn together. first:
        codes that all pictures begin with. watch: called with the number of pictures finished.
        """
        rows = []
        for part in range(0, len(seeds[0]), batch):
            own = [one[part : part + batch] for one in seeds]
            codes = self.task.sample(
                prompts, own, options.temperature, options.top_k, options.top_p, options.guidance_scale, first
            )
            pictures = self._decode(codes.flatten(0, 1))
            rows.append(pictures.unflatten(0, codes.shape[:2]))
            if watch:
                watch(len(pictures))
        return torch.cat(rows, dim=1)

    def needs(self, options: Sampling) -> Needs:
        """What drawing holds in memory, by the number of prompts and candidates; tried with few."""

        def held(prompts: int, candidates: int) -> int:
            with MemoryMeter() as meter:
                self.task.probe_memory(
                    prompts, candidates, options.temperature, options.top_k, options.top_p, options.guidance_scale
                )
            return meter.peak["all"]

        least = held(1, 2)
        candidate = held(1, 3) - least
        prompt = held(2, 2) - least - 2 * candidate
        return Needs(least - prompt - 2 * candidate, prompt, candidate, 4 * 3 * self.size**2)

    def try_decoding(self, count: int) -> None:
        """Decode so many pictures of one code, to see what that takes."""
        grid = self.task.model.grid_size
        self._decoded(torch.zeros(count, grid, grid, dtype=torch.int64, device=self.task.model.start.device))

    def _decode(self, codes: Tensor) -> Tensor:
        """(B, h, w) to (B, 3, S, S) on the CPU, as many at a time as memory is free for."""
        if len(codes) > SMALL_BATCH and self._decoding is None:
            room = int(MEMORY_FRACTION * free_memory(self.device.name))
            self._decoding = choose_batch_size(self.try_decoding, self.together, self.together, room)
        return torch.cat([self._decoded(part) for part in codes.split(self._decoding or self.together)])

    @torch.no_grad()
    def _decoded(self, codes: Tensor) -> Tensor:
        with self.device.autocast():
            return self.task.dvae.decode(codes).float().cpu()

    def begin_with(self, picture: str | Path, rows: int) -> Tensor:
        """The codes of the upper `rows` rows of a picture, which is cropped to a square and resized. (rows * grid,)."""
        if not 0 < rows < self.task.model.grid_size:
            raise RecipeError(
                f"--keep-rows {rows}: the picture has {self.task.model.grid_size} rows of codes; keep fewer"
            )
        image = images.square(images.decode(picture), self.size)
        codes = self.task.encode(images.to_tensor(image)[None].to(self.device.name))
        return codes[0, :rows].flatten()
