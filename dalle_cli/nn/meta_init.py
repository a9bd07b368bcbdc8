"""Weights as networks start with them, and networks built without: those whose weights are about to be set."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

RANDOM = ("normal_", "uniform_")


def normal(*shape: int, std: float) -> nn.Parameter:
    """A parameter of normal numbers."""
    return nn.init.normal_(nn.Parameter(torch.empty(shape)), std=std)  # type: ignore[return-value]


class NoInit(TorchFunctionMode):
    """Inside, parameters keep what their memory holds: pages that nobody writes to take no memory."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        tensor = args[0] if args else kwargs.get("tensor")
        initial = getattr(func, "__module__", "") == "torch.nn.init" or getattr(func, "__name__", "") in RANDOM
        return tensor if initial and isinstance(tensor, nn.Parameter) else func(*args, **kwargs)


@contextmanager
def on_meta_device() -> Iterator[None]:
    """Inside, networks are built as shapes alone, on the meta device.

    Their random start is passed over: it does nothing there, but has torch load its compiler, which takes a second.
    """
    with torch.device("meta"), NoInit():
        yield
