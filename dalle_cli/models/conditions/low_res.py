"""Conditioning on a small image, for upsamplers (Ho et al. 2021; Nichol et al. 2022, section 2)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...images import to_float
from .. import models
from .base import Condition, Request, Resources, TrainingSample


@models.register("low-res-condition")
class LowResCondition(Condition):
    """A small image, enlarged `factor` times and concatenated with the noisy one. Called with it, (B, 3, h, w)."""

    channels = 3

    def __init__(self, factor: int = 4, resize: Literal["bilinear", "bicubic"] = "bilinear"):
        super().__init__()
        self.factor, self.resize = factor, resize
        self.low_res_factor = factor

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        size = [self.factor * side for side in image.shape[-2:]]
        # antialiasing changes only the cubic's sharpness when enlarging: Karlo was trained with that one
        return {"channels": F.interpolate(image, size, mode=self.resize, antialias=self.resize == "bicubic")}

    def check(self, path: str, resources: Resources) -> None:
        if resources.size % self.factor:
            raise ValueError(f"task.size: {resources.size} does not divide by the factor of {path}, {self.factor}")

    def collate(self, resources: Resources) -> "Degrade | None":
        return Degrade(resources.degrade, self.factor) if resources.degrade else None

    def example(self, batch_size: int, resources: Resources) -> dict[str, Tensor]:
        if not resources.degrade:
            return {}
        side = resources.size // self.factor
        return {"low_res": torch.zeros(batch_size, 3, side, side, dtype=torch.uint8)}

    def inputs(self, batch: dict[str, Any], resources: Resources) -> tuple[Tensor, ...]:
        if "low_res" in batch:
            return (to_float(batch["low_res"]),)
        assert resources.downscale is not None
        return (resources.downscale(batch["image"], self.factor, batch["seed"]),)

    def encode(self, request: Request, resources: Resources) -> dict[str, Tensor]:
        if request.low_res is None:
            raise ValueError("this decoder upsamples: give it a low-resolution image")
        return self(request.repeat(request.low_res))

    def preview(self, batch: dict[str, Any], image: Tensor, resources: Resources) -> Tensor:
        return F.interpolate(self.inputs(batch, resources)[0], image.shape[-2:])

    def request(self, batch: dict[str, Any], image: Tensor, resources: Resources) -> dict[str, Any]:
        return {"low_res": self.inputs(batch, resources)[0]}


@dataclass(frozen=True)
class Degrade:
    """Small and worse versions of a batch's images, uint8, made in the workers."""

    degrade: Callable[[Tensor, int, int], Tensor]
    factor: int

    def __call__(self, samples: Sequence[TrainingSample]) -> dict[str, Tensor]:
        images = [sample.image for sample in samples if sample.image is not None]
        seeds = [sample.seed for sample in samples]
        return {"low_res": torch.stack([self.degrade(image, self.factor, seed) for image, seed in zip(images, seeds)])}
