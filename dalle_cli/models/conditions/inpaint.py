"""Conditioning on the known part of an image, for inpainting (Nichol et al. 2022, section 2.3)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import models
from .base import BatchPart, Condition, Request, Resources, TrainingSample


@models.register("inpaint-condition")
class InpaintCondition(Condition):
    """The known part of an image, and where it is known.

    Called with image, (B, 3, H, W), and mask, (B, 1, H, W), 1 where it is known. The null value is nothing known.
    """

    channels = 4
    inpaints = True

    def forward(self, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
        return {"channels": torch.cat([image * mask, mask], dim=1)}

    def check(self, path: str, resources: Resources) -> None:
        """Every task can generate masks."""

    def collate(self, resources: Resources) -> BatchPart:
        return stack_masks

    def example(self, batch_size: int, resources: Resources) -> dict[str, Tensor]:
        return {"known": torch.zeros(batch_size, 1, resources.size, resources.size)}

    def inputs(self, batch: dict[str, Any], resources: Resources) -> tuple[Tensor, ...]:
        return batch["target"], batch["known"]

    def encode(self, request: Request, resources: Resources) -> dict[str, Tensor]:
        nothing = torch.zeros(len(request.texts), 4, request.size, request.size, device=request.device)
        image, mask = request.known or (nothing[:, :3], nothing[:, 3:])
        return self(request.repeat(image), request.repeat(mask))

    def preview(self, batch: dict[str, Any], image: Tensor, resources: Resources) -> Tensor:
        return image * batch["known"]

    def request(self, batch: dict[str, Any], image: Tensor, resources: Resources) -> dict[str, Any]:
        return {"known": (image, batch["known"])}


def stack_masks(samples: Sequence[TrainingSample]) -> dict[str, Tensor]:
    """Return the masks of a batch, (B, 1, S, S)."""
    return {"known": torch.stack([sample.mask for sample in samples])}
