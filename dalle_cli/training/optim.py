"""The `optim` section: parameter groups, the optimiser and the learning rate of each step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ..registry import RecipeError


@dataclass(frozen=True)
class Optim:
    """The `optim` section.

    lr: peak learning rate. type: the optimizer. betas: of AdamW; default 0.9, 0.999. eps: of AdamW. weight_decay:
    decoupled; spares gains, biases and embeddings of one dimension. warmup_steps: steps in which the rate rises to the
    peak. schedule: how the rate falls after that. schedule_steps: steps until it has fallen; default, the whole run.
    final_lr_ratio: the last rate, as a fraction of the peak. max_grad_norm: gradients are clipped to this norm.
    """

    lr: float
    type: Literal["adamw", "sgd"] = "adamw"
    betas: list[float] | None = None
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    schedule_steps: int | None = None
    final_lr_ratio: float = 0.0
    max_grad_norm: float | None = None

    def __post_init__(self):
        if not 0 < self.lr < math.inf:
            raise RecipeError(f"optim.lr: {self.lr} is not a positive number")
        if self.betas is not None and (len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas)):
            raise RecipeError(f"optim.betas: {self.betas} are not two numbers in [0, 1)")
        for name in ("eps", "weight_decay", "warmup_steps", "final_lr_ratio", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise RecipeError(f"optim.{name}: {value} must be a number, at least 0")
        if self.schedule_steps is not None and self.schedule_steps < 1:
            raise RecipeError(f"optim.schedule_steps: {self.schedule_steps} is not at least 1")


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """Return the trainable parameters, those with weight decay first: the order in which saved states number them."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [p for p in parameters if p.ndim >= 2] + [p for p in parameters if p.ndim < 2]


def build(options: Optim, module: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of the trainable parameters of `module`, in groups: with weight decay, without, and scalars.

    Scalars are not sharded (sharding.py), and the optimizer needs groups in which all tensors are sharded or none.
    """
    parameters = trainable(module)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        {"params": [p for p in parameters if p.ndim == 0], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if options.type == "sgd":
        return torch.optim.SGD(groups, lr=options.lr)
    first, second = options.betas or (0.9, 0.999)
    return torch.optim.AdamW(groups, lr=options.lr, betas=(first, second), eps=options.eps)


def lr_at(options: Optim, step: int, steps: int) -> float:
    """Return the learning rate of step `step` of `steps`, counted from 0."""
    if step < options.warmup_steps:
        return options.lr * (step + 1) / options.warmup_steps
    last = options.schedule_steps or steps
    done = min(1.0, (step - options.warmup_steps) / max(1, last - options.warmup_steps))
    return options.lr * (options.final_lr_ratio + (1 - options.final_lr_ratio) * DECAY[options.schedule](done))


DECAY: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "linear": lambda done: 1 - done,
}
