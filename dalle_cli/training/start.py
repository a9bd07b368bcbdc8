"""From a training command to the loop: the recipe, the run folder, the processes."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from .. import checkpoint, recipe
from ..exits import DONE, USAGE, Failure
from ..models import models
from ..registry import RecipeError
from ..tasks import tasks
from . import options
from .launch import launch

STATE_BYTES = 20  # of a parameter while it trains: five float32 numbers


def train(
    family: str, name: str, overrides: Sequence[str], run: str | None, resume: str, processes: int,
    max_time: str | None, dry_run: bool, quiet: bool,
) -> int:  # fmt: skip
    """Train the recipe `name` of a family; returns the exit code."""
    launching = processes > 1 and "RANK" not in os.environ
    if processes > 1 and not launching and os.environ.get("WORLD_SIZE") != str(processes):
        raise Failure(f"--processes {processes} within a launch of other processes; leave it out", USAGE)
    found = recipe.load(name, family, overrides, checkpoint.accepts, _silent if launching or quiet else _say)
    found = options.check(found)
    own = tasks.get(found["task"]["type"]).family  # type: ignore[attr-defined]
    if own not in ("", family):
        raise RecipeError(f"{name}: a recipe of `dalle train-{own}`, not of `dalle train-{family}`")
    if max_time:
        options.seconds(max_time)
    folder = Path("checkpoints") / (run or f"{family}-{Path(name).stem}")
    if dry_run:
        _describe(found)
        return DONE
    if launching:
        return launch(processes, [sys.executable, "-m", "dalle_cli", *sys.argv[1:]])
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


def _describe(found: recipe.Recipe) -> None:
    """The resolved recipe to standard output, and what it comes to."""
    settings = options.options(found)[1]
    with torch.device("meta"):
        model = models.build(found["model"], "model")
    print(recipe.to_yaml(found), end="")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    _say(
        f"{parameters / 1e6:.2f}M parameters; {settings.steps} steps of {settings.batch_size} samples = "
        f"{settings.steps * settings.batch_size} samples; {parameters * STATE_BYTES / 2**30:.2f} GiB in every process "
        "for weights, gradients, Adam's moments and the average, activations not counted"
    )


def _say(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr, flush=True)


def _silent(line: str) -> None:
    pass
