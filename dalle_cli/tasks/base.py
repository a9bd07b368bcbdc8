"""What the training loop asks of a task."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

Preview = tuple[list[Tensor], list[str] | None, int | None]


class Task(nn.Module):
    """An objective: `forward(batch, step)` gives the loss and further values to log, all scalars.

    model: what is trained, averaged and saved; frozen models are attributes without gradients. codec: name of the
    frozen image tokenizer whose tokens may replace the images; the loop then encodes the data once
    (training/image_tokens.py). family: of recipes that have this objective; "" for any, None if the model is only
    loaded.
    """

    codec: str | None = None
    family: str | None = ""

    def __init__(self, model: nn.Module, tokenizer: Any = None):
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer

    def train(self, mode: bool = True) -> "Task":
        """Switch only the model; frozen models stay in evaluation mode."""
        self.training = mode
        self.model.train(mode)
        return self

    def collator(self, held_out: bool = False) -> Callable[[list[dict]], dict]:
        """Return what makes batches of samples in the workers: small, picklable, without a network (collators.py).

        held_out: for validation, without what makes training harder than use.
        """
        from ..data.loader import stack

        return stack

    def collate(self, samples: list[dict]) -> dict:
        """Return a training batch of samples."""
        return self.collator()(samples)

    def example(self, count: int, size: int) -> dict:
        """Return a batch of zeros with the shapes of the largest in training, for estimates. size: pixels."""
        texts = [""] * count
        picture, seed = torch.zeros(count, 3, size, size), torch.zeros(count, dtype=torch.int64)
        return {"image": picture, "text": texts, "key": texts, "seed": seed}

    def prepare(self, batches: Iterator[dict]) -> None:
        """Called once, before the first step of a fresh run, with the whole batches of its first steps."""

    def chance_levels(self, batch: dict) -> dict[str, float]:
        """Return what guessing would reach, for the logged values that have such a level."""
        return {}

    def after_step(self) -> None:
        """Called after each step of the optimizer."""

    def preview(self, batch: dict) -> Preview | None:
        """Return images (3, H, W) that show how training goes, with captions and columns for the sheet; None for
        nothing.
        """
        return None
