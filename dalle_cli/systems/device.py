"""Where drawing and judging run, and in which arithmetic."""

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
from ..nn.prepacked import without_prepacking


@dataclass(frozen=True)
class Device:
    """A device and the type of the weights and products on it.

    empty: whether its models are shapes alone, for estimates (memory.py). offload: models stay in their files, and come
    to the device for their `turn` alone.
    """

    name: str
    dtype: torch.dtype
    empty: bool = False
    offload: bool = False

    def load(self, name: str, kind: str | tuple[str, ...], frozen: Mapping[str, str] | None = None) -> nn.Module:
        """The task of a checkpoint on this device; see checkpoint.load."""
        if self.empty:
            return checkpoint.load_meta(name, frozen)
        task = checkpoint.load(name, kind, frozen, mmap=self.offload)
        return self.place(task)

    def place(self, task: nn.Module, dtype: torch.dtype = torch.float32, full: Iterable[nn.Module] = ()) -> nn.Module:
        """A loaded task on this device, its model of a type but for the parts `full`, which stay float32.

        With `offload` this is how it will be in its turn.
        """
        model: Any = task.model
        if not self.offload:
            task.to(self.name)
            whole = [(tensor, tensor.data) for part in full for tensor in _floating(part)]
            if dtype != torch.float32:
                model.to(dtype)
            for tensor, data in whole:
                tensor.data = data  # not rounded on the way
            return task
        for tensor in _floating(model):
            tensor.in_turn = dtype
        for part in full:
            for tensor in _floating(part):
                tensor.in_turn = torch.float32
        return task

    @contextlib.contextmanager
    def turn(self, *tasks: nn.Module) -> Iterator[None]:
        """These tasks and their frozen are on the device inside; with `offload`, no longer."""
        if not self.offload:
            yield
            return
        tensors = {id(tensor): tensor for task in tasks for tensor in (*task.parameters(), *task.buffers())}
        kept = [
            (one, one.data) for one in tensors.values() if not getattr(one, "here", False)
        ]  # or it is a turn inside
        try:
            for tensor, data in kept:
                # copied, for what is computed in a file's pages, where numbers lie anyhow, differs in the last bit
                tensor.data = data.to(self.name, getattr(tensor, "in_turn", None), copy=True)
                tensor.here = True  # type: ignore[attr-defined]
            with without_prepacking():
                yield
        finally:
            for tensor, data in kept:
                tensor.data, tensor.here = data, False  # type: ignore[attr-defined]

    def autocast(self) -> AbstractContextManager:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast("cpu" if self.empty else self.name, self.dtype)


def _floating(module: nn.Module) -> list[Any]:
    return [tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()]


def choose(precision: str = "auto", offload: bool = False) -> Device:
    """The machine's device. precision: auto (bf16 where the hardware multiplies it fast), float32, bf16 or fp16."""
    keep_freed_memory()
    name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and distributed.world_size() > 1:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    types = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision == "auto":
        return Device(name, torch.bfloat16 if has_fast_bf16() else torch.float32, offload=offload)
    if precision not in types:
        raise Failure(f"--precision {precision}: choose auto, {', '.join(types)}", USAGE)
    if precision == "fp16" and name == "cpu":
        raise Failure("--precision fp16 needs a CUDA device: use bf16, float32 or auto", USAGE)
    return Device(name, types[precision], offload=offload)
