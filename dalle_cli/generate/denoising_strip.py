"""`--denoising-strip`: the x0 predicted at each step of the first images, from noise to image, as one sheet."""

from pathlib import Path

import torch
from torch import Tensor

from .. import images
from ..contact_sheet import contact_sheet

MAX_IMAGES, MAX_STEPS = 8, 12


class DenoisingStrip:
    """Collects the steps of the first batch of images; samplers call it with t and x0."""

    def __init__(self, path: str):
        self.path = Path(path)
        self.steps: list[Tensor] = []
        self._last: int | None = None
        self._complete = False

    def __call__(self, t: int, x0: Tensor) -> None:
        self._complete = self._complete or (self._last is not None and t >= self._last)  # the next batch begins
        if not self._complete:
            self._last = t
            self.steps.append(x0[:MAX_IMAGES].float().cpu())

    def save(self) -> None:
        """Write the sheet: a row per image, at most MAX_STEPS steps, the first and the last among them."""
        if not self.steps:
            return
        columns = min(len(self.steps), MAX_STEPS)
        chosen = [round(i * (len(self.steps) - 1) / max(columns - 1, 1)) for i in range(columns)]
        rows = torch.stack([self.steps[i] for i in chosen], dim=1)  # (images, steps, 3, S, S)
        sheet = contact_sheet([images.to_pil(image) for image in rows.flatten(0, 1)], columns=columns)
        images.save_png(sheet, self.path)
