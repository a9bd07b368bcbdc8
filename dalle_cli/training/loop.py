"""The training loop: one function, in reading order, for every task.

A step is a function of the weights, its own number and the samples that the data order gives it; saving, averaging,
logging and previews change nothing. That is why a run that was stopped, in whatever way, ends with the same weights as
one that was not.
"""

import contextlib
import itertools
import math
import sys
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__, checkpoint, distributed
from ..console import Progress
from ..data import loader
from ..exits import Failure
from ..files import write_atomically
from ..hardware.capabilities import keep_freed_memory, return_freed_memory
from ..recipe import to_yaml
from . import curve, image_tokens, optim, preflight, ranks, run_tokenizer, sharding, state, validation
from .bad_samples import Bad
from .ema import EMA
from .options import interval, options, seconds
from .precision import choose
from .resume import frozen_checksums, resumable
from .signals import Stop, Stopped
from .trackers import Log

OVERFLOWS = 50  # halvings of the loss scale: from 65,536 to where every number of fp16 is 0


def fit(recipe: dict, run: Path, resume: str = "auto", max_time: str | None = None, quiet: bool = False) -> int:
    """Train a recipe in the folder `run` and return the exit code: 0, or 75 or 130 when stopped early.

    resume: see resume.py. max_time: save and stop after this time, such as "3h50m".
    Raises RecipeError, CheckpointError, DataError, Failure.
    """
    optim_options, settings, tracker = options(recipe)
    with Stop(seconds(max_time) if max_time else None) as stop:
        # ---- processes, device, precision ---------------------------------------------------------------------------
        main = not quiet  # until the layout is known
        sharded = sharding.wanted(settings.fsdp)
        layout = ranks.accelerator(
            choose(settings.precision), tracker, run, lambda line: main and _print(line), sharded
        )
        rank, world, device = layout.process_index, layout.num_processes, layout.device
        main = layout.is_main_process
        progress = Progress(run.name, settings.steps, quiet=quiet or not main)
        precision = {"no": "float32"}.get(layout.mixed_precision, layout.mixed_precision)
        sharded = sharded and world > 1
        layout_line = f"{world} process{'es' if world > 1 else ''} on {device.type}, precision {precision}"
        progress.note(layout_line + (", sharded" if sharded else ""))

        # ---- what is trained: the same initial weights in every process ----------------------------------------------
        recipe, tokenizer = run_tokenizer.prepare(recipe, run, progress.note)
        saved = resumable(run, recipe, resume, progress.note)
        frozen = frozen_checksums(recipe)
        initial = checkpoint.initial_weights(settings.init_from, recipe) if settings.init_from and not saved else None
        torch.manual_seed(settings.seed)
        task: Any = checkpoint.compose(recipe, tokenizer)
        data = recipe["data"]
        if task.codec and data["type"] != "image-tokens":
            codec = str(recipe["frozen"][task.codec])
            new_progress = partial(Progress, quiet=quiet or not main)
            data = image_tokens.cache(recipe, run, codec, settings.seed, layout, new_progress, stop)
        samples = loader.build(data)
        for line in samples.problems:
            progress.note(line)
        preflight.check_batch(samples, settings)
        if settings.channels_last and not sharded:  # slices must be contiguous
            task.to(memory_format=torch.channels_last)
        task.to(device)
        model = task.model
        if initial:
            model.load_state_dict(initial)
        elif not saved:  # every process prepares from the same samples
            try:
                with stop.interruptible(world == 1):
                    first = samples.train(settings.batch_size, 0, 1, 0, settings.seed, task.collator(), device=device)
                    task.prepare(first)
            except Stopped:
                progress.note("stopped before the first step; nothing is saved yet")
                return int(stop.code)
        return_freed_memory() if getattr(task.model, "gradient_checkpointing", False) else keep_freed_memory()
        if sharded:
            wrapped: Any = sharding.shard(task, layout)
        else:
            wrapped = layout.prepare(torch.compile(task) if settings.compile else task)
        optimizer: Any = layout.prepare(optim.build(optim_options, model))
        ema = EMA(model, settings.ema_decay)

        # ---- where it resumes ---------------------------------------------------------------------------------------
        step, seen, skipped = 0, 0, 0
        if saved:
            step, seen, extra = state.restore(saved, model, ema, optimizer)
            skipped = extra["skipped"]
            progress.note(f"resuming {run} from step {step}, {seen} samples ({saved.name})")
            if extra.get("layout", layout_line) != layout_line:
                progress.note(f"changed since the saved state: {extra['layout']} -> {layout_line}")
            if main and step == settings.steps:
                state.complete(run, saved, recipe, task.tokenizer)
            if layout.scaler and extra.get("scaler"):
                layout.scaler.load_state_dict(extra["scaler"])
        if distributed.all_reduce_max([step, -step], device) != [step, -step]:
            raise Failure(f"the processes find different states in {run}; all of them must share this folder")
        batches = samples.train(
            settings.batch_size, rank, world, seen, settings.seed, task.collator(), settings.grad_accum_steps, device
        )
        bad = Bad(samples.loading.max_bad_fraction, run)
        progress.note(
            f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters; {samples.samples} samples an epoch, "
            f"{settings.batch_size} a step = {world} x {settings.grad_accum_steps} x "
            f"{settings.batch_size // world // settings.grad_accum_steps}, "
            f"{settings.steps} steps = {settings.steps * settings.batch_size / samples.samples:.2f} epochs"
        )
        progress.note(validation.held_out_line(samples))
        if warning := preflight.epochs_warning(samples, settings):
            progress.note(warning)
        log = _open_log(run, recipe, step, seen, world, device, precision) if main else None
        save_steps, save_seconds = interval(settings.save_every)
        last_save = last_log = time.monotonic()
        progress.begin(step)
        waited, logged = 0.0, step
        totals, counted = _zeros(device), 0
        overflows = 0  # steps in a row that the loss scale has skipped
        code = 0  # what all processes have agreed to exit with

        def save() -> None:
            tensors = state.gather(model, ema, optimizer, keep=main)
            if main:
                scaler = layout.scaler.state_dict() if layout.scaler else None
                extra = {"skipped": skipped, "scaler": scaler, "layout": layout_line, "frozen": frozen}
                state.save(run, recipe, step, seen, tensors, extra, settings.keep_last)
                state.save_model(run, recipe, step, seen, tensors, task.tokenizer)
            layout.wait_for_everyone()

        def validate() -> None:
            means = validation.validate(task, ema, samples, settings, layout)
            if log:
                log.write(step=step, samples=seen, event="validation", **means)
                validation.save_curve(run, curve.read_log(log.path, step))
            layout.log({f"validation/{name}": value for name, value in means.items()}, step=step)
            progress.note(validation.describe(step, means))

        if samples.held_out and not saved:
            validate()

        # ---- steps ---------------------------------------------------------------------------------------------------
        model.train()
        while step < settings.steps:
            rate = optim.lr_at(optim_options, step, settings.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            # Only for dropout; samples have seeds of their own.
            torch.manual_seed(settings.seed * 1_000_003 + step * world + rank)
            keys: list[str] = []
            suspects: list[str] = []  # samples of parts whose loss is not finite
            values = _zeros(device)
            for part in range(settings.grad_accum_steps):
                asked = time.monotonic()
                try:
                    with stop.interruptible(world == 1):
                        batch = next(batches)
                except Stopped:
                    code = stop.code
                    break
                waited += time.monotonic() - asked
                bad.note(batch.pop("bad"), len(batch["key"]), progress)
                keys += batch["key"]
                last = part == settings.grad_accum_steps - 1
                with contextlib.nullcontext() if last else layout.no_sync(wrapped):
                    loss, logs = wrapped(batch, step)
                    layout.backward(loss / settings.grad_accum_steps)
                suspects += [] if loss.detach().isfinite() else batch["key"]
                for name, value in {"loss": loss, **logs}.items():
                    values[name] += value.detach().float() / settings.grad_accum_steps
            if code:  # stopped between samples: this step has not happened
                optimizer.zero_grad()
                save()
                break
            seen += settings.batch_size
            now = time.monotonic()
            overdue = save_seconds and now - last_save > save_seconds
            votes = [bool(suspects), stop.code, bool(overdue)]
            infinite, code, overdue = distributed.all_reduce_max(votes, device)
            if not infinite:
                norm: Any = layout.clip_grad_norm_(task.parameters(), optim_options.max_grad_norm or math.inf)
                values["grad_norm"] += sharding.whole(norm)
            # The gradient is the same in all processes. That of fp16 may be infinite: the scaler then skips the step.
            if infinite or not (layout.scaler or values["grad_norm"].isfinite()):
                skipped += 1
                what = "loss" if infinite else "gradient"
                keys = list(itertools.chain(*distributed.all_gather_object(suspects if infinite else keys)))
                progress.note(f"step {step}: the {what} is not finite; skipped. Samples: {', '.join(keys[:8])}")
                if log:
                    log.write(step=step, event="not finite", what=what, keys=keys)
                if skipped > settings.max_skipped_steps:
                    raise Failure(
                        f"the {what} was not finite in step {step} with samples {', '.join(keys[:8])}; {skipped} steps "
                        f"were skipped, over train.max_skipped_steps={settings.max_skipped_steps}. {run}/resume holds "
                        "the state before: lower optim.lr or set optim.max_grad_norm, and add --resume force"
                    )
            else:
                optimizer.step()
                overflows = overflows + 1 if optimizer.step_was_skipped else 0
                if overflows > OVERFLOWS:
                    raise Failure(
                        f"the gradient overflowed fp16 in {overflows} steps in a row, the last with samples "
                        f"{', '.join(keys[:8])}, whatever the loss scale. {run}/resume holds the state before: lower "
                        "optim.lr or take train.precision=bf16 or float32, and add --resume force"
                    )
                if not overflows:
                    for name, value in values.items():
                        totals[name] += value
                    counted += 1
                    task.after_step()
                    ema.update(model, step)
            optimizer.zero_grad()
            step += 1

            # ---- reporting ------------------------------------------------------------------------------------------
            progress.advance(1, wait=f"{waited / max(time.monotonic() - last_log, 1e-9):.0%}")
            if step % settings.log_every == 0 or step == settings.steps:
                now = time.monotonic()
                means = distributed.all_reduce_mean(totals, max(1, counted))
                means["samples_per_s"] = round((step - logged) * settings.batch_size / (now - last_log), 2)
                means["wait"] = round(waited / (now - last_log), 4)
                if log:
                    epoch = round(seen / samples.samples, 4)
                    log.write(step=step, samples=seen, epoch=epoch, lr=rate, **means, **_memory(device))
                layout.log({**means, "lr": rate}, step=step)
                progress.values = {"loss": means.get("loss", math.nan), "samples/s": means["samples_per_s"]}
                last_log, waited, logged = now, 0.0, step
                totals, counted = _zeros(device), 0
            if code or overdue or step == settings.steps or (save_steps and step % save_steps == 0):
                save()
                last_save = time.monotonic()
            if code and step < settings.steps:
                break  # whoever asked may not wait for validation and previews
            if samples.held_out and _due(step, settings.validate_every, settings.steps):
                validate()
            if main and settings.preview_images and not sharded and _due(step, settings.preview_every, settings.steps):
                validation.preview(task, ema, samples, settings, run, step, layout)

        progress.close()
        if log:
            log.write(event="end", step=step, samples=seen, code=code)
        # The reducer is freed first and the process group last, from Python, which releases its lock for that. A
        # reducer with the last reference to the group would wait, holding the lock, for threads that need it.
        loss = logs = None
        (wrapped,) = layout.free_memory(wrapped)
        layout.end_training()
        if step < settings.steps:
            progress.note(f"stopped at step {step} of {settings.steps}, state saved in {run}; the same command resumes")
            return int(code)
        records = curve.read_log(run / "log.jsonl", step)
        if main:
            validation.save_curve(run, records)
        if line := validation.summary(records):
            progress.note(f"{line}; curve: {run / validation.CURVE}")
        progress.note(f"done: {run / checkpoint.FILE}")
        return 0


def _zeros(device: torch.device) -> dict[str, Tensor]:
    return defaultdict(lambda: torch.zeros((), device=device))


def _open_log(run: Path, recipe: dict, step: int, seen: int, world: int, device: torch.device, precision: str) -> Log:
    write_atomically(run / "recipe.yaml", lambda path: path.write_text(to_yaml(recipe), encoding="utf-8"))
    log = Log(run / "log.jsonl")
    log.write(
        event="start", step=step, samples=seen, command=sys.argv, dalle=__version__, torch=torch.__version__,
        processes=world, device=device.type, precision=precision,
    )  # fmt: skip
    return log


def _due(step: int, every: int, steps: int) -> bool:
    return step == steps or (every > 0 and step % every == 0)


def _memory(device: torch.device) -> dict[str, float]:
    """Return the peak memory so far, in GiB: of the device, or of this process on a CPU."""
    if device.type == "cuda":
        return {"memory_gib": round(torch.cuda.max_memory_allocated(device) / 2**30, 3)}
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return {"memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 3)}


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
