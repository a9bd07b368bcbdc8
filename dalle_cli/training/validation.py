"""Validation of a run: the loss on held-out samples, what is best so far, and what to say about it at the end."""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from .. import distributed, images
from ..contact_sheet import contact_sheet
from ..data import loader
from . import curve, ranks
from .ema import EMA
from .options import Train

CURVE = "curve.png"
WORSE = 1.02  # times the best loss: above it the model counts as overfitted


def validate(task: Any, ema: EMA, data: loader.Data, settings: Train, layout: Accelerator) -> dict[str, float]:
    """Return the mean loss and logs over the held-out samples, with the averaged weights.

    Next to a value with a chance level stands that level, as `chance_accuracy`.
    """
    batch_size = settings.batch_size // settings.grad_accum_steps
    totals: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=layout.device))
    count = 0
    task.model.eval()
    with ema.applied(task.model), torch.no_grad(), layout.autocast():
        rank, world = layout.process_index, layout.num_processes
        for batch in data.validation(batch_size, rank, world, task.collator(held_out=True), layout.device):
            loss, logs = task(batch, settings.steps)
            for name, value in {"loss": loss, **logs}.items():
                totals[name] += value.float()
            for name, level in task.chance_levels(batch).items():
                totals[f"chance_{name}"] += level
            count += 1
    task.model.train()
    return distributed.all_reduce_mean(totals, max(count, 1))


def preview(task: Any, ema: EMA, data: loader.Data, settings: Train, run: Path, step: int, layout: Accelerator) -> None:
    """Save a sheet of what the averaged weights make of held-out samples, for tasks that can show something."""
    batch = next(data.validation(settings.preview_images, collate=task.collator(), device=layout.device), None)
    if batch is None:
        return
    task.model.eval()
    with ema.applied(task.model), torch.no_grad(), layout.autocast():
        shown = task.preview(batch)
    task.model.train()
    if shown is not None:
        tensors, captions, columns = shown
        sheet = contact_sheet([images.to_pil(image.float().cpu()) for image in tensors], captions, columns)
        images.save_png(sheet, run / "samples" / f"step-{step:09d}.png")
        ranks.log_image(sheet, step, layout)


def describe(step: int, means: dict[str, float]) -> str:
    """Return the line that reports a validation: each value, with its chance level in parentheses."""
    parts = []
    for name, value in means.items():
        if not name.startswith("chance_"):
            chance = means.get(f"chance_{name}")
            parts.append(f"{name} {value:.4g}" + (f" (chance {chance:.4g})" if chance is not None else ""))
    return f"step {step}: validation {'  '.join(parts)}"


def held_out_line(data: loader.Data) -> str:
    """Return how many samples are held out for validation, of how many."""
    total = sum(sum(source.blocks) for source in data.sources)
    if not data.held_out:
        return "no samples are held out for validation (data.val_samples=0)"
    return f"{data.held_out} of {total} samples are held out for validation"


def summary(records: list[dict[str, Any]]) -> str | None:
    """Return what the validations of a finished run say, from its log: the best step, or that it overfitted.

    None where there are fewer than two, the one before the first step aside.
    """
    points = [point for point in curve.losses(records)["validation"] if point[0] > 0]
    if not points:
        return None
    best_step, best = min(points, key=lambda point: point[1])
    last_step, last = points[-1]
    if last_step > best_step and last > best + (WORSE - 1) * abs(best) and math.isfinite(best):
        return (
            f"warning: validation got worse: loss {best:.4g} at step {best_step}, {last:.4g} at step {last_step}; the "
            f"model overfits: train.steps={best_step} stops there, more data (or data.flip, a smaller model) helps"
        )
    return f"best validation loss {best:.4g} at step {best_step}"


def save_curve(run: Path, records: list[dict[str, Any]]) -> None:
    """Draw RUN/curve.png from the records of RUN/log.jsonl, where there are any."""
    image = curve.draw(records, run.name)
    if image:
        images.save_png(image, run / CURVE)
