"""Initial weights, and networks built without them: those whose weights are about to be loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

RANDOM = ("normal_", "uniform_")


def normal(*shape: int, std: float) -> nn.Parameter:
    """Return a parameter with normally distributed values."""
    return nn.init.normal_(nn.Parameter(torch.empty(shape)), std=std)  # type: ignore[return-value]


class NoInit(TorchFunctionMode):
    """Skip the initialization of parameters inside: memory pages that are never written take no memory."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        tensor = args[0] if args else kwargs.get("tensor")
        initial = getattr(func, "__module__", "") == "torch.nn.init" or getattr(func, "__name__", "") in RANDOM
        return tensor if initial and isinstance(tensor, nn.Parameter) else func(*args, **kwargs)


@contextmanager
def on_meta_device() -> Iterator[None]:
    """Build networks without data inside, on the meta device.

    Random initialization is skipped: it does nothing there, but makes torch load its compiler, which takes a second.
    """
    with torch.device("meta"), NoInit():
        yield
