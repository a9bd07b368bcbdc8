"""The state that a run needs to resume as if it had never stopped: one safetensors file per save, in RUN/resume/.

Raw weights, averaged weights, the optimizer's moments, the loss scale, and the counts of steps and samples. Random
numbers need no state: they follow from the run's seed and the step, or from the seed of the sample, and the position in
the data is the count of samples (see data/order.py).
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
    """Return all tensors of a state, unsharded. Every process must call it; those that do not `keep` them get none."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"ema.{name}": value for name, value in ema.average.items()}
    for index, parameter in enumerate(trainable(model)):
        for name, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                tensors[f"optim.{index}.{name}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    gathered = {}
    for name, value in tensors.items():  # one at a time: they need not fit on a device together
        unsharded = whole(value)
        if keep:
            gathered[name] = unsharded.detach().to("cpu")
    return gathered


def save(
    run: Path, recipe: dict, step: int, samples: int, tensors: dict[str, Tensor], extra: dict[str, Any], keep: int
) -> Path:
    """Write the state after `step` steps, then remove all but the newest `keep`. extra: any JSON value.

    States of later steps are removed too: they were damaged, or this one would not have followed from an earlier one.
    """
    path = run / "resume" / f"step-{step:09d}.safetensors"
    checkpoint.save(path, tensors, recipe, step=step, samples=samples, extra=json.dumps(extra))
    states = saved(run)
    newest_states = [state for state in states if state <= path][:keep]
    for old in states:
        if old not in newest_states:
            old.unlink(missing_ok=True)
    return path


def saved(run: Path) -> list[Path]:
    """Return the saved states, the newest first."""
    return sorted((run / "resume").glob("step-*.safetensors"), reverse=True)


def newest(run: Path) -> tuple[Path | None, list[str]]:
    """Return the newest undamaged state, and a line about each file that is skipped. Temporary files are removed.

    Raises NewerFormat: a run resumes from its last state or not at all.
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
    """Restore model, average and optimizer from a state; return steps done, samples seen and the extra values."""
    metadata = checkpoint.metadata(path)
    tensors = checkpoint.read_tensors(path)
    try:
        sharded = model.state_dict()
        weights = _part(tensors, "model.")
        model.load_state_dict({name: like(value, sharded.get(name, value)) for name, value in weights.items()})
        ema.load(_part(tensors, "ema."))
        _load_optimizer(optimizer, trainable(model), _part(tensors, "optim."))
    except (RuntimeError, LookupError) as error:
        raise CheckpointError(f"{path}: does not fit the recipe: {str(error).splitlines()[0]}") from None
    return metadata["step"], metadata["samples"], json.loads(metadata.get("extra", "{}"))


def save_model(run: Path, recipe: dict, step: int, samples: int, tensors: dict[str, Tensor], tokenizer: Any) -> None:
    """Write the averaged weights of a state as the checkpoint of the run."""
    checkpoint.save(run / checkpoint.FILE, _part(tensors, "ema."), recipe, tokenizer, step, samples)


def complete(run: Path, path: Path, recipe: dict, tokenizer: Any) -> None:
    """Write the checkpoint of the last state if the run was killed between writing the two."""
    metadata = checkpoint.metadata(path)
    try:
        if checkpoint.metadata(run / checkpoint.FILE)["step"] == metadata["step"]:
            return
    except CheckpointError:
        pass
    save_model(run, recipe, metadata["step"], metadata["samples"], checkpoint.read_tensors(path), tokenizer)


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
                raise LookupError(f"the optimizer's {key} has another shape")
            value = like(value, parameter)
        optimizer.state[parameter][name] = value
