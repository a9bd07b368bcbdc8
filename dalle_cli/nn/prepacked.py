"""Prepacked weights: layers that are used many times without gradients, with weights in the layout of oneDNN's kernels.

In sampling token by token, most of the work is reading the weights, and prepacked ones are read two to three times
faster. For many rows, and for convolutions, this saves the packing at every call. And the result for a row or an image
is bit-identical at any batch size, which other products do not guarantee.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ..hardware.capabilities import total_memory
from .attention import SelfAttention

LAYOUT_ROWS = 8  # rows that the layout is made for; it serves any number of rows
# Minimum weights of a layer that is worth prepacking when only a few rows are multiplied: with fewer, the call of
# oneDNN takes longer than the product.
MIN_WEIGHTS = 1 << 18
# Fraction of the machine's memory for the copies of all its processes; not of the free memory, to be reproducible.
MEMORY_FRACTION = 1 / 4


@contextmanager
def prepacked(*models: nn.Module, min_weights: int = 0) -> Iterator[None]:
    """Make layers with at least min_weights weights use copies in oneDNN's layout inside; without
    gradients.

    Enter it under the autocast that the layers work in: the size of the copies depends on it. Copies are made when a
    layer is first used. Without such a layout for the device and the type, or without memory for the copies, nothing
    changes.
    """
    layers = (
        [layer for model in models for layer in _layers(model, min_weights)]
        if prepacked_bytes(*models, min_weights=min_weights)
        else []
    )
    try:
        for layer in layers:
            setattr(layer.module, layer.method, layer)
        yield
    finally:
        for layer in layers:
            vars(layer.module).pop(layer.method, None)


_short: list[bool] = []


@contextmanager
def without_prepacking() -> Iterator[None]:
    """Make `prepacked` do nothing inside: if memory is short, because copies hold a model twice."""
    _short.append(True)
    try:
        yield
    finally:
        _short.pop()


def prepacked_bytes(*models: nn.Module, min_weights: int = 0) -> int:
    """Return the bytes of all copies that `prepacked` would make; 0 if it would make none."""
    if _short:
        return 0
    layers = [layer for model in models for layer in _layers(model, min_weights)]
    found = sum(layer.weight.numel() * _type(layer.weight).itemsize for layer in layers)
    return found if found <= MEMORY_FRACTION * total_memory() / int(os.environ.get("LOCAL_WORLD_SIZE", "1")) else 0


class _Product:
    """Replaces a method of a module that multiplies by a weight."""

    def __init__(self, module: Any, method: str, weight: Tensor, bias: Tensor | None):
        self.module, self.method, self.weight, self.bias = module, method, weight, bias
        self._made: tuple | None = None  # what the copies were prepacked for
        self._copies: tuple[Tensor, Tensor | None] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        kind = _type(self.weight)
        if torch.is_grad_enabled() or not _known(x.device.type, kind):
            return getattr(type(self.module), self.method)(self.module, x)
        x = x.to(kind)
        if self._made != self._made_for(x):
            bias = None if self.bias is None else self.bias.detach().to(kind)
            self._copies = self._laid_out(self.weight.detach().to(kind), x), bias
            self._made = self._made_for(x)
        return self._multiply(x, *self._copies)  # type: ignore[misc]

    def _made_for(self, x: Tensor) -> tuple:
        return (x.dtype,)

    def _laid_out(self, weight: Tensor, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(weight, LAYOUT_ROWS)

    def _multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.numel() == x.shape[-1]:  # of one row oneDNN rounds otherwise than of more
            both = self._multiply(x.flatten().expand(2, -1).contiguous(), weight, bias)
            return both[0].view(*x.shape[:-1], -1)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Convolution(_Product):
    """The same for a convolution, whose layout depends on the size of the images."""

    def __init__(self, module: nn.Conv2d):
        super().__init__(module, "forward", module.weight, module.bias)
        self._how = module.padding, module.stride, module.dilation, module.groups

    def _made_for(self, x: Tensor) -> tuple:
        return x.dtype, x.shape[1:]

    def _laid_out(self, weight: Tensor, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._reorder_convolution_weight(weight, *self._how, [*x.shape])

    def _multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *self._how, "none", [], "")


def _layers(model: nn.Module, min_weights: int) -> list[_Product]:
    found: list[_Product] = []
    for module in model.modules():
        if type(module) is nn.Linear:
            found.append(_Product(module, "forward", module.weight, module.bias))
        elif type(module) is SelfAttention:
            found.append(_Product(module, "project", module.in_proj_weight, module.in_proj_bias))
        elif type(module) is nn.Conv2d and not isinstance(module.padding, str) and module.padding_mode == "zeros":
            found.append(_Convolution(module))
    return [
        layer
        for layer in found
        if layer.weight.numel() >= min_weights
        and layer.method not in vars(layer.module)
        and _known(layer.weight.device.type, _type(layer.weight))
    ]


@cache
def _known(device: str, kind: torch.dtype) -> bool:
    if device != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return kind == torch.float32 or (kind == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _type(weight: Tensor) -> torch.dtype:
    """In which a weight multiplies."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype
