"""From a training command to the loop: the recipe, the run folder, the processes."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from .. import checkpoint, recipe
from ..exits import DONE, Failure
from ..hardware.memory_meter import describe_bytes
from ..launch import launched, relaunch
from ..registry import RecipeError
from ..tasks import tasks
from . import estimate, options
from .compose_meta import compose_meta
from .precision import choose


def train(
    family: str, name: str, overrides: Sequence[str], run: str | None, resume: str, processes: int,
    max_time: str | None, dry_run: bool, quiet: bool,
) -> int:  # fmt: skip
    """Train the recipe `name` of a family; returns the exit code."""
    launching = processes > 1 and not launched()
    found = recipe.load(name, family, overrides, checkpoint.accepted_arguments, _silent if launching or quiet else _say)
    found = options.check(found)
    own = tasks.get(found["task"]["type"]).family  # type: ignore[attr-defined]
    if own is None:
        raise RecipeError(f"task.type: '{found['task']['type']}' is not trained here, only imported (`dalle import`)")
    if own not in ("", family):
        raise RecipeError(f"{name}: a recipe of `dalle train-{own}`, not of `dalle train-{family}`")
    if max_time:
        options.seconds(max_time)
    folder = run_folder(family, name, run)
    if dry_run:
        _describe(found, processes)
        return DONE
    if (code := relaunch(processes)) is not None:
        return code
    from .loop import fit

    try:
        return fit(found, folder, resume, max_time, quiet)
    except RuntimeError as error:
        if isinstance(error, torch.distributed.DistError) or "gloo" in str(error):
            raise Failure(
                "another process of the run has ended or is not to be reached; the same command goes on from the last "
                f"state ({str(error).splitlines()[0]})"
            ) from None
        raise


def run_folder(family: str, name: str, run: str | None) -> Path:
    """Return the folder of a run, named after its family and recipe unless it has a name."""
    return Path("checkpoints") / (run or f"{family}-{Path(name).stem}")


def _describe(found: recipe.Recipe, processes: int) -> None:
    """The resolved recipe to standard output, and what it comes to."""
    optim, settings, _ = options.options(found)
    needs: list[str] = []
    shapes = compose_meta(found, needs)
    print(recipe.to_yaml(found), end="")
    parameters = sum(parameter.numel() for parameter in shapes.model.parameters())
    _say(
        f"{parameters / 1e6:.2f}M parameters; {settings.steps} steps of {settings.batch_size} samples = "
        f"{settings.steps * settings.batch_size} samples"
    )
    for need in needs:
        _say(f"not found: {need}")
    if shapes.substitutes:
        _say(f"substituted for what is not found: {', '.join(shapes.substitutes)}")
    if shapes.task is None:
        return
    precision = {"no": "float32"}.get(chosen := choose(settings.precision), chosen)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    samples = estimate.share(settings, processes)
    (step,) = estimate.measure(shapes.task, samples, found["data"]["size"], precision, device)
    if settings.fsdp and processes > 1:
        parts = estimate.sharded(shapes.task, optim, step, processes, precision, device)
    else:
        parts = estimate.device_memory(shapes.task, optim, step, processes, device)
    _say(f"memory in every process: {describe_bytes(parts)}")


def _say(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr, flush=True)


def _silent(line: str) -> None:
    pass
