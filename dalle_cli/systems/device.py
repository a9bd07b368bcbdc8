"""Where models run, and in which precision."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .. import checkpoint, distributed
from ..exits import USAGE, Failure
from ..hardware.capabilities import has_fast_bf16, keep_freed_memory
from ..hardware.precision import CHOICES, DTYPES
from ..nn.prepacked import prepacked, without_prepacking


@dataclass(frozen=True)
class Device:
    """A device and the type of weights and products on it.

    shapes_only: models have shapes and no weights, for estimates (memory.py). offload: models stay in their files and
    are on the device only during their `turn`.
    """

    name: str
    dtype: torch.dtype
    shapes_only: bool = False
    offload: bool = False

    def load(self, name: str, kind: str | tuple[str, ...], frozen: Mapping[str, str] | None = None) -> nn.Module:
        """Return the task of a checkpoint on this device; see checkpoint.load."""
        if self.shapes_only:
            return checkpoint.load_meta(name, frozen)
        return self.place(checkpoint.load(name, kind, frozen, mmap=self.offload))

    def place(self, task: nn.Module, dtype: torch.dtype = torch.float32, full: Iterable[nn.Module] = ()) -> nn.Module:
        """Move a loaded task to this device, its model in `dtype` except for the modules `full`, which stay float32.

        With `offload` this happens in its turn.
        """
        model: Any = task.model
        if not self.offload:
            task.to(self.name)
            originals = [(tensor, tensor.data) for module in full for tensor in _floating(module)]
            if dtype != torch.float32:
                model.to(dtype)
            for tensor, data in originals:
                tensor.data = data  # as before the conversion, not rounded
            return task
        for tensor in _floating(model):
            tensor.dtype_in_turn = dtype
        for module in full:
            for tensor in _floating(module):
                tensor.dtype_in_turn = torch.float32
        return task

    @contextlib.contextmanager
    def inference(self, task: nn.Module, prepack: bool = True) -> Iterator[None]:
        """Run a task here: it is on the device, under autocast, and the weights of its model are prepacked.

        Gradients stay possible, for guidance; layers that need them use their weights as they are.
        """
        models: list[Any] = [task.model] if prepack else []
        with self.turn(task), self.autocast(), prepacked(*models):
            yield

    @contextlib.contextmanager
    def turn(self, *tasks: nn.Module) -> Iterator[None]:
        """Keep these tasks and their frozen models on the device; with `offload`, remove them again at the end."""
        if not self.offload:
            yield
            return
        tensors = {id(tensor): tensor for task in tasks for tensor in (*task.parameters(), *task.buffers())}
        moved = [
            (tensor, tensor.data) for tensor in tensors.values() if not getattr(tensor, "on_device", False)
        ]  # others are on the device in an outer turn
        try:
            for tensor, data in moved:
                # Copied: products with the pages of a file, whose alignment is arbitrary, differ in the last bit.
                tensor.data = data.to(self.name, getattr(tensor, "dtype_in_turn", None), copy=True)
                tensor.on_device = True  # type: ignore[attr-defined]
            with without_prepacking():
                yield
        finally:
            for tensor, data in moved:
                tensor.data, tensor.on_device = data, False  # type: ignore[attr-defined]

    def autocast(self) -> AbstractContextManager:
        """Return autocast to this device's type; does nothing in float32."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast("cpu" if self.shapes_only else self.name, self.dtype)


def _floating(module: nn.Module) -> list[Any]:
    return [tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()]


def choose(precision: str = "auto", offload: bool = False) -> Device:
    """Return the machine's device. precision: auto (bf16 where the hardware multiplies it fast), float32, bf16, fp16.

    Raises Failure for a precision that does not exist or that the device does not have.
    """
    keep_freed_memory()
    name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and distributed.world_size() > 1:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if precision == "auto":
        return Device(name, torch.bfloat16 if has_fast_bf16() else torch.float32, offload=offload)
    if precision not in DTYPES:
        raise Failure(f"--precision {precision}: choose {', '.join(CHOICES)}", USAGE)
    if precision == "fp16" and name == "cpu":
        raise Failure("--precision fp16 needs a CUDA device: use bf16, float32 or auto", USAGE)
    return Device(name, DTYPES[precision], offload=offload)
