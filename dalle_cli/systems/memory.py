"""The batch that fits the free memory, and an estimate of the memory that generating takes."""

from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode

from ..hardware.capabilities import estimating_for, free_memory
from ..hardware.memory_meter import FRAGMENTATION, MEMORY_FRACTION, PROGRAM_BYTES, SMALL_BATCH, fit_peak_memory
from ..nn.prepacked import MIN_WEIGHTS, prepacked_bytes
from .memory_needs import max_batch
from .scorer import BATCH, Scorer
from .system import System


def plan_batch(system: System, options: Any, prompts: int, candidates: int) -> tuple[int, int]:
    """Return how many prompts, and candidates of each, to generate at once on the system's device.

    Memory is looked at only where many images are wanted.
    """
    limit = system.default_batch_size
    group, batch = max_batch(prompts, candidates, limit)
    if group * batch <= SMALL_BATCH or not system.estimates_memory:
        return group, limit
    budget = int(MEMORY_FRACTION * free_memory(system.device.name))
    return system.memory_needs(options).batch(prompts, candidates, limit, budget)


def estimate(
    system: Any, scorer: Scorer | None, options: Any, prompts: int, candidates: int, batch_size: int | None
) -> dict[str, int]:
    """Return the bytes that generating holds at its peak, in parts and their `total`.

    system: one that estimates memory; it and the scorer on a device with `shapes_only`. batch_size: --batch-size, None
    for auto.
    """
    device = system.device.name
    budget = int(MEMORY_FRACTION * free_memory(device))
    tasks = [system.task, *(scorer.tasks if scorer else ())]
    weights = [sum(value.nbytes for value in (*task.parameters(), *task.buffers())) for task in tasks]
    # While a model is loaded, its file is in memory as float32 besides the model.
    loading = max(4 * sum(value.numel() for value in task.model.parameters()) for task in tasks)
    with FakeTensorMode(allow_non_fake_inputs=True), estimating_for(device):
        for task in tasks:
            task.to_empty(device="cpu")
        with system.device.autocast():
            prepacked = {
                "generating": prepacked_bytes(system.task.model, min_weights=MIN_WEIGHTS) if device == "cpu" else 0
            }
        needs = system.memory_needs(options)
        group, batch = needs.batch(prompts, candidates, system.default_batch_size, budget)
        if batch_size:
            group, batch = max(1, min(batch_size // candidates, prompts)), min(batch_size, candidates)
        decoding = fit_peak_memory(system.rehearse_decoding)
        stages = {"generating": needs.generating(group, batch)}
        stages["decoding"] = decoding.of(min(group * batch, decoding.within(budget)))
        if scorer:
            scoring = fit_peak_memory(scorer.rehearse)
            prepacked["scoring"] = scorer.prepacked_bytes()
            stages["scoring"] = scoring.of(min(candidates, BATCH, scoring.within(budget - prepacked["scoring"])))
    parts = {"program": PROGRAM_BYTES[device], "weights": sum(weights), "images": needs.finished(group, candidates)}
    parts |= {name: int(FRAGMENTATION[device] * held) + prepacked.get(name, 0) for name, held in stages.items()}
    peak = parts["images"] + max(parts[name] for name in stages)
    return {**parts, "total": parts["program"] + parts["weights"] + max(loading, peak)}
