"""Linear layers for few rows at a time, as where something is drawn token by token: reading the weights is the work."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .hardware import all_memory

# For so many rows the weights are laid out. Products of any number are done with that layout, each row the same to the
# bit whatever stands beside it, which products with weights as they are do not promise.
ROWS = 8
LEAST = 1 << 18  # weights of a layer; with fewer, handing over to oneDNN takes longer than the product
SHARE = 1 / 4  # of the memory that the copies may take; not of what is free, so that it is the same at every call


@contextmanager
def packed(model: nn.Module) -> Iterator[None]:
    """Inside, a model's linear layers work with copies of their weights in oneDNN's layout; without gradients.

    Where there is none for the device and the type, or no room for the copies, they work as ever.
    """
    layers = _layers(model) if size(model) else []
    try:
        for layer in layers:
            layer.forward = _packed(layer)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def size(model: nn.Module) -> int:
    """Bytes that the copies of `packed` would take here; 0 where none would be made."""
    found = sum(layer.weight.numel() * _type(layer).itemsize for layer in _layers(model))
    return found if found <= SHARE * all_memory() else 0


def _layers(model: nn.Module) -> list[Any]:
    linear = [one for one in model.modules() if type(one) is nn.Linear and "forward" not in vars(one)]
    large = [one for one in linear if one.weight.numel() >= LEAST]
    return [one for one in large if _known(one.weight.device.type, _type(one))]


def _known(device: str, kind: torch.dtype) -> bool:
    if device != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return kind == torch.float32 or (kind == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _type(layer: nn.Linear) -> torch.dtype:
    """In which it multiplies."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else layer.weight.dtype


def _packed(layer: nn.Linear) -> Any:
    kind = _type(layer)
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().to(kind), ROWS)
    bias = None if layer.bias is None else layer.bias.detach().to(kind)
    return partial(_multiply, layer, weight, bias, kind)


def _multiply(layer: nn.Linear, weight: Tensor, bias: Tensor | None, kind: torch.dtype, x: Tensor) -> Tensor:
    if _type(layer) != kind:  # a part that is left out of mixed precision
        return nn.Linear.forward(layer, x)
    return torch.ops.mkldnn._linear_pointwise(x.to(kind), weight, bias, "none", [], "")
