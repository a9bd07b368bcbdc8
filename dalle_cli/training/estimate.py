"""What training a recipe would take: arithmetic, memory of a device and time, found out without either.

The arithmetic and the activations are measured, by running a task's own step on tensors that are shapes alone; the rest
is sums over parameters. Not counted: the program itself, workers that read data, the vectors that the contrastive loss
gathers from other processes, what the allocator cannot use again.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ..nn.meter import Meter
from .optim import Optim

GIB = 2**30
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Step:
    """One step of `samples` samples on one device, its parts in bytes at their own peaks.

    forward: FLOPs of a sample; training: with the backward pass and what is computed again for it. activations: what
    the backward pass waits for, and passing results. copies: of the weights, in the type of the arithmetic. peak: of
    activations, copies and gradients together; gradients come as activations go.
    """

    samples: int
    forward: int
    training: int
    activations: int
    copies: int
    peak: int


@dataclass(frozen=True)
class Devices:
    """What trains: so many processes, each with a device of `memory` bytes and `flops` a second, of which a share."""

    processes: int
    memory: int
    flops: float
    utilisation: float


def measure(task: Any, samples: int, size: int, precision: str) -> dict[bool, Step]:
    """A step of a task on the meta device with and without recomputed activations, by whether they are.

    Only as the task has it where its model leaves no choice. size: pixels. The task is left unusable.
    """
    model = task.model
    ways = (False, True) if hasattr(model, "checkpointing") else (False,)
    with FakeTensorMode(allow_non_fake_inputs=True):
        task.to_empty(device="cpu").train()
        found = {}
        for way in ways:
            if len(ways) > 1:
                model.checkpointing = way
            found[way] = _step(task, samples, size, DTYPES[precision])
    return found


def _step(task: Any, samples: int, size: int, dtype: torch.dtype) -> Step:
    meter = Meter(task.parameters())
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    hooks = [one.register_post_accumulate_grad_hook(lambda p: meter.call(p.grad, "gradients")) for one in trained]
    with meter:
        batch = task.example(samples, size)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss, logs = task(batch, 0)
        forward = meter.flops
        loss.backward()
    for hook in hooks:
        hook.remove()
    for one in trained:
        one.grad = None
    return Step(
        samples, forward // samples, meter.flops // samples, meter.peak["work"], meter.peak["copies"], meter.peak["all"]
    )


def memory(task: Any, optim: Optim, step: Step, processes: int, cuda: bool) -> dict[str, int]:
    """Bytes of a device that trains alone or with others under DDP: parts and their `total`.

    The gradients have room of their own only where processes exchange them (`buckets`).
    """
    parts = _state(task, optim)
    gradients = parts.pop("gradients")
    if processes > 1:
        parts["buckets"] = gradients
    # On CUDA, Adam works through all parameters at once and needs as much again.
    parts["step"] = max(step.peak, 2 * gradients) if cuda and optim.type == "adamw" else step.peak
    return _with_total(parts)


def sharded(task: Any, optim: Optim, step: Step, processes: int, precision: str) -> dict[str, int]:
    """The same under FSDP, which spreads everything but the companions and gathers weights layer by layer.

    gathered: two layers, one of them on its way, and what is in no layer, in the type of the arithmetic.
    """
    frozen = _bytes(p for p in task.parameters() if not p.requires_grad)
    parts = {name: size // processes for name, size in _state(task, optim).items()}
    parts["weights"] += frozen - frozen // processes
    layers = [
        layer for group in task.model.modules() if isinstance(group, nn.ModuleList) for layer in group.children()
    ]
    inside = [sum(p.numel() for p in layer.parameters()) for layer in layers]
    whole = sum(p.numel() for p in task.model.parameters())
    gathered = whole - sum(inside) + 2 * max(inside, default=0)
    parts |= {"gathered": gathered * DTYPES[precision].itemsize, "activations": step.activations}
    return _with_total(parts)


def _state(task: Any, optim: Optim) -> dict[str, int]:
    trained = _bytes(parameter for parameter in task.parameters() if parameter.requires_grad)
    return {
        "weights": _bytes([*task.parameters(), *task.buffers()]),
        "moments": 2 * trained if optim.type == "adamw" else 0,
        "average": _bytes(task.model.state_dict().values()),
        "gradients": trained,
    }


def _with_total(parts: dict[str, int]) -> dict[str, int]:
    return {**parts, "total": sum(parts.values())}


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
