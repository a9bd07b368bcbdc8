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
from .ema import EMA


def save(
    run: Path, recipe: dict, step: int, samples: int, model: nn.Module, ema: EMA, optimizer: torch.optim.Optimizer,
    extra: dict[str, Any], keep: int,
) -> Path:  # fmt: skip
    """Write the state after `step` steps; then remove all but the newest `keep`. extra: anything JSON can hold."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"ema.{name}": value for name, value in ema.average.items()}
    tensors |= {f"optim.{key}": value for key, value in _optimizer_tensors(optimizer).items()}
    path = run / "resume" / f"step-{step:09d}.safetensors"
    checkpoint.save(path, tensors, recipe, step=step, samples=samples, extra=json.dumps(extra))
    for old in saved(run)[keep:]:
        old.unlink(missing_ok=True)
    return path


def saved(run: Path) -> list[Path]:
    """Saved states, the newest first."""
    return sorted((run / "resume").glob("step-*.safetensors"), reverse=True)


def newest(run: Path) -> tuple[Path | None, list[str]]:
    """The newest whole state, read through, and a line about each file passed over. Left-overs are removed."""
    for rest in (*run.glob(".*.tmp"), *(run / "resume").glob(".*.tmp")):
        rest.unlink(missing_ok=True)
    skipped = []
    for path in saved(run):
        try:
            checkpoint.read_tensors(path)
            return path, skipped
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
        model.load_state_dict(_part(tensors, "model."))
        ema.load(_part(tensors, "ema."))
        _load_optimizer(optimizer, _part(tensors, "optim."))
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(f"{path}: does not fit the recipe: {str(error).splitlines()[0]}") from None
    return found["step"], found["samples"], json.loads(found.get("extra", "{}"))


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state by `index.name`; what is a plain number becomes a tensor."""
    out = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if value is not None:
                out[f"{index}.{name}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return out


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
