"""The arithmetic that a run uses."""

import torch

from ..hardware.capabilities import has_fast_bf16
from ..registry import RecipeError


def choose(wanted: str) -> str:
    """Return Accelerate's name of a precision: auto, float32, bf16 or fp16 to no, bf16 or fp16. Raises RecipeError."""
    if wanted == "auto":
        return "bf16" if has_fast_bf16() else "no"
    if wanted == "fp16" and not torch.cuda.is_available():
        raise RecipeError("train.precision: fp16 needs a CUDA device; use bf16, float32 or auto")
    return {"float32": "no", "bf16": "bf16", "fp16": "fp16"}[wanted]
