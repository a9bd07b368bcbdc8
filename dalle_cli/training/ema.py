"""Exponential moving average of the weights, which is saved as the checkpoint, previewed and validated."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .sharding import like, local


class EMA:
    """Averages of all parameters and buffers of a model, float32, on the model's device.

    The average warms up, decay_n = min(decay, (1 + n) / (10 + n)), so that early steps are forgotten. decay 0 keeps
    a plain copy.
    """

    def __init__(self, model: nn.Module, decay: float):
        assert 0 <= decay < 1
        self.decay = decay
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move toward the weights after step `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, values = [], []
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                averages.append(local(self.average[name]))
                values.append(local(value.detach()))
            else:
                self.average[name].copy_(value)
        torch._foreach_lerp_(averages, values, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Load the averaged weights into the model for the duration of the block."""
        raw = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.average)
        try:
            yield
        finally:
            model.load_state_dict(raw)

    def load(self, average: dict[str, Tensor]) -> None:
        for name, value in average.items():
            self.average[name].copy_(like(value, self.average[name]))
