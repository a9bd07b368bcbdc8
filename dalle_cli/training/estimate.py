"""What training a recipe would take: arithmetic, memory of a device and time, found out without either.

The arithmetic and the activations are measured, by running a task's own step on tensors that are shapes alone; the rest
is sums over parameters. Not counted: the program itself, workers that read data, the vectors that the contrastive loss
gathers from other processes, what the allocator cannot use again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ..hardware.capabilities import estimating_for
from ..hardware.memory_meter import FRAGMENTATION, PROGRAM_BYTES, MemoryMeter, fit_peak_memory
from ..hardware.precision import DTYPES
from ..registry import RecipeError
from . import image_tokens
from .optim import Optim
from .options import Train
from .sharding import blocks


@dataclass(frozen=True)
class Step:
    """One step of `samples` samples on one device, its parts in bytes at their own peaks.

    forward: FLOPs of a sample; training: with the backward pass and what is computed again for it. activations: what
    the backward pass waits for, and passing results. copies: of the weights, in the type of the arithmetic. peak: of
    activations, copies and gradients together; gradients come as activations go. encoding: of the codec's work before
    the first step, where there is one.
    """

    samples: int
    forward: int
    training: int
    activations: int
    copies: int
    peak: int
    encoding: int = 0


def share(settings: Train, processes: int) -> int:
    """Samples that a process works on at once. Raises RecipeError when the batch does not divide."""
    parts = processes * settings.grad_accum_steps
    if settings.batch_size % parts:
        raise RecipeError(
            f"train.batch_size: {settings.batch_size} does not divide among {processes} processes x "
            f"{settings.grad_accum_steps} parts of a step"
        )
    return settings.batch_size // parts


def measure(task: Any, samples: int, size: int, precision: str, device: str = "cpu", both: bool = False) -> list[Step]:
    """A step of a task on "cpu" or "cuda", without either.

    size: pixels. both: a second one, the other way round in recomputing activations; there is one alone where the model
    has no such choice. The task cannot be used afterwards.
    """
    model = task.model
    found = []
    with FakeTensorMode(allow_non_fake_inputs=True), estimating_for(device):
        task.to_empty(device="cpu").train()
        encoding = _encoding(task, size)
        found.append(replace(_step(task, samples, size, DTYPES[precision]), encoding=encoding))
        if both and hasattr(model, "gradient_checkpointing"):
            model.gradient_checkpointing = not model.gradient_checkpointing
            found.append(replace(_step(task, samples, size, DTYPES[precision]), encoding=encoding))
            model.gradient_checkpointing = not model.gradient_checkpointing
    return found


def _step(task: Any, samples: int, size: int, dtype: torch.dtype) -> Step:
    meter = MemoryMeter(task.parameters())
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    hooks = [one.register_post_accumulate_grad_hook(lambda p: meter.call(p.grad, "gradients")) for one in trained]
    with meter:
        batch = task.example(samples, size)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss, _kept = task(batch, 0)
        forward = meter.flops
        loss.backward()
    for hook in hooks:
        hook.remove()
    for one in trained:
        one.grad = None
    return Step(
        samples, forward // samples, meter.flops // samples, meter.peak["work"], meter.peak["copies"], meter.peak["all"]
    )


def _encoding(task: Any, size: int) -> int:
    if not task.codec:
        return 0
    held = fit_peak_memory(lambda count: getattr(task, task.codec).encode(torch.zeros(count, 3, size, size)))
    return held.of(min(image_tokens.BATCH_SIZE, held.within(image_tokens.MEMORY_BUDGET)))


def device_memory(task: Any, optim: Optim, step: Step, processes: int, device: str) -> dict[str, int]:
    """Bytes of a device, "cpu" or "cuda", that trains alone or with others under DDP: parts and their `total`.

    program: what is there before any tensor. buckets: gradients on their way between processes. step: gradients and
    activations together at their peak, with the holes of the heap; encoding is over before.
    """
    parts = {"program": PROGRAM_BYTES[device], **_state(task, optim)}
    gradients = parts.pop("gradients")
    if processes > 1:
        parts["buckets"] = gradients
    # On CUDA, Adam goes through all parameters at once and needs as much again.
    least = 2 * gradients if device == "cuda" and optim.type == "adamw" else gradients
    parts["step"] = max(least, int(_holes(task, device) * step.peak))
    total = sum(parts.values())
    if step.encoding:
        parts["encoding"] = int(_holes(task, device) * step.encoding)
        total = max(total, parts["program"] + parts["weights"] + parts["encoding"])
    return {**parts, "total": total}


def sharded(task: Any, optim: Optim, step: Step, processes: int, precision: str, device: str) -> dict[str, int]:
    """The same under FSDP, which spreads everything but the companions and gathers weights block by block.

    gathered: two blocks, one of them on its way, and what is in no block. copies: of what the backward pass waits for,
    in the type of the arithmetic; of blocks that it computes again, of one.
    """
    frozen = _bytes(p for p in task.parameters() if not p.requires_grad)
    parts = {
        "program": PROGRAM_BYTES[device],
        **{name: size // processes for name, size in _state(task, optim).items()},
    }
    parts["weights"] += frozen - frozen // processes
    inside = [sum(p.numel() for p in block.parameters()) for block in blocks(task.model)]
    whole = sum(p.numel() for p in task.model.parameters())
    block, rest = max(inside, default=0), whole - sum(inside)
    again = bool(getattr(task.model, "gradient_checkpointing", False)) and precision != "float32"
    parts |= {
        "gathered": 4 * (rest + 2 * block),
        "copies": DTYPES[precision].itemsize * (rest + block) if again else step.copies,
        "activations": int(_holes(task, device) * step.activations),
    }
    return {**parts, "total": sum(parts.values())}


def _holes(task: Any, device: str) -> float:
    """The loop has large blocks returned where activations are recomputed."""
    return 1.0 if getattr(task.model, "gradient_checkpointing", False) else FRAGMENTATION[device]


def _state(task: Any, optim: Optim) -> dict[str, int]:
    trained = _bytes(parameter for parameter in task.parameters() if parameter.requires_grad)
    return {
        "weights": _bytes([*task.parameters(), *task.buffers()]),
        "moments": 2 * trained if optim.type == "adamw" else 0,
        "average": _bytes(task.model.state_dict().values()),
        "gradients": trained,
    }


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def forecast(
    task: Any, optim: Optim, settings: Train, size: int, processes: int, memory: int, flops_per_s: float, mfu: float
) -> dict[str, Any]:
    """Return the cost of training on GPUs of `memory` bytes and `flops_per_s`, of which the fraction `mfu` is reached.

    precision: auto counts as bf16. max_batch_size: samples that fit on a device. days: for all steps of the recipe,
    including recomputed activations and excluding the encoding of images as tokens, which happens before.
    """
    precision = "bf16" if settings.precision == "auto" else settings.precision
    samples = share(settings, processes)
    step, *other = measure(task, samples, size, precision, "cuda", both=True)
    layouts = {"ddp": device_memory(task, optim, step, processes, "cuda")}
    if processes > 1:
        layouts["fsdp"] = sharded(task, optim, step, processes, precision, "cuda")
    each = max(1, step.activations // samples)
    moving = ("step", "encoding", "activations", "total")
    fixed = {name: sum(size for key, size in parts.items() if key not in moving) for name, parts in layouts.items()}
    fixed["ddp"] += _state(task, optim)["gradients"] + step.copies  # which are part of its step
    speed = processes * flops_per_s * mfu / step.training
    recomputed = bool(getattr(task.model, "gradient_checkpointing", False))
    ways = ("recomputed", "stored") if recomputed else ("stored", "recomputed")
    return {
        "assumed": {
            "processes": processes, "device_memory": memory, "flops_per_s": flops_per_s, "mfu": mfu,
            "precision": precision, "gradient_checkpointing": recomputed, "micro_batch_size": samples,
        },
        "flops": {"forward": step.forward, "training": step.training},
        "activations": {way: one.activations for way, one in zip(ways, [step, *other])},
        **{name: {**parts, "fits": parts["total"] <= memory} for name, parts in layouts.items()},
        "max_batch_size": {name: max(0, (memory - fixed[name]) // each) for name in layouts},
        "samples_per_s": speed,
        "total_flops": step.training * settings.steps * settings.batch_size,
        "days": settings.steps * settings.batch_size / speed / 86400,
    }  # fmt: skip
