"""From a training command to the loop: the recipe, the run folder, the processes."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from .. import checkpoint, distributed, recipe
from ..console import log, print_text
from ..data import loader
from ..data.section import infer_type
from ..data.source import DataError
from ..exits import DONE, Failure
from ..hardware.memory_meter import describe_bytes
from ..launch import launched, relaunch
from ..registry import RecipeError
from ..tasks import tasks
from . import options, preflight
from .compose_meta import compose_meta


def train(
    family: str, name: str, overrides: Sequence[str], run: str | None, resume: str, processes: int,
    max_time: str | None, dry_run: bool, quiet: bool, ignore_memory: bool = False,
) -> int:  # fmt: skip
    """Train the recipe `name` of a family and return the exit code.

    ignore_memory: train although the estimate exceeds the free memory. Raises RecipeError, DataError, Failure.
    """
    launching = processes > 1 and not launched()
    say = _silent if launching or quiet else _say
    resolved = resolve(family, name, overrides, say)
    if max_time:
        options.seconds(max_time)
    folder = run_folder(family, name, run)
    if dry_run:
        _describe(resolved, processes, ignore_memory)
        return DONE
    if not ignore_memory and not preflight.is_done() and distributed.rank() == 0:
        needs: list[str] = []
        meta = compose_meta(resolved, needs)
        if meta.task is not None and not needs:
            preflight.check_memory(meta.task, resolved, max(processes, distributed.world_size()), _device())
    os.environ[preflight.DONE_BY_LAUNCHER] = "1"
    try:
        if (code := relaunch(processes)) is not None:
            return code
    finally:
        del os.environ[preflight.DONE_BY_LAUNCHER]
    from .loop import fit

    try:
        return fit(resolved, folder, resume, max_time, quiet)
    except RuntimeError as error:
        if isinstance(error, torch.distributed.DistError) or "gloo" in str(error):
            raise Failure(
                "another process of the run ended or cannot be reached; the same command resumes from the last "
                f"state ({str(error).splitlines()[0]})"
            ) from None
        raise


def run_folder(family: str, name: str, run: str | None) -> Path:
    """Return the folder of a run, named after its family and recipe unless it has a name."""
    return Path("checkpoints") / (run or f"{family}-{Path(name).stem}")


def resolve(family: str, name: str, overrides: Sequence[str], say: Callable[[str], None]) -> recipe.Recipe:
    """Return the recipe `name` of a family with its overrides, all of it checked. Raises RecipeError, DataError."""
    overrides = with_data_type(family, name, overrides, say)
    resolved = options.check(recipe.load(name, family, overrides, checkpoint.accepted_arguments, say))
    trained_by = tasks.get(resolved["task"]["type"]).family  # type: ignore[attr-defined]
    if trained_by is None:
        raise RecipeError(
            f"task.type: '{resolved['task']['type']}' cannot be trained here, only imported (`dalle import`)"
        )
    if trained_by not in ("", family):
        raise RecipeError(f"{name}: a recipe of `dalle train-{trained_by}`, not of `dalle train-{family}`")
    preflight.check_sizes(resolved)
    return resolved


def with_data_type(family: str, name: str, overrides: Sequence[str], say: Callable[[str], None]) -> list[str]:
    """Return the overrides with `data.type=` added where data.path is given and the recipe's source takes none.

    The type is inferred from what is at the path, as `dalle data check` does. Raises RecipeError, DataError.
    """
    given = {key: value for key, _, value in (word.partition("=") for word in overrides)}
    if not given.get("data.path") or "data.type" in given:
        return list(overrides)
    data = recipe.load(name, family, complete=False).get("data")
    accepted = checkpoint.accepted_arguments("data", data["type"]) if isinstance(data, dict) and "type" in data else ()
    if accepted is None or "path" in accepted:
        return list(overrides)
    type_ = infer_type(given["data.path"])
    say(f"data.type={type_}, inferred from data.path={given['data.path']}")
    return [f"data.type={type_}", *overrides]


def _describe(resolved: recipe.Recipe, processes: int, ignore_memory: bool) -> None:
    """Print the resolved recipe to standard output, and its arithmetic, memory and verdict to standard error.

    Raises RecipeError or Failure for what a run would refuse.
    """
    settings = options.options(resolved)[1]
    needs: list[str] = []
    meta = compose_meta(resolved, needs)
    print_text(recipe.to_yaml(resolved).rstrip("\n"))
    parameters = sum(parameter.numel() for parameter in meta.model.parameters())
    _say(
        f"{parameters / 1e6:.2f}M parameters; {settings.steps} steps of {settings.batch_size} samples = "
        f"{settings.steps * settings.batch_size} samples"
    )
    data = _data(resolved, needs)
    for need in needs:
        _say(f"not found: {need}")
    if meta.substitutes:
        _say(f"substituted for what is not found: {', '.join(meta.substitutes)}")
    if data:
        preflight.check_batch(data, settings)
        if warning := preflight.epochs_warning(data, settings):
            _say(warning)
    if meta.task is None:
        return
    if ignore_memory:
        parts = preflight.per_process(meta.task, resolved, processes, _device())[0]
    else:
        parts = preflight.check_memory(meta.task, resolved, processes, _device())
    _say(f"memory in every process: {describe_bytes(parts)}")


def _data(resolved: recipe.Recipe, needs: list[str]) -> loader.Data | None:
    try:
        return loader.build(resolved["data"])
    except DataError as error:
        needs.append(str(error))
        return None


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _say(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        log(line)


def _silent(line: str) -> None:
    pass
