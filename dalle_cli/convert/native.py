"""Checkpoints of our own in another precision: what is shipped as a starter, or mailed."""

from pathlib import Path

import torch

from .. import checkpoint
from ..exits import USAGE, Failure
from ..files import check_target
from ..text.loading import from_state

TYPES = {"float16": torch.float16, "bf16": torch.bfloat16, "float32": torch.float32}


def export(name: str, out: Path, precision: str, overwrite: bool) -> None:
    """Write the checkpoint `name` to `out` with its weights in another type. Raises CheckpointError, Failure."""
    if precision not in TYPES:
        raise Failure(f"--precision {precision}: choose {', '.join(TYPES)}", USAGE)
    check_target(out, "--out", overwrite)
    path = checkpoint.resolve(name)
    found = checkpoint.metadata(path)
    tokenizer = from_state(found["tokenizer"]) if found["tokenizer"] else None
    tensors = checkpoint.read_tensors(path)
    checkpoint.save(out, tensors, found["recipe"], tokenizer, found["step"], found["samples"], TYPES[precision])
