"""What a run needs to go on as if it had never stopped: one safetensors file a save, under RUN/resume/.

Raw weights, averaged weights, the optimiser's moments, the loss scale, and the counts of steps and samples. Random
numbers need no state: every draw follows from the run's seed and the step, or from the sample's own seed, and the data
position is the count of samples (see data/order.py).
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import checkpoint
from ..checkpoint import CheckpointError
from ..files import remove_temporary_files
from .ema import EMA
from .optim import trainable
from .sharding import like, whole


def gather(model: nn.Module, ema: EMA, optimizer: torch.optim.Optimizer, keep: bool = True) -> dict[str, Tensor]:
    """All tensors of a state, whole; every process must take part, and those that do not `keep` them get none."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"ema.{name}": value for name, value in ema.average.items()}
    for index, parameter in enumerate(trainable(model)):
        for name, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                tensors[f"optim.{index}.{name}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    kept = {}
    for name, value in tensors.items():  # one at a time: a device need not hold them all
        all_of_it = whole(value)
        if keep:
            kept[name] = all_of_it.detach().to("cpu")
    return kept


def save(
    run: Path, recipe: dict, step: int, samples: int, tensors: dict[str, Tensor], extra: dict[str, Any], keep: int
) -> Path:
    """Write the state after `step` steps; then remove all but the newest `keep`. extra: anything JSON can hold.

    States of later steps go too: they were found damaged, or this one could not follow from an earlier step.
    """
    path = run / "resume" / f"step-{step:09d}.safetensors"
    checkpoint.save(path, tensors, recipe, step=step, samples=samples, extra=json.dumps(extra))
    found = saved(run)
    kept = [one for one in found if one <= path][:keep]
    for old in found:
        if old not in kept:
            old.unlink(missing_ok=True)
    return path


def saved(run: Path) -> list[Path]:
    """Saved states, the newest first."""
    return sorted((run / "resume").glob("step-*.safetensors"), reverse=True)


def newest(run: Path) -> tuple[Path | None, list[str]]:
    """The newest whole state, read through, and a line about each file passed over. Left-overs are removed.

    Raises NewerFormat: a run goes on from its last state or not at all.
    """
    for folder in (run, run / "resume", run / "samples"):
        remove_temporary_files(folder)
    skipped = []
    for path in saved(run):
        try:
            checkpoint.read_tensors(path)
            return path, skipped
        except checkpoint.NewerFormat:
            raise
        except CheckpointError as error:
            skipped.append(str(error))
    return None, skipped


def restore(
    path: Path, model: nn.Module, ema: EMA, optimizer: torch.optim.Optimizer
) -> tuple[int, int, dict[str, Any]]:
    """Fill model, average and optimiser from a state; returns steps done, samples seen and the extra values."""
    found = checkpoint.metadata(path)
    tensors = checkpoint.read_tensors(path)
    try:
        sharded = model.state_dict()
        weights = _part(tensors, "model.")
        model.load_state_dict({name: like(value, sharded.get(name, value)) for name, value in weights.items()})
        ema.load(_part(tensors, "ema."))
        _load_optimizer(optimizer, trainable(model), _part(tensors, "optim."))
    except (RuntimeError, LookupError) as error:
        raise CheckpointError(f"{path}: does not fit the recipe: {str(error).splitlines()[0]}") from None
    return found["step"], found["samples"], json.loads(found.get("extra", "{}"))


def save_model(run: Path, recipe: dict, step: int, samples: int, tensors: dict[str, Tensor], tokenizer: Any) -> None:
    """Write the averaged weights of a state as the run's checkpoint, for use."""
    checkpoint.save(run / checkpoint.FILE, _part(tensors, "ema."), recipe, tokenizer, step, samples)


def complete(run: Path, found: Path, recipe: dict, tokenizer: Any) -> None:
    """Write the checkpoint of the last state where the run was killed between the two."""
    about = checkpoint.metadata(found)
    try:
        if checkpoint.metadata(run / checkpoint.FILE)["step"] == about["step"]:
            return
    except CheckpointError:
        pass
    save_model(run, recipe, about["step"], about["samples"], checkpoint.read_tensors(found), tokenizer)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _load_optimizer(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], tensors: dict[str, Tensor]
) -> None:
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        if name != "step":  # which stays on the CPU
            if value.shape != parameter.shape:
                raise LookupError(f"the optimiser's {key} has another shape")
            value = like(value, parameter)
        optimizer.state[parameter][name] = value
