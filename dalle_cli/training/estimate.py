"""Estimates of what training a recipe takes: FLOPs, device memory and time, computed without allocating anything.

FLOPs and activations are measured by running a step of the task on tensors without data; the rest is sums over
parameters. Not counted: workers that read data, the vectors that the contrastive loss gathers from other processes,
and memory that the allocator cannot reuse.
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
    """One step of `samples` samples on one device; each part in bytes at its own peak.

    forward: FLOPs per sample of the forward pass. training: FLOPs per sample of forward and backward pass, with
    recomputation. activations: what is stored for the backward pass, and temporary results. copies: of the weights, in
    the type of the arithmetic. peak: of the sum of activations, copies and gradients; gradients are allocated as
    activations are freed. encoding: of the codec's work before the first step, if there is any.
    """

    samples: int
    forward: int
    training: int
    activations: int
    copies: int
    peak: int
    encoding: int = 0


def samples_per_process(settings: Train, processes: int) -> int:
    """Return the samples that a process works on at once. Raises RecipeError when the batch does not divide."""
    parts = processes * settings.grad_accum_steps
    if settings.batch_size % parts:
        raise RecipeError(
            f"train.batch_size: {settings.batch_size} does not divide among {processes} processes x "
            f"{settings.grad_accum_steps} parts of a step"
        )
    return settings.batch_size // parts


def measure(task: Any, samples: int, size: int, precision: str, device: str = "cpu", both: bool = False) -> list[Step]:
    """Measure a step of a task as on "cpu" or "cuda", without running it on either.

    size: pixels. both: also measure with the opposite gradient checkpointing, if the model has that choice. The task
    cannot be used afterwards.
    """
    model = task.model
    steps = []
    with FakeTensorMode(allow_non_fake_inputs=True), estimating_for(device):
        task.to_empty(device="cpu").train()
        encoding = _encoding(task, size)
        steps.append(replace(_step(task, samples, size, DTYPES[precision]), encoding=encoding))
        if both and getattr(model, "gradient_checkpointing", None) is not None:
            model.gradient_checkpointing = not model.gradient_checkpointing
            steps.append(replace(_step(task, samples, size, DTYPES[precision]), encoding=encoding))
            model.gradient_checkpointing = not model.gradient_checkpointing
    return steps


def _step(task: Any, samples: int, size: int, dtype: torch.dtype) -> Step:
    meter = MemoryMeter(task.parameters())
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    hooks = [p.register_post_accumulate_grad_hook(lambda p: meter.call(p.grad, "gradients")) for p in trained]
    with meter:
        batch = task.example(samples, size)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss, _logs = task(batch, 0)  # held until the backward pass is over, as in training
        forward = meter.flops
        loss.backward()
    for hook in hooks:
        hook.remove()
    for parameter in trained:
        parameter.grad = None
    return Step(
        samples, forward // samples, meter.flops // samples, meter.peak["work"], meter.peak["copies"], meter.peak["all"]
    )


def _encoding(task: Any, size: int) -> int:
    if not task.codec:
        return 0
    held = fit_peak_memory(lambda count: getattr(task, task.codec).encode(torch.zeros(count, 3, size, size)))
    return held.of(min(image_tokens.BATCH_SIZE, held.within(image_tokens.MEMORY_BUDGET)))


def device_memory(task: Any, optim: Optim, step: Step, processes: int, device: str) -> dict[str, int]:
    """Return the bytes of a device, "cpu" or "cuda", by part, with their `total`: one process, or several under DDP.

    program: before any tensor is allocated. buckets: gradients in transit between processes. step: peak of gradients
    and activations, with heap fragmentation. encoding: finished before the first step.
    """
    parts = {"program": PROGRAM_BYTES[device], **_state(task, optim)}
    gradients = parts.pop("gradients")
    if processes > 1:
        parts["buckets"] = gradients
    # On CUDA, Adam updates all parameters at once and needs temporary memory of the same size.
    optimizer_step = 2 * gradients if device == "cuda" and optim.type == "adamw" else gradients
    parts["step"] = max(optimizer_step, int(_fragmentation(task, device) * step.peak))
    total = sum(parts.values())
    if step.encoding:
        parts["encoding"] = int(_fragmentation(task, device) * step.encoding)
        total = max(total, parts["program"] + parts["weights"] + parts["encoding"])
    return {**parts, "total": total}


def sharded(task: Any, optim: Optim, step: Step, processes: int, precision: str, device: str) -> dict[str, int]:
    """Return the same under FSDP, which shards everything but the frozen models and gathers weights block by block.

    gathered: two blocks, one of them prefetched, and what is outside of blocks. copies: of what is stored for the
    backward pass, in the type of the arithmetic; with gradient checkpointing, of one block.
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
        "activations": int(_fragmentation(task, device) * step.activations),
    }
    return {**parts, "total": sum(parts.values())}


def _fragmentation(task: Any, device: str) -> float:
    """Return the factor for heap fragmentation; with recomputation, the loop returns freed memory to the system."""
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
    samples = samples_per_process(settings, processes)
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
    modes = ("recomputed", "stored") if recomputed else ("stored", "recomputed")
    return {
        "assumed": {
            "processes": processes, "device_memory": memory, "flops_per_s": flops_per_s, "mfu": mfu,
            "precision": precision, "gradient_checkpointing": recomputed, "micro_batch_size": samples,
        },
        "flops": {"forward": step.forward, "training": step.training},
        "activations": {mode: measured.activations for mode, measured in zip(modes, [step, *other])},
        **{name: {**parts, "fits": parts["total"] <= memory} for name, parts in layouts.items()},
        "max_batch_size": {name: max(0, (memory - fixed[name]) // each) for name in layouts},
        "samples_per_s": speed,
        "total_flops": step.training * settings.steps * settings.batch_size,
        "days": settings.steps * settings.batch_size / speed / 86400,
    }  # fmt: skip
