"""Where drawing and judging run, and in which arithmetic."""

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from .. import checkpoint
from ..exits import USAGE, Failure
from ..nn.hardware import fast_bf16, keep_memory


@dataclass(frozen=True)
class Device:
    """A device and the type of the weights and products on it.

    empty: whether its models are shapes alone, for estimates (memory.py).
    """

    name: str
    dtype: torch.dtype
    empty: bool = False

    def load(self, name: str, kind: str, companions: Mapping[str, str] | None = None) -> nn.Module:
        """The task of a checkpoint on this device; see checkpoint.load."""
        if self.empty:
            return checkpoint.shapes(name, companions)
        return checkpoint.load(name, kind, companions).to(self.name)

    def autocast(self) -> AbstractContextManager:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast("cpu" if self.empty else self.name, self.dtype)


def choose(precision: str = "auto") -> Device:
    """The machine's device. precision: auto (bf16 where the hardware multiplies it fast), float32, bf16 or fp16."""
    keep_memory()
    name = "cuda" if torch.cuda.is_available() else "cpu"
    types = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision == "auto":
        return Device(name, torch.bfloat16 if fast_bf16() else torch.float32)
    if precision not in types:
        raise Failure(f"--precision {precision}: choose auto, {', '.join(types)}", USAGE)
    if precision == "fp16" and name == "cpu":
        raise Failure("--precision fp16 needs a CUDA device: use bf16, float32 or auto", USAGE)
    return Device(name, types[precision])
