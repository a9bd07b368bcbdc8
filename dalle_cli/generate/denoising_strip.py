"""`--watch`: what is expected of the first pictures at each step, from noise to the picture, as one sheet."""

from pathlib import Path

import torch
from torch import Tensor

from .. import images
from ..contact_sheet import contact_sheet

ROWS, COLUMNS = 8, 12


class Strip:
    """Collects the steps of the pictures that are drawn together first; called by samplers with t and x0."""

    def __init__(self, path: str):
        self.path = Path(path)
        self.steps: list[Tensor] = []
        self._last: int | None = None
        self._done = False

    def __call__(self, t: int, x0: Tensor) -> None:
        self._done = self._done or (self._last is not None and t >= self._last)  # others begin
        if not self._done:
            self._last = t
            self.steps.append(x0[:ROWS].float().cpu())

    def save(self) -> None:
        """Write the sheet: a row for each picture, at most COLUMNS steps, the first and the last among them."""
        if not self.steps:
            return
        count = min(len(self.steps), COLUMNS)
        chosen = [round(i * (len(self.steps) - 1) / max(count - 1, 1)) for i in range(count)]
        rows = torch.stack([self.steps[i] for i in chosen], dim=1)  # (pictures, steps, 3, S, S)
        sheet = contact_sheet([images.to_pil(image) for image in rows.flatten(0, 1)], columns=count)
        images.save_png(sheet, self.path)
