"""DALL-E 1 (Ramesh et al. 2021): a transformer samples image tokens after the text, and the dVAE decodes them."""

from collections.abc import Mapping, Sequence
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
from .memory_needs import MemoryNeeds
from .system import KnownAtSize, OnImages, OnStep, System


@dataclass(frozen=True)
class DALLE1Options:
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
        if not 0 <= self.guidance_scale < 1000:
            raise RecipeError(f"guidance_scale {self.guidance_scale} is not between 0 and 1000")


@systems.register("dalle1")
class DALLE1(System):
    """Generates images from prompts. transformer: a checkpoint; dvae: one that replaces the transformer's own."""

    options_type = DALLE1Options
    default_batch_size = 128
    supports_image_prefix = True
    estimates_memory = True
    needs_reranking = True

    @staticmethod
    def check(options: DALLE1Options, parts: Mapping[str, Any]) -> None:
        """Accept all options: none of them depends on the parts."""

    def __init__(self, device: Device, transformer: str, dvae: str | None = None):
        task = device.load(transformer, "dalle", {"dvae": dvae} if dvae else None)
        assert isinstance(task, DALLETask)
        self.device = device
        self.task = task
        self.task.model.to(device.dtype)
        self.size = self.task.model.grid_size * self.task.dvae.factor
        self._transformer = checkpoint.resolve(transformer)
        self._decode_batch: int | None = None  # images decoded at once, measured when first needed

    def checkpoints(self, options: DALLE1Options) -> dict[str, Path]:
        """See System.checkpoints."""
        return {"transformer": self._transformer}

    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[Sequence[int]],
        options: DALLE1Options,
        batch_size: int,
        on_images: OnImages | None = None,
        *,
        image_prefix: Tensor | None = None,
        on_step: OnStep | None = None,
        known_region: KnownAtSize | None = None,
    ) -> Tensor:
        """See System.generate. batch_size: candidates of each prompt at once."""
        parts = []
        for start in range(0, len(seeds[0]), batch_size):
            batch_seeds = [row[start : start + batch_size] for row in seeds]
            tokens = self.task.sample(
                prompts, batch_seeds, options.temperature, options.top_k, options.top_p, options.guidance_scale,
                image_prefix,
            )  # fmt: skip
            decoded = self._decode(tokens.flatten(0, 1))
            parts.append(decoded.unflatten(0, tokens.shape[:2]))
            if on_images:
                on_images(len(decoded))
        return torch.cat(parts, dim=1)

    def memory_needs(self, options: DALLE1Options) -> MemoryNeeds:
        """See System.memory_needs; measured with few prompts and candidates."""

        def held(prompts: int, candidates: int) -> int:
            with MemoryMeter() as meter:
                self.task.probe_memory(
                    prompts, candidates, options.temperature, options.top_k, options.top_p, options.guidance_scale
                )
            return meter.peak["all"]

        two = held(1, 2)
        candidate = held(1, 3) - two
        prompt = held(2, 2) - two - 2 * candidate
        return MemoryNeeds(two - prompt - 2 * candidate, prompt, candidate, 4 * 3 * self.size**2)

    def rehearse_decoding(self, count: int) -> None:
        """Decode `count` images of constant tokens, to measure the memory that it takes."""
        grid = self.task.model.grid_size
        self._decode_batch_of(torch.zeros(count, grid, grid, dtype=torch.int64, device=self.task.model.start.device))

    def _decode(self, tokens: Tensor) -> Tensor:
        """Return images of tokens, (B, h, w) to (B, 3, S, S) on the CPU, in batches that fit the free memory."""
        if len(tokens) > SMALL_BATCH and self._decode_batch is None:
            budget = int(MEMORY_FRACTION * free_memory(self.device.name))
            self._decode_batch = choose_batch_size(
                self.rehearse_decoding, self.default_batch_size, self.default_batch_size, budget
            )
        batches = tokens.split(self._decode_batch or self.default_batch_size)
        return torch.cat([self._decode_batch_of(batch) for batch in batches])

    @torch.no_grad()
    def _decode_batch_of(self, tokens: Tensor) -> Tensor:
        with self.device.autocast():
            return self.task.dvae.decode(tokens).float().cpu()

    def encode_image_prefix(self, image: str | Path, rows: int) -> Tensor:
        """See System.encode_image_prefix. The image is cropped to a square and resized. Returns (rows * grid,)."""
        grid = self.task.model.grid_size
        if not 0 < rows < grid:
            raise RecipeError(f"--keep-rows {rows}: the image has {grid} rows of tokens; keep from 1 to {grid - 1}")
        pixels = images.to_tensor(images.square(images.decode(image), self.size))
        tokens = self.task.encode(pixels[None].to(self.device.name))
        return tokens[0, :rows].flatten()
