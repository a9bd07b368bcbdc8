"""Networks whose weights are about to be set, built without the time and memory of random ones."""

from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

RANDOM = ("normal_", "uniform_")


class Unset(TorchFunctionMode):
    """Inside, parameters keep what their memory holds: pages that nobody writes to take no memory."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        tensor = args[0] if args else kwargs.get("tensor")
        initial = getattr(func, "__module__", "") == "torch.nn.init" or getattr(func, "__name__", "") in RANDOM
        return tensor if initial and isinstance(tensor, nn.Parameter) else func(*args, **kwargs)
